package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/exchange"
	"wgkex/internal/kernel"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/saved"
)

func key(n int) address.Key { return domaintest.Key(n) }

type bench struct {
	*domaintest.Gateway
	prohibited []address.Key
	refused    map[address.Key]outcome.Code
	// meanwhile, if not nil, is called in each pause between two batches.
	meanwhile func()
	again     func()
}

func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	b.Config.MaxPeers, b.Config.MaxPending = 2000, 5
	return b
}

func (b *bench) restore() (Report, error) {
	b.refused = map[address.Key]outcome.Code{}
	report, err := Restore{
		Host: b.Host, Domain: b.Config, LockTimeout: time.Minute,
		Prohibited: func(k address.Key) bool { return slices.Contains(b.prohibited, k) },
		Sleep: func(time.Duration) {
			if b.meanwhile != nil {
				b.meanwhile()
			}
		},
		Refused: func(k address.Key, err error) { b.refused[k] = outcome.CodeOf(err) },
	}.Run(b.T.Context())
	report.Duration, report.SavedAt = 0, time.Time{}
	return report, err
}

// run restores and checks what it did.
func (b *bench) run(want Report) {
	b.T.Helper()
	got, err := b.restore()
	if err != nil {
		b.T.Error(err)
	}
	if got != want {
		b.T.Errorf("got %+v, want %+v", got, want)
	}
}

// connected adds managed peers with a handshake now.
func (b *bench) connected(keys ...address.Key) {
	for _, k := range keys {
		b.AddRouter(k)
		b.Handshake(k)
	}
}

func (b *bench) save(want int) {
	b.T.Helper()
	if n, err := Save(b.T.Context(), b.Host, b.Config, time.Minute); err != nil || n != want {
		b.T.Errorf("%d saved, not %d: %v", n, want, err)
	}
}

// reboot is one that takes the given time. The wall clock goes on.
func (b *bench) reboot(off time.Duration) {
	b.Wall = b.Wall.Add(off)
	b.Boot = 20 * time.Second
	b.ID += "'"
	b.lose()
	entries, err := os.ReadDir(b.Host.Dir)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, e := range entries { // it is in /run
		if err := os.Remove(filepath.Join(b.Host.Dir, e.Name())); err != nil {
			b.T.Fatal(err)
		}
	}
}

// lose makes both interfaces anew.
func (b *bench) lose() {
	b.Number.WireGuard += 10
	b.Number.VXLAN += 10
	b.PeerList, b.FDB = nil, nil
}

func (b *bench) write(f saved.File) {
	b.T.Helper()
	if err := os.WriteFile(b.path(), f.Text(), 0o600); err != nil {
		b.T.Fatal(err)
	}
}

func (b *bench) path() string { return filepath.Join(b.Host.SavedDir, "d.peers") }

// The clock of a container is the machine's, and goes on while the container reboots.
func TestContainerReboots(t *testing.T) {
	b := newBench(t)
	b.connected(key(1))
	b.AddRouter(key(2)) // pending
	b.save(2)
	before := b.Boot
	b.reboot(3 * time.Hour)
	b.Booted += before + 3*time.Hour
	b.Boot += b.Booted
	b.run(Report{Saved: 2, Restored: 2})
	b.Consistent()
}

func TestReboot(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2), key(3))
	b.AddRouter(key(4)) // pending
	b.AddStatic(key(5), "fd00::/64")
	b.save(4)
	b.reboot(3 * time.Hour)
	b.AddStatic(key(5), "fd00::/64")
	b.run(Report{Saved: 4, Restored: 4})
	for n := 1; n <= 4; n++ {
		b.WantRouter(key(n), true)
	}
	b.Consistent()
	// Those that had a handshake are no strangers.
	if got := b.Counts(); got != (policy.Counts{Peers: 4, Pending: 1}) {
		t.Errorf("counted %+v", got)
	}
	b.run(Report{Saved: 4, There: 4})
	b.Use(func(d *domain.Domain) {
		state, err := d.State()
		if err != nil || state.RestoredAt != b.Boot || state.RestoredPeers != 4 {
			t.Errorf("state %+v, %v", state, err)
		}
	})
}

