package cleanup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

func key(n int) address.Key { return domaintest.Key(n) }

// bench is a gateway on which cleanup runs.
type bench struct {
	*domaintest.Gateway
	removed []address.Key
	warned  []string
	dryRun  bool
	// meanwhile, if not nil, is called in each pause between two batches.
	meanwhile func()
}

func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	b.Config.MaxPeers, b.Config.MaxPending = 1000, 1000
	return b
}

func (b *bench) cleanup() (Report, error) {
	return Cleanup{
		Host: b.Host, Domain: b.Config, LockTimeout: time.Minute,
		StaleAfter: b.Config.StaleAfter, MarkAge: MarkAge, DryRun: b.dryRun,
		Sleep: func(time.Duration) {
			if b.meanwhile != nil {
				b.meanwhile()
			}
		},
		Removed: func(r policy.Record, _ time.Duration) { b.removed = append(b.removed, r.Key) },
		Warn:    func(err error) { b.warned = append(b.warned, err.Error()) },
	}.Run()
}

func (b *bench) run(want Report) {
	b.T.Helper()
	got, err := b.cleanup()
	got.Duration = 0
	if err != nil {
		b.T.Error(err)
	}
	if !b.dryRun {
		b.savedAll(got.Saved)
	}
	got.Saved = 0
	if got != want {
		b.T.Errorf("got %+v, want %+v", got, want)
	}
}

// savedAll checks that so many peers are saved, with all managed ones among them.
func (b *bench) savedAll(n int) {
	b.T.Helper()
	file, err := b.Host.Saved(b.Config.Name)
	if err != nil || len(file.Peers) != n {
		b.T.Errorf("%d peers are saved, not %d: %v", len(file.Peers), n, err)
	}
	for _, p := range b.PeerList {
		if p.Managed(b.Config.Addresses) && !slices.ContainsFunc(file.Peers, func(s policy.Saved) bool { return s.Key == p.Key }) {
			b.T.Errorf("peer %s is not saved", p.Key)
		}
	}
	for _, key := range b.removed {
		if b.Find(key) == nil && slices.ContainsFunc(file.Peers, func(s policy.Saved) bool { return s.Key == key }) {
			b.T.Errorf("peer %s was removed, and is saved", key)
		}
	}
}

// routers adds managed peers that never had a handshake.
func (b *bench) routers(keys ...address.Key) {
	for _, k := range keys {
		b.AddRouter(k)
	}
}

// connected adds managed peers with a handshake now.
func (b *bench) connected(keys ...address.Key) {
	b.routers(keys...)
	for _, k := range keys {
		b.Handshake(k)
	}
}

func TestStalePeersGoInTheSecondRun(t *testing.T) {
	b := newBench(t)
	b.connected(key(2))
	b.Read()
	b.Pass(2 * time.Hour)
	b.connected(key(1))
	b.routers(key(3))
	b.AddStatic(key(4), "fd00::/64")
	b.AddStatic(key(5), "fd00:1::/64", "fd00:2::/64")
	b.run(Report{Seen: 3, Static: 2, Live: 1, Marked: 2})
	b.Pass(time.Second)
	b.run(Report{Seen: 3, Static: 2, Live: 1}) // a second later: nobody
	b.Pass(MarkAge - time.Second - 1)
	b.run(Report{Seen: 3, Static: 2, Live: 1})
	b.Pass(1)
	b.run(Report{Seen: 3, Static: 2, Live: 1, Removed: 2})
	if !slices.Equal(b.removed, []address.Key{key(2), key(3)}) {
		t.Errorf("removed %v", b.removed)
	}
	b.Consistent()
	if got := b.Counts(); got != (policy.Counts{Peers: 1}) {
		t.Errorf("counted %+v", got)
	}
	b.Pass(time.Minute)
	b.run(Report{Seen: 1, Static: 2, Live: 1})
}

