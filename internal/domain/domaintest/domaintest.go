// Package domaintest is a gateway for tests of what works on a domain: a model
// kernel with one domain on it, and clocks that the test sets.
package domaintest

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/policy"
)

// Gateway is a model kernel and a domain on it.
type Gateway struct {
	*kerneltest.Devices
	T      *testing.T
	Wall   time.Time     // the wall clock
	Boot   time.Duration // CLOCK_BOOTTIME
	ID     string        // the boot ID
	Booted time.Duration // CLOCK_BOOTTIME at the boot, 0 but in a container
	Config config.Domain
	Host   domain.Host
	// Through, if not nil, is what a domain is opened on in place of the model.
	Through func(kernel.Devices) kernel.Devices
}

// New makes a gateway that has been up for a day, with a domain for ten peers,
// five of them pending. All peers have been read once.
func New(t *testing.T) *Gateway {
	g := &Gateway{
		Devices: &kerneltest.Devices{Number: kernel.Index{WireGuard: 7, VXLAN: 8}, Key: Key(1 << 20)},
		T:       t,
		Wall:    time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		Boot:    24 * time.Hour,
		ID:      "boot1",
		Config:  config.Domain{Name: "d", WireGuard: "w", VXLAN: "v", MaxPeers: 10, MaxPending: 5, StaleAfter: time.Hour},
	}
	g.Host = domain.Host{
		Dir: t.TempDir(), SavedDir: t.TempDir(),
		Devices: func(string, string) (kernel.Devices, error) {
			if g.Through != nil {
				return g.Through(g.Devices), nil
			}
			return g.Devices, nil
		},
		Now:       func() time.Time { return g.Wall },
		SinceBoot: func() time.Duration { return g.Boot },
		BootID:    func() string { return g.ID },
		Booted:    func() time.Duration { return g.Booted },
	}
	g.Read()
	g.Dumps = 0
	return g
}

// Key is one of many keys that are all different.
func Key(n int) address.Key {
	return address.Key{0: 9, 28: byte(n >> 16), 29: byte(n >> 8), 30: byte(n)}
}

// Pass lets time pass, for both clocks.
func (g *Gateway) Pass(d time.Duration) { g.Wall, g.Boot = g.Wall.Add(d), g.Boot+d }

// SetClock sets the wall clock by d.
func (g *Gateway) SetClock(d time.Duration) { g.Wall = g.Wall.Add(d) }

// Handshake lets the peer have one now.
func (g *Gateway) Handshake(k address.Key) { g.Find(k).LastHandshake = g.Wall }

// Open opens the domain. The caller closes it.
func (g *Gateway) Open() *domain.Domain {
	g.T.Helper()
	d, err := g.Host.Open(g.T.Context(), g.Config)
	if err != nil {
		g.T.Fatal(err)
	}
	return d
}

// Use calls do with the domain open.
func (g *Gateway) Use(do func(*domain.Domain)) {
	g.T.Helper()
	d := g.Open()
	do(d)
	if err := d.Close(); err != nil {
		g.T.Error(err)
	}
}

// Add adds a new peer to the domain, which must have a State.
func (g *Gateway) Add(d *domain.Domain, k address.Key) error {
	r := policy.NewRecord(k, g.Boot)
	if err := d.Promise(r); err != nil {
		return err
	}
	return d.Add(r)[0]
}

// Read reads all peers and keeps what it learned.
func (g *Gateway) Read() (survey domain.Survey) {
	g.T.Helper()
	g.Use(func(d *domain.Domain) {
		var err error
		if survey, err = d.Refresh(nil); err != nil {
			g.T.Error(err)
		}
	})
	return survey
}

// Counts is what is kept of the numbers of peers.
func (g *Gateway) Counts() (counts policy.Counts) {
	g.T.Helper()
	g.Use(func(d *domain.Domain) {
		s, err := d.State()
		if err != nil || s == nil {
			g.T.Fatalf("state %v, %v", s, err)
		}
		counts = s.Counts
	})
	return counts
}

// AddRouter adds a managed peer with both FDB entries, as others than wgkex do.
func (g *Gateway) AddRouter(k address.Key) {
	mac, addr := g.Config.Addresses.Of(k)
	g.AddStatic(k, netip.PrefixFrom(addr, 128).String())
	for _, m := range []address.MAC{mac, kernel.Flood} {
		g.FDB = append(g.FDB, kernel.Entry{MAC: m, Dst: addr, Via: g.Number.WireGuard, Permanent: true})
	}
}

// AddStatic adds a peer with the allowed IPs.
func (g *Gateway) AddStatic(k address.Key, prefixes ...string) {
	p := policy.Peer{Key: k}
	for _, s := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(s))
	}
	g.PeerList = append(g.PeerList, p)
}

