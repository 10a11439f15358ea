// wgkex-handler serves one exchange on the connection that systemd hands it.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/serve"
	"wgkex/internal/version"
)

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: wgkex-handler [--version]\n\n"+
			"Serves one WireGuard key exchange. systemd starts it as wgkex@.service for each\n"+
			"connection to wgkex.socket and wgkex@.socket. See wgkex-handler(8).\n")
	}
	printVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *printVersion {
		fmt.Println(version.Version)
		return
	}
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	conn, err := serve.Inherited[*net.TCPConn]()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-handler: %v\n", err)
		os.Exit(1)
	}
	s := serve.Server{Host: domain.System, Log: logging.Log}
	s.Handle(conn, config.LoadEffective)
}
