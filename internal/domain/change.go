package domain

import (
	"errors"
	"fmt"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// All changes to managed peers are here, so that these rules stand in one place:
//   - A peer stands after its FDB entries and goes before them, so that whatever
//     comes in between, a peer has its entries. Entries without a peer harm
//     nobody, and the next reading of all peers removes them.
//   - What is kept of the counts is never lower than what the kernel has: a peer
//     is counted before it is added and after it was removed.
//   - A step that fails may have been done all the same, since a netlink answer
//     can be lost. So it is done again; only a new peer is taken back.
//
// They all need a State, and keep it up to date.

// Ensure makes sure that the managed peer and its FDB entries are there, and
// changes nothing about a peer that is.
func (d *Domain) Ensure(key address.Key) error {
	err := d.put(key)
	if err == nil || d.put(key) == nil {
		return nil
	}
	return err
}

func (d *Domain) put(keys ...address.Key) error {
	if err := d.setEntries(keys...); err != nil {
		return err
	}
	if len(keys) == 1 {
		_, addr := d.Config.Addresses.Of(keys[0])
		return d.Kernel.AddPeer(keys[0], addr)
	}
	peers := make([]kernel.PeerAddress, len(keys))
	for i, key := range keys {
		peers[i].Key = key
		_, peers[i].Addr = d.Config.Addresses.Of(key)
	}
	return d.Kernel.AddPeers(peers)
}

// Renew is Ensure for a pending peer whose registration counts from now on.
func (d *Domain) Renew(key address.Key) error {
	if err := d.noteOne(registered, key, d.Host.SinceBoot(), d.state.Counts); err != nil {
		return err
	}
	return d.Ensure(key)
}

// Promise counts peers with these records, which are not there, for Add to add
// them. Nothing may read all peers in between.
func (d *Domain) Promise(records ...policy.Record) error {
	counts := d.state.Counts
	events := make([]event, len(records))
	for i, r := range records {
		counts.Add(r)
		events[i] = event{Kind: registered, Key: r.Key, At: int64(r.Registered), Peers: uint32(counts.Peers), Pending: uint32(counts.Pending)}
		if r.Restored != 0 {
			events[i].Kind, events[i].Handshake = restored, int64(r.Active)
		}
	}
	return d.note(events...)
}

// Add adds promised peers, in few messages to the kernel. The error of each, in
// the same order, says that there is nothing of it.
func (d *Domain) Add(records ...policy.Record) []error {
	errs := make([]error, len(records))
	keys := make([]address.Key, len(records))
	for i, r := range records {
		keys[i] = r.Key
	}
	if len(keys) == 0 || len(keys) > 1 && d.put(keys...) == nil {
		return errs
	}
	for i, r := range records {
		if errs[i] = d.Ensure(r.Key); errs[i] == nil {
			continue
		}
		if undoErr := d.takeBack(r); undoErr != nil {
			errs[i] = errors.Join(errs[i], fmt.Errorf("taking the peer back: %w", undoErr))
		}
	}
	return errs
}

// takeBack removes a peer that could not be added whole, unless it turns out to
// be a static one that nothing knew of, or one whose router has connected.
func (d *Domain) takeBack(r policy.Record) error {
	p, there, err := d.Kernel.Peer(r.Key)
	switch {
	case err != nil:
		return err
	case there && p.Managed(d.Config.Addresses) && p.Pending():
		_, err := d.Remove(r)
		return err
	case there:
		return nil
	}
	return errors.Join(d.removeEntries(r.Key), d.forgetPeers(r))
}

// Reset removes the peer and adds it anew, if check says so, which also returns
// its record. Between check and reset is as little as can be.
func (d *Domain) Reset(key address.Key, check func() (policy.Record, bool, error)) error {
	if err := d.setEntries(key); err != nil {
		return err
	}
	r, still, err := check()
	if err != nil || !still {
		return err
	}
	counts := d.state.Counts
	counts.Remove(r)
	counts.Add(policy.NewRecord(key, 0))
	if err := d.noteOne(registered, key, d.Host.SinceBoot(), counts); err != nil {
		return err
	}
	_, addr := d.Config.Addresses.Of(key)
	if err := d.Kernel.ResetPeer(key, addr); err != nil {
		return errors.Join(err, d.Ensure(key))
	}
	return nil
}

// Remove removes the managed peers with these records and their FDB entries. It
// reports whether the peers are gone; entries may be left all the same, of which
// the error tells.
func (d *Domain) Remove(records ...policy.Record) (gone bool, err error) {
	keys := make([]address.Key, len(records))
	for i, r := range records {
		keys[i] = r.Key
	}
	if err := d.Kernel.RemovePeers(keys); err != nil && d.Kernel.RemovePeers(keys) != nil {
		return false, err
	}
	return true, errors.Join(d.removeEntries(keys...), d.forgetPeers(records...))
}

// forgetPeers takes peers that are gone out of the state.
func (d *Domain) forgetPeers(records ...policy.Record) error {
	counts := d.state.Counts
	events := make([]event, len(records))
	for i, r := range records {
		counts.Remove(r)
		events[i] = event{Kind: removed, Key: r.Key, Peers: uint32(counts.Peers), Pending: uint32(counts.Pending)}
	}
	return d.note(events...)
}

// Readdress makes managed peers of left-over ones, and returns all peers as they
// are then. The FDB entries for the addresses of other profiles go.
func (d *Domain) Readdress(keys ...address.Key) (Survey, error) {
	if err := d.setEntries(keys...); err != nil {
		return Survey{}, err
	}
	via := d.Kernel.Index().WireGuard
	var old []kernel.Entry
	for _, key := range keys {
		_, addr := d.Config.Addresses.Of(key)
		if err := d.Kernel.Readdress(key, addr); err != nil {
			return Survey{}, err
		}
		for _, other := range address.Profiles {
			if mac, was := other.Of(key); was != addr {
				old = append(old, kernel.Entry{MAC: mac, Dst: was, Via: via}, kernel.Entry{MAC: kernel.Flood, Dst: was, Via: via})
			}
		}
	}
	if err := d.Kernel.RemoveEntries(old); err != nil {
		return Survey{}, err
	}
	// They are among the others of the state, which no event changes.
	return d.Refresh(nil)
}
