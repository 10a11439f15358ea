// wgkex-local serves the exchanges that a program of this gateway asks for, on the
// connection that systemd hands it.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"

	"wgkex/internal/announce"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/serve"
	"wgkex/internal/version"

	"golang.org/x/sys/unix"
)

func main() {
	version.ParseFlags("usage: wgkex-local [--version]\n\n" +
		"Serves WireGuard key exchanges of programs of this gateway. systemd starts it as\n" +
		"wgkex-local@.service for each connection to wgkex-local.socket. See\n" +
		"wgkex-local(8).\n")
	conn, err := serve.Inherited[*net.UnixConn]()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-local: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	s := serve.Server{Host: domain.System, Log: logging.Log, Announce: announce.System}
	s.HandleLocal(ctx, conn, config.EffectiveReloaded())
}
