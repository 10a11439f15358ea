package exchange

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/address/addresstest"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

func key(n int) address.Key { return domaintest.Key(n) }

// bench is a gateway on which exchanges are made.
type bench struct{ *domaintest.Gateway }

func newBench(t *testing.T) *bench { return &bench{domaintest.New(t)} }

// runOn makes an exchange through devices. A process that is killed in it gives
// its lock back, as the kernel does for it.
func (b *bench) runOn(devices kernel.Devices, k address.Key) (action policy.Action, err error) {
	b.T.Helper()
	host := b.Host
	host.Devices = func(string, string) (kernel.Devices, error) { return devices, nil }
	d, err := host.Open(b.T.Context(), b.Config)
	if err != nil {
		b.T.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			b.T.Error(err)
		}
	}()
	r := Run(d, k)[0]
	return r.Action, r.Err
}

func (b *bench) run(k address.Key) (policy.Action, error) {
	b.T.Helper()
	return b.runOn(b.Devices, k)
}

func (b *bench) accept(k address.Key, want policy.Action) {
	b.T.Helper()
	if action, err := b.run(k); err != nil || action != want {
		b.T.Errorf("%s: got %s, %v, want %s", k, action, err, want)
	}
	b.WantRouter(k, true)
}

func (b *bench) refuse(k address.Key, want outcome.Code) {
	b.T.Helper()
	before := b.Whole()
	if _, err := b.run(k); outcome.CodeOf(err) != want {
		b.T.Errorf("%s: got %v, want %s", k, err, want)
	}
	if after := b.Whole(); after != before {
		b.T.Errorf("%s: a refusal changed\n%s into\n%s", k, before, after)
	}
}

// connect registers the key and lets its router connect.
func (b *bench) connect(k address.Key) {
	b.T.Helper()
	b.accept(k, policy.Add)
	b.Handshake(k)
}

// silent makes the peer one whose handshake is long ago, and whom the last
// reading knows.
func (b *bench) silent(k address.Key) {
	b.T.Helper()
	b.connect(k)
	b.Pass(policy.LiveFor)
	b.Read()
}

// No exchange reads all peers but the first after a boot, and those that a
// domain without room may ask for now and then.
func TestNoReading(t *testing.T) {
	b := newBench(t)
	_, addr5 := b.Config.Addresses.Of(key(5))
	b.AddStatic(key(50), "fd00::/64")
	b.AddStatic(key(51), addr5.String()+"/128")
	mac50, own50 := b.Config.Addresses.Of(key(50))
	b.FDB = append(b.FDB, kernel.Entry{MAC: mac50, Dst: own50, Via: 7, Permanent: true})
	// A router can make the interface learn any MAC as being behind itself.
	mac3, _ := b.Config.Addresses.Of(key(3))
	b.FDB = append(b.FDB, kernel.Entry{MAC: mac3, Dst: own50, Via: 7})
	b.silent(key(1))
	b.connect(key(2))
	b.Dumps, b.Searches = 0, 0
	b.accept(key(3), policy.Add)
	b.accept(key(3), policy.Keep)
	b.accept(key(2), policy.Keep)
	b.refuse(key(50), outcome.ProhibitedKey)
	b.refuse(key(5), outcome.AddressConflict)
	b.refuse(b.Gateway.Key, outcome.ProhibitedKey)
	if b.Dumps != 0 || b.Searches != 0 {
		t.Errorf("%d readings and %d searches", b.Dumps, b.Searches)
	}
	// Only a peer that is to be reset is looked at once more.
	b.accept(key(1), policy.Reset)
	if b.Dumps != 0 || b.Searches != 1 {
		t.Errorf("a silent key: %d readings and %d searches", b.Dumps, b.Searches)
	}
	if !b.Closed {
		t.Error("the devices were left open")
	}
}