// Restored peers do not fill up a domain for routers that are new, until their
// time is over.
func TestNoStranger(t *testing.T) {
	b := newBench(t)
	b.Config.MaxPending = 2
	for n := range 10 {
		b.connected(key(n))
	}
	b.save(10)
	b.reboot(0)
	b.run(Report{Saved: 10, Restored: 10})
	exchangeOf := func(n int) outcome.Code {
		d := b.Open()
		defer d.Close()
		return outcome.CodeOf(exchange.Run(d, key(n))[0].Err)
	}
	if code := exchangeOf(100); code != outcome.OK {
		t.Errorf("a new router: %s", code)
	}
	// One is back, the others are not.
	b.Handshake(key(0))
	b.Read()
	if got := b.Counts(); got != (policy.Counts{Peers: 11, Pending: 1}) {
		t.Errorf("counted %+v", got)
	}
	// A newcomer takes nobody's place.
	b.Config.MaxPeers = 11
	b.Pass(policy.PendingFor - time.Second)
	if code := exchangeOf(101); code != outcome.Busy {
		t.Errorf("a new router in a full domain: %s", code)
	}
	for n := range 10 {
		b.WantRouter(key(n), true)
	}
	// Now they are pending like others, without anybody having read the peers.
	b.Pass(time.Second)
	b.Config.MaxPeers = 100
	if code := exchangeOf(102); code != outcome.OK {
		t.Errorf("a new router when the time is over: %s", code)
	}
	if got := b.Counts(); got != (policy.Counts{Peers: 11, Pending: 10}) {
		t.Errorf("counted %+v", got)
	}
}

// However often the gateway reboots, who is silent goes after the same time as
// without. The time while it is off does not count.
func TestSilenceGoesOn(t *testing.T) {
	b := newBench(t)
	b.connected(key(1))
	b.AddRouter(key(2)) // never connects
	b.save(2)
	up := time.Duration(0)
	for there := true; there; {
		b.Pass(10*time.Minute - 20*time.Second)
		up += 10 * time.Minute
		if _, err := Save(t.Context(), b.Host, b.Config, time.Minute); err != nil {
			t.Fatal(err)
		}
		b.reboot(5 * time.Hour)
		if _, err := b.restore(); err != nil {
			t.Fatal(err)
		}
		there = b.Find(key(1)) != nil
		if want := up <= b.Config.StaleAfter+policy.PendingFor; there != want {
			t.Fatalf("after %s: there %v", up, there)
		}
		if want := up <= 2*policy.PendingFor; (b.Find(key(2)) != nil) != want {
			t.Errorf("the pending one after %s: %v", up, !want)
		}
	}
	if up < b.Config.StaleAfter {
		t.Errorf("gone after %s", up)
	}
}

// The wall clock of another boot says nothing.
func TestClockOfAnotherBoot(t *testing.T) {
	for _, by := range []time.Duration{-50 * 365 * 24 * time.Hour, -time.Hour, 24 * time.Hour, 50 * 365 * 24 * time.Hour} {
		b := newBench(t)
		b.connected(key(1))
		b.AddRouter(key(2))
		b.save(2)
		b.reboot(by)
		b.run(Report{Saved: 2, Restored: 2})
	}
}

// What the rules of an exchange refuse is not restored, and nobody else loses
// anything.
func TestRules(t *testing.T) {
	b := newBench(t)
	for n := range 10 {
		b.connected(key(n))
	}
	b.save(10)
	b.reboot(0)
	addr := func(n int) string {
		_, a := b.Config.Addresses.Of(key(n))
		return a.String() + "/128"
	}
	b.AddStatic(key(0), "fd00::/64")              // its key
	b.AddStatic(key(100), addr(1), "fd00:1::/64") // its address
	b.AddStatic(key(2), addr(2), "fd00:2::/64")   // both
	b.AddStatic(key(101), "fd00:3::/64")          // neither
	b.AddRouter(key(3))                           // is there
	b.prohibited = []address.Key{key(4)}          // prohibited since
	b.Devices.Key = key(5)                        // the gateway's own
	_, own := b.Config.Addresses.Of(key(6))       //
	b.OwnAddrs = append(b.OwnAddrs, own)          // its address
	b.OwnMAC, _ = b.Config.Addresses.Of(key(7))   // its MAC
	before := len(b.PeerList)
	static := fmt.Sprint(b.PeerList)
	b.run(Report{Saved: 10, Restored: 2, There: 1, Refused: 7})
	if got := fmt.Sprint(b.PeerList[:before]); got != static {
		t.Errorf("those that were there are\n%s, were\n%s", got, static)
	}
	want := map[address.Key]outcome.Code{
		key(0): outcome.ProhibitedKey, key(1): outcome.AddressConflict, key(2): outcome.ProhibitedKey,
		key(4): outcome.ProhibitedKey, key(5): outcome.ProhibitedKey, key(6): outcome.AddressConflict, key(7): outcome.AddressConflict,
	}
	for k, code := range want {
		if b.refused[k] != code {
			t.Errorf("%s: %q, want %s", k, b.refused[k], code)
		}
	}
	for _, n := range []int{3, 8, 9} {
		b.WantRouter(key(n), true)
	}
	b.Consistent()
}

