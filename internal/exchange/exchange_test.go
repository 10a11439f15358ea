package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/policy"
	"wgkex/internal/protocol"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func key(n byte) address.Key { return address.Key{31: n} }

// bench is a model kernel and a domain on it.
type bench struct {
	*kerneltest.Devices
	t      *testing.T
	now    time.Time
	host   domain.Host
	config config.Domain
}

func newBench(t *testing.T) *bench {
	b := &bench{
		Devices: &kerneltest.Devices{Number: kernel.Index{WireGuard: 7, VXLAN: 8}, Key: key(99)},
		t:       t,
		config:  config.Domain{Name: "d", WireGuard: "w", VXLAN: "v", MaxPeers: 10, MaxPending: 5},
	}
	b.host = domain.Host{
		Dir:       t.TempDir(),
		Devices:   func(string, string) (kernel.Devices, error) { return b.Devices, nil },
		Now:       func() time.Time { return b.now },
		SinceBoot: func() time.Duration { return b.now.Sub(now) + time.Hour },
	}
	b.now = now
	return b
}

func (b *bench) runOn(devices kernel.Devices, k address.Key) (policy.Action, error) {
	b.t.Helper()
	host := b.host
	host.Devices = func(string, string) (kernel.Devices, error) { return devices, nil }
	d, err := host.Open(b.t.Context(), b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	action, err := Run(d, k)
	if err := d.Close(); err != nil {
		b.t.Error(err)
	}
	return action, err
}

func (b *bench) run(k address.Key) (policy.Action, error) {
	b.t.Helper()
	return b.runOn(b.Devices, k)
}

func (b *bench) accept(k address.Key, want policy.Action) {
	b.t.Helper()
	if action, err := b.run(k); err != nil || action != want {
		b.t.Errorf("%s: got %d, %v, want %d", k, action, err, want)
	}
	b.wantRouter(k, true)
}

func (b *bench) refuse(k address.Key, want protocol.Code) {
	b.t.Helper()
	peers, fdb := fmt.Sprint(b.PeerList), fmt.Sprint(b.FDB)
	if _, err := b.run(k); protocol.CodeOf(err) != want {
		b.t.Errorf("%s: got %v, want %s", k, err, want)
	}
	if fmt.Sprint(b.PeerList) != peers || fmt.Sprint(b.FDB) != fdb {
		b.t.Errorf("%s: a refusal changed\n%s %s into\n%v %v", k, peers, fdb, b.PeerList, b.FDB)
	}
}

// wantRouter checks that the key has a managed peer and both FDB entries, or
// none of them.
func (b *bench) wantRouter(k address.Key, want bool) {
	b.t.Helper()
	mac, addr := b.config.Addresses.Of(k)
	p := b.Find(k)
	peer := p != nil && p.Managed(b.config.Addresses)
	var unicast, flood bool
	for _, e := range b.FDB {
		if e == (kernel.Entry{MAC: mac, Dst: addr, Via: 7, Permanent: true}) {
			unicast = true
		}
		if e == (kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: 7, Permanent: true}) {
			flood = true
		}
	}
	if peer != want || unicast != want || flood != want {
		b.t.Errorf("%s: peer %v, FDB entry %v, flood entry %v, want all %v", k, peer, unicast, flood, want)
	}
}

func (b *bench) handshake(k address.Key, age time.Duration) { b.Find(k).LastHandshake = now.Add(-age) }

func (b *bench) static(k address.Key, prefixes ...string) {
	p := policy.Peer{Key: k}
	for _, s := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(s))
	}
	b.PeerList = append(b.PeerList, p)
}

func TestNewKeysCostNoDump(t *testing.T) {
	b := newBench(t)
	b.accept(key(1), policy.Add)
	if b.Dumps != 1 {
		t.Errorf("%d dumps without a snapshot, want 1", b.Dumps)
	}
	b.accept(key(2), policy.Add)
	b.accept(key(3), policy.Add)
	if b.Dumps != 1 {
		t.Errorf("%d dumps after two more new keys, want still 1", b.Dumps)
	}
	if !b.Closed {
		t.Error("the devices were left open")
	}
}