func TestKnownKey(t *testing.T) {
	b := newBench(t)
	k := key(1)
	b.accept(k, policy.Add)
	b.accept(k, policy.Keep) // pending: nothing to clear
	b.Handshake(k)
	b.accept(k, policy.Keep)
	b.Read()
	b.accept(k, policy.Keep)
	b.FDB = nil // somebody flushed it
	b.accept(k, policy.Keep)
	if b.Find(k).LastHandshake.IsZero() {
		t.Fatal("a live tunnel was reset")
	}
	b.Pass(policy.LiveFor - 1)
	b.accept(k, policy.Keep)
	b.Pass(1)
	b.accept(k, policy.Reset)
	if !b.Find(k).LastHandshake.IsZero() {
		t.Error("a silent peer's handshake was not cleared")
	}
	b.accept(k, policy.Keep) // and nobody can use that twice
	b.Pass(time.Hour)
	b.accept(k, policy.Renew)
	b.accept(k, policy.Keep)
	b.Consistent()
	// A peer that somebody removed comes back, whatever was known of it.
	b.Handshake(k)
	for _, wait := range []time.Duration{0, policy.LiveFor} {
		b.Read()
		b.Pass(wait)
		b.PeerList = nil
		if _, err := b.run(k); err != nil {
			t.Error(err)
		}
		b.WantRouter(k, true)
		b.Handshake(k)
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	_, addr4 := b.Config.Addresses.Of(key(4))
	mac5, _ := b.Config.Addresses.Of(key(5))
	_, addr6 := b.Config.Addresses.Of(key(6))
	b.OwnAddrs, b.OwnMAC = []netip.Addr{addr4}, mac5
	b.AddStatic(key(50), "fd00::/64")
	b.AddStatic(key(51), addr6.String()+"/128")
	b.AddStatic(key(52), "fd00::1/128", "fd00::2/128")
	b.Read()
	b.refuse(b.Gateway.Key, outcome.ProhibitedKey)
	b.refuse(key(50), outcome.ProhibitedKey)
	b.refuse(key(51), outcome.ProhibitedKey)
	b.refuse(key(52), outcome.ProhibitedKey)
	b.refuse(key(4), outcome.AddressConflict)
	b.refuse(key(5), outcome.AddressConflict)
	b.refuse(key(6), outcome.AddressConflict)
	b.accept(key(1), policy.Add)
}

// A static peer that was added after the last reading keeps what it had.
func TestStaticPeerThatNobodyKnowsOf(t *testing.T) {
	b := newBench(t)
	b.AddStatic(key(50), "fd00::/64")
	if _, err := b.run(key(50)); err != nil {
		t.Fatal(err)
	}
	if ips := b.Find(key(50)).AllowedIPs; len(ips) != 2 || ips[0].String() != "fd00::/64" {
		t.Errorf("its allowed IPs are %v", ips)
	}
	// And when the exchange fails, taking it back does not remove the peer.
	b = newBench(t)
	b.AddStatic(key(50), "fd00::/64")
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		if method == "AddPeer" {
			return syscall.ENOBUFS, true
		}
		return nil, false
	}}
	if _, err := b.runOn(faulty, key(50)); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("got %v", err)
	}
	if b.Find(key(50)) == nil {
		t.Error("a static peer was removed")
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t)
	for n := range 5 {
		b.accept(key(1+n), policy.Add)
	}
	b.Pass(fullFor)
	b.refuse(key(10), outcome.Busy)
	dumps := b.Dumps
	b.refuse(key(10), outcome.Busy)
	if b.Dumps != dumps {
		t.Error("being full cost a reading each time")
	}
	b.Handshake(key(1)) // which nobody has read yet
	b.refuse(key(10), outcome.Busy)
	b.Pass(fullFor)
	b.accept(key(10), policy.Add)
	b.refuse(key(11), outcome.Busy)
	for i := range b.PeerList {
		b.PeerList[i].LastHandshake = b.Wall
	}
	b.Pass(fullFor)
	for n := range 4 {
		b.accept(key(20+n), policy.Add)
	}
	b.Pass(fullFor)
	b.refuse(key(30), outcome.Busy)
	if len(b.PeerList) != 10 {
		t.Errorf("%d peers, want max_peers", len(b.PeerList))
	}
	// A known router comes back whatever the limits.
	b.accept(key(1), policy.Keep)
	b.accept(key(20), policy.Keep)
}