// Limits are those of exchanges, and there is room for who was heard of last.
func TestLimits(t *testing.T) {
	b := newBench(t)
	for n := range 8 {
		b.connected(key(n))
		b.Pass(time.Second)
	}
	for n := range 8 {
		b.AddRouter(key(10 + n)) // pending
		b.Read()
		b.Pass(time.Second)
	}
	b.save(16)
	b.reboot(0)
	b.Config.MaxPeers, b.Config.MaxPending = 11, 2
	b.run(Report{Saved: 16, Restored: 10, Refused: 6})
	for n := range 8 {
		b.WantRouter(key(n), true)
		b.WantRouter(key(10+n), n >= 6)
	}
	b.reboot(0)
	b.Config.MaxPeers = 3
	b.run(Report{Saved: 16, Restored: 3, Refused: 13})
	for n := range 8 {
		b.WantRouter(key(n), n >= 5)
	}
}

// What somebody else has written is restored as far as it is certain, or not.
func TestFiles(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2))
	b.save(2)
	good, err := os.ReadFile(b.path())
	if err != nil {
		t.Fatal(err)
	}
	line := key(1).String() + " handshake 2026-11-22T12:00:00Z\n"
	write := func(text string) func() error {
		return func() error { return os.WriteFile(b.path(), []byte(text), 0o600) }
	}
	for what, c := range map[string]struct {
		make     func() error
		restored int
		damaged  bool
		err      bool
	}{
		"no file":           {func() error { return nil }, 0, false, false},
		"as it was":         {write(string(good)), 2, false, false},
		"cut":               {write(string(good[:len(good)-5])), 1, true, false},
		"keys twice":        {write(string(good) + line + line), 2, true, false},
		"escapes":           {write(string(good) + "\x1b[2J\n"), 2, true, false},
		"another domain":    {write(strings.Replace(string(good), "domain d", "domain e", 1)), 0, false, true},
		"another profile":   {write(strings.Replace(string(good), "rfc4291", "ffmuc", 1)), 0, false, true},
		"empty":             {write(""), 0, false, true},
		"a FIFO":            {func() error { return syscall.Mkfifo(b.path(), 0o600) }, 0, false, true},
		"a symbolic link":   {func() error { return os.Symlink("/etc/passwd", b.path()) }, 0, false, true},
		"a link to nowhere": {func() error { return os.Symlink("nowhere", b.path()) }, 0, false, true},
		"a directory":       {func() error { return os.Mkdir(b.path(), 0o700) }, 0, false, true},
	} {
		b.lose()
		b.connected(key(7))
		if err := errors.Join(os.RemoveAll(b.path()), c.make()); err != nil {
			t.Fatal(err)
		}
		report, err := b.restore()
		if (err != nil) != c.err || (report.Damage != nil) != c.damaged || report.Restored != c.restored {
			t.Errorf("%s: %+v, %v", what, report, err)
		}
		b.WantRouter(key(7), true)
		b.Consistent()
	}
}

// Exchanges go on between the batches, which restore many.
func TestBatches(t *testing.T) {
	b := newBench(t)
	const many = 3*batchSize + 5
	for n := range many {
		b.connected(key(n))
	}
	b.save(many)
	b.reboot(0)
	pauses := 0
	b.meanwhile = func() {
		pauses++
		b.Use(func(d *domain.Domain) {
			for _, n := range []int{5000 + pauses, many - 1} {
				if err := exchange.Run(d, key(n))[0].Err; err != nil {
					t.Error(err)
				}
			}
		})
	}
	b.run(Report{Saved: many, Restored: many - 1, There: 1})
	if pauses != 3 || len(b.PeerList) != many+3 {
		t.Errorf("%d pauses, %d peers", pauses, len(b.PeerList))
	}
	b.Consistent()
	if got := b.Counts(); got != (policy.Counts{Peers: many + 3, Pending: 4}) {
		t.Errorf("counted %+v", got)
	}
}