// To read the peers takes time, and marks count nevertheless, also those of peers
// that nobody has read before.
func TestMarksOfASlowReading(t *testing.T) {
	b := newBench(t)
	b.routers(key(1))
	takes := 10 * time.Second
	b.Between = func(method string) {
		if method == "Peers" {
			b.Pass(takes)
		}
	}
	b.run(Report{Seen: 1, Marked: 1})
	takes = 0
	b.Pass(MarkAge - 10*time.Second)
	b.run(Report{Seen: 1, Removed: 1})
}

// What could not be put right does not keep the stale, and is reported.
func TestTroubleBeside(t *testing.T) {
	for _, method := range []string{"SetEntries", "RemoveEntries"} {
		b := newBench(t)
		b.connected(key(1))
		b.routers(key(2))
		b.run(Report{Seen: 2, Live: 1, Marked: 1})
		b.FDB = b.FDB[1:] // of key(1)
		_, addr := address.RFC4291.Of(key(9))
		b.FDB = append(b.FDB, kernel.Entry{MAC: mac(key(9)), Dst: addr, Via: 7, Permanent: true})
		b.Pass(MarkAge)
		b.Handshake(key(1))
		trouble := errors.New("trouble")
		calls := 0
		b.Through = func(d kernel.Devices) kernel.Devices {
			return &kerneltest.Faulty{Devices: d, Fault: func(_ int, called string) (error, bool) {
				if called == method {
					if calls++; calls == 1 {
						return trouble, false
					}
				}
				return nil, false
			}}
		}
		r, err := b.cleanup()
		if !errors.Is(err, trouble) || r.Removed != 1 || len(b.PeerList) != 1 || !slices.Equal(b.removed, []address.Key{key(2)}) {
			t.Errorf("%s fails: %v, %+v, removed %v", method, err, r, b.removed)
		}
	}
}

// A batch of which nobody is due any more is not the end of the run, and one that
// cannot be removed is not told to have been.
func TestBatchOfNobody(t *testing.T) {
	const many = 2 * batchSize
	for _, fails := range []bool{false, true} {
		b := newBench(t)
		for n := range many {
			b.routers(key(n + 1))
		}
		b.run(Report{Seen: many, Marked: many})
		b.Pass(MarkAge)
		trouble := errors.New("trouble")
		if fails {
			b.Through = func(d kernel.Devices) kernel.Devices {
				return &kerneltest.Faulty{Devices: d, Fault: func(_ int, called string) (error, bool) {
					if called == "RemovePeers" {
						return trouble, false
					}
					return nil, false
				}}
			}
			if r, err := b.cleanup(); !errors.Is(err, trouble) || r.Removed != 0 || len(b.removed) != 0 || len(b.PeerList) != many {
				t.Errorf("%+v, %v, removed %d", r, err, len(b.removed))
			}
			continue
		}
		b.meanwhile = func() { // all that are left connect
			for _, p := range b.PeerList {
				b.Handshake(p.Key)
			}
			b.Pass(maxReadingAge + 1)
			b.meanwhile = nil
		}
		if r, err := b.cleanup(); err != nil || r.Removed != batchSize || len(b.PeerList) != many-batchSize {
			t.Errorf("%+v, %v, %d are left", r, err, len(b.PeerList))
		}
	}
}

// The age of a reading counts from its beginning, and a reading that takes long
// counts for twice as long.
func TestReadingAge(t *testing.T) {
	at := func(began, ended time.Duration) reading {
		return reading{when: policy.Reading{Began: began, Ended: ended}}
	}
	for _, c := range []struct {
		reading reading
		now     time.Duration
		old     bool
	}{
		{at(10*time.Second, 10*time.Second), 13 * time.Second, false},
		{at(10*time.Second, 10*time.Second), 13*time.Second + 1, true},
		{at(10*time.Second, 11*time.Second), 13*time.Second + 1, true},
		{at(10*time.Second, 15*time.Second), 20 * time.Second, false},
		{at(10*time.Second, 15*time.Second), 20*time.Second + 1, true},
	} {
		if got := c.reading.old(c.now); got != c.old {
			t.Errorf("%+v is old at %s: %v", c.reading.when, c.now, got)
		}
	}
}