// The counts are what the kernel has, after every kind of exchange.
func TestCounts(t *testing.T) {
	b := newBench(t)
	want := func(peers, pending int) {
		t.Helper()
		if got := b.Counts(); got != (policy.Counts{Peers: peers, Pending: pending}) {
			t.Errorf("counted %+v, want %d and %d", got, peers, pending)
		}
	}
	b.silent(key(1))
	want(1, 0)
	b.accept(key(1), policy.Reset)
	want(1, 1)
	b.accept(key(1), policy.Keep)
	b.accept(key(2), policy.Add)
	want(2, 2)
	b.Read()
	want(2, 2)
	for n := range 3 {
		b.accept(key(3+n), policy.Add)
	}
	b.Pass(policy.PendingFor)
	b.accept(key(10), policy.Replace)
	want(5, 5)
	b.Read()
	want(5, 5)
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		if method == "AddPeer" {
			return syscall.ENOBUFS, false
		}
		return nil, false
	}}
	b.Handshake(key(10))
	b.Read()
	if _, err := b.runOn(faulty, key(11)); err == nil {
		t.Error("no error")
	}
	want(5, 4)
	b.Consistent()
}

// A domain without room makes it at the expense of whoever has been pending
// longest and has had its time, however often others ask meanwhile.
func TestOverdueMakesRoom(t *testing.T) {
	b := newBench(t)
	for n := range 4 {
		b.accept(key(1+n), policy.Add)
		b.Pass(time.Second)
	}
	b.Pass(time.Minute)
	b.accept(key(5), policy.Add)
	b.Pass(policy.PendingFor - time.Minute - 4*time.Second - 1)
	b.refuse(key(10), outcome.Busy)
	b.Handshake(key(2)) // it stays, whatever comes
	b.Pass(fullFor)
	b.accept(key(6), policy.Add) // key(2) is pending no more
	for range 10 {               // known keys come all the time
		b.Pass(fullFor / 4)
		b.accept(key(2), policy.Keep)
		b.accept(key(6), policy.Keep)
	}
	b.accept(key(10), policy.Replace)
	b.WantRouter(key(1), false)
	b.accept(key(11), policy.Replace)
	b.WantRouter(key(3), false)
	for _, n := range []int{2, 4, 5, 6, 10, 11} {
		b.WantRouter(key(n), true)
	}
}

// A silent router gets its reset in a domain whose pending places are taken, if
// one of these has had its time.
func TestSilentInAFullDomain(t *testing.T) {
	b := newBench(t)
	b.silent(key(1))
	for n := range 5 {
		b.accept(key(2+n), policy.Add)
		b.Pass(time.Second)
	}
	b.accept(key(1), policy.Keep)
	b.Pass(policy.PendingFor)
	b.accept(key(1), policy.Reset)
	b.WantRouter(key(2), false)
	b.WantRouter(key(3), true)
	if got := b.Counts(); got != (policy.Counts{Peers: 5, Pending: 5}) {
		t.Errorf("counted %+v", got)
	}
}

// A live router whose key is repeated costs one search, not one each time.
func TestLiveSinceTheReading(t *testing.T) {
	b := newBench(t)
	b.silent(key(1))
	b.Handshake(key(1)) // which nobody has read
	b.Searches = 0
	for range 10 {
		b.accept(key(1), policy.Keep)
		b.Pass(time.Second)
	}
	if b.Searches != 1 || b.Dumps > 2 {
		t.Errorf("%d searches, %d readings", b.Searches, b.Dumps)
	}
	b.Pass(policy.LiveFor)
	b.accept(key(1), policy.Reset)
	b.Read()
	b.Consistent()
}

// What others make of a peer after the reading is not undone.
func TestBecomesStatic(t *testing.T) {
	makeStatic := func(b *bench, k address.Key) {
		p := b.Find(k)
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix("fd00::/64"))
	}
	b := newBench(t)
	b.silent(key(1))
	makeStatic(b, key(1))
	b.refuse(key(1), outcome.Busy)
	b.refuse(key(1), outcome.ProhibitedKey)
	b = newBench(t)
	for n := range 5 {
		b.accept(key(1+n), policy.Add)
		b.Pass(time.Second)
	}
	b.Pass(policy.PendingFor)
	b.Read()
	makeStatic(b, key(1))
	before := fmt.Sprint(*b.Find(key(1)))
	if _, err := b.run(key(10)); err != nil {
		t.Error(err)
	}
	if after := fmt.Sprint(*b.Find(key(1))); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