func TestKnownKey(t *testing.T) {
	b := newBench(t)
	b.accept(key(1), policy.Add)
	b.accept(key(1), policy.Reset)
	b.handshake(key(1), time.Minute)
	b.accept(key(1), policy.Keep)
	if b.Find(key(1)).LastHandshake.IsZero() {
		t.Error("a live tunnel was reset")
	}
	b.FDB = nil // somebody flushed it
	b.accept(key(1), policy.Add)
	if b.Find(key(1)).LastHandshake.IsZero() {
		t.Error("a live tunnel without FDB entries was reset")
	}
	b.handshake(key(1), time.Hour)
	b.accept(key(1), policy.Reset)
	if !b.Find(key(1)).LastHandshake.IsZero() {
		t.Error("a silent peer's handshake was not cleared")
	}
	if len(b.PeerList) != 1 || len(b.FDB) != 2 {
		t.Errorf("%d peers and %d FDB entries, want 1 and 2", len(b.PeerList), len(b.FDB))
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	_, addr4 := b.config.Addresses.Of(key(4))
	mac5, _ := b.config.Addresses.Of(key(5))
	_, addr6 := b.config.Addresses.Of(key(6))
	b.OwnAddrs, b.OwnMAC = []netip.Addr{addr4}, mac5
	b.static(key(50), "fd00::/64")
	b.static(key(51), addr6.String()+"/128")
	for range 2 { // without a snapshot and with one
		b.refuse(key(99), protocol.ProhibitedKey)
		b.refuse(key(50), protocol.ProhibitedKey)
		b.refuse(key(51), protocol.ProhibitedKey)
		b.refuse(key(4), protocol.AddressConflict)
		b.refuse(key(5), protocol.AddressConflict)
		b.refuse(key(6), protocol.AddressConflict)
	}
	b.accept(key(1), policy.Add)
}

// A static peer that was added after the snapshot keeps what it had.
func TestStaticPeerUnknownToSnapshot(t *testing.T) {
	b := newBench(t)
	b.accept(key(1), policy.Add)
	b.static(key(50), "fd00::/64")
	if _, err := b.run(key(50)); err != nil {
		t.Fatal(err)
	}
	if ips := b.Find(key(50)).AllowedIPs; len(ips) != 2 || ips[0].String() != "fd00::/64" {
		t.Errorf("its allowed IPs are %v", ips)
	}
	// And when the exchange fails, undoing it does not remove the peer.
	b = newBench(t)
	b.accept(key(1), policy.Add)
	b.static(key(50), "fd00::/64")
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		if method == "SetEntry" {
			return syscall.ENOBUFS, false
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
	for n := range byte(5) {
		b.accept(key(1+n), policy.Add)
	}
	b.refuse(key(10), protocol.Busy)
	dumps := b.Dumps
	b.refuse(key(10), protocol.Busy)
	if b.Dumps != dumps {
		t.Error("being full cost a dump each time")
	}
	b.handshake(key(1), time.Minute) // which the snapshot does not know
	b.now = b.now.Add(fullFor)
	b.accept(key(10), policy.Add)
	b.refuse(key(11), protocol.Busy)
	for i := range b.PeerList {
		b.PeerList[i].LastHandshake = b.now
	}
	b.now = b.now.Add(fullFor)
	for n := range byte(4) {
		b.accept(key(20+n), policy.Add)
	}
	b.now = b.now.Add(fullFor)
	b.refuse(key(30), protocol.Busy)
	if len(b.PeerList) != 10 {
		t.Errorf("%d peers, want max_peers", len(b.PeerList))
	}
	// A known router comes back whatever the limits.
	b.accept(key(1), policy.Keep)
	b.accept(key(20), policy.Reset)
}

// A full domain makes room at the expense of whoever has been pending longest
// and has had its time.
func TestOverdueMakesRoom(t *testing.T) {
	b := newBench(t)
	for n := range byte(4) {
		b.accept(key(1+n), policy.Add)
	}
	b.accept(key(4), policy.Reset) // and now they are known to be pending
	b.now = b.now.Add(time.Minute)
	b.accept(key(5), policy.Add)
	b.now = b.now.Add(policy.PendingFor - time.Minute - 1)
	b.refuse(key(10), protocol.Busy)
	b.PeerList[1].LastHandshake = b.now // live: it stays, whatever comes
	b.now = b.now.Add(fullFor)
	b.accept(key(6), policy.Add) // key(2) is pending no more
	b.now = b.now.Add(fullFor + 1)
	b.accept(key(10), policy.Replace)
	b.wantRouter(key(1), false)
	b.now = b.now.Add(fullFor)
	b.accept(key(11), policy.Replace)
	b.wantRouter(key(3), false)
	for _, k := range []address.Key{key(2), key(4), key(5), key(6), key(10), key(11)} {
		b.wantRouter(k, true)
	}
}

func TestSnapshotThatLies(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           "",
		"cut":             `{"index":{"wiregu`,
		"not an object":   "[]",
		"hostile key":     `{"index":{"wireguard":7,"vxlan":8},"static":[{"key":"x"}]}`,
		"another device":  `{"index":{"wireguard":6,"vxlan":8},"static":[]}`,
		"VXLAN made anew": `{"index":{"wireguard":7,"vxlan":5},"static":[]}`,
	} {
		b := newBench(t)
		b.static(key(50), "fd00::/64")
		if err := os.WriteFile(filepath.Join(b.host.Dir, "d.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		b.refuse(key(50), protocol.ProhibitedKey)
		if b.Dumps != 1 {
			t.Errorf("%s: %d dumps, want 1", name, b.Dumps)
		}
		b.refuse(key(50), protocol.ProhibitedKey)
		if b.Dumps != 1 {
			t.Errorf("%s: %d dumps, want the new snapshot to be used", name, b.Dumps)
		}
	}
}

func TestVXLANMadeAnewIsMended(t *testing.T) {
	b := newBench(t)
	b.accept(key(1), policy.Add)
	b.accept(key(2), policy.Add)
	b.Number.VXLAN, b.FDB = 9, nil
	b.accept(key(3), policy.Add)
	b.wantRouter(key(1), true)
	b.wantRouter(key(2), true)
}

// Somebody removed all peers, as a restart of systemd-networkd does, and left
// their FDB entries: the routers that come back do not cost a dump each.
func TestPeersGoneEntriesLeft(t *testing.T) {
	b := newBench(t)
	for n := range byte(5) {
		b.accept(key(1+n), policy.Add)
	}
	b.PeerList, b.Dumps = nil, 0
	for n := range byte(5) {
		b.accept(key(1+n), policy.Add)
	}
	if b.Dumps != 1 {
		t.Errorf("%d dumps for five routers, want 1", b.Dumps)
	}
}

func TestMissingInterface(t *testing.T) {
	b := newBench(t)
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(int, string) (error, bool) {
		return fmt.Errorf("interface w: %w", kernel.ErrMissing), false
	}}
	if _, err := b.runOn(faulty, key(1)); protocol.CodeOf(err) != protocol.Busy {
		t.Errorf("got %v", err)
	}
}

// Every step of every kind of exchange fails once, before or after it took
// effect: the router is there whole, as before, or not at all.
func TestEveryStepFails(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*bench)
		key     address.Key
		live    bool // must survive
	}{
		"first key":  {func(*bench) {}, key(1), false},
		"new key":    {func(b *bench) { b.accept(key(2), policy.Add) }, key(1), false},
		"silent key": {func(b *bench) { b.accept(key(1), policy.Add) }, key(1), false},
		"live key": {func(b *bench) {
			b.accept(key(1), policy.Add)
			b.handshake(key(1), time.Minute)
		}, key(1), true},
		"VXLAN made anew": {func(b *bench) {
			b.accept(key(1), policy.Add)
			b.Number.VXLAN, b.FDB = 9, nil
		}, key(1), false},
	} {
		never := func(int, string) (error, bool) { return nil, false }
		b := newBench(t)
		c.prepare(b)
		whole := &kerneltest.Faulty{Devices: b.Devices, Fault: never}
		if _, err := b.runOn(whole, c.key); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(whole.Calls) < 5 {
			t.Errorf("%s: only the steps %v", name, whole.Calls)
		}
		for step := range whole.Calls {
			for _, afterwards := range []bool{false, true} {
				for _, errno := range []syscall.Errno{syscall.ENOBUFS, syscall.EINTR, syscall.EBUSY, syscall.ENODEV} {
					b := newBench(t)
					c.prepare(b)
					mended := len(b.FDB) == 0 && len(b.PeerList) > 0
					faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(n int, _ string) (error, bool) {
						if n == step {
							return errno, afterwards
						}
						return nil, false
					}}
					_, err := b.runOn(faulty, c.key)
					if !strings.Contains(fmt.Sprint(err), errno.Error()) {
						t.Errorf("%s, %s, afterwards %v: got %v, want %v", name, whole.Calls[step], afterwards, err, errno)
					}
					// FDB entries that were missing before may be missing still;
					// the next exchange goes on with them.
					if !mended {
						b.wantRouter(c.key, b.Find(c.key) != nil)
					}
					if c.live && (b.Find(c.key) == nil || b.Find(c.key).LastHandshake.IsZero()) {
						t.Errorf("%s, %s: a live tunnel was cut", name, whole.Calls[step])
					}
					b.accept(c.key, mustAction(b, c.key))
				}
			}
		}
	}
}

// mustAction is what an exchange of the key does now.
func mustAction(b *bench, k address.Key) policy.Action {
	switch p := b.Find(k); {
	case p == nil:
		return policy.Add
	case p.Live(now):
		return policy.Keep
	}
	return policy.Reset
}

// Who waits in vain for others is told to come back.
func TestLockHeld(t *testing.T) {
	b := newBench(t)
	first, err := b.host.Open(t.Context(), b.config)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.host.Open(ctx, b.config); protocol.CodeOf(Classify(err)) != protocol.Busy {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableRunDir(t *testing.T) {
	b := newBench(t)
	b.host.Dir = filepath.Join(b.host.Dir, "none")
	if _, err := b.host.Open(t.Context(), b.config); !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("got %v", err)
	}
}