func TestStaleAfter(t *testing.T) {
	b := newBench(t)
	b.connected(key(1))
	b.Read()
	b.Pass(time.Hour)
	b.run(Report{Seen: 1, Live: 1})
	b.Pass(1)
	b.run(Report{Seen: 1, Marked: 1})
}

// A handshake takes the mark away, and so does whatever makes the peer anew.
func TestMarksGo(t *testing.T) {
	b := newBench(t)
	b.routers(key(1), key(2), key(3))
	b.run(Report{Seen: 3, Marked: 3})
	b.Pass(MarkAge)
	b.Handshake(key(1))
	// Others reset a peer that had a handshake meanwhile.
	b.Handshake(key(2))
	b.Read()
	b.Find(key(2)).LastHandshake = time.Time{}
	// An exchange resets it.
	b.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		err := d.Reset(key(3), func() (policy.Record, bool, error) { return policy.NewRecord(key(3), 1), true, nil })
		if err != nil {
			t.Error(err)
		}
	})
	b.run(Report{Seen: 3, Live: 1, Unmarked: 1, Marked: 2})
	b.Pass(MarkAge - 1)
	b.run(Report{Seen: 3, Live: 1})
	b.Pass(1)
	b.run(Report{Seen: 3, Live: 1, Removed: 2})
	b.Consistent()
}

// A live router is counted as one that lost its mark.
func TestUnmarked(t *testing.T) {
	b := newBench(t)
	b.connected(key(1))
	b.Read()
	b.Pass(2 * time.Hour)
	b.run(Report{Seen: 1, Marked: 1})
	stale := b.Config.StaleAfter
	b.Config.StaleAfter = 3 * time.Hour
	b.run(Report{Seen: 1, Live: 1, Unmarked: 1})
	b.Config.StaleAfter = stale
	b.run(Report{Seen: 1, Marked: 1})
}

// A peer that was removed and registered again is not held to its old mark,
// even when it is back before the next run.
func TestRemovedAndBack(t *testing.T) {
	b := newBench(t)
	b.routers(key(1))
	b.run(Report{Seen: 1, Marked: 1})
	b.Pass(MarkAge)
	b.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		if gone, err := d.Remove(policy.NewRecord(key(1), 1)); !gone || err != nil {
			t.Fatal(gone, err)
		}
		if err := b.Add(d, key(1)); err != nil {
			t.Fatal(err)
		}
	})
	b.run(Report{Seen: 1, Marked: 1})
	b.Pass(MarkAge)
	b.run(Report{Seen: 1, Removed: 1})
}

func TestRebootForgetsMarks(t *testing.T) {
	b := newBench(t)
	b.routers(key(1))
	b.run(Report{Seen: 1, Marked: 1})
	b.ID = "boot2"
	b.Pass(MarkAge)
	b.run(Report{Seen: 1, Marked: 1})
}

// The wall clock is set: nobody live is removed, and nobody who is gone stays
// longer than stale_after and two runs.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, time.Hour, 10 * time.Minute, -10 * time.Minute, -time.Hour, -24 * time.Hour} {
		for _, handshakeAfter := range []bool{false, true} {
			b := newBench(t)
			b.connected(key(1), key(2))
			if !handshakeAfter {
				b.SetClock(by)
			}
			b.Pass(time.Second)
			b.Handshake(key(1))
			b.Handshake(key(2)) // its last one
			gone := b.Boot
			if handshakeAfter {
				b.SetClock(by)
			}
			for b.Find(key(2)) != nil {
				for range 15 { // the other one is live all the time
					b.Pass(time.Minute)
					b.Handshake(key(1))
				}
				if _, err := b.cleanup(); err != nil {
					t.Fatal(err)
				}
				if b.Find(key(1)) == nil {
					t.Fatalf("by %s: a live router was removed", by)
				}
				if b.Boot-gone > b.Config.StaleAfter+2*15*time.Minute+time.Second {
					t.Fatalf("by %s: a router that has been gone for %s is there", by, b.Boot-gone)
				}
			}
			if b.Boot-gone < b.Config.StaleAfter {
				t.Errorf("by %s: removed after %s", by, b.Boot-gone)
			}
		}
	}
}

