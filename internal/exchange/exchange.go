// Package exchange carries out one exchange: it gathers what the policy must
// know, as cheaply as can be, and does to the kernel what the policy says.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
	"wgkex/internal/protocol"
)

// Run makes the key a peer of the domain, or makes sure that it is one. It
// returns what it did to the peer, or the error that refused or failed it, of
// which protocol.CodeOf is the code. After an error the kernel holds either
// the peer with both FDB entries or none of the three.
func Run(d *domain.Domain, key address.Key) (policy.Action, error) {
	action, err := run(d, key)
	return action, Classify(err)
}

// Classify makes the client's business of an error that the gateway may get
// over by itself: a missing interface and a lock that others hold for too long
// are reasons to try again.
func Classify(err error) error {
	if errors.Is(err, kernel.ErrMissing) || errors.Is(err, context.DeadlineExceeded) {
		return protocol.Refuse(protocol.Busy, "%v", err)
	}
	return err
}

func run(d *domain.Domain, key address.Key) (policy.Action, error) {
	mac, addr := d.Addresses.Of(key)
	e := policy.Exchange{Key: key, Profile: d.Addresses, MaxPeers: d.MaxPeers, MaxPending: d.MaxPending, Now: d.Now()}
	var err error
	if e.GatewayKey, err = d.PublicKey(); err != nil {
		return 0, err
	}
	if e.GatewayOwns, err = d.Owns(mac, addr); err != nil {
		return 0, err
	}

	// The common case, a key that the gateway does not know, must not cost a
	// dump of all peers. MAC and address determine each other and every
	// managed peer has an FDB entry for its MAC: where there is none, no
	// managed peer has this key or this address, and the snapshot tells of
	// the static ones.
	known, err := d.HasEntry(mac)
	if err != nil {
		return 0, err
	}
	snapshot, ok := d.Snapshot()
	if ok && !known {
		e.Peers, e.Counts = snapshot.Peers(), snapshot.Counts
		action, err := e.Decide()
		// Peers may have left or had their first handshake since the snapshot,
		// and one may be overdue. But whoever fills the domain up must not
		// make every refusal cost a dump.
		if protocol.CodeOf(err) != protocol.Busy || e.Now.Sub(snapshot.Read).Abs() < fullFor {
			return action, apply(d, e, action, snapshot, err)
		}
	}
	if e.Peers, snapshot, err = d.Dump(); err != nil {
		return 0, err
	}
	e.Counts = snapshot.Counts
	if known && !slices.ContainsFunc(e.Peers, func(p policy.Peer) bool { return p.Key == key }) {
		// The FDB has more than the peers account for, as after somebody
		// removed them all: without it the next exchange costs no dump again.
		if _, err := d.Mend(e.Peers); err != nil {
			return 0, err
		}
	}
	action, err := e.Decide()
	if protocol.CodeOf(err) == protocol.Busy { // only a full domain asks who is overdue
		e.Overdue = d.Overdue(e.Peers)
		action, err = e.Decide()
	}
	return action, apply(d, e, action, snapshot, err)
}

// fullFor is how long a domain that was found full is taken to be full.
const fullFor = 2 * time.Second

// apply does what was decided, or returns why nothing is to be done.
func apply(d *domain.Domain, e policy.Exchange, action policy.Action, snapshot domain.Snapshot, refused error) error {
	if refused != nil {
		return refused
	}
	key := e.Key
	_, addr := d.Addresses.Of(key)
	var change error
	switch action {
	case policy.Keep:
		return d.SetEntries(key)
	case policy.Add:
		snapshot.Counts.Peers++
		snapshot.Counts.Pending++
		if _, err := d.Save(snapshot); err != nil {
			return err
		}
		change = d.AddPeer(key, addr)
	case policy.Reset:
		snapshot.Counts.Pending++ // at most: it may have been pending before
		if _, err := d.Save(snapshot); err != nil {
			return err
		}
		change = d.ResetPeer(key, addr)
	case policy.Replace:
		// The counts stay as they are.
		gone := e.Overdue.Key
		if err := errors.Join(d.RemovePeers([]address.Key{gone}), d.RemoveEntries(gone)); err != nil {
			return err
		}
		change = d.AddPeer(key, addr)
	}
	if change == nil {
		change = d.SetEntries(key)
	}
	if change == nil {
		return nil
	}
	// Even the step that failed may have been done: a netlink answer can be
	// lost after the fact.
	if err := undo(d, key); err != nil {
		return errors.Join(change, fmt.Errorf("undoing the exchange: %w", err))
	}
	return change
}

// undo removes the peer and its FDB entries, unless it turns out to be a static
// peer that the snapshot did not know yet.
func undo(d *domain.Domain, key address.Key) error {
	peers, _, err := d.Dump()
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.Key == key && p.Managed(d.Addresses) {
			err = d.RemovePeers([]address.Key{key})
		}
	}
	return errors.Join(err, d.RemoveEntries(key))
}