// In a domain whose limits were lowered below what it has, no refusal costs a
// search.
func TestLoweredLimits(t *testing.T) {
	b := newBench(t)
	for n := range 5 {
		b.accept(key(1+n), policy.Add)
	}
	b.Pass(policy.PendingFor)
	b.Config.MaxPeers = 3
	b.Searches = 0
	for range 5 {
		b.refuse(key(10), outcome.Busy)
	}
	if b.Searches != 0 {
		t.Errorf("%d searches", b.Searches)
	}
	// Of those without a handshake one can go for another to come all the same.
	b.Config.MaxPeers, b.Config.MaxPending = 10, 3
	b.accept(key(10), policy.Replace)
	if got := b.Counts(); got != (policy.Counts{Peers: 5, Pending: 5}) {
		t.Errorf("counted %+v", got)
	}
}

// A router that connected while its exchange failed stays.
func TestConnectedMeanwhile(t *testing.T) {
	b := newBench(t)
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		switch method {
		case "AddPeer": // it takes effect, but the answer is lost
			return syscall.ENOBUFS, true
		case "Peer":
			b.Handshake(key(1))
		}
		return nil, false
	}}
	if _, err := b.runOn(faulty, key(1)); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("got %v", err)
	}
	b.WantRouter(key(1), true)
}

// Whoever connects at the last moment does not have to make room.
func TestOverdueConnects(t *testing.T) {
	b := newBench(t)
	for n := range 5 {
		b.accept(key(1+n), policy.Add)
		b.Pass(time.Second)
	}
	b.Pass(policy.PendingFor - 2*time.Second)
	b.Read()
	b.Pass(time.Second) // the reading is young enough to be believed
	b.Between = func(method string) {
		if method == "Peer" {
			b.Handshake(key(1))
		}
	}
	b.accept(key(10), policy.Add) // in the place that key(1) has left
	b.WantRouter(key(1), true)
	b.WantRouter(key(2), true)
}

// A router that registers anew gets its whole time again.
func TestRegistrationTime(t *testing.T) {
	b := newBench(t)
	b.silent(key(1)) // registered before all others
	for n := range 4 {
		b.accept(key(2+n), policy.Add)
	}
	b.Pass(time.Second)
	b.accept(key(1), policy.Reset)
	b.Pass(policy.PendingFor - time.Second - 1)
	b.refuse(key(10), outcome.Busy)
	b.Pass(fullFor + 1)
	for n := range 4 {
		b.accept(key(10+n), policy.Replace)
		b.WantRouter(key(1), true)
	}
	b.accept(key(20), policy.Replace)
	b.WantRouter(key(1), false)
}