// Who is removed while others are restored does not come back.
func TestRemovedMeanwhile(t *testing.T) {
	b := newBench(t)
	const many = 2*batchSize + 5
	for n := range many {
		b.connected(key(n))
		b.Pass(time.Second) // the first is the last to be restored
	}
	b.save(many)
	b.reboot(0)
	b.meanwhile = func() {
		if errs, err := Remove(t.Context(), b.Host, b.Config, time.Minute, []address.Key{key(0), key(many - 1)}); err != nil || errs[0] != nil {
			t.Errorf("%v, %v", errs, err)
		}
		b.meanwhile = func() { b.save(many - 2) } // which keeps the others
	}
	b.run(Report{Saved: many, Gone: 1, Restored: many - 1})
	b.WantRouter(key(0), false)
	b.WantRouter(key(many-1), false)
	if len(b.PeerList) != many-2 {
		t.Errorf("%d peers", len(b.PeerList))
	}
}

// Interfaces that are made anew in the middle get all peers.
func TestMadeAnewMeanwhile(t *testing.T) {
	b := newBench(t)
	const many = 2*batchSize + 5
	for n := range many {
		b.connected(key(n))
	}
	b.save(many)
	b.reboot(0)
	times := 0
	b.meanwhile = func() {
		if times++; times == 2 {
			b.lose()
		}
	}
	b.run(Report{Saved: many, Restored: many})
	if len(b.PeerList) != many {
		t.Errorf("%d peers", len(b.PeerList))
	}
	b.Consistent()
}

// Every call fails once, before or after it took effect, or the process is
// killed there: another run ends the work.
func TestEveryStepFails(t *testing.T) {
	prepare := func() *bench {
		b := newBench(t)
		b.connected(key(1), key(2), key(3))
		b.save(3)
		b.reboot(0)
		b.AddStatic(key(9), "fd00::/64")
		return b
	}
	prepare().run(Report{Saved: 3, Restored: 3})
	restore := func(b *bench) error { _, err := b.restore(); return err }
	domaintest.EveryStep(t, prepare, restore, func(b *bench, step domaintest.Step, _ error) {
		for _, p := range b.PeerList {
			if p.Managed(b.Config.Addresses) {
				b.WantRouter(p.Key, true)
			}
		}
		b.Use(func(d *domain.Domain) {
			if state, err := d.State(); err != nil || state != nil && state.Counts.Peers < len(b.PeerList)-1 {
				t.Errorf("%s: counted %+v of %d, %v", step, state.Counts, len(b.PeerList)-1, err)
			}
		})
		if err := restore(b); err != nil {
			t.Errorf("%s: the next run: %v", step, err)
		}
		for n := 1; n <= 3; n++ {
			b.WantRouter(key(n), true)
		}
		b.Consistent()
	})
}

// A save before the restore, as by a cleanup that is faster, or after somebody
// has written WireGuard's configuration anew, loses nobody.
func TestSaveBeforeRestore(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2))
	b.save(2)
	b.reboot(0)
	b.connected(key(3))
	b.save(3)
	b.run(Report{Saved: 3, Restored: 2, There: 1})
	// The file is one of another domain now: what it holds is not carried on.
	b.write(saved.File{Domain: "e", Saved: b.Wall, Peers: []policy.Saved{{Key: key(50)}}})
	b.save(3)
	// Whom nobody has heard of for too long leaves the file at last.
	b.PeerList = nil
	b.Pass(b.Config.StaleAfter)
	b.save(3)
	b.Pass(policy.PendingFor + time.Second)
	b.save(0)
}

