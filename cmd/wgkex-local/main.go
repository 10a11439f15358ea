// wgkex-local serves the exchanges that a program of this gateway asks for, on the
// connection that systemd hands it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/serve"
	"wgkex/internal/version"

	"golang.org/x/sys/unix"
)

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: wgkex-local [--version]\n\n"+
			"Serves WireGuard key exchanges of programs of this gateway. systemd starts it as\n"+
			"wgkex-local@.service for each connection to wgkex-local.socket. See\n"+
			"wgkex-local(8).\n")
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
	conn, err := serve.Inherited[*net.UnixConn]()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-local: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	s := serve.Server{Host: domain.System, Log: logging.Log}
	s.HandleLocal(ctx, conn, config.EffectiveReloaded())
}
