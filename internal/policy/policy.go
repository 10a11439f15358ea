// Package policy holds the rules about peers: whose they are, whether a key
// may be added, when a peer is live, stale or overdue. It decides over facts
// that others read and touches nothing itself.
package policy

import (
	"errors"
	"net/netip"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/outcome"
)

// LiveFor is how long a tunnel is live after its last handshake: WireGuard's
// REJECT_AFTER_TIME (WireGuard white paper, section 6.1), after which a session
// key is never used again.
const LiveFor = 180 * time.Second

// PendingFor is how long a router has to connect after its exchange, before
// its peer may go.
const PendingFor = 15 * time.Minute

// Peer is a peer of a WireGuard interface, as the kernel shows it.
type Peer struct {
	Key        address.Key
	AllowedIPs []netip.Prefix
	// LastHandshake is by the wall clock as it was set then, and zero when
	// there never was one.
	LastHandshake time.Time
	Endpoint      netip.AddrPort
	Received      int64 // bytes
	Sent          int64 // bytes
}

// Managed reports whether the peer's Kind is Managed.
func (p Peer) Managed(profile address.Profile) bool { return p.Kind(profile) == Managed }

// Pending reports whether the peer never had a handshake.
func (p Peer) Pending() bool { return p.LastHandshake.IsZero() }

// Claims reports whether traffic to addr goes to the peer and must not be
// taken away by a new peer with addr as its allowed IP. A prefix as wide as
// the link-local subnet is no claim to each address in it, but the route for
// whatever no peer claims.
func (p Peer) Claims(addr netip.Addr) bool {
	for _, prefix := range p.AllowedIPs {
		if prefix.Contains(addr) && prefix.Bits() > 64 {
			return true
		}
	}
	return false
}

// Counts are the numbers of managed peers that the limits are about. A restored
// peer that still has time for a handshake is not pending here.
type Counts struct {
	Peers   int `json:"peers"`
	Pending int `json:"pending"`
}

// Add counts one more peer, if it is managed.
func (c *Counts) Add(r Record) { c.add(r, 1) }

// Remove counts one peer less, if it is managed.
func (c *Counts) Remove(r Record) { c.add(r, -1) }

func (c *Counts) add(r Record, n int) {
	if r.Kind != Managed {
		return
	}
	c.Peers += n
	if r.Pending() && r.Restored == 0 {
		c.Pending += n
	}
}

// Exchange is what is known when a key asks to be added.
type Exchange struct {
	Key     address.Key
	Profile address.Profile
	// GatewayKey is the public key of the domain's own WireGuard interface.
	GatewayKey address.Key
	// GatewayOwns says that the derived MAC or address is the gateway's own.
	GatewayOwns bool
	// Others are all peers that are not managed.
	Others []Other
	// Managed are the managed peers that may have the key or its address.
	Managed []Record
	Counts  Counts
	// Overdue is the managed peer that has been pending longest, if that is
	// PendingFor or more. Only a full domain asks for it.
	Overdue *Record
	// MaxPeers and MaxPending limit the Counts.
	MaxPeers, MaxPending int
	// Restored says that the peer would be restored, so not be a pending one.
	Restored bool
	// SinceBoot is now.
	SinceBoot time.Duration
}

// Action is what an accepted exchange does to the peer.
type Action uint8

// The actions.
const (
	// Keep makes sure that the peer is there, and leaves it as it is.
	Keep Action = iota
	// Add adds a peer that is not there.
	Add
	// Reset removes the peer and adds it again, which clears the time stamp
	// of its last handshake: WireGuard drops initiations that are older, as a
	// router's are after its clock went back (white paper, section 5.1). Where
	// there is no place for one more pending peer, the Overdue one goes.
	Reset
	// Replace removes the Overdue peer and adds this one in its place.
	Replace
	// Readdress gives a left-over peer its derived address.
	Readdress
	// Renew keeps a peer whose time to connect is over, and gives it that time
	// once more: to remove and add it would come to the same.
	Renew
)

