package serve

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"

	"github.com/coreos/go-systemd/v22/journal"
)

// bench is a server on a gateway, and what it has logged.
type bench struct {
	*domaintest.Gateway
	*Server
	logged []string
	// announced is the domain of each announcement and its keys.
	announced []string
}

func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	b.Server = &Server{
		Config: config.Config{
			Domains:        map[string]config.Domain{"d": b.Gateway.Config},
			ProhibitedKeys: []address.Key{domaintest.Key(50)},
		},
		Host: b.Gateway.Host,
		Log: func(priority journal.Priority, message string, fields ...logging.Field) {
			entry := fmt.Sprint(int(priority), " ", message)
			for _, f := range fields {
				entry += " " + f.Name + "=" + f.Value
			}
			b.logged = append(b.logged, entry)
		},
		Announce: func(domain string, keys ...address.Key) { b.announced = append(b.announced, fmt.Sprint(domain, keys)) },
	}
	t.Cleanup(func() {
		if err := b.Server.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

var remote = netip.MustParseAddrPort("192.0.2.7:4000")

// ask makes a request as a way in does with what a client sent.
func (b *bench) ask(name, key string) *Request {
	r := &Request{Remote: remote}
	if r.Err = b.Name(r, name); r.Err == nil {
		r.Err = b.Server.Key(r, key)
	}
	return r
}

func (b *bench) counted(name string) map[outcome.Code]uint64 {
	results, err := counters.Read(counters.Path(b.Gateway.Host.Dir, name))
	if err != nil {
		b.T.Error(err)
	}
	return results.Total()
}

func TestServe(t *testing.T) {
	b := newBench(t)
	good, prohibited := domaintest.Key(1).String(), domaintest.Key(50).String()
	for _, c := range []struct {
		name, key string
		code      outcome.Code
		entry     string
	}{
		{"d", good, outcome.OK, "5 accepted 192.0.2.7:4000: peer " + good + " added in domain d, address fe80::"},
		{"nowhere", good, outcome.InvalidDomain, "5 refused 192.0.2.7:4000: INVALID_DOMAIN: no such domain in the configuration RESULT=INVALID_DOMAIN WAY=tcp REMOTE=192.0.2.7:4000 DOMAIN= PUBLIC_KEY= ADDRESS="},
		{"d", "x\x1b[31m", outcome.InvalidKey, "5 refused 192.0.2.7:4000: INVALID_WGKEY: the public key is not the canonical base64 of 32 bytes RESULT=INVALID_WGKEY WAY=tcp REMOTE=192.0.2.7:4000 DOMAIN=d PUBLIC_KEY= ADDRESS="},
		{"d", prohibited, outcome.ProhibitedKey, "5 refused 192.0.2.7:4000: PROHIBITED_WGKEY: the key is listed in prohibited_keys RESULT=PROHIBITED_WGKEY WAY=tcp REMOTE=192.0.2.7:4000 DOMAIN=d PUBLIC_KEY=" + prohibited},
	} {
		b.logged = nil
		r := b.ask(c.name, c.key)
		b.Exchange(r)
		b.Report(r)
		if r.Code() != c.code {
			t.Errorf("%q, %q: %v, want %s", c.name, c.key, r.Err, c.code)
		}
		if len(b.logged) != 1 || !strings.HasPrefix(b.logged[0], c.entry) {
			t.Errorf("%q, %q: logged %q, want %q", c.name, c.key, b.logged, c.entry)
		}
	}
	b.WantRouter(domaintest.Key(1), true)
	if got, want := b.counted("d"), map[outcome.Code]uint64{outcome.OK: 1, outcome.InvalidKey: 1, outcome.ProhibitedKey: 1}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if got, want := b.counted(""), map[outcome.Code]uint64{outcome.InvalidDomain: 1}; !maps.Equal(got, want) {
		t.Errorf("counted %v without a domain, want %v", got, want)
	}
}

// Requests that have come together take the lock of their domain once, and each
// has its own outcome.
func TestTogether(t *testing.T) {
	b := newBench(t)
	other := b.Gateway.Config
	other.Name = "e"
	b.Server.Config.Domains["e"] = other
	opened := 0
	b.Through = func(d kernel.Devices) kernel.Devices { opened++; return d }
	var requests []*Request
	for n := range 7 {
		requests = append(requests, b.ask("d", domaintest.Key(n).String()))
	}
	requests = append(requests, b.ask("e", domaintest.Key(0).String()), b.ask("d", "x"), b.ask("", ""))
	b.Exchange(requests...)
	var codes []outcome.Code
	for _, r := range requests {
		codes = append(codes, r.Code())
	}
	want := append(slices.Repeat([]outcome.Code{outcome.OK}, 5), outcome.Busy, outcome.Busy, outcome.OK, outcome.InvalidKey, outcome.InvalidDomain)
	if !slices.Equal(codes, want) {
		t.Errorf("outcomes %v, want %v", codes, want)
	}
	if opened != 2 {
		t.Errorf("%d domains were opened, want each of two once", opened)
	}
	var first []address.Key
	for n := range 5 {
		first = append(first, domaintest.Key(n))
	}
	if want := []string{fmt.Sprint("d", first), fmt.Sprint("e", first[:1])}; !slices.Equal(b.announced, want) {
		t.Errorf("announced %v, want %v", b.announced, want)
	}
}

// What other gateways have told of is not told to them, nor is what was refused. A router
// that is known already is told of again.
func TestAnnounce(t *testing.T) {
	b := newBench(t)
	ask := func(way outcome.Way, key address.Key) {
		r := b.ask("d", key.String())
		r.Way = way
		b.Exchange(r)
	}
	ask(outcome.Relay, domaintest.Key(1))
	ask(outcome.TCP, domaintest.Key(50))
	b.Exchange()
	if b.announced != nil {
		t.Errorf("announced %v", b.announced)
	}
	for _, way := range []outcome.Way{outcome.TCP, outcome.HTTP, outcome.Local} {
		ask(way, domaintest.Key(1))
	}
	if want := slices.Repeat([]string{fmt.Sprint("d", []address.Key{domaintest.Key(1)})}, 3); !slices.Equal(b.announced, want) {
		t.Errorf("announced %v, want %v", b.announced, want)
	}
	b.Announce = nil
	if ask(outcome.TCP, domaintest.Key(2)); len(b.announced) != 3 {
		t.Errorf("announced %v", b.announced)
	}
}

func TestTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		cause    error
		code     outcome.Code
		priority string
	}{
		"a missing interface": {fmt.Errorf("interface w: %w", kernel.ErrMissing), outcome.Busy, "4 refused"},
		"an unfit interface":  {fmt.Errorf("interface w: %w", kernel.ErrUnfit), outcome.Busy, "4 refused"},
		"a failure":           {errors.New("no buffer space"), outcome.Internal, "3 failed"},
	} {
		b := newBench(t)
		b.Through = func(d kernel.Devices) kernel.Devices {
			return &kerneltest.Faulty{Devices: d, Fault: func(int, string) (error, bool) { return c.cause, false }}
		}
		r := b.ask("d", domaintest.Key(1).String())
		b.Exchange(r)
		b.Report(r)
		if r.Code() != c.code || len(b.logged) != 1 || !strings.HasPrefix(b.logged[0], c.priority) {
			t.Errorf("%s: %v, logged %q", name, r.Err, b.logged)
		}
	}
}

