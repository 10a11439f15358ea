package domain_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/policy"
)

// Thousands of exchanges between two readings: what is kept stays small, and
// true.
func TestManyEvents(t *testing.T) {
	g := domaintest.New(t)
	const many = 1300
	g.Use(func(d *domain.Domain) {
		for n := range many {
			if _, err := d.State(); err != nil {
				t.Fatal(err)
			}
			if err := g.Add(d, domaintest.Key(n)); err != nil {
				t.Fatal(err)
			}
			g.Pass(time.Second)
			if n%3 == 0 {
				r := policy.NewRecord(domaintest.Key(n), 1)
				if gone, err := d.Remove(r); !gone || err != nil {
					t.Fatal(gone, err)
				}
			}
		}
	})
	if g.Dumps != 0 {
		t.Errorf("%d readings", g.Dumps)
	}
	want := many - (many+2)/3
	// 512 events of 64 bytes at most, and 72 bytes for each peer.
	if info, err := os.Stat(filepath.Join(g.Host.Dir, "d.state")); err != nil || info.Size() > int64(300+72*want+512*64) {
		t.Errorf("%d peers take %d bytes, %v", want, info.Size(), err)
	}
	if got := g.Counts(); got != (policy.Counts{Peers: want, Pending: want}) || len(g.PeerList) != want {
		t.Errorf("counted %+v, %d peers, want %d", got, len(g.PeerList), want)
	}
	g.Use(func(d *domain.Domain) {
		s, err := d.State()
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		before, err := s.All()
		if err != nil {
			t.Fatal(err)
		}
		registered := map[string]time.Duration{}
		for _, r := range before {
			registered[r.Key.String()] = r.Registered
		}
		survey, err := d.Refresh(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range survey.Records {
			if at, there := registered[r.Key.String()]; !there || at != r.Registered {
				t.Errorf("%s was registered at %s, not at %s", r.Key, at, r.Registered)
			}
		}
	})
	g.Consistent()
}

// A process that opens domains over and over keeps nothing open.
func TestNothingLeftOpen(t *testing.T) {
	g := domaintest.New(t)
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	before := open()
	for n := range 20 {
		g.Use(func(d *domain.Domain) {
			if _, err := d.State(); err != nil {
				t.Error(err)
			}
			if err := g.Add(d, domaintest.Key(n)); err != nil {
				t.Error(err)
			}
			if _, err := d.Refresh(nil); err != nil {
				t.Error(err)
			}
		})
	}
	if after := open(); after > before {
		t.Errorf("%d files are open, after %d", after, before)
	}
}

// A state that is from a later time than now is of another boot, whatever it
// says.
func TestStateOfTheFuture(t *testing.T) {
	g := domaintest.New(t)
	g.Boot -= time.Hour
	g.Use(func(d *domain.Domain) {
		if s, err := d.State(); s != nil || err != nil {
			t.Errorf("%v, %v", s, err)
		}
	})
	// Nor are its records a history.
	g.Boot += time.Hour
	g.AddRouter(domaintest.Key(1))
	g.Read()
	g.Boot -= time.Hour
	if at := g.Read().Records[0].Registered; at != g.Boot {
		t.Errorf("registered at %s, not now, at %s", at, g.Boot)
	}
}

// The wall clock is set while the peers are read: they are read again.
func TestClockIsSetDuringReading(t *testing.T) {
	g := domaintest.New(t)
	g.AddRouter(domaintest.Key(1))
	g.Pass(time.Hour)
	g.Handshake(domaintest.Key(1))
	steps := 0
	g.Between = func(method string) {
		if method == "Peers" && steps == 0 {
			steps++
			g.SetClock(-10 * time.Minute)
			g.Handshake(domaintest.Key(1))
		}
	}
	if r := g.Read().Records[0]; r.Active != g.Boot {
		t.Errorf("a handshake of %s counts as one of %s", g.Boot, r.Active)
	}
}

// The lock's file is removed while somebody holds it, and others lock a new one:
// who waited for the old one does not come in beside them.
func TestLockRemoved(t *testing.T) {
	g := domaintest.New(t)
	first := g.Open()
	got := make(chan *domain.Domain)
	go func() {
		d, err := g.Host.Open(t.Context(), g.Config)
		if err != nil {
			t.Error(err)
		}
		got <- d
	}()
	time.Sleep(50 * time.Millisecond) // for it to wait; if it does not, the test passes
	if err := os.Remove(filepath.Join(g.Host.Dir, "d.lock")); err != nil {
		t.Fatal(err)
	}
	second := g.Open()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-got:
		t.Error("two hold the lock")
	case <-time.After(100 * time.Millisecond):
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := (<-got).Close(); err != nil {
		t.Error(err)
	}
}

// Nobody knows which boot this is: no state is believed.
func TestNoBootID(t *testing.T) {
	g := domaintest.New(t)
	g.ID = ""
	g.Read()
	g.Use(func(d *domain.Domain) {
		if s, err := d.State(); s != nil || err != nil {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// A state that grew is none, and no process dies of it.
func TestStateThatGrew(t *testing.T) {
	for _, by := range []int64{64, 640, 200 << 20} {
		g := domaintest.New(t)
		path := filepath.Join(g.Host.Dir, "d.state")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()+by); err != nil {
			t.Fatal(err)
		}
		g.Use(func(d *domain.Domain) {
			if s, err := d.State(); s != nil || err != nil {
				t.Errorf("%d bytes more: %v, %v", by, s, err)
			}
		})
	}
}

// The wall clock is seen to be set, and that is kept.
func TestClockStep(t *testing.T) {
	g := domaintest.New(t)
	want := func(step time.Duration) {
		t.Helper()
		g.Use(func(d *domain.Domain) {
			s, err := d.State()
			if err != nil || s == nil || s.Step != step {
				t.Errorf("%+v, %v, want a step of %s", s, err, step)
			}
		})
	}
	g.Pass(time.Hour)
	g.Read()
	want(0)
	g.SetClock(-24 * time.Hour)
	g.Read()
	want(-24 * time.Hour)
	g.Pass(time.Hour)
	g.Read()
	want(-24 * time.Hour)
}

// Where the interfaces cannot be opened, nobody else waits for the lock.
func TestLockWithoutInterfaces(t *testing.T) {
	g := domaintest.New(t)
	devices := g.Host.Devices
	trouble := errors.New("no such interface")
	g.Host.Devices = func(string, string) (kernel.Devices, error) { return nil, trouble }
	if _, err := g.Host.Open(t.Context(), g.Config); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
	g.Host.Devices = devices
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	d, err := g.Host.Open(ctx, g.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// failing makes each call of the method fail, without effect.
func failing(g *domaintest.Gateway, method string) (calls *[]string) {
	f := &kerneltest.Faulty{Devices: g.Devices, Fault: func(_ int, called string) (error, bool) {
		if called == method {
			return errors.New("trouble"), false
		}
		return nil, false
	}}
	g.Through = func(kernel.Devices) kernel.Devices { return f }
	return &f.Calls
}

// What of a repair fails does not keep the rest.
func TestHalfARepair(t *testing.T) {
	// Each of both has two entries, of which one lacks.
	for method, want := range map[string]int{"SetEntries": 1, "RemoveEntries": 4} {
		g := domaintest.New(t)
		lacks, gone := domaintest.Key(1), domaintest.Key(2)
		g.AddRouter(gone)
		g.AddRouter(lacks)
		_, lacking := g.Config.Addresses.Of(lacks)
		g.PeerList = slices.DeleteFunc(g.PeerList, func(p policy.Peer) bool { return p.Key == gone })
		g.FDB = slices.DeleteFunc(g.FDB, func(e kernel.Entry) bool { return e.Dst == lacking && e.MAC == kernel.Flood })
		survey := g.Read()
		failing(g, method)
		g.Use(func(d *domain.Domain) {
			if _, err := d.Repair(survey.Peers); err == nil {
				t.Errorf("%s fails, and the repair does not", method)
			}
		})
		if len(g.FDB) != want {
			t.Errorf("%s fails: %d entries are left, want %d", method, len(g.FDB), want)
		}
	}
}

// A removal whose FDB entries cannot be removed is counted, since the peer is
// gone; one whose peer cannot be removed is not.
func TestHalfARemoval(t *testing.T) {
	for method, want := range map[string]int{"RemoveEntries": 0, "RemovePeers": 1} {
		g := domaintest.New(t)
		g.AddRouter(domaintest.Key(1))
		record := g.Read().Records[0]
		failing(g, method)
		g.Use(func(d *domain.Domain) {
			if _, err := d.State(); err != nil {
				t.Fatal(err)
			}
			if gone, err := d.Remove(record); err == nil || gone != (want == 0) {
				t.Errorf("%s fails: gone %v, %v", method, gone, err)
			}
		})
		if got := g.Counts(); got.Peers != want || len(g.PeerList) != want {
			t.Errorf("%s fails: %d peers, counted %+v", method, len(g.PeerList), got)
		}
	}
}

// A reading looks at the FDB only where the interfaces are new: it is as long as
// all peers together.
func TestReadingLeavesFDB(t *testing.T) {
	g := domaintest.New(t)
	calls := failing(g, "")
	g.Read()
	if slices.Contains(*calls, "Entries") {
		t.Errorf("called %v", *calls)
	}
	g.Number.VXLAN++
	if g.Read(); !slices.Contains(*calls, "Entries") {
		t.Errorf("another VXLAN interface: called %v", *calls)
	}
}

// When many events become part of the records, nothing else changes.
func TestCompaction(t *testing.T) {
	g := domaintest.New(t)
	g.Config.Addresses = address.Gluon
	static, leftOver, live := domaintest.Key(1), domaintest.Key(2), domaintest.Key(3)
	g.AddStatic(static, "fd00::/64")
	g.AddLeftOver(leftOver)
	g.AddRouter(live)
	for n := range 20 {
		g.AddRouter(domaintest.Key(100 + n))
	}
	g.Read()
	g.Pass(time.Minute)
	g.Handshake(live)
	g.SetClock(24 * time.Hour)
	g.Read()
	g.Pass(time.Minute)
	const many = 600 // more than are kept
	var before, after *domain.State
	want := map[address.Key]policy.Record{}
	g.Use(func(d *domain.Domain) {
		var err error
		if before, err = d.State(); err != nil {
			t.Fatal(err)
		}
		all, err := before.All()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			want[r.Key] = r
		}
		connected := want[live]
		connected.LastHandshake, connected.Active = connected.LastHandshake.Add(time.Minute), g.Boot
		if err := d.Seen(connected); err != nil {
			t.Fatal(err)
		}
		want[live] = connected
		var some []policy.Record
		for n := range 3 {
			some = append(some, want[domaintest.Key(100+n)])
			delete(want, domaintest.Key(100+n))
		}
		if _, err := d.Remove(some...); err != nil {
			t.Fatal(err)
		}
		for n := range many {
			k := domaintest.Key(1000 + n)
			if err := g.Add(d, k); err != nil {
				t.Fatal(err)
			}
			want[k] = policy.NewRecord(k, g.Boot)
		}
	})
	g.Use(func(d *domain.Domain) {
		var err error
		if after, err = d.State(); err != nil || after == nil {
			t.Fatal(after, err)
		}
		if after.Reading != before.Reading || after.Step != 24*time.Hour || after.StepAt != before.StepAt || !reflect.DeepEqual(after.Others, before.Others) || len(after.Others) != 2 {
			t.Errorf("before\n%+v\nafterwards\n%+v", before, after)
		}
		all, err := after.All()
		if err != nil || len(all) != len(want) {
			t.Errorf("%d records, %v, want %d", len(all), err, len(want))
		}
		for _, r := range all {
			mac, _ := address.Gluon.Of(r.Key)
			if found, err := after.Find(mac); err != nil || !slices.Equal(found, []policy.Record{r}) || !reflect.DeepEqual(r, want[r.Key]) {
				t.Errorf("%+v, found %+v, %v, want %+v", r, found, err, want[r.Key])
			}
		}
		peers, pending := 0, 0
		for _, r := range want {
			if r.Kind == policy.Managed {
				peers++
				if r.Pending() {
					pending++
				}
			}
		}
		if after.Counts != (policy.Counts{Peers: peers, Pending: pending}) {
			t.Errorf("counted %+v, want %d and %d", after.Counts, peers, pending)
		}
	})
}

// More changes at once than are kept as events.
func TestManyAtOnce(t *testing.T) {
	g := domaintest.New(t)
	for n := range 1300 {
		g.AddRouter(domaintest.Key(n + 1))
	}
	records := g.Read().Records
	g.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Remove(records[:1200]...); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(d, domaintest.Key(1)); err != nil {
			t.Fatal(err)
		}
	})
	if got := g.Counts(); got != (policy.Counts{Peers: 101, Pending: 101}) {
		t.Errorf("counted %+v", got)
	}
	g.Consistent()
}
