package domain_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
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
			if err := d.Add(domaintest.Key(n)); err != nil {
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
			if err := d.Add(domaintest.Key(n)); err != nil {
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
