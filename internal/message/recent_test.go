package message

import (
	"encoding/binary"
	"testing"
	"time"

	"wgkex/internal/address"
)

func numbered(n int) Key {
	var k address.Key
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	return Key{"ffww01", k}
}

func TestRecent(t *testing.T) {
	var r Recent
	start := time.Unix(1_000_000, 0)
	for i, c := range []struct {
		at   time.Duration
		key  Key
		want bool
	}{
		{0, numbered(1), true},
		{0, numbered(1), false},
		{time.Second, numbered(2), true},
		{time.Second, Key{"ffww02", numbered(1).Key}, true}, // in another domain
		{RecentFor - 1, numbered(1), false},
		{RecentFor, numbered(1), true}, // though it was asked for in between
		{RecentFor, numbered(2), false},
		{RecentFor + time.Second, numbered(2), true},
		{2*RecentFor - 1, numbered(1), false},
		{3 * RecentFor, numbered(1), true},
		{3 * RecentFor, numbered(2), true},
	} {
		if got := r.Add(c.key, start.Add(c.at)); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	r.Add(numbered(3), start.Add(10*RecentFor))
	if len(r.since) != 1 {
		t.Errorf("%d keys are remembered", len(r.since))
	}
}

// However many come, no more are remembered than there is room for, and those are the
// last ones.
func TestRecentBound(t *testing.T) {
	var r Recent
	now := time.Unix(1_000_000, 0)
	const n = 5*maxRecent + 7
	for i := range n {
		if !r.Add(numbered(i), now) {
			t.Fatalf("%d is not new", i)
		}
		if len(r.since) > maxRecent || len(r.order)-r.first != len(r.since) || cap(r.order) > 4*maxRecent {
			t.Fatalf("%d keys, order of %d from %d on, room for %d", len(r.since), len(r.order), r.first, cap(r.order))
		}
	}
	for i := n - maxRecent; i < n; i++ {
		if r.Add(numbered(i), now) {
			t.Fatalf("%d is new", i)
		}
	}
	if !r.Add(numbered(0), now) {
		t.Error("the oldest is not forgotten")
	}
	r.Add(numbered(1), now.Add(RecentFor))
	if len(r.since) != 1 {
		t.Errorf("%d after a minute", len(r.since))
	}
}
