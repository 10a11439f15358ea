// wgkex-relay tells other gateways of keys, and hears of theirs, over an MQTT broker.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"wgkex/internal/client"
	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/mqtt"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// exitNoBroker is the exit status after which wgkex-relay.service is not started again:
// EX_CONFIG of sysexits.h.
const exitNoBroker = 78

func main() {
	version.ParseFlags("usage: wgkex-relay [--version]\n\n" +
		"Tells other gateways over an MQTT broker which keys this one has accepted, and has\n" +
		"theirs added here. systemd starts it as wgkex-relay.service. See wgkex-relay(8).\n")
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	switch err := run(ctx); {
	case errors.Is(err, mqtt.ErrNoBroker):
		// That is no error: so it ends when the configuration has a broker no more.
		logging.Log(journal.PriNotice, err.Error())
		// Whatever its status, a service fails that ends before it is ready.
		notify(daemon.SdNotifyReady)
		os.Exit(exitNoBroker)
	case err != nil:
		fmt.Fprintf(os.Stderr, "wgkex-relay: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	announcements, err := inherited()
	if err != nil {
		return err
	}
	state := os.Getenv("STATE_DIRECTORY") // systemd.exec(5)
	if state == "" {
		return errors.New("there is no STATE_DIRECTORY=, as systemd gives one")
	}
	ready := sync.OnceFunc(func() { notify(daemon.SdNotifyReady) })
	r, err := mqtt.NewRelay(mqtt.Gateway{
		Config: config.EffectiveReloaded(), Credentials: os.Getenv("CREDENTIALS_DIRECTORY"),
		Socket: client.LocalSocket, Announcements: announcements,
		Ledger: filepath.Join(state, "ledger"), Known: gateways.Path, Numbers: gateways.StatsPath, SinceBoot: clock.SinceBoot,
		Alive: func() { ready(); notify(daemon.SdNotifyWatchdog) },
		Log:   logging.Log,
	})
	if err != nil {
		return err
	}
	defer notify(daemon.SdNotifyStopping)
	return r.Run(ctx)
}

// notify tells systemd, if that is there.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// inherited is the socket of announcements, from systemd.
func inherited() (net.Conn, error) {
	sockets, err := activation.PacketConns()
	if err != nil {
		return nil, err
	}
	if len(sockets) == 1 {
		if conn, ok := sockets[0].(*net.UnixConn); ok {
			return conn, nil
		}
	}
	return nil, errors.New("no socket from systemd, or others than that of announcements")
}