func TestStateThatLies(t *testing.T) {
	path := func(b *bench) string { return filepath.Join(b.Host.Dir, "d.state") }
	for name, change := range map[string]func(*bench){
		"none":            func(b *bench) { _ = os.Remove(path(b)) },
		"empty":           func(b *bench) { _ = os.Truncate(path(b), 0) },
		"cut":             func(b *bench) { _ = os.Truncate(path(b), 150) },
		"sparse":          func(b *bench) { _ = os.Truncate(path(b), 1<<40) },
		"another file":    func(b *bench) { _ = os.WriteFile(path(b), []byte(strings.Repeat("{}", 1000)), 0o600) },
		"another device":  func(b *bench) { b.Number.WireGuard = 6 },
		"VXLAN made anew": func(b *bench) { b.Number.VXLAN = 5 },
		"another boot":    func(b *bench) { b.ID = "boot2" },
		"another profile": func(b *bench) { b.Config.Addresses = address.FFMUC },
		"a FIFO": func(b *bench) {
			_ = os.Remove(path(b))
			if err := syscall.Mkfifo(path(b), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(b *bench) {
			if err := errors.Join(os.Remove(path(b)), os.Symlink("/etc/passwd", path(b))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		b := newBench(t)
		b.AddStatic(key(50), "fd00::/64")
		change(b)
		for range 2 {
			b.refuse(key(50), outcome.ProhibitedKey)
			if b.Dumps != 1 {
				t.Errorf("%s: %d readings, want 1", name, b.Dumps)
			}
		}
	}
}

func TestVXLANMadeAnewIsRepaired(t *testing.T) {
	b := newBench(t)
	b.accept(key(1), policy.Add)
	b.accept(key(2), policy.Add)
	b.Number.VXLAN, b.FDB = 9, nil
	b.accept(key(3), policy.Add)
	b.WantRouter(key(1), true)
	b.WantRouter(key(2), true)
}

// Somebody removed all peers, as a restart of systemd-networkd does, and left
// their FDB entries: the routers that come back do not cost a reading each.
func TestPeersGoneEntriesLeft(t *testing.T) {
	for name, forget := range map[string]func(*bench){
		"not read since": func(*bench) {},
		"read since":     func(b *bench) { b.Read() },
	} {
		b := newBench(t)
		for n := range 5 {
			b.accept(key(1+n), policy.Add)
		}
		b.PeerList = nil
		forget(b)
		b.Dumps = 0
		for n := range 5 {
			if _, err := b.run(key(1 + n)); err != nil {
				t.Error(err)
			}
			b.WantRouter(key(1+n), true)
		}
		if b.Dumps > 2 { // one more before entries are removed
			t.Errorf("%s: %d readings for five routers", name, b.Dumps)
		}
	}
}

// The FDB was flushed: what collides with a peer does not get its address.
func TestFlushedFDB(t *testing.T) {
	b := newBench(t)
	b.connect(victim)
	for _, read := range []bool{false, true} {
		if read {
			b.Read()
		}
		b.FDB = nil
		b.refuse(collider, outcome.AddressConflict)
	}
	b.accept(victim, policy.Keep)
}

// Peers of another profile, and those without an address, are ours.
func TestLeftOver(t *testing.T) {
	b := newBench(t)
	_, other := address.FFMUC.Of(key(1))
	b.AddLeftOver(key(1), other.String()+"/128")
	b.AddLeftOver(key(2))
	b.Handshake(key(2))
	// Others may look the same, and are not ours.
	_, elsewhere := address.FFMUC.Of(key(3))
	b.AddStatic(key(3), elsewhere.String()+"/128")
	b.AddStatic(key(4))
	b.Read()
	b.refuse(key(3), outcome.ProhibitedKey)
	b.refuse(key(4), outcome.ProhibitedKey)
	b.accept(key(1), policy.Readdress)
	b.accept(key(2), policy.Readdress)
	if b.Find(key(2)).LastHandshake.IsZero() {
		t.Error("a tunnel was cut")
	}
	b.accept(key(2), policy.Keep)
	if got := b.Counts(); got != (policy.Counts{Peers: 2, Pending: 1}) {
		t.Errorf("counted %+v", got)
	}
	b.Consistent()
}

func TestPassingTrouble(t *testing.T) {
	for _, cause := range []error{kernel.ErrMissing, kernel.ErrUnfit, kernel.ErrInterrupted} {
		b := newBench(t)
		faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(int, string) (error, bool) {
			return fmt.Errorf("interface w: %w", cause), false
		}}
		_, err := b.runOn(faulty, key(1))
		if outcome.CodeOf(err) != outcome.Busy || !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	}
}

// The wall clock is set, by much or little, before or after a handshake: nobody
// live is reset, and nobody who is gone is kept for long.
func TestClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{24 * time.Hour, time.Hour, 10 * time.Minute} {
		for _, by := range []time.Duration{step, -step} {
			for name, steps := range map[string][]func(*bench){
				"before":           {func(b *bench) { b.SetClock(by) }, func(b *bench) { b.Handshake(key(1)) }},
				"after":            {func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.SetClock(by) }},
				"between readings": {func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.Read() }, func(b *bench) { b.SetClock(by) }, func(b *bench) { b.Read() }},
				"there and back":   {func(b *bench) { b.SetClock(by) }, func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.SetClock(-by) }},
				"read meanwhile":   {func(b *bench) { b.SetClock(by) }, func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.Read() }, func(b *bench) { b.SetClock(-by) }},
				"again and again": {
					func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.Read() }, func(b *bench) { b.SetClock(by) },
					func(b *bench) { b.Handshake(key(1)) }, func(b *bench) { b.SetClock(by) },
				},
			} {
				for _, pause := range []time.Duration{0, time.Second} {
					what := fmt.Sprintf("%s, by %s, %s apart", name, by, pause)
					b := newBench(t)
					b.accept(key(1), policy.Add)
					b.Pass(time.Minute)
					for _, do := range steps {
						do(b)
						b.Pass(pause)
					}
					b.accept(key(1), policy.Keep)
					if b.Find(key(1)).LastHandshake.IsZero() {
						t.Errorf("%s: a live tunnel was reset", what)
					}
					// As long after it as a session lasts, and a reading, it is
					// known to be silent.
					b.Read()
					b.Pass(policy.LiveFor)
					if action, err := b.run(key(1)); err != nil || action != policy.Reset {
						t.Errorf("%s: a router that is back: %s, %v", what, action, err)
					}
				}
			}
		}
	}
}

