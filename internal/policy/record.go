package policy

import (
	"net/netip"
	"slices"
	"time"

	"wgkex/internal/address"
)

// Kind says whose a peer is.
type Kind uint8

// The kinds.
const (
	// Static is a peer of the admin's, such as another gateway. wgkex never
	// changes or removes it.
	Static Kind = iota
	// Managed is a peer that wgkex put there: its sole allowed IP is its own
	// derived address.
	Managed
	// LeftOver is a peer that was Managed once: it has no allowed IP any more,
	// since WireGuard gave its address to another peer, or its sole allowed IP
	// is the one that another address profile derives from its key.
	LeftOver
)

// Other is a peer that is not Managed.
type Other struct {
	Peer
	Kind Kind
}

// Kind is what the peer looks like in a domain with the profile. One that looks
// like a LeftOver may as well be an admin's; only its history tells, see Follow.
func (p Peer) Kind(profile address.Profile) Kind {
	switch {
	case len(p.AllowedIPs) == 0:
		return LeftOver
	case len(p.AllowedIPs) > 1:
		return Static
	case p.AllowedIPs[0] == soleAddress(profile, p.Key):
		return Managed
	}
	for _, other := range address.Profiles {
		if p.AllowedIPs[0] == soleAddress(other, p.Key) {
			return LeftOver
		}
	}
	return Static
}

func soleAddress(profile address.Profile, key address.Key) netip.Prefix {
	_, addr := profile.Of(key)
	return netip.PrefixFrom(addr, addr.BitLen())
}

// Reading says when all peers were read and what the clocks said then.
type Reading struct {
	// Began and Ended are times since boot (CLOCK_BOOTTIME), which nobody sets.
	Began, Ended time.Duration
	// Offset is the wall clock less the time since boot, as nanoseconds since
	// 1970. It changes when the wall clock is set.
	Offset time.Duration
}

// Done reports whether there was such a reading.
func (r Reading) Done() bool { return r.Ended != 0 }

// slewed is the fastest that a clock is made to run fast or slow: chrony's
// maxslewrate is 8.3 % (chrony.conf(5)). What goes beyond it is a step.
const slewed = 10 // 1 in 10

// Step is by how much the wall clock was set between the readings, zero when it
// was not.
func (r Reading) Step(before Reading) time.Duration {
	by := r.Offset - before.Offset
	if by.Abs() <= (r.Ended-before.Began)/slewed+time.Second {
		return 0
	}
	return by
}

// Record is what is known of a peer since the last reading of all peers. Its
// times are since boot: the kernel tells handshakes by the wall clock, which may
// be set in between.
type Record struct {
	Key  address.Key
	Kind Kind
	// LastHandshake is what the kernel said, by the wall clock of then. It
	// serves to see whether there was another one since. Zero for none.
	LastHandshake time.Time
	// Active is the latest time at which that handshake may have been. Of a peer
	// that was restored and had none since it is that of the saved handshake,
	// which may be before the boot, so negative. Zero for none.
	Active time.Duration
	// Registered is when the peer was added or reset, or first seen.
	Registered time.Duration
	// Marked is when cleanup found the peer stale, zero for never. The mark is
	// void if the peer was registered or had a handshake since.
	Marked time.Duration
	// Restored is when a peer that had a handshake once was restored, zero for
	// others. It ends with the next handshake, or when the peer has had PendingFor
	// for one. Until then the peer is no stranger: it is neither counted as
	// pending nor stale.
	Restored time.Duration
}

// NewRecord is that of a managed peer that is added or reset at the given time.
func NewRecord(key address.Key, sinceBoot time.Duration) Record {
	return Record{Key: key, Kind: Managed, Registered: sinceBoot}
}

// RestoredRecord is that of a managed peer that is restored at the given time. Who
// never had a handshake goes on waiting for the first.
func RestoredRecord(s Saved, sinceBoot time.Duration) Record {
	r := NewRecord(s.Key, sinceBoot)
	if s.Pending {
		r.Registered -= s.Silent
		return r
	}
	r.Restored, r.Active = sinceBoot, sinceBoot-s.Silent
	if r.Active == 0 {
		r.Active = -1 // zero would be none
	}
	return r
}