// String says what was done to the peer.
func (a Action) String() string {
	return [...]string{Keep: "kept", Add: "added", Reset: "reset", Replace: "added in place of another", Readdress: "given its address", Renew: "registered anew"}[a]
}

// ErrFull is the error of a refusal for want of room in the domain.
var ErrFull = errors.New("the domain is full")

// Decide says what to do, or why not, as a *outcome.Refusal.
func (e Exchange) Decide() (Action, error) {
	_, addr := e.Profile.Of(e.Key)
	leftOver, err := e.refused(addr)
	if err != nil {
		return 0, err
	}
	for _, r := range e.Managed {
		if r.Key != e.Key {
			return 0, conflict(addr, r.Key)
		}
	}
	if len(e.Managed) > 0 {
		return e.known(e.Managed[0]), nil
	}
	room := e.Counts.Peers < e.MaxPeers && (e.Restored || e.Counts.Pending < e.MaxPending)
	switch {
	case leftOver && e.Counts.Peers < e.MaxPeers:
		return Readdress, nil
	case !leftOver && room:
		return Add, nil
	case !leftOver && e.swap():
		return Replace, nil
	case e.Counts.Peers >= e.MaxPeers:
		return 0, outcome.Refuse(outcome.Busy, "%w: it has its %d peers (max_peers)", ErrFull, e.MaxPeers)
	}
	return 0, outcome.Refuse(outcome.Busy, "%w: it has its %d peers without a handshake (max_pending)", ErrFull, e.MaxPending)
}

// Refused is Decide as far as it goes without the managed peers: what refuses
// a key whatever these are.
func (e Exchange) Refused() error {
	_, addr := e.Profile.Of(e.Key)
	_, err := e.refused(addr)
	return err
}

// refused also reports whether the key is that of a left-over peer.
func (e Exchange) refused(addr netip.Addr) (leftOver bool, err error) {
	if e.Key == e.GatewayKey {
		return false, outcome.Refuse(outcome.ProhibitedKey, "the key is the gateway's own")
	}
	for _, p := range e.Others {
		_, derived := e.Profile.Of(p.Key)
		switch {
		case p.Key == e.Key && p.Kind == Static:
			return false, outcome.Refuse(outcome.ProhibitedKey, "the key is that of a static peer")
		case p.Key == e.Key:
			leftOver = true
		// An FDB entry may lead to the derived MAC of a peer with another address.
		case p.Claims(addr), derived == addr:
			return false, conflict(addr, p.Key)
		}
	}
	if e.GatewayOwns {
		return false, outcome.Refuse(outcome.AddressConflict, "the address %s or its MAC is the gateway's own", addr)
	}
	return leftOver, nil
}

func conflict(addr netip.Addr, holder address.Key) error {
	return outcome.Refuse(outcome.AddressConflict, "the address %s belongs to peer %s", addr, holder)
}

// known decides about a key that has a managed peer. One without a handshake is
// never reset: there is no time stamp to clear, and its router may be about to
// connect.
func (e Exchange) known(r Record) Action {
	switch {
	case r.Overdue(e.SinceBoot):
		return Renew
	case r.Pending(), r.Live(e.SinceBoot):
		return Keep
	// To reset a peer that had a handshake makes one more pending peer. Left
	// alone it serves every router whose clock is right.
	case e.Counts.Pending >= e.MaxPending && !e.swap():
		return Keep
	}
	return Reset
}

// swap reports whether the Overdue peer can go for another to come. That keeps
// the counts as they are, which is enough for max_pending: it is about strangers,
// and many restored peers may not have connected. It is not enough for max_peers
// if that was lowered below what there is.
func (e Exchange) swap() bool {
	return e.Overdue != nil && e.Counts.Peers <= e.MaxPeers
}

// Starved reports whether a peer that should be reset is kept for want of a place
// for one more pending peer.
func (e Exchange) Starved() bool {
	return len(e.Managed) > 0 && !e.Managed[0].Pending() && !e.Managed[0].Live(e.SinceBoot) && e.known(e.Managed[0]) == Keep
}
