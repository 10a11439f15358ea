// Package serve is what every way in does around exchanges: whether the domain
// and the key are ones that may ask, the domain's lock, and afterwards counting
// and the journal entry. Handle is the way in of one connection from systemd.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/exchange"
	"wgkex/internal/kernel"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"

	"github.com/coreos/go-systemd/v22/journal"
)

// LockTimeout is how long an exchange waits for others of its domain.
const LockTimeout = 30 * time.Second

// Request is one exchange that somebody asks for, and what becomes of it.
type Request struct {
	// Way is how the exchange came here.
	Way outcome.Way
	// Remote is who asks, zero for a program of this gateway. Port 0 is one that is
	// not known.
	Remote netip.AddrPort
	// Domain is zero until one of the configuration is named.
	Domain config.Domain
	// Key is zero until a valid one is given.
	Key address.Key
	// Action is what was done if Err is nil, and Gateway the end that the router then
	// connects to.
	Action  policy.Action
	Gateway kernel.Gateway
	// Err is why the key was not accepted.
	Err error
}

// from is who asks, for the log.
func (r *Request) from() string {
	switch {
	case !r.Remote.Addr().IsValid():
		return r.Way.String()
	case r.Remote.Port() == 0:
		return r.Remote.Addr().String()
	}
	return r.Remote.String()
}

// Code is the outcome that the client is told.
func (r *Request) Code() outcome.Code { return outcome.CodeOf(r.Err) }

// Server carries out requests by a configuration.
type Server struct {
	Config config.Config
	Host   domain.Host
	// Log writes a journal entry.
	Log func(journal.Priority, string, ...logging.Field)
	// Announce is told which keys were accepted in a domain, but for those of which
	// another gateway has told. It must not wait. Nil is for nobody to be told.
	Announce func(domain string, keys ...address.Key)
	// Refreshed says that an exchange had to read all peers, which takes memory.
	Refreshed bool

	counters map[string]*counters.Counters // by domain, "" for none
}

// Name gives the request its domain, if there is one of the name.
func (s *Server) Name(r *Request, name string) error {
	d, ok := s.Config.Domains[name]
	if !ok {
		return outcome.Refuse(outcome.InvalidDomain, "no such domain in the configuration")
	}
	r.Domain = d
	return nil
}

// Key gives the request its public key, if the text is one that may be added to
// some domain.
func (s *Server) Key(r *Request, text string) error {
	key, err := address.ParseKey(text)
	if err != nil {
		return outcome.Refuse(outcome.InvalidKey, "the public key is %w", err)
	}
	r.Key = key
	if s.Config.Prohibited(key) {
		return outcome.Refuse(outcome.ProhibitedKey, "the key is listed in prohibited_keys")
	}
	return nil
}

// Exchange carries out the requests without an Err, which have a domain and a
// key. It takes the lock of each of their domains once, whatever their number.
func (s *Server) Exchange(requests ...*Request) {
	byDomain := map[string][]*Request{}
	var names []string
	for _, r := range requests {
		if r.Err != nil {
			continue
		}
		name := r.Domain.Name
		if byDomain[name] == nil {
			names = append(names, name)
		}
		byDomain[name] = append(byDomain[name], r)
	}
	for _, name := range names {
		s.exchange(byDomain[name])
	}
}

// exchange carries out requests of one domain.
func (s *Server) exchange(requests []*Request) {
	ctx, cancel := context.WithTimeout(context.Background(), LockTimeout)
	defer cancel()
	d, err := s.Host.Open(ctx, requests[0].Domain)
	if err != nil {
		for _, r := range requests {
			r.Err = exchange.Classify(err)
		}
		return
	}
	keys := make([]address.Key, len(requests))
	for i, r := range requests {
		keys[i] = r.Key
	}
	for i, result := range exchange.Run(d, keys...) {
		requests[i].Action, requests[i].Gateway, requests[i].Err = result.Action, result.Gateway, result.Err
	}
	s.Refreshed = s.Refreshed || d.Refreshed
	if err := d.Close(); err != nil {
		// What was done is done.
		s.Log(journal.PriErr, fmt.Sprintf("closing domain %s: %v", d.Config.Name, err), logging.Field{Name: "DOMAIN", Value: d.Config.Name})
	}
	s.announce(requests)
}

