package domain

import (
	"errors"
	"net/netip"
	"slices"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// setEntries makes sure of both FDB entries of managed peers.
func (d *Domain) setEntries(keys ...address.Key) error {
	entries := make([]kernel.Destination, 0, 2*len(keys))
	for _, key := range keys {
		mac, addr := d.Config.Addresses.Of(key)
		entries = append(entries, kernel.Destination{MAC: kernel.Flood, Addr: addr}, kernel.Destination{MAC: mac, Addr: addr})
	}
	return d.Kernel.SetEntries(entries)
}

// removeEntries removes both FDB entries of managed peers.
func (d *Domain) removeEntries(keys ...address.Key) error {
	via := d.Kernel.Index().WireGuard
	entries := make([]kernel.Entry, 0, 2*len(keys))
	for _, key := range keys {
		mac, addr := d.Config.Addresses.Of(key)
		entries = append(entries, kernel.Entry{MAC: mac, Dst: addr, Via: via}, kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via})
	}
	return d.Kernel.RemoveEntries(entries)
}

// Drift is how the FDB differs from what the peers ask for.
type Drift struct {
	// Peers are managed peers that lack an FDB entry.
	Peers []address.Key
	// Orphans are entries towards the address of a managed peer that does not
	// exist, or that lead to it the wrong way.
	Orphans []kernel.Entry
}

// Drift compares the FDB with the peers.
func (d *Domain) Drift(peers []policy.Peer) (Drift, error) {
	var drift Drift
	entries, err := d.Kernel.Entries()
	if err != nil {
		return drift, err
	}
	found := make(map[kernel.Entry]bool, len(entries))
	for _, e := range entries {
		found[e] = true
	}
	profile, via := d.Config.Addresses, d.Kernel.Index().WireGuard
	var others []policy.Peer
	managed := make(map[netip.Addr]bool, len(peers))
	for _, p := range peers {
		if !p.Managed(profile) {
			others = append(others, p)
			continue
		}
		mac, addr := profile.Of(p.Key)
		managed[addr] = true
		unicast := kernel.Entry{MAC: mac, Dst: addr, Via: via, Permanent: true}
		flood := kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via, Permanent: true}
		if !found[unicast] || !found[flood] {
			drift.Peers = append(drift.Peers, p.Key)
		}
	}
	for _, e := range entries {
		// Entries for other MACs are what the VXLAN interface learned.
		mac, derived := profile.Derived(e.Dst)
		ours := derived && (e.MAC == mac || e.MAC == kernel.Flood)
		// The interface's own default destination is the admin's, whether the
		// gateway that it leads to is a peer already or not.
		admins := e.MAC == kernel.Flood && e.Dst == d.Kernel.Remote() || d.towardsAny(others, e.Dst)
		if ours && !admins && !(managed[e.Dst] && e.Via == via) {
			drift.Orphans = append(drift.Orphans, e)
		}
	}
	return drift, nil
}

// Repair sets what lacks and removes orphans of all peers, and returns what it
// was.
func (d *Domain) Repair(peers []policy.Peer) (Drift, error) {
	drift, err := d.Drift(peers)
	if err != nil {
		return drift, err
	}
	if len(drift.Peers) > 0 {
		err = d.setEntries(drift.Peers...)
	}
	if len(drift.Orphans) > 0 {
		err = errors.Join(err, d.Kernel.RemoveEntries(drift.Orphans))
	}
	return drift, err
}

// towardsAny reports whether addr leads to one of the peers.
func (d *Domain) towardsAny(peers []policy.Peer, addr netip.Addr) bool {
	return slices.ContainsFunc(peers, func(p policy.Peer) bool {
		_, derived := d.Config.Addresses.Of(p.Key)
		return derived == addr || p.Claims(addr)
	})
}
