// Package kerneltest stands in for the kernel where a test is about the layers
// above it: a model in memory, and a wrapper that makes any step of any
// kernel.Devices fail.
package kerneltest

import (
	"fmt"
	"net/netip"
	"slices"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// Devices models a WireGuard and a VXLAN interface. Tests set and read the
// fields as they like, between calls and in Between.
type Devices struct {
	Number   kernel.Index
	Key      address.Key
	OwnMAC   address.MAC
	OwnAddrs []netip.Addr
	PeerList []policy.Peer
	FDB      []kernel.Entry
	RemoteIP netip.Addr // what Remote returns
	Dumps    int        // calls of Peers
	Searches int        // calls of Peer
	Closed   bool
	// Between, if not nil, is called before each call takes effect, with the
	// method's name: there others change peers and FDB entries, or routers
	// connect. A dump that is interrupted calls it before each try. It is not
	// called for what it calls itself, nor for Index, Remote and Close, which do
	// not ask the kernel.
	Between func(method string)
	// Interrupt is how many more tries of Peers, Peer and Entries are
	// interrupted.
	Interrupt int

	inBetween bool
}

var _ kernel.Devices = (*Devices)(nil)

func (d *Devices) Index() kernel.Index { return d.Number }
func (d *Devices) Remote() netip.Addr  { return d.RemoteIP }
func (d *Devices) Close() error        { d.Closed = true; return nil }

// between lets others act before a call of the method.
func (d *Devices) between(method string) {
	if d.Between == nil || d.inBetween {
		return
	}
	d.inBetween = true
	defer func() { d.inBetween = false }()
	d.Between(method)
}

// dump makes a dump as the kernel package does, around what reads it.
func (d *Devices) dump(method string, read func()) error {
	err := kernel.Uninterrupted(func() (interrupted bool, err error) {
		d.between(method)
		if d.Interrupt > 0 {
			d.Interrupt--
			return true, nil
		}
		read()
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

func (d *Devices) Gateway() (kernel.Gateway, error) {
	d.between("Gateway")
	g := kernel.Gateway{Key: d.Key, Port: 51820}
	if len(d.OwnAddrs) > 0 {
		g.Addr = d.OwnAddrs[0]
	}
	return g, nil
}

func (d *Devices) Owns(mac address.MAC, addr netip.Addr) (bool, error) {
	d.between("Owns")
	return mac == d.OwnMAC || slices.Contains(d.OwnAddrs, addr), nil
}

func (d *Devices) Peers() (peers []policy.Peer, err error) {
	d.Dumps++
	err = d.dump("Peers", func() {
		for _, p := range d.PeerList {
			peers = append(peers, clone(p))
		}
	})
	return peers, err
}

func (d *Devices) Peer(key address.Key) (peer policy.Peer, found bool, err error) {
	d.Searches++
	err = d.dump("Peer", func() {
		if p := d.Find(key); p != nil {
			peer, found = clone(*p), true
		}
	})
	return peer, found, err
}

func clone(p policy.Peer) policy.Peer {
	p.AllowedIPs = slices.Clone(p.AllowedIPs)
	return p
}

// Find is the peer with the key, for a test to look at and to change; nil
// without one.
func (d *Devices) Find(key address.Key) *policy.Peer {
	for i := range d.PeerList {
		if d.PeerList[i].Key == key {
			return &d.PeerList[i]
		}
	}
	return nil
}

func (d *Devices) AddPeer(key address.Key, addr netip.Addr) error {
	d.between("AddPeer")
	d.add(key, addr)
	return nil
}

func (d *Devices) AddPeers(peers []kernel.PeerAddress) error {
	d.between("AddPeers")
	for _, p := range peers {
		d.add(p.Key, p.Addr)
	}
	return nil
}

func (d *Devices) add(key address.Key, addr netip.Addr) {
	if key == d.Key {
		return // the kernel ignores it without a word
	}
	allowed := netip.PrefixFrom(addr, addr.BitLen())
	for i := range d.PeerList {
		ips := &d.PeerList[i].AllowedIPs
		*ips = slices.DeleteFunc(*ips, func(p netip.Prefix) bool { return p == allowed })
	}
	if d.Find(key) == nil {
		d.PeerList = append(d.PeerList, policy.Peer{Key: key})
	}
	p := d.Find(key)
	p.AllowedIPs = append(p.AllowedIPs, allowed)
}

func (d *Devices) ResetPeer(key address.Key, addr netip.Addr) error {
	d.between("ResetPeer")
	d.remove(key)
	d.add(key, addr)
	return nil
}

func (d *Devices) Readdress(key address.Key, addr netip.Addr) error {
	d.between("Readdress")
	if p := d.Find(key); p != nil {
		p.AllowedIPs = nil
		d.add(key, addr)
	}
	return nil
}

func (d *Devices) RemovePeers(keys []address.Key) error {
	d.between("RemovePeers")
	d.remove(keys...)
	return nil
}

func (d *Devices) remove(keys ...address.Key) {
	d.PeerList = slices.DeleteFunc(d.PeerList, func(p policy.Peer) bool { return slices.Contains(keys, p.Key) })
}

func (d *Devices) HasEntry(mac address.MAC, dst netip.Addr) (bool, error) {
	d.between("HasEntry")
	return slices.ContainsFunc(d.FDB, func(e kernel.Entry) bool { return e.MAC == mac && e.Dst == dst }), nil
}

func (d *Devices) Entries() (entries []kernel.Entry, err error) {
	err = d.dump("Entries", func() { entries = slices.Clone(d.FDB) })
	return entries, err
}

func (d *Devices) SetEntries(entries []kernel.Destination) error {
	d.between("SetEntries")
	for _, e := range entries {
		d.set(e.MAC, e.Addr)
	}
	return nil
}

func (d *Devices) set(mac address.MAC, dst netip.Addr) {
	e := kernel.Entry{MAC: mac, Dst: dst, Via: d.Number.WireGuard, Permanent: true}
	if mac != kernel.Flood {
		d.FDB = slices.DeleteFunc(d.FDB, func(old kernel.Entry) bool { return old.MAC == mac })
	}
	if !slices.Contains(d.FDB, e) {
		d.FDB = append(d.FDB, e)
	}
}

func (d *Devices) RemoveEntries(entries []kernel.Entry) error {
	d.between("RemoveEntries")
	d.unset(entries...)
	return nil
}

func (d *Devices) unset(entries ...kernel.Entry) {
	d.FDB = slices.DeleteFunc(d.FDB, func(old kernel.Entry) bool {
		return slices.ContainsFunc(entries, func(e kernel.Entry) bool {
			return old.MAC == e.MAC && old.Dst == e.Dst && old.Via == e.Via
		})
	})
}

// Faulty passes calls on to Devices and lets chosen ones fail.
type Faulty struct {
	kernel.Devices
	// Fault is asked at each call, by the method's name and its number from 0
	// on, for an error to return; with afterwards the call takes effect all
	// the same, as when only the kernel's answer is lost. A panic is passed on:
	// to a test it is a process that was killed before the call.
	Fault func(n int, method string) (err error, afterwards bool)
	// Calls are the methods called so far.
	Calls []string
}

var _ kernel.Devices = (*Faulty)(nil)

func (f *Faulty) do(method string, call func() error) error {
	n := len(f.Calls)
	f.Calls = append(f.Calls, method)
	err, afterwards := f.Fault(n, method)
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

func (f *Faulty) Gateway() (kernel.Gateway, error) {
	return result(f, "Gateway", f.Devices.Gateway)
}

func (f *Faulty) Owns(mac address.MAC, addr netip.Addr) (bool, error) {
	return result(f, "Owns", func() (bool, error) { return f.Devices.Owns(mac, addr) })
}

func (f *Faulty) Peers() ([]policy.Peer, error) { return result(f, "Peers", f.Devices.Peers) }

func (f *Faulty) Peer(key address.Key) (peer policy.Peer, found bool, err error) {
	err = f.do("Peer", func() (err error) { peer, found, err = f.Devices.Peer(key); return err })
	if err != nil {
		return policy.Peer{}, false, err
	}
	return peer, found, nil
}

func (f *Faulty) AddPeer(key address.Key, addr netip.Addr) error {
	return f.do("AddPeer", func() error { return f.Devices.AddPeer(key, addr) })
}

func (f *Faulty) AddPeers(peers []kernel.PeerAddress) error {
	return f.do("AddPeers", func() error { return f.Devices.AddPeers(peers) })
}

func (f *Faulty) ResetPeer(key address.Key, addr netip.Addr) error {
	return f.do("ResetPeer", func() error { return f.Devices.ResetPeer(key, addr) })
}

func (f *Faulty) Readdress(key address.Key, addr netip.Addr) error {
	return f.do("Readdress", func() error { return f.Devices.Readdress(key, addr) })
}

func (f *Faulty) RemovePeers(keys []address.Key) error {
	return f.do("RemovePeers", func() error { return f.Devices.RemovePeers(keys) })
}

func (f *Faulty) HasEntry(mac address.MAC, dst netip.Addr) (bool, error) {
	return result(f, "HasEntry", func() (bool, error) { return f.Devices.HasEntry(mac, dst) })
}

func (f *Faulty) Entries() ([]kernel.Entry, error) { return result(f, "Entries", f.Devices.Entries) }

func (f *Faulty) SetEntries(entries []kernel.Destination) error {
	return f.do("SetEntries", func() error { return f.Devices.SetEntries(entries) })
}

func (f *Faulty) RemoveEntries(entries []kernel.Entry) error {
	return f.do("RemoveEntries", func() error { return f.Devices.RemoveEntries(entries) })
}
