package domain

import (
	"errors"
	"net/netip"
	"slices"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// setEntries makes sure of both FDB entries of a managed peer.
func (d *Domain) setEntries(key address.Key) error {
	mac, addr := d.Config.Addresses.Of(key)
	if err := d.Kernel.SetEntry(kernel.Flood, addr); err != nil {
		return err
	}
	return d.Kernel.SetEntry(mac, addr)
}

// removeEntries removes both FDB entries of a managed peer.
func (d *Domain) removeEntries(key address.Key) error {
	mac, addr := d.Config.Addresses.Of(key)
	via := d.Kernel.Index().WireGuard
	return errors.Join(
		d.Kernel.RemoveEntry(kernel.Entry{MAC: mac, Dst: addr, Via: via}),
		d.Kernel.RemoveEntry(kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via}))
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
	for _, key := range drift.Peers {
		if err := d.setEntries(key); err != nil {
			return drift, err
		}
	}
	for _, e := range drift.Orphans {
		if err := d.Kernel.RemoveEntry(e); err != nil {
			return drift, err
		}
	}
	return drift, nil
}

// towardsAny reports whether addr leads to one of the peers.
func (d *Domain) towardsAny(peers []policy.Peer, addr netip.Addr) bool {
	return slices.ContainsFunc(peers, func(p policy.Peer) bool {
		_, derived := d.Config.Addresses.Of(p.Key)
		return derived == addr || p.Claims(addr)
	})
}
