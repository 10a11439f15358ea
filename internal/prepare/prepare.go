// Package prepare is what happens before a socket listens: it says what stands in
// the way, and reads the peers for the first exchange.
package prepare

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// DomainTimeout is how long the start of a socket waits for a domain that others
// use: its first exchange reads the peers if need be.
const DomainTimeout = 3 * time.Second

// Prepare is the start of one socket.
type Prepare struct {
	// Effective is the configuration that what runs goes by.
	Effective config.Config
	// Files reads that of the files (config.Load). It only helps to say what to
	// do.
	Files func() (config.Config, error)
	// Host has the domains.
	Host domain.Host
	// Listeners are all sockets that listen (systemd.AnyListeners).
	Listeners func() ([]systemd.Listener, error)
	// Complain is told, in a line, of what does not keep the socket from
	// listening. Several may call it at a time.
	Complain func(message string)
}

// Run prepares the socket of domain name, the shared one for "". The socket was
// given listen, as config.Listen writes it, or nothing. The error says why it must
// not listen.
func (p Prepare) Run(ctx context.Context, name, listen string) error {
	if err := p.mayListen(name, listen); err != nil {
		return err
	}
	if at, _ := configured(p.Effective, name); p.taken(at) {
		p.complain("%s is taken by another program or unit (ss -ltnp 'sport = :%d')", at.Where(), at.Port)
	}
	p.refreshAll(ctx, name)
	return nil
}

func (p Prepare) complain(format string, args ...any) { p.Complain(fmt.Sprintf(format, args...)) }

// mayListen says what stands in the way of the socket.
func (p Prepare) mayListen(name, listen string) error {
	want, err := configured(p.Effective, name)
	switch {
	case err == nil && want.String() == listen:
		return nil
	case err != nil:
		if files, loadErr := p.Files(); loadErr != nil {
			return err
		} else if _, inFiles := configured(files, name); inFiles != nil {
			return err
		}
	}
	return fmt.Errorf("the configuration in %s has changed since the last daemon-reload: run systemctl daemon-reload, then start %s again", config.Dir, units.SocketName(name))
}

// configured is where a configuration makes the socket listen.
func configured(cfg config.Config, name string) (config.Listen, error) {
	missing, key, listen := "there is no shared port", "listen", cfg.Listen
	if name != "" {
		d, ok := cfg.Domains[name]
		if !ok {
			return listen, fmt.Errorf("domain %s is not in the configuration: add [domains.%s] to %s/%s or a file in %[3]s/conf.d", name, name, config.Dir, config.File)
		}
		missing, key, listen = "domain "+name+" has no port of its own", "domains."+name+".listen", d.Listen
	}
	if listen.IsZero() {
		return listen, fmt.Errorf("%s: set %s in %s/%s or a file in %[3]s/conf.d", missing, key, config.Dir, config.File)
	}
	return listen, nil
}

// taken reports whether something seems to listen there already. It is no more
// than a hint, for when systemd fails to listen: an IPv6 socket may leave IPv4
// alone, and one that is bound to an interface others.
func (p Prepare) taken(at config.Listen) bool {
	listeners, err := p.Listeners()
	return err == nil && slices.ContainsFunc(listeners, func(l systemd.Listener) bool {
		other := config.Listen{Addr: l.Addr.Addr().Unmap(), Port: l.Addr.Port()}
		if other.Addr == netip.IPv6Unspecified() {
			other.Addr = netip.Addr{}
		}
		return at.Overlaps(other)
	})
}

// refreshAll reads the peers of each domain that the socket serves. What fails
// here is for the exchanges to find out again; that interfaces come up later than
// sockets is not worth a word. No domain makes another wait.
func (p Prepare) refreshAll(ctx context.Context, name string) {
	var wg sync.WaitGroup
	for _, c := range p.Effective.Sorted() {
		if name != "" && c.Name != name {
			continue
		}
		wg.Go(func() {
			err := p.refresh(ctx, c)
			if err == nil || errors.Is(err, kernel.ErrMissing) {
				return
			}
			p.complain("domain %s cannot serve yet: %v", c.Name, err)
		})
	}
	wg.Wait()
}

func (p Prepare) refresh(ctx context.Context, c config.Domain) error {
	return p.Host.Locked(ctx, c, DomainTimeout, func(d *domain.Domain) error {
		_, err := d.Refresh(nil)
		return err
	})
}