// Follow makes the record of a peer that was read now. Before is its record of
// the last reading, nil where there was none.
//
// A handshake that the last reading did not have came after it, whatever the
// wall clock says. Within that time the wall clock tells when, by its offset at
// either reading; where that cannot be, the clock was set more than once, and
// the handshake counts as one of this moment. So Active is never too early, but
// for a clock that is set back and forth by less than the time between the
// readings: no other makes a live tunnel look silent. A handshake that the last
// reading had already keeps its time, so no clock makes a dead one look live.
//
// A peer that looks left over is so only if the last reading knew it as wgkex's:
// another gateway may have the address of another profile, too, and an admin's
// peer may be without allowed IPs for a while.
func Follow(before *Record, p Peer, profile address.Profile, last, now Reading) Record {
	r := Record{Key: p.Key, Kind: p.Kind(profile), LastHandshake: p.LastHandshake, Registered: now.Began}
	if r.Kind == LeftOver && (before == nil || before.Kind == Static) {
		r.Kind = Static
	}
	since := last.Began
	if before != nil {
		r.Marked = before.Marked
		if p.LastHandshake.Equal(before.LastHandshake) {
			r.Active, r.Registered, r.Restored = before.Active, before.Registered, before.Restored
			if r.RestoredEnds() <= now.Ended {
				r.Restored = 0
			}
			return r
		}
		// With a handshake less than before somebody has made the peer anew.
		if !p.Pending() {
			r.Registered = before.Registered
		}
		since = max(since, before.Registered)
	}
	switch {
	case p.Pending():
	case !last.Done():
		r.Active = now.Ended
	default:
		r.Active = handshakeAt(p.LastHandshake, since, last, now)
	}
	return r
}

// handshakeAt is the latest time at which a handshake may have been that came
// after the given time and after the last reading.
func handshakeAt(handshake time.Time, since time.Duration, last, now Reading) time.Duration {
	wall := time.Duration(handshake.UnixNano())
	byOffsets := []time.Duration{wall - last.Offset, wall - now.Offset}
	slices.Sort(byOffsets)
	early, late := byOffsets[0], byOffsets[1]
	// The clocks are read one after the other, and the peers after both.
	const apart = time.Second
	possible := func(at time.Duration) bool { return at >= since-apart && at <= now.Ended+apart }
	switch {
	case possible(late), possible(early) && now.Step(last) == 0:
		return min(late, now.Ended)
	case possible(early):
		return min(early, now.Ended)
	}
	return now.Ended
}

// Pending reports whether the peer never had a handshake.
func (r Record) Pending() bool { return r.LastHandshake.IsZero() }

// Live reports whether the peer's tunnel may be in use. It was, if ever, until
// the time given, which is since boot.
func (r Record) Live(sinceBoot time.Duration) bool {
	return !r.Pending() && sinceBoot-r.Active < LiveFor
}

// Stale reports whether the peer never had a handshake or none for more than
// after.
func (r Record) Stale(sinceBoot, after time.Duration) bool {
	if r.Restored != 0 {
		return false
	}
	return r.Pending() && r.Active == 0 || sinceBoot-r.Active > after
}

// RestoredEnds is when Restored ends without a handshake.
func (r Record) RestoredEnds() time.Duration { return r.Restored + PendingFor }

// Renewed is the record of the peer when it is registered anew or reset at the
// given time. What is known of a restored one before it had a handshake stays.
func (r Record) Renewed(sinceBoot time.Duration) Record {
	renewed := NewRecord(r.Key, sinceBoot)
	if r.Pending() {
		renewed.Active, renewed.Restored = r.Active, r.Restored
	}
	return renewed
}

// MarkedFor is for how long cleanup has known the peer as stale, -1 if it has no
// mark that counts.
func (r Record) MarkedFor(sinceBoot time.Duration) time.Duration {
	if r.Marked == 0 || r.Marked < r.Registered || r.Marked < r.Active {
		return -1
	}
	return sinceBoot - r.Marked
}

// Overdue reports whether the peer has been pending for so long that it may go.
func (r Record) Overdue(sinceBoot time.Duration) bool {
	return r.Kind == Managed && r.Pending() && r.Restored == 0 && sinceBoot-r.Registered >= PendingFor
}

// Same reports whether the other record is of the same peer, and it was neither
// registered anew nor had a handshake in between, nor lost or got a mark.
func (r Record) Same(other Record) bool {
	return r.Key == other.Key && r.Kind == other.Kind && r.LastHandshake.Equal(other.LastHandshake) &&
		r.Registered == other.Registered && r.Marked == other.Marked && r.Restored == other.Restored
}

// State is a peer's state in a word.
type State string

// The states.
const (
	StateStatic   State = "static"    // not wgkex's
	StateLeftOver State = "left-over" // of another address profile, or without an address
	StatePending  State = "pending"   // never had a handshake
	StateRestored State = "restored"  // none since it was restored
	StateLive     State = "live"      // a handshake within LiveFor
	StateIdle     State = "idle"      // none so recent, but not stale
	StateStale    State = "stale"
)

// State is the peer's, stale after the given time.
func (r Record) State(sinceBoot, after time.Duration) State {
	switch {
	case r.Kind == Static:
		return StateStatic
	case r.Kind == LeftOver:
		return StateLeftOver
	case r.Restored != 0:
		return StateRestored
	case r.Pending():
		return StatePending
	case r.Live(sinceBoot):
		return StateLive
	case r.Stale(sinceBoot, after):
		return StateStale
	}
	return StateIdle
}