// Where the marks cannot be kept, nobody is removed.
func TestStateThatCannotBeWritten(t *testing.T) {
	b := newBench(t)
	b.routers(key(1))
	b.run(Report{Seen: 1, Marked: 1})
	b.Pass(MarkAge)
	// As with a full disk: nothing can be created.
	if err := os.Mkdir(filepath.Join(b.Host.Dir, ".d.state.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.Host.Dir, ".d.state.new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err := b.cleanup(); err == nil || r.Removed > 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	b.WantRouter(key(1), true)
	if err := os.RemoveAll(filepath.Join(b.Host.Dir, ".d.state.new")); err != nil {
		t.Fatal(err)
	}
	b.run(Report{Seen: 1, Removed: 1})
}

// A domain that others hold does not keep a run for ever.
func TestLockHeld(t *testing.T) {
	b := newBench(t)
	d := b.Open()
	defer d.Close()
	c := Cleanup{Host: b.Host, Domain: b.Config, LockTimeout: 10 * time.Millisecond}
	if _, err := c.Run(); err == nil {
		t.Error("no error")
	}
}

// mac is of a key in the benches' profile.
func mac(k address.Key) address.MAC {
	m, _ := address.RFC4291.Of(k)
	return m
}

func TestRepair(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2), key(3))
	_, gone := address.RFC4291.Of(key(4))
	b.AddStatic(key(5), "fd00::/64")
	_, static := address.RFC4291.Of(key(5))
	b.AddStatic(key(6), "fe80::99/128")
	_, remote := address.RFC4291.Of(key(7)) // a gateway that is no peer yet
	b.RemoteIP = remote
	learned := address.MAC{0x52, 1}
	_, claimed := address.RFC4291.Of(key(8))
	b.AddStatic(key(8<<8), claimed.String()+"/128", "fd00:8::/64")
	_, addr3 := address.RFC4291.Of(key(3))
	foreign := []kernel.Entry{
		{MAC: kernel.Flood, Dst: static, Via: 7, Permanent: true},                          // of a static peer
		{MAC: kernel.Flood, Dst: netip.MustParseAddr("fe80::99"), Via: 7, Permanent: true}, // likewise
		{MAC: kernel.Flood, Dst: netip.MustParseAddr("fd00::1"), Permanent: true},          // an admin's own
		{MAC: kernel.Flood, Dst: remote, Permanent: true},                                  // the interface's default
		{MAC: kernel.Flood, Dst: claimed, Via: 7, Permanent: true},                         // of a static peer that has a router's address
		{MAC: learned, Dst: gone, Via: 7},                                                  // behind a router
	}
	_, addr2 := address.RFC4291.Of(key(2))
	b.FDB = slices.DeleteFunc(b.FDB, func(e kernel.Entry) bool {
		return e.MAC == mac(key(1)) || e.MAC == kernel.Flood && e.Dst == addr2
	})
	b.FDB = append(b.FDB, foreign...)
	b.FDB = append(b.FDB,
		kernel.Entry{MAC: kernel.Flood, Dst: gone, Via: 7, Permanent: true},
		kernel.Entry{MAC: mac(key(4)), Dst: gone, Via: 7, Permanent: true},
		kernel.Entry{MAC: mac(key(4)), Dst: gone, Via: 3, Permanent: true},   // of a device that is no more
		kernel.Entry{MAC: kernel.Flood, Dst: addr3, Via: 3, Permanent: true}) // likewise, of a peer that is there
	before := b.Whole()
	b.dryRun = true
	b.run(Report{Seen: 3, Static: 3, Live: 3, Repaired: 2, Orphans: 4})
	if b.Whole() != before {
		t.Error("a dry run changed the kernel")
	}
	b.dryRun = false
	b.run(Report{Seen: 3, Static: 3, Live: 3, Repaired: 2, Orphans: 4})
	for _, e := range foreign {
		if !slices.Contains(b.FDB, e) {
			t.Errorf("%+v was removed", e)
		}
	}
	b.FDB = slices.DeleteFunc(b.FDB, func(e kernel.Entry) bool { return slices.Contains(foreign, e) })
	b.Consistent()
}

