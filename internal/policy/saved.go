package policy

import (
	"time"

	"wgkex/internal/address"
)

// Saved is what is kept of a managed peer for the time when the kernel has lost
// it. It tells durations, not times: these do not depend on how the wall clock is
// set at the next boot.
type Saved struct {
	Key address.Key
	// Pending says that the peer never had a handshake.
	Pending bool
	// Silent is how long ago the last handshake was or, of a pending peer, its
	// registration. The time during which the gateway was off is left out: nobody
	// could have a handshake then.
	Silent time.Duration
}

// Save is what is to be saved of a managed peer now.
func (r Record) Save(sinceBoot time.Duration) Saved {
	s := Saved{Key: r.Key, Pending: r.Pending() && r.Active == 0, Silent: sinceBoot - r.Active}
	if s.Pending {
		s.Silent = sinceBoot - r.Registered
	}
	s.Silent = max(s.Silent, 0)
	return s
}

// Gone reports whether cleanup would have removed the peer by now, had the kernel
// kept it: it has been stale for as long as a mark has to be old. So who does not
// come back is not carried on for ever, however often the gateway reboots.
func (s Saved) Gone(staleAfter time.Duration) bool {
	if s.Pending {
		staleAfter = PendingFor // until the first run that can mark it
	}
	return s.Silent > staleAfter+PendingFor
}
