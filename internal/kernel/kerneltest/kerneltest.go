// Package kerneltest stands in for the kernel where a test is about the layers
// above it: a model in memory, and a wrapper that makes any step of any
// kernel.Devices fail.
package kerneltest

import (
	"net/netip"
	"slices"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// Devices models a WireGuard and a VXLAN interface.
type Devices struct {
	Number   kernel.Index
	Key      address.Key
	OwnMAC   address.MAC
	OwnAddrs []netip.Addr
	PeerList []policy.Peer
	FDB      []kernel.Entry
	Dumps    int // calls of Peers
	Closed   bool
}

var _ kernel.Devices = (*Devices)(nil)

func (d *Devices) Index() kernel.Index             { return d.Number }
func (d *Devices) PublicKey() (address.Key, error) { return d.Key, nil }
func (d *Devices) Close() error                    { d.Closed = true; return nil }

func (d *Devices) Owns(mac address.MAC, addr netip.Addr) (bool, error) {
	return mac == d.OwnMAC || slices.Contains(d.OwnAddrs, addr), nil
}

func (d *Devices) Peers() ([]policy.Peer, error) {
	d.Dumps++
	peers := slices.Clone(d.PeerList)
	for i := range peers {
		peers[i].AllowedIPs = slices.Clone(peers[i].AllowedIPs)
	}
	return peers, nil
}

// Peer is the peer with the key, nil without one.
func (d *Devices) Peer(key address.Key) *policy.Peer {
	for i := range d.PeerList {
		if d.PeerList[i].Key == key {
			return &d.PeerList[i]
		}
	}
	return nil
}

func (d *Devices) AddPeer(key address.Key, addr netip.Addr) error {
	if key == d.Key {
		return nil // the kernel ignores it without a word
	}
	allowed := netip.PrefixFrom(addr, addr.BitLen())
	for i := range d.PeerList {
		ips := &d.PeerList[i].AllowedIPs
		*ips = slices.DeleteFunc(*ips, func(p netip.Prefix) bool { return p == allowed })
	}
	if d.Peer(key) == nil {
		d.PeerList = append(d.PeerList, policy.Peer{Key: key})
	}
	p := d.Peer(key)
	p.AllowedIPs = append(p.AllowedIPs, allowed)
	return nil
}

func (d *Devices) ResetPeer(key address.Key, addr netip.Addr) error {
	if err := d.RemovePeers([]address.Key{key}); err != nil {
		return err
	}
	return d.AddPeer(key, addr)
}

func (d *Devices) RemovePeers(keys []address.Key) error {
	d.PeerList = slices.DeleteFunc(d.PeerList, func(p policy.Peer) bool { return slices.Contains(keys, p.Key) })
	return nil
}

func (d *Devices) HasEntry(mac address.MAC) (bool, error) {
	return slices.ContainsFunc(d.FDB, func(e kernel.Entry) bool { return e.MAC == mac }), nil
}

func (d *Devices) Entries() ([]kernel.Entry, error) { return slices.Clone(d.FDB), nil }

func (d *Devices) SetEntry(mac address.MAC, dst netip.Addr) error {
	e := kernel.Entry{MAC: mac, Dst: dst, Via: d.Number.WireGuard, Permanent: true}
	if mac != kernel.Flood {
		d.FDB = slices.DeleteFunc(d.FDB, func(old kernel.Entry) bool { return old.MAC == mac })
	}
	if !slices.Contains(d.FDB, e) {
		d.FDB = append(d.FDB, e)
	}
	return nil
}

func (d *Devices) RemoveEntry(e kernel.Entry) error {
	d.FDB = slices.DeleteFunc(d.FDB, func(old kernel.Entry) bool {
		return old.MAC == e.MAC && old.Dst == e.Dst && old.Via == e.Via
	})
	return nil
}

// Faulty passes calls on to Devices and lets chosen ones fail.
type Faulty struct {
	kernel.Devices
	// Fault is asked at each call, by the method's name and its number from 0
	// on, for an error to return; with afterwards the call takes effect all
	// the same, as when only the kernel's answer is lost.
	Fault func(n int, method string) (err error, afterwards bool)
	// Calls are the methods called so far.
	Calls []string
}

var _ kernel.Devices = (*Faulty)(nil)

func (f *Faulty) do(method string, call func() error) error {
	err, afterwards := f.Fault(len(f.Calls), method)
	f.Calls = append(f.Calls, method)
	if err != nil && !afterwards {
		return err
	}
	if callErr := call(); callErr != nil {
		return callErr
	}
	return err
}

// result passes on a call with a result, which is zero with an error.
func result[T any](f *Faulty, method string, call func() (T, error)) (T, error) {
	var got T
	err := f.do(method, func() (err error) { got, err = call(); return err })
	if err != nil {
		var zero T
		return zero, err
	}
	return got, nil
}

func (f *Faulty) PublicKey() (address.Key, error) {
	return result(f, "PublicKey", f.Devices.PublicKey)
}

func (f *Faulty) Owns(mac address.MAC, addr netip.Addr) (bool, error) {
	return result(f, "Owns", func() (bool, error) { return f.Devices.Owns(mac, addr) })
}

func (f *Faulty) Peers() ([]policy.Peer, error) { return result(f, "Peers", f.Devices.Peers) }

func (f *Faulty) AddPeer(key address.Key, addr netip.Addr) error {
	return f.do("AddPeer", func() error { return f.Devices.AddPeer(key, addr) })
}

func (f *Faulty) ResetPeer(key address.Key, addr netip.Addr) error {
	return f.do("ResetPeer", func() error { return f.Devices.ResetPeer(key, addr) })
}

func (f *Faulty) RemovePeers(keys []address.Key) error {
	return f.do("RemovePeers", func() error { return f.Devices.RemovePeers(keys) })
}

func (f *Faulty) HasEntry(mac address.MAC) (bool, error) {
	return result(f, "HasEntry", func() (bool, error) { return f.Devices.HasEntry(mac) })
}

func (f *Faulty) Entries() ([]kernel.Entry, error) { return result(f, "Entries", f.Devices.Entries) }

func (f *Faulty) SetEntry(mac address.MAC, dst netip.Addr) error {
	return f.do("SetEntry", func() error { return f.Devices.SetEntry(mac, dst) })
}

func (f *Faulty) RemoveEntry(e kernel.Entry) error {
	return f.do("RemoveEntry", func() error { return f.Devices.RemoveEntry(e) })
}