// Peers of another profile, and those that lost their address, get it back,
// unless somebody else has it.
func TestLeftOver(t *testing.T) {
	b := newBench(t)
	mac1, other := address.FFMUC.Of(key(1))
	b.AddLeftOver(key(1), other.String()+"/128")
	b.FDB = append(b.FDB, kernel.Entry{MAC: mac1, Dst: other, Via: 7, Permanent: true}, kernel.Entry{MAC: kernel.Flood, Dst: other, Via: 7, Permanent: true})
	b.AddLeftOver(key(2))
	_, taken := address.RFC4291.Of(key(3))
	b.AddLeftOver(key(3))
	b.AddStatic(key(4), taken.String()+"/128", "fd00::1/128")
	_, gateways := address.RFC4291.Of(key(5))
	b.AddLeftOver(key(5))
	// Others may look the same, and are not ours.
	_, elsewhere := address.FFMUC.Of(key(6))
	b.AddStatic(key(6), elsewhere.String()+"/128")
	b.AddStatic(key(7))
	before := fmt.Sprint(*b.Find(key(6)), *b.Find(key(7)))
	b.OwnAddrs = []netip.Addr{gateways}
	b.Handshake(key(1))
	b.dryRun = true
	b.run(Report{LeftOver: 4, Static: 3})
	b.dryRun = false
	b.run(Report{LeftOver: 4, Readdressed: 2, Static: 3})
	b.WantRouter(key(1), true)
	b.WantRouter(key(2), true)
	if b.Find(key(1)).LastHandshake.IsZero() {
		t.Error("a tunnel was cut")
	}
	b.run(Report{Seen: 2, LeftOver: 2, Static: 3, Live: 1, Marked: 1})
	if after := fmt.Sprint(*b.Find(key(6)), *b.Find(key(7))); after != before {
		t.Errorf("an admin's peers %s became %s", before, after)
	}
	if slices.ContainsFunc(b.FDB, func(e kernel.Entry) bool { return e.Dst == other }) {
		t.Errorf("entries for the old address are left: %v", b.FDB)
	}
}

// A VXLAN interface made anew gets all entries back in one run.
func TestVXLANMadeAnew(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2))
	b.Read()
	b.Number.VXLAN, b.FDB = 9, nil
	b.run(Report{Seen: 2, Live: 2, Repaired: 2})
	b.Consistent()
}

func TestDryRun(t *testing.T) {
	b := newBench(t)
	b.routers(key(1))
	b.run(Report{Seen: 1, Marked: 1})
	b.Pass(MarkAge)
	state := filepath.Join(b.Host.Dir, "d.state")
	before, _ := os.ReadFile(state)
	b.dryRun = true
	b.run(Report{Seen: 1, Removed: 1})
	b.WantRouter(key(1), true)
	if after, _ := os.ReadFile(state); string(after) != string(before) {
		t.Error("a dry run wrote the state")
	}
}