// A thousand routers connect while a stranger repeats their keys, at every
// moment that there is: none is cut.
func TestStrangerRepeatsKeys(t *testing.T) {
	const many = 1000
	b := newBench(t)
	b.Config.MaxPeers, b.Config.MaxPending = 2*many, 2*many
	random := rand.New(rand.NewPCG(1, 2))
	connected := map[address.Key]bool{}
	lastLook := ""
	connect := func(k address.Key) {
		if p := b.Find(k); p != nil && !connected[k] {
			p.LastHandshake, connected[k] = b.Wall, true
		}
	}
	for n := range many {
		b.accept(key(n), policy.Add)
		if n%2 == 0 { // half of them were here before and have been silent
			b.Handshake(key(n))
		}
	}
	b.Pass(time.Hour)
	b.Read()
	at := 0
	b.Between = func(method string) {
		// The one moment that nobody can close is between the last look at a
		// peer and its reset.
		if method == "ResetPeer" && lastLook == "Peer" {
			return
		}
		lastLook = method
		if random.IntN(3) == 0 {
			connect(key(at))
		}
	}
	for n := range many {
		for range 5 {
			at = n
			if random.IntN(4) == 0 {
				at = random.IntN(many)
			}
			if _, err := b.run(key(at)); err != nil {
				t.Fatal(err)
			}
			b.Pass(10 * time.Millisecond)
		}
	}
	if len(connected) < many/2 {
		t.Fatalf("only %d have connected", len(connected))
	}
	for k := range connected {
		if b.Find(k).LastHandshake.IsZero() {
			t.Errorf("%s was cut", k)
		}
	}
}

// Every step of every kind of exchange fails once, before or after it took
// effect: the router is there whole, as before, or not at all.
func TestEveryStepFails(t *testing.T) {
	for name, c := range steps {
		b := newBench(t)
		c.prepare(b)
		whole := &kerneltest.Faulty{Devices: b.Devices, Fault: func(int, string) (error, bool) { return nil, false }}
		if _, err := b.runOn(whole, c.key); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(whole.Calls) < 4 {
			t.Errorf("%s: only the steps %v", name, whole.Calls)
		}
		for step, method := range whole.Calls {
			for _, afterwards := range []bool{false, true} {
				for _, errno := range []syscall.Errno{syscall.ENOBUFS, syscall.ENODEV} {
					b := newBench(t)
					c.prepare(b)
					before := b.Find(c.key) != nil
					faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(n int, _ string) (error, bool) {
						if n == step {
							return errno, afterwards
						}
						return nil, false
					}}
					_, err := b.runOn(faulty, c.key)
					what := fmt.Sprintf("%s, %s, afterwards %v", name, method, afterwards)
					if again := method == "SetEntries" || method == "AddPeer"; again && name == "new key" && err != nil {
						t.Errorf("%s: it was not done again: %v", what, err)
					}
					switch {
					case err == nil:
						b.WantRouter(c.key, true)
					case !strings.Contains(err.Error(), errno.Error()):
						t.Errorf("%s: got %v, want %v", what, err, errno)
					case b.Find(c.key) == nil && before:
						t.Errorf("%s: a peer that was there is gone", what)
					}
					c.check(b, what)
				}
			}
		}
	}
}

// The kernel removes a peer that is to be reset, and does not add it again.
func TestHalfAReset(t *testing.T) {
	b := newBench(t)
	b.silent(key(1))
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		if method == "ResetPeer" {
			b.PeerList = nil
			return syscall.ENOBUFS, false
		}
		return nil, false
	}}
	if _, err := b.runOn(faulty, key(1)); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("got %v", err)
	}
	b.WantRouter(key(1), true)
}

