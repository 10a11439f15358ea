package policy

import (
	"net/netip"
	"testing"
	"time"

	"wgkex/internal/address"
)

// What is saved of a record, however it came to be, and what a restore makes of
// it.
func TestSave(t *testing.T) {
	const now = time.Hour
	handshake := time.Unix(1000, 0)
	for what, c := range map[string]struct {
		record Record
		want   Saved
	}{
		"a handshake":            {Record{LastHandshake: handshake, Active: now - time.Minute, Registered: 5}, Saved{Silent: time.Minute}},
		"pending":                {Record{Registered: now - time.Minute}, Saved{Pending: true, Silent: time.Minute}},
		"restored":               {Record{Restored: now - time.Second, Registered: now - time.Second, Active: -time.Minute}, Saved{Silent: now + time.Minute}},
		"restored, time is over": {Record{Registered: now - PendingFor, Active: -1}, Saved{Silent: now + 1}},
		"of the future":          {Record{LastHandshake: handshake, Active: 2 * now}, Saved{}},
	} {
		if got := c.record.Save(now); got != c.want {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}

func TestRestoredRecord(t *testing.T) {
	const now = 20 * time.Second // since boot
	peer := RestoredRecord(Saved{Key: address.Key{1}, Silent: 50 * time.Minute}, now)
	pending := RestoredRecord(Saved{Key: address.Key{2}, Pending: true, Silent: 5 * time.Minute}, now)
	for _, c := range []struct {
		after                        time.Duration
		stale, pendingStale, overdue bool
	}{
		{0, false, true, false},
		{PendingFor - 5*time.Minute - 1, false, true, false},
		{PendingFor - 5*time.Minute, false, true, true},
		{PendingFor - 1, false, true, true}, // its hour is over, but not its time
	} {
		at := now + c.after
		if peer.Stale(at, time.Hour) != c.stale || pending.Stale(at, time.Hour) != c.pendingStale {
			t.Errorf("after %s: stale %v and %v", c.after, peer.Stale(at, time.Hour), pending.Stale(at, time.Hour))
		}
		if peer.Overdue(at) || pending.Overdue(at) != c.overdue {
			t.Errorf("after %s: overdue %v and %v", c.after, peer.Overdue(at), pending.Overdue(at))
		}
	}
	if peer.Live(now) || !peer.Pending() || peer.State(now, time.Hour) != StateRestored || pending.State(now, time.Hour) != StatePending {
		t.Errorf("%+v, %+v", peer, pending)
	}
	var counts Counts
	counts.Add(peer)
	counts.Add(pending)
	if counts != (Counts{Peers: 2, Pending: 1}) {
		t.Errorf("counted %+v", counts)
	}
	// Zero would be none.
	if r := RestoredRecord(Saved{Silent: now}, now); r.Active == 0 {
		t.Errorf("%+v", r)
	}
}

// The time of a restored peer ends with a handshake, or when it is over; the saved
// handshake counts on.
func TestFollowRestored(t *testing.T) {
	const at = 20 * time.Second
	before := RestoredRecord(Saved{Key: address.Key{1}, Silent: 50 * time.Minute}, at)
	p := Peer{Key: before.Key, AllowedIPs: []netip.Prefix{soleAddress(address.RFC4291, before.Key)}}
	last := Reading{Began: at, Ended: at, Offset: time.Hour}
	reading := func(at time.Duration) Reading { return Reading{Began: at, Ended: at, Offset: time.Hour} }
	if r := Follow(&before, p, address.RFC4291, last, reading(at+PendingFor-1)); r != before {
		t.Errorf("before its time is over: %+v, want %+v", r, before)
	}
	over := Follow(&before, p, address.RFC4291, last, reading(at+PendingFor))
	if over.Restored != 0 || over.Active != before.Active || !over.Stale(at+PendingFor, time.Hour) || over.Stale(at+PendingFor, 2*time.Hour) || !over.Overdue(at+PendingFor) {
		t.Errorf("when it is over: %+v", over)
	}
	p.LastHandshake = time.Unix(0, int64(time.Hour+at+time.Minute))
	if r := Follow(&before, p, address.RFC4291, last, reading(at+2*time.Minute)); r.Restored != 0 || r.Active != at+time.Minute || !r.Live(at+2*time.Minute) {
		t.Errorf("after a handshake: %+v", r)
	}
}

func TestRenewed(t *testing.T) {
	restored := RestoredRecord(Saved{Key: address.Key{1}, Silent: time.Minute}, time.Hour)
	restored.Marked = 5
	if r := restored.Renewed(2 * time.Hour); r.Registered != 2*time.Hour || r.Active != restored.Active || r.Restored != restored.Restored || r.Marked != 0 {
		t.Errorf("restored: %+v", r)
	}
	silent := Record{Key: address.Key{1}, Kind: Managed, LastHandshake: time.Unix(1, 0), Active: 5}
	if r := silent.Renewed(time.Hour); r != NewRecord(silent.Key, time.Hour) {
		t.Errorf("reset: %+v", r)
	}
}

func TestGone(t *testing.T) {
	for _, c := range []struct {
		saved Saved
		gone  bool
	}{
		{Saved{}, false},
		{Saved{Silent: time.Hour + PendingFor}, false},
		{Saved{Silent: time.Hour + PendingFor + 1}, true},
		{Saved{Pending: true, Silent: 2 * PendingFor}, false},
		{Saved{Pending: true, Silent: 2*PendingFor + 1}, true},
	} {
		if got := c.saved.Gone(time.Hour); got != c.gone {
			t.Errorf("%+v: %v", c.saved, got)
		}
	}
}