// AddLeftOver adds a peer that was managed when all peers were read, and has the
// allowed IPs now, without FDB entries.
func (g *Gateway) AddLeftOver(k address.Key, prefixes ...string) {
	g.T.Helper()
	fdb := slices.Clone(g.FDB)
	g.AddRouter(k)
	g.Read()
	g.FDB = fdb
	p := g.Find(k)
	p.AllowedIPs = nil
	for _, s := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(s))
	}
}

// WantRouter checks that the key has a managed peer and both FDB entries, or
// none of them.
func (g *Gateway) WantRouter(k address.Key, want bool) {
	g.T.Helper()
	mac, addr := g.Config.Addresses.Of(k)
	p := g.Find(k)
	peer := p != nil && p.Managed(g.Config.Addresses)
	unicast, flood := g.has(mac, addr), g.has(kernel.Flood, addr)
	if peer != want || unicast != want || flood != want {
		g.T.Errorf("%s: peer %v, FDB entry %v, flood entry %v, want all %v", k, peer, unicast, flood, want)
	}
}

func (g *Gateway) has(mac address.MAC, addr netip.Addr) bool {
	for _, e := range g.FDB {
		if e == (kernel.Entry{MAC: mac, Dst: addr, Via: g.Number.WireGuard, Permanent: true}) {
			return true
		}
	}
	return false
}

// Consistent checks that every managed peer has both FDB entries, and that
// there are no others.
func (g *Gateway) Consistent() {
	g.T.Helper()
	entries := 0
	for _, p := range g.PeerList {
		if p.Managed(g.Config.Addresses) {
			g.WantRouter(p.Key, true)
			entries += 2
		}
	}
	if len(g.FDB) != entries {
		g.T.Errorf("%d FDB entries for %d: %v", len(g.FDB), entries, g.FDB)
	}
}

// Whole describes all that the kernel holds.
func (g *Gateway) Whole() string { return fmt.Sprint(g.PeerList, g.FDB) }

// Faults has fault asked at each call to the kernel, see kerneltest.Faulty, until
// Through is set to nil, and returns the methods that are called.
func (g *Gateway) Faults(fault func(n int, method string) (error, bool)) (calls *[]string) {
	faulty := &kerneltest.Faulty{Devices: g.Devices, Fault: fault}
	g.Through = func(kernel.Devices) kernel.Devices { return faulty }
	return &faulty.Calls
}

// killed is what a process that Kill ends panics with.
type killed struct{}

// Kill calls do, which opens a domain, and ends it as SIGKILL would before its
// nth call to the kernel, from 0 on. It reports whether there was one.
func (g *Gateway) Kill(n int, do func()) (died bool) {
	faulty := &kerneltest.Faulty{Fault: func(call int, _ string) (error, bool) {
		if call == n {
			panic(killed{})
		}
		return nil, false
	}}
	g.Through = func(d kernel.Devices) kernel.Devices { faulty.Devices = d; return faulty }
	defer func() {
		g.Through = nil
		if e := recover(); e != nil {
			if e != (killed{}) {
				panic(e)
			}
			died = true
		}
	}()
	do()
	return false
}

// Step is a call to the kernel that goes wrong: it fails "before" or "after" it took effect,
// or the process is killed before it ("kill").
type Step struct{ Method, How string }

func (s Step) String() string { return s.Method + ", " + s.How }

// EveryStep has do go wrong at each of its calls to the kernel in each of the ways, with
// the error ENOBUFS, and each time on a new gateway that prepare makes. check looks at what
// is left; the error is that of do, and nil if it was killed.
func EveryStep[G interface{ gateway() *Gateway }](t *testing.T, prepare func() G, do func(G) error, check func(g G, step Step, err error)) {
	t.Helper()
	g := prepare()
	methods := g.gateway().Faults(func(int, string) (error, bool) { return nil, false })
	if err := do(g); err != nil || len(*methods) < 6 {
		t.Fatalf("only the steps %v: %v", *methods, err)
	}
	for n, method := range *methods {
		for _, how := range []string{"before", "after", "kill"} {
			step, g := Step{method, how}, prepare()
			var err error
			if how == "kill" {
				if !g.gateway().Kill(n, func() { _ = do(g) }) {
					t.Errorf("%s: not killed", step)
				}
			} else {
				g.gateway().Faults(func(call int, _ string) (error, bool) {
					if call != n {
						return nil, false
					}
					return syscall.ENOBUFS, how == "after"
				})
				err = do(g)
				g.gateway().Through = nil
			}
			check(g, step, err)
		}
	}
}

// gateway is what EveryStep finds in what embeds one.
func (g *Gateway) gateway() *Gateway { return g }