// Many peers go in many batches, between which the domain is free. Who is
// registered anew meanwhile stays, and who connects, if the reading has grown
// old.
func TestBatches(t *testing.T) {
	const many = 3*batchSize + 7
	last := key(many)
	for name, c := range map[string]struct {
		meanwhile func(*bench)
		removed   int
		dumps     int
		// behind is what is counted too much until the next run: of what changed
		// after the run read all peers.
		behind policy.Counts
	}{
		"nothing": {func(*bench) {}, many, 1, policy.Counts{}},
		"an exchange of the last": {func(b *bench) {
			b.Use(func(d *domain.Domain) {
				_, err := d.State()
				if err == nil {
					_, err = d.Remove(policy.NewRecord(last, 1))
				}
				if err = errors.Join(err, b.Add(d, last)); err != nil {
					t.Error(err)
				}
			})
		}, many - 1, 1, policy.Counts{}},
		"a handshake, time": {func(b *bench) {
			b.Handshake(last)
			b.Pass(maxReadingAge + 1)
		}, many - 1, 2, policy.Counts{Pending: 1}},
		"time":         {func(b *bench) { b.Pass(maxReadingAge + 1) }, many, 2, policy.Counts{}},
		"not too much": {func(b *bench) { b.Pass(maxReadingAge) }, many, 1, policy.Counts{}},
		"somebody removed it": {func(b *bench) {
			b.PeerList = slices.DeleteFunc(b.PeerList, func(p policy.Peer) bool { return p.Key == last })
			b.Read()
		}, many - 1, 2, policy.Counts{}},
		"it became static": {func(b *bench) {
			p := b.Find(last)
			p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix("fd00::/64"))
			b.Read()
		}, many - 1, 2, policy.Counts{}},
		"the VXLAN interface is made anew":     {func(b *bench) { b.Number.VXLAN++ }, many, 2, policy.Counts{}},
		"the WireGuard interface is made anew": {func(b *bench) { b.Number.WireGuard++ }, batchSize, 3, policy.Counts{}},
		"the state is gone": {func(b *bench) {
			if err := os.Remove(filepath.Join(b.Host.Dir, "d.state")); err != nil {
				t.Error(err)
			}
		}, batchSize, 2, policy.Counts{}},
		"it became static, time": {func(b *bench) {
			p := b.Find(last)
			p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix("fd00::/64"))
			b.Pass(maxReadingAge + 1)
		}, many - 1, 2, policy.Counts{Peers: 1, Pending: 1}},
	} {
		b := newBench(t)
		for n := range many {
			b.AddRouter(key(n + 1))
		}
		b.run(Report{Seen: many, Marked: many})
		b.Pass(MarkAge)
		pauses := 0
		b.meanwhile = func() {
			if pauses++; pauses == 1 {
				c.meanwhile(b) // which may need the domain's lock
			}
		}
		b.Dumps = 0
		r, err := b.cleanup()
		if err != nil || r.Removed != c.removed {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if pauses < many/batchSize {
			t.Errorf("%s: %d pauses between the batches", name, pauses)
		}
		if b.Dumps != c.dumps {
			t.Errorf("%s: %d readings", name, b.Dumps)
		}
		if b.Find(last) == nil && name != "somebody removed it" && c.removed < many {
			t.Errorf("%s: the last was removed", name)
		}
		counted := b.Counts()
		b.Read()
		now := b.Counts()
		now.Peers, now.Pending = now.Peers+c.behind.Peers, now.Pending+c.behind.Pending
		if counted != now {
			t.Errorf("%s: counted %+v, not %+v", name, counted, now)
		}
	}
}