// announce tells of what was accepted of the requests, which are of one domain.
func (s *Server) announce(requests []*Request) {
	if s.Announce == nil {
		return
	}
	var keys []address.Key
	for _, r := range requests {
		if r.Err == nil && r.Way != outcome.Relay {
			keys = append(keys, r.Key)
		}
	}
	if keys != nil {
		s.Announce(requests[0].Domain.Name, keys...)
	}
}

// Report counts the request and writes its journal entry, unless there were too
// many of late.
func (s *Server) Report(r *Request) {
	allowed, err := s.count(r)
	if err != nil {
		s.Log(journal.PriErr, fmt.Sprintf("counting the exchange: %v", err))
	}
	if allowed {
		s.log(r)
	}
}

// count counts the outcome for the domain, or for none as long as the client
// had not named one, and reports whether it may be logged. What cannot be
// counted may.
func (s *Server) count(r *Request) (allowed bool, err error) {
	counted, err := s.open("")
	allowed = true
	if err == nil {
		var leftOut uint64
		if allowed, leftOut = counted.AllowLog(time.Now()); leftOut > 0 {
			s.Log(journal.PriNotice, fmt.Sprintf("%d log entries about exchanges were left out, there were too many", leftOut),
				logging.Field{Name: "LEFT_OUT", Value: strconv.FormatUint(leftOut, 10)})
		}
	}
	if r.Domain.Name != "" {
		var ownErr error
		counted, ownErr = s.open(r.Domain.Name)
		err = errors.Join(err, ownErr)
	}
	if counted != nil {
		counted.Count(r.Way, r.Code())
	}
	return allowed, err
}

// open opens the counters of a domain, once.
func (s *Server) open(name string) (*counters.Counters, error) {
	if c, ok := s.counters[name]; ok {
		return c, nil
	}
	c, err := counters.Open(counters.Path(s.Host.Dir, name))
	if err != nil {
		return nil, err
	}
	if s.counters == nil {
		s.counters = map[string]*counters.Counters{}
	}
	s.counters[name] = c
	return c, nil
}

// Close closes the counters.
func (s *Server) Close() error {
	var err error
	for _, c := range s.counters {
		err = errors.Join(err, c.Close())
	}
	s.counters = nil
	return err
}

func (s *Server) log(r *Request) {
	var key, addr string
	if !r.Key.IsZero() {
		_, a := r.Domain.Addresses.Of(r.Key)
		key, addr = r.Key.String(), a.String()
	}
	priority := journal.PriNotice
	message := fmt.Sprintf("accepted %s: peer %s %s in domain %s, address %s", r.from(), key, r.Action, r.Domain.Name, addr)
	switch {
	case r.Code() == outcome.Internal:
		priority = journal.PriErr
		message = fmt.Sprintf("failed %s: %v", r.from(), r.Err)
	case errors.Is(r.Err, kernel.ErrMissing), errors.Is(r.Err, kernel.ErrUnfit):
		priority = journal.PriWarning // the admin has to do something
		fallthrough
	case r.Err != nil:
		message = fmt.Sprintf("refused %s: %v", r.from(), r.Err)
	}
	s.Log(priority, message,
		logging.Field{Name: "RESULT", Value: string(r.Code())},
		logging.Field{Name: "WAY", Value: r.Way.String()},
		logging.Field{Name: "REMOTE", Value: r.from()},
		logging.Field{Name: "DOMAIN", Value: r.Domain.Name},
		logging.Field{Name: "PUBLIC_KEY", Value: key},
		logging.Field{Name: "ADDRESS", Value: addr})
}