// What an admin removes does not come back.
func TestRemove(t *testing.T) {
	b := newBench(t)
	b.connected(key(1), key(2), key(3))
	b.AddStatic(key(4), "fd00::/64")
	b.save(3)
	remove := func(keys ...address.Key) []error {
		t.Helper()
		errs, err := Remove(t.Context(), b.Host, b.Config, time.Minute, keys)
		if err != nil {
			t.Fatal(err)
		}
		return errs
	}
	errs := remove(key(1), key(4), key(99))
	if errs[0] != nil || !errors.Is(errs[1], ErrStatic) || !errors.Is(errs[2], ErrUnknown) {
		t.Errorf("errors %v", errs)
	}
	b.WantRouter(key(1), false)
	b.Consistent()
	if got := b.Counts(); got.Peers != 2 {
		t.Errorf("counted %+v", got)
	}
	b.save(2)
	b.reboot(0)
	// One that is only saved is removed from there.
	if errs := remove(key(2)); errs[0] != nil {
		t.Error(errs[0])
	}
	b.run(Report{Saved: 1, Restored: 1})
	b.WantRouter(key(1), false)
	b.WantRouter(key(2), false)
	b.WantRouter(key(3), true)
}

// A full disk costs nothing that was saved.
func TestSaveFails(t *testing.T) {
	b := newBench(t)
	b.connected(key(1))
	b.save(1)
	before, _ := os.ReadFile(b.path())
	b.connected(key(2))
	// Nothing can be created.
	if err := os.MkdirAll(filepath.Join(b.Host.SavedDir, ".d.peers.new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(t.Context(), b.Host, b.Config, time.Minute); err == nil {
		t.Error("no error")
	}
	if after, _ := os.ReadFile(b.path()); string(after) != string(before) {
		t.Errorf("saved is now %q", after)
	}
}

func TestAttend(t *testing.T) {
	never := errors.New("never")
	for what, c := range map[string]struct {
		ready []error // of one look after the other, the last for ever
		// meanwhile is done in each pause after a run.
		meanwhile func(*bench)
		err       error
		restored  int // there in the end
		told      int // runs
		waited    time.Duration
	}{
		"ready":              {[]error{nil}, nil, nil, 2, 1, SettleFor},
		"later":              {[]error{kernel.ErrMissing, fmt.Errorf("x is %w", kernel.ErrDown), nil}, nil, nil, 2, 1, 2*waitPause + SettleFor},
		"not in time":        {[]error{kernel.ErrDown}, nil, ErrNotReady, 0, 0, WaitFor},
		"never":              {[]error{never}, nil, never, 0, 0, 0},
		"set up once more":   {[]error{nil}, func(b *bench) { b.PeerList = nil }, nil, 2, 2, 2 * SettleFor},
		"set up for ever":    {[]error{nil}, func(b *bench) { b.PeerList = nil; b.meanwhile = b.again }, nil, 2, maxRuns, (maxRuns - 1) * SettleFor},
		"gone in the middle": {[]error{nil, kernel.ErrMissing, nil}, nil, nil, 2, 1, waitPause + SettleFor},
	} {
		b := newBench(t)
		b.connected(key(1), key(2))
		b.save(2)
		b.reboot(0)
		if what == "gone in the middle" {
			b.Faults(func(_ int, method string) (error, bool) {
				if method == "SetEntries" {
					b.Through = nil
					return kernel.ErrMissing, false
				}
				return nil, false
			})
		}
		var waited time.Duration
		told := 0
		b.again = func() { b.PeerList = nil }
		b.meanwhile = nil
		if c.meanwhile != nil {
			b.meanwhile = func() { b.meanwhile = nil; c.meanwhile(b) }
		}
		looks := c.ready
		err := Restore{
			Host: b.Host, Domain: b.Config, LockTimeout: time.Minute, Prohibited: func(address.Key) bool { return false },
			Sleep: func(d time.Duration) {
				waited += d
				if d == SettleFor && b.meanwhile != nil {
					b.meanwhile()
				}
			},
		}.Attend(t.Context(), func() error {
			err := looks[0]
			if len(looks) > 1 {
				looks = looks[1:]
			}
			return err
		}, func(Report, error) { told++ })
		if !errors.Is(err, c.err) || told != c.told || len(b.PeerList) != c.restored || waited < c.waited || waited > c.waited+waitPause {
			t.Errorf("%s: %v, told %d, %d peers, waited %s", what, err, told, len(b.PeerList), waited)
		}
	}
	// Where nothing is saved there is nothing to wait for.
	b := newBench(t)
	if err := (Restore{Host: b.Host, Domain: b.Config, LockTimeout: time.Minute, Sleep: func(time.Duration) { t.Error("a pause") }}).Attend(
		t.Context(), func() error { return nil }, func(Report, error) {}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Restore{Host: b.Host, Domain: b.Config}).Attend(ctx, func() error { return kernel.ErrDown }, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
