// wgkex-handler serves one exchange on the connection that systemd hands it.
package main

import (
	"fmt"
	"net"
	"os"

	"wgkex/internal/announce"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/serve"
	"wgkex/internal/version"
)

func main() {
	version.ParseFlags("usage: wgkex-handler [--version]\n\n" +
		"Serves one WireGuard key exchange. systemd starts it as wgkex@.service for each\n" +
		"connection to wgkex.socket and wgkex@.socket. See wgkex-handler(8).\n")
	conn, err := serve.Inherited[*net.TCPConn]()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-handler: %v\n", err)
		os.Exit(1)
	}
	s := serve.Server{Host: domain.System, Log: logging.Log, Announce: announce.System}
	s.Handle(conn, config.LoadEffective)
}
