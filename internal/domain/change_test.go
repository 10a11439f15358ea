package domain_test

import (
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
