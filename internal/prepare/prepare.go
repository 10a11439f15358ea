// Package prepare is what happens before a socket listens: it says what stands in
// the way, and reads the peers for the first exchange.
package prepare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// Run prepares the socket unit. It was given the places to listen that are in given
// (units.Socket.Given), or none. The error says why it must not listen.
func (p Prepare) Run(ctx context.Context, unit, given string) error {
	s, err := p.mayListen(unit, given)
	if err != nil {
		return err
	}
	for _, at := range s.Listen {
		if p.taken(at) {
			p.complain("%s is taken by another program or unit (ss -ltnp 'sport = :%d')", at.Where(), at.Port)
		}
	}
	if !s.HTTP && !s.Metrics { // HTTP asks others, and metrics can wait
		p.refreshAll(ctx, s.Domain)
	}
	return nil
}

func (p Prepare) complain(format string, args ...any) { p.Complain(fmt.Sprintf(format, args...)) }

// mayListen is the socket, or says what stands in its way.
func (p Prepare) mayListen(unit, given string) (units.Socket, error) {
	s, ok := find(p.Effective, unit)
	if ok && s.Given() == given {
		return s, nil
	}
	if !ok {
		files, err := p.Files()
		if _, inFiles := find(files, unit); err != nil || !inFiles {
			return s, missing(p.Effective, unit)
		}
	}
	return s, fmt.Errorf("the configuration in %s has changed since the last daemon-reload: run systemctl daemon-reload, then start %s again", config.Dir, unit)
}

// find is the socket as a configuration has it.
func find(cfg config.Config, unit string) (units.Socket, bool) {
	sockets := units.Sockets(cfg)
	i := slices.IndexFunc(sockets, func(s units.Socket) bool { return s.Unit == unit })
	if i < 0 {
		return units.Socket{}, false
	}
	return sockets[i], true
}

// missing says what a configuration lacks that does not have the socket.
func missing(cfg config.Config, unit string) error {
	what, key := "there is no shared port", "listen"
	if domain, own := instance(unit, units.SocketName("")); own {
		if _, known := cfg.Domains[domain]; !known {
			return fmt.Errorf("domain %s is not in the configuration: add [domains.%[1]s] to %s/%s or a file in %[2]s/conf.d", domain, config.Dir, config.File)
		}
		what, key = "domain "+domain+" has no port of its own", "domains."+domain+".listen"
	} else if unit == units.MetricsSocket {
		what, key = "metrics are off", "metrics.listen"
	} else if unit == units.HTTPName("") {
		what, key = "HTTP has no port and no UNIX socket", "http.listen"
	} else if device, bound := instance(unit, units.HTTPName("")); bound {
		what, key = "HTTP has no address on interface "+device, "http.listen"
	}
	return fmt.Errorf("%s: set %s in %s/%s or a file in %[3]s/conf.d", what, key, config.Dir, config.File)
}

// instance is the instance in the name of a unit, if that is one of the template
// that belongs to the other unit.
func instance(unit, of string) (string, bool) {
	prefix, suffix, _ := strings.Cut(of, ".")
	rest, isInstance := strings.CutPrefix(unit, prefix+"@")
	return strings.TrimSuffix(rest, "."+suffix), isInstance
}

// taken reports whether something seems to listen there already. It is no more
// than a hint, for when systemd fails to listen: an IPv6 socket may leave IPv4
// alone, and one that is bound to an interface others.
func (p Prepare) taken(at config.Listen) bool {
	listeners, err := p.Listeners()
	return err == nil && slices.ContainsFunc(listeners, func(l systemd.Listener) bool {
		return at.Overlaps(l.At())
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
