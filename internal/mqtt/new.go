package mqtt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"wgkex/internal/client"
	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/protocol"
	"wgkex/internal/relay"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	// linkIdle is how long a connection to the local socket is kept without an exchange,
	// linkPatience is longer than that waits for a domain (serve.LockTimeout).
	linkIdle     = 30 * time.Second
	linkPatience = 45 * time.Second
	// failureEvery is how often at most the same failure is logged.
	failureEvery = 10 * time.Minute
)

// Gateway is what a relay needs of this gateway.
type Gateway struct {
	// Config reads the configuration.
	Config func() (config.Config, error)
	// Credentials is the directory of credentials, empty for the files themselves.
	Credentials string
	// Socket is the local socket.
	Socket string
	// Announcements are the datagrams of package announce.
	Announcements net.Conn
	// Ledger, Known and Numbers are files, and SinceBoot is a clock, see relay.Relay.
	Ledger, Known, Numbers string
	SinceBoot              func() time.Duration
	// Alive is told every second that nothing hangs.
	Alive func()
	Log   func(journal.Priority, string, ...logging.Field)
}

// setup is what the configuration says about a relay.
type setup struct {
	Settings
	address string
	domains []string
	metrics netip.AddrPort
}

// ErrNoBroker is the error of a configuration by which there is nothing to relay.
var ErrNoBroker = errors.New("the configuration names no broker, or no domain: set mqtt.url")

func setupOf(c config.Config, credentials string) (s setup, err error) {
	if !c.Relays() {
		return s, ErrNoBroker
	}
	if s.Gateway, err = c.Gateway.OwnName(); err != nil {
		return s, err
	}
	if !protocol.ValidName(s.Gateway) {
		return s, fmt.Errorf("the host name %q cannot be the name of a gateway: set gateway.name", s.Gateway)
	}
	if s.address, err = c.Gateway.OwnAddress(); err != nil {
		return s, err
	}
	s.domains = slices.Sorted(maps.Keys(c.Domains))
	for i, l := range c.Metrics.Listen {
		if local := l.Local(); i == 0 || local.Addr().IsLoopback() && !s.metrics.Addr().IsLoopback() {
			s.metrics = local
		}
	}
	s.URL, s.Username = c.MQTT.URL, c.MQTT.Username
	for _, f := range []struct {
		to               *string
		path, credential string
	}{
		{&s.PasswordFile, c.MQTT.PasswordFile, config.PasswordCredential},
		{&s.CAFile, c.MQTT.CAFile, config.CACredential},
		{&s.CertificateFile, c.MQTT.CertificateFile, config.CertificateCredential},
		{&s.KeyFile, c.MQTT.KeyFile, config.KeyCredential},
	} {
		if *f.to = f.path; f.path != "" && credentials != "" {
			*f.to = filepath.Join(credentials, f.credential)
		}
	}
	return s, nil
}

// NewRelay makes the relay of the gateway, as its configuration is now.
func NewRelay(g Gateway) (*relay.Relay, error) {
	cfg, err := g.Config()
	if err != nil {
		return nil, err
	}
	s, err := setupOf(cfg, g.Credentials)
	if err != nil {
		return nil, err
	}
	links := &client.Links{Socket: g.Socket, Idle: linkIdle, Patience: linkPatience}
	metrics := client.Metrics{At: s.metrics}
	return &relay.Relay{
		Name: s.Gateway, Address: s.address, Domains: s.domains,
		Broker: New(s.Settings, changed(func(err error) {
			g.Log(journal.PriWarning, fmt.Sprintf("no connection to the broker %s: %v", s.URL, err))
		})),
		Ask: func(ctx context.Context, r protocol.Request) (protocol.Answer, error) {
			return links.Ask(ctx, client.LinkOf(r.Domain), r)
		},
		Own: metrics.Own, Peers: metrics.Peers,
		Announcements: g.Announcements, Ledger: g.Ledger, Known: g.Known, Numbers: g.Numbers, SinceBoot: g.SinceBoot,
		Stale: func() bool {
			cfg, err := g.Config()
			if err != nil {
				return false
			}
			now, err := setupOf(cfg, g.Credentials)
			return err != nil || !reflect.DeepEqual(now, s)
		},
		Alive: g.Alive, Log: g.Log,
	}, nil
}

// changed makes of do one that is not told of the same error again and again.
func changed(do func(error)) func(error) {
	var mu sync.Mutex
	var last string
	var at time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); err.Error() != last || now.Sub(at) >= failureEvery {
			last, at = err.Error(), now
			do(err)
		}
	}
}
