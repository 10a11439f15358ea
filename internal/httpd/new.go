package httpd

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"wgkex/internal/client"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/httpapi"
	"wgkex/internal/logging"
	"wgkex/internal/protocol"
	"wgkex/internal/statefile"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	// idle is how long a process stays without a connection.
	idle = 10 * time.Minute
	// linkIdle is how long it keeps a connection to the local socket without an
	// exchange, and with it a process at the other end. linkPatience is longer than
	// that waits for a domain (serve.LockTimeout).
	linkIdle     = 30 * time.Second
	linkPatience = 45 * time.Second
	// failureEvery is how often at most it is logged that the local socket does not
	// answer.
	failureEvery = 10 * time.Second
)

// Gateway is what HTTP needs of this gateway.
type Gateway struct {
	// Socket is its local socket.
	Socket string
	// Config reads the configuration.
	Config func() (config.Config, error)
	// Known reads what is known of the gateways, SinceBoot is the clock of that.
	Known     func() (gateways.Known, error)
	SinceBoot func() time.Duration
	Log       func(journal.Priority, string, ...logging.Field)
}

// KnownReloaded reads the file with what is known of the gateways, when it was replaced.
func KnownReloaded(path string) func() (gateways.Known, error) {
	return statefile.Reloaded(path, func() (gateways.Known, error) {
		return statefile.ReadAs(path, gateways.MaxSize, gateways.Parse)
	})
}

// New makes a Server that asks the local socket for exchanges.
func New(g Gateway) *Server {
	load, log := g.Config, g.Log
	links := &client.Links{Socket: g.Socket, Idle: linkIdle, Patience: linkPatience}
	api := &httpapi.API{
		Exchange: func(ctx context.Context, r protocol.Request) (protocol.Answer, error) {
			defer Busy(ctx)()
			return links.Ask(ctx, client.LinkOf(r.Domain), r)
		},
		Settings: func() (httpapi.Settings, error) {
			cfg, err := load()
			if err != nil {
				return httpapi.Settings{}, err
			}
			return settings(cfg)
		},
		Failed: logging.NowAndThen(failureEvery, func(err error) {
			log(journal.PriErr, fmt.Sprintf("requests cannot be answered: %v", err))
		}),
	}
	choice := chooser{Gateway: g, failed: logging.NowAndThen(failureEvery, func(err error) {
		log(journal.PriWarning, fmt.Sprintf("all routers are kept here: %v", err))
	})}
	api.Elsewhere = choice.elsewhere
	troubled := logging.NowAndThen(failureEvery, func(err error) { log(journal.PriErr, err.Error()) })
	trusted := func(addr netip.Addr) bool {
		cfg, err := load()
		return err == nil && httpapi.Trusted(addr, cfg.HTTP.TrustedProxies)
	}
	first, firstErr := load()
	stale := func() bool {
		cfg, err := load()
		return err == nil && firstErr == nil && !(slices.Equal(cfg.HTTP.Listen, first.HTTP.Listen) && cfg.HTTP.Socket == first.HTTP.Socket)
	}
	return &Server{Handler: api, Trusted: trusted, Idle: idle, Stale: stale, Troubled: troubled}
}

// settings is what the configuration says about HTTP.
func settings(cfg config.Config) (httpapi.Settings, error) {
	address, err := cfg.Gateway.OwnAddress()
	if err != nil {
		return httpapi.Settings{}, err
	}
	return httpapi.Settings{TrustedProxies: cfg.HTTP.TrustedProxies, DefaultDomain: cfg.HTTP.DefaultDomain, Address: address}, nil
}
