// Package policy holds the rules about peers: whose they are, whether a key
// may be added, when a peer is stale. It decides over facts that others read
// and touches nothing itself.
package policy

import (
	"net/netip"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/protocol"
)

// LiveFor is how long a tunnel is live after its last handshake: WireGuard's
// REJECT_AFTER_TIME (WireGuard white paper, section 6.1), after which a session
// key is never used again.
const LiveFor = 180 * time.Second

// PendingFor is how long a router has to connect after its exchange, before
// its peer may go.
const PendingFor = 15 * time.Minute

// Peer is a peer of a WireGuard interface.
type Peer struct {
	Key        address.Key
	AllowedIPs []netip.Prefix
	// LastHandshake is zero when there never was one.
	LastHandshake time.Time
	Endpoint      netip.AddrPort
	Received      int64 // bytes
	Sent          int64 // bytes
}

// Managed reports whether wgkex put the peer there: its sole allowed IP is its
// own derived address. Every other peer is static, and not wgkex's to touch.
func (p Peer) Managed(profile address.Profile) bool {
	_, addr := profile.Of(p.Key)
	return len(p.AllowedIPs) == 1 && p.AllowedIPs[0] == netip.PrefixFrom(addr, addr.BitLen())
}

// Pending reports whether the peer never had a handshake.
func (p Peer) Pending() bool { return p.LastHandshake.IsZero() }

// Live reports whether the peer's tunnel is in use. A handshake in the future
// is one before the gateway's clock was set back, and counts as fresh.
func (p Peer) Live(now time.Time) bool {
	return !p.Pending() && now.Sub(p.LastHandshake) < LiveFor
}

// Stale reports whether the peer never had a handshake or none for more than
// after. A handshake in the future counts as fresh, as in Live.
func (p Peer) Stale(now time.Time, after time.Duration) bool {
	return p.Pending() || now.Sub(p.LastHandshake) > after
}

// State is a peer's state in a word.
type State string

// The states.
const (
	Static  State = "static"  // not managed
	Pending State = "pending" // never had a handshake
	Live    State = "live"    // a handshake within LiveFor
	Idle    State = "idle"    // none so recent, but not stale
	Stale   State = "stale"
)

// State is the peer's, stale after the given time.
func (p Peer) State(profile address.Profile, now time.Time, after time.Duration) State {
	switch {
	case !p.Managed(profile):
		return Static
	case p.Pending():
		return Pending
	case p.Live(now):
		return Live
	case p.Stale(now, after):
		return Stale
	}
	return Idle
}

// Owns reports whether traffic to addr belongs to the peer and must not be
// taken away by a new peer with addr as its allowed IP. A prefix as wide as
// the link-local subnet is no claim to each address in it, but the route for
// whatever no peer claims.
func (p Peer) Owns(addr netip.Addr) bool {
	for _, prefix := range p.AllowedIPs {
		if prefix.Contains(addr) && prefix.Bits() > 64 {
			return true
		}
	}
	return false
}

// Counts are the numbers of managed peers that the limits are about.
type Counts struct {
	Peers   int `json:"peers"`
	Pending int `json:"pending"`
}

// Count counts the managed among the peers.
func Count(peers []Peer, profile address.Profile) Counts {
	var c Counts
	for _, p := range peers {
		if p.Managed(profile) {
			c.Peers++
			if p.Pending() {
				c.Pending++
			}
		}
	}
	return c
}

// Remove takes a managed peer out of the counts.
func (c *Counts) Remove(p Peer) {
	c.Peers--
	if p.Pending() {
		c.Pending--
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
	// Peers has all static peers and, if any peer may have the key or its
	// address, all managed ones too.
	Peers  []Peer
	Counts Counts
	// Overdue is the managed peer that has been pending longest, if that is
	// PendingFor or more.
	Overdue *Peer
	// MaxPeers and MaxPending limit the Counts.
	MaxPeers, MaxPending int
	Now                  time.Time
}

// Action is what an accepted exchange does to the peer.
type Action uint8

// The actions.
const (
	// Keep leaves the peer as it is.
	Keep Action = iota
	// Add adds a peer that is not there.
	Add
	// Reset removes the peer and adds it again, which clears the time stamp
	// of its last handshake: WireGuard drops initiations that are older, as a
	// router's are after its clock went back (white paper, section 5.1).
	Reset
	// Replace removes the Overdue peer and adds this one in its place.
	Replace
)

// String says what was done to the peer.
func (a Action) String() string {
	return [...]string{Keep: "kept", Add: "added", Reset: "reset", Replace: "added in place of another"}[a]
}

// Decide says what to do, or why not, as a *protocol.Refusal.
func (e Exchange) Decide() (Action, error) {
	_, addr := e.Profile.Of(e.Key)
	if e.Key == e.GatewayKey {
		return 0, protocol.Refuse(protocol.ProhibitedKey, "the key is the gateway's own")
	}
	var known *Peer
	for i, p := range e.Peers {
		switch {
		case p.Key == e.Key && !p.Managed(e.Profile):
			return 0, protocol.Refuse(protocol.ProhibitedKey, "the key is that of a static peer")
		case p.Key == e.Key:
			known = &e.Peers[i]
		case p.Owns(addr):
			return 0, protocol.Refuse(protocol.AddressConflict, "the address %s belongs to peer %s", addr, p.Key)
		}
	}
	switch {
	case e.GatewayOwns:
		return 0, protocol.Refuse(protocol.AddressConflict, "the address %s or its MAC is the gateway's own", addr)
	case known != nil && known.Live(e.Now):
		return Keep, nil
	// To reset a peer that had a handshake would make one more pending peer.
	// Left alone it serves every router whose clock is right.
	case known != nil && !known.Pending() && e.Counts.Pending >= e.MaxPending:
		return Keep, nil
	case known != nil:
		return Reset, nil
	case e.Counts.Peers < e.MaxPeers && e.Counts.Pending < e.MaxPending:
		return Add, nil
	// One in place of another keeps the counts as they are, but not when the
	// limits were lowered below them.
	case e.Overdue != nil && e.Counts.Peers <= e.MaxPeers && e.Counts.Pending <= e.MaxPending:
		return Replace, nil
	case e.Counts.Peers >= e.MaxPeers:
		return 0, protocol.Refuse(protocol.Busy, "the domain has its %d peers (max_peers)", e.MaxPeers)
	}
	return 0, protocol.Refuse(protocol.Busy, "the domain has its %d peers without a handshake (max_pending)", e.MaxPending)
}
