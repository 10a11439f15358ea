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
	managed := make(map[netip.Addr]bool, len(peers))
	// Where others' entries lead: to what is derived from their keys, and to what
	// they claim.
	others, claims := map[netip.Addr]bool{}, []netip.Prefix{}
	for _, p := range peers {
		mac, addr := profile.Of(p.Key)
		if !p.Managed(profile) {
			others[addr] = true
			for _, prefix := range p.AllowedIPs {
				if prefix.IsSingleIP() {
					others[prefix.Addr()] = true
				} else if prefix.Bits() > 64 {
					claims = append(claims, prefix)
				}
			}
			continue
		}
		managed[addr] = true
		unicast := kernel.Entry{MAC: mac, Dst: addr, Via: via, Permanent: true}
		flood := kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via, Permanent: true}
		if !found[unicast] || !found[flood] {
			drift.Peers = append(drift.Peers, p.Key)
		}
	}
	for _, e := range entries {
		if managed[e.Dst] && e.Via == via {
			continue
		}
		// Entries for other MACs are what the VXLAN interface learned.
		mac, derived := profile.Derived(e.Dst)
		ours := derived && (e.MAC == mac || e.MAC == kernel.Flood)
		// The interface's own default destination is the admin's, whether the
		// gateway that it leads to is a peer already or not.
		admins := e.MAC == kernel.Flood && e.Dst == d.Kernel.Remote()
		if ours && !admins && !others[e.Dst] &&
			!slices.ContainsFunc(claims, func(p netip.Prefix) bool { return p.Contains(e.Dst) }) {
			drift.Orphans = append(drift.Orphans, e)
		}
	}
	return drift, nil
}

// Repair sets the entries that lack and removes the orphans, and returns what
// they were.
func (d *Domain) Repair(peers []policy.Peer) (Drift, error) {
	drift, err := d.Drift(peers)
	if err != nil {
		return drift, err
	}
	if len(drift.Orphans) > 0 {
		// Others may have added a peer with its entries since the peers were
		// read.
		now, err := d.Kernel.Peers()
		if err != nil {
			return drift, err
		}
		again, err := d.Drift(now)
		if err != nil {
			return drift, err
		}
		drift.Orphans = slices.DeleteFunc(drift.Orphans, func(e kernel.Entry) bool { return !slices.Contains(again.Orphans, e) })
	}
	if len(drift.Peers) > 0 {
		err = d.setEntries(drift.Peers...)
	}
	if len(drift.Orphans) > 0 {
		err = errors.Join(err, d.Kernel.RemoveEntries(drift.Orphans))
	}
	return drift, err
}