// A process is killed at every step of every kind of exchange. Whoever comes
// next, the router itself, one with its address, or a cleanup that repairs the
// FDB, no tunnel is cut and no address taken.
func TestKilledAtEveryStep(t *testing.T) {
	for name, c := range steps {
		for step := 0; ; step++ {
			died := false
			for _, next := range []string{"the router", "a collider", "a repair"} {
				b := newBench(t)
				c.prepare(b)
				died = b.Kill(step, func() { _, _ = b.runOn(b.Through(b.Devices), c.key) })
				what := fmt.Sprintf("%s, killed at step %d, then %s", name, step, next)
				there := b.Find(c.key) != nil && b.Find(c.key).Managed(b.Config.Addresses)
				switch next {
				case "a collider":
					if _, err := b.run(collider); there && outcome.CodeOf(err) != outcome.AddressConflict {
						t.Errorf("%s: %v", what, err)
					}
					if there && !b.Find(c.key).Managed(b.Config.Addresses) {
						t.Errorf("%s: the peer lost its address", what)
					}
					continue
				case "a repair":
					b.Use(func(d *domain.Domain) {
						survey, err := d.Refresh(nil)
						if err == nil {
							_, err = d.Repair(survey.Peers)
						}
						if err != nil {
							t.Errorf("%s: %v", what, err)
						}
					})
					if there || b.Find(c.key) == nil {
						b.Consistent()
					}
				}
				c.check(b, what)
			}
			if !died {
				if step < 4 {
					t.Errorf("%s: only %d steps", name, step)
				}
				break
			}
		}
	}
}

// steps are the kinds of exchanges whose every step fails.
var steps = map[string]struct {
	prepare func(*bench)
	key     address.Key
	check   func(b *bench, what string)
}{
	"new key":   {func(*bench) {}, victim, comesBack},
	"first key": {func(b *bench) { _ = os.Remove(filepath.Join(b.Host.Dir, "d.state")) }, victim, comesBack},
	"pending":   {func(b *bench) { b.accept(victim, policy.Add) }, victim, comesBack},
	"overdue": {func(b *bench) {
		b.accept(victim, policy.Add)
		b.Pass(policy.PendingFor)
	}, victim, comesBack},
	"silent key": {func(b *bench) { b.silent(victim) }, victim, comesBack},
	"live key":   {func(b *bench) { b.connect(victim) }, victim, staysLive},
	"live, FDB flushed": {func(b *bench) {
		b.connect(victim)
		b.FDB = nil
	}, victim, staysLive},
	"live, VXLAN made anew": {func(b *bench) {
		b.connect(victim)
		b.Number.VXLAN, b.FDB = 9, nil
	}, victim, staysLive},
	"without an address": {func(b *bench) {
		b.AddLeftOver(victim)
		b.Handshake(victim)
		b.Read()
	}, victim, staysLive},
	"in place of another": {func(b *bench) {
		for n := range 5 {
			b.accept(key(20+n), policy.Add)
		}
		b.Pass(policy.PendingFor)
	}, victim, comesBack},
}

// victim and collider are two keys with the same derived address.
var victim, collider = addresstest.Colliding()

func comesBack(b *bench, what string) {
	b.T.Helper()
	if _, err := b.run(victim); err != nil {
		b.T.Errorf("%s: the router came back: %v", what, err)
	}
	b.WantRouter(victim, true)
}

func staysLive(b *bench, what string) {
	b.T.Helper()
	if p := b.Find(victim); p == nil || p.LastHandshake.IsZero() {
		b.T.Errorf("%s: a live tunnel was cut", what)
	}
	comesBack(b, what)
}

// Who waits in vain for others is told to come back, and gives back what it may
// get afterwards.
func TestLockHeld(t *testing.T) {
	b := newBench(t)
	first := b.Open()
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := b.Host.Open(ctx, b.Config); outcome.CodeOf(Classify(err)) != outcome.Busy {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	// All ten have given up by now, and none of them keeps the lock.
	b.accept(key(1), policy.Add)
}

func TestUnreadableRunDir(t *testing.T) {
	b := newBench(t)
	b.Host.Dir = filepath.Join(b.Host.Dir, "none")
	if _, err := b.Host.Open(t.Context(), b.Config); !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("got %v", err)
	}
}