// A reading of all peers is told, so that its memory can be given back.
func TestRefreshed(t *testing.T) {
	b := newBench(t)
	r := b.ask("d", domaintest.Key(1).String())
	if b.Exchange(r); r.Err != nil || b.Refreshed {
		t.Errorf("%v, refreshed %v", r.Err, b.Refreshed)
	}
	b.Number.WireGuard++
	if b.Exchange(r); r.Err != nil || !b.Refreshed {
		t.Errorf("on another device: %v, refreshed %v", r.Err, b.Refreshed)
	}
}

// badlyClosed is devices that cannot be closed.
type badlyClosed struct{ kernel.Devices }

func (badlyClosed) Close() error { return errors.New("no such descriptor") }

// What cannot be closed or counted does not make an acceptance a failure.
func TestAcceptedAllTheSame(t *testing.T) {
	b := newBench(t)
	b.Through = func(d kernel.Devices) kernel.Devices { return badlyClosed{d} }
	r := b.ask("d", domaintest.Key(1).String())
	b.Exchange(r)
	if r.Err != nil || len(b.logged) != 1 || !strings.HasPrefix(b.logged[0], "3 closing domain d") {
		t.Errorf("%v, logged %q", r.Err, b.logged)
	}
	b.Server.Host.Dir = filepath.Join(b.Server.Host.Dir, "none")
	b.logged = nil
	b.Report(r)
	if len(b.logged) != 2 || !strings.HasPrefix(b.logged[0], "3 counting the exchange") || !strings.HasPrefix(b.logged[1], "5 accepted") {
		t.Errorf("logged %q", b.logged)
	}
}
