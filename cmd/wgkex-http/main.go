// wgkex-http serves HTTP on the sockets that systemd hands it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"wgkex/internal/client"
	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/httpd"
	"wgkex/internal/logging"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

func main() {
	version.ParseFlags("usage: wgkex-http [--version]\n\n" +
		"Serves WireGuard key exchanges over HTTP. systemd starts it as wgkex-http.service\n" +
		"for wgkex-http.socket. See wgkex-http(8).\n")
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	listeners, err := activation.Listeners()
	if err == nil && (len(listeners) == 0 || slices.Contains(listeners, nil)) {
		err = errors.New("no sockets from systemd, or others than those of streams")
	}
	if err == nil {
		err = httpd.New(httpd.Gateway{
			Socket: client.LocalSocket, Config: config.EffectiveReloaded(),
			Known: httpd.KnownReloaded(gateways.Path), SinceBoot: clock.SinceBoot, Log: logging.Log,
		}).Run(ctx, listeners)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-http: %v\n", err)
		os.Exit(1)
	}
}