// Every call fails once, before or after it took effect, or the process is
// killed there: the next run finishes the work.
func TestEveryStepFails(t *testing.T) {
	prepare := func() *bench {
		b := newBench(t)
		b.connected(key(1))
		b.routers(key(2), key(3), key(4))
		b.AddLeftOver(key(5)) // has lost its address
		b.run(Report{Seen: 4, Live: 1, Marked: 3, LeftOver: 1, Readdressed: 1})
		b.FDB = b.FDB[1:] // of key(1)
		_, addr := address.RFC4291.Of(key(9))
		b.FDB = append(b.FDB, kernel.Entry{MAC: mac(key(9)), Dst: addr, Via: 7, Permanent: true})
		b.Pass(MarkAge)
		b.Handshake(key(1))
		b.Handshake(key(5))
		return b
	}
	prepare().run(Report{Seen: 5, Live: 2, Removed: 3, Repaired: 1, Orphans: 1})
	cleanup := func(b *bench) error { _, err := b.cleanup(); return err }
	domaintest.EveryStep(t, prepare, cleanup, func(b *bench, step domaintest.Step, err error) {
		// A removal is done again.
		if failed := step.How != "kill" && step.Method != "RemovePeers"; errors.Is(err, syscall.ENOBUFS) != failed {
			t.Errorf("%s: %v", step, err)
		}
		for _, p := range b.PeerList {
			if p.Key != key(1) && !slices.ContainsFunc(b.FDB, func(e kernel.Entry) bool { return e.MAC == mac(p.Key) }) {
				t.Errorf("%s: peer %s is left without its FDB entry", step, p.Key)
			}
		}
		for range 2 { // entries of a peer that is gone are the run's after it
			if err := cleanup(b); err != nil {
				t.Errorf("%s: the next run: %v", step, err)
			}
		}
		if len(b.PeerList) != 2 {
			t.Errorf("%s: the next run left %d peers", step, len(b.PeerList))
		}
		b.Consistent()
	})
}

// Others change peers and interrupt the reading at any time: no living router
// loses anything.
func TestOthersMeanwhile(t *testing.T) {
	b := newBench(t)
	for n := range 50 {
		b.connected(key(n))
	}
	n := 100
	b.Between = func(string) {
		n++
		b.AddStatic(key(n))
		b.PeerList = slices.DeleteFunc(b.PeerList, func(p policy.Peer) bool { return p.Key == key(n-3) })
	}
	for range 5 {
		b.Interrupt = 3
		if _, err := b.cleanup(); err != nil {
			t.Error(err)
		}
		b.Pass(time.Minute)
	}
	b.Interrupt = 1000
	if _, err := b.cleanup(); !errors.Is(err, kernel.ErrInterrupted) {
		t.Errorf("a reading that is always interrupted: %v", err)
	}
	b.Between, b.Interrupt = nil, 0
	for n := range 50 {
		b.WantRouter(key(n), true)
	}
}

// Each run adds how far the counters are. A file that is no history is replaced, and one
// that cannot be is a warning, not a failure of the run.
func TestHistory(t *testing.T) {
	b := newBench(t)
	path := counters.HistoryPath(b.Host.Dir, "d")
	count := func() {
		c, err := counters.Open(counters.Path(b.Host.Dir, "d"))
		if err != nil {
			t.Fatal(err)
		}
		c.Count(outcome.TCP, outcome.OK)
		c.Count(outcome.HTTP, outcome.OK)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	kept := func(want string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil || string(text) != want {
			t.Errorf("got %q, %v, want %q", text, err, want)
		}
	}
	b.dryRun = true
	b.run(Report{})
	if _, err := os.Stat(path); err == nil {
		t.Error("a dry run keeps something")
	}
	b.dryRun = false
	b.run(Report{})
	kept("wgkex-history 1\n86400\n")
	b.Pass(15 * time.Minute)
	count()
	b.run(Report{})
	kept("wgkex-history 1\n86400\n87300 OK 2\n")
	for name, spoil := range map[string]func() error{
		"cut":    func() error { return os.WriteFile(path, []byte("wgkex-history 1\n864"), 0o640) },
		"a FIFO": func() error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		b.run(Report{})
		t.Log(name)
		kept("wgkex-history 1\n87300 OK 2\n")
	}
	if len(b.warned) != 0 {
		t.Errorf("warned %q", b.warned)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	b.run(Report{})
	if len(b.warned) != 1 || !strings.HasPrefix(b.warned[0], "history of the counters: ") {
		t.Errorf("warned %q", b.warned)
	}
	if err := os.WriteFile(counters.Path(b.Host.Dir, "d"), []byte("of another kind"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.run(Report{})
	if len(b.warned) != 2 {
		t.Errorf("warned %q", b.warned)
	}
}
