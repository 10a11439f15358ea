// wgkex-metrics serves one request for metrics, the status or the page, on the connection that systemd hands
// it.
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
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/metrics"
	"wgkex/internal/serve"
	"wgkex/internal/status"
	"wgkex/internal/systemd"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: wgkex-metrics [--config DIR] [--version]\n\n"+
			"Serves one HTTP request for metrics, the status or the page. systemd starts it\n"+
			"as wgkex-metrics@.service for each connection to wgkex-metrics.socket. See\n"+
			"wgkex-metrics(8).\n")
	}
	dir := flag.String("config", config.Dir, "directory of the configuration")
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
		fmt.Fprintf(os.Stderr, "wgkex-metrics: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	g := metrics.Gateway{
		Status: status.Source{
			Host: domain.System, Units: systemd.UnitsOverBus,
			Warn: func(err error) { logging.Log(journal.PriWarning, err.Error()) },
		},
		Effective: config.Effective, ReadEffective: config.LoadEffective, RelayStats: gateways.StatsPath, Gateways: gateways.Path, Dir: *dir, Connect: connect,
	}
	if err := metrics.Serve(ctx, conn, g.Handler()); err != nil {
		logging.Log(journal.PriErr, err.Error())
		os.Exit(1)
	}
}
