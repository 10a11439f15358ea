package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"wgkex/internal/address"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The requests are built here because netlink's Neigh cannot carry NDA_IFINDEX,
// the `via` of bridge(8).

func (d *devices) vxlanName() string { return d.vxlan.Attrs().Name }

// entryRequest is a request about FDB entries for mac of the interface itself
// (NTF_SELF), not of a bridge it is in.
func (d *devices) entryRequest(message, flags int, mac address.MAC, parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	head := &netlink.Ndmsg{
		Family: unix.AF_BRIDGE,
		Index:  uint32(d.vxlan.Attrs().Index),
		Flags:  netlink.NTF_SELF,
	}
	if message == unix.RTM_NEWNEIGH { // the other requests may have no state
		head.State = netlink.NUD_PERMANENT
	}
	return d.request(message, flags, append([]nl.NetlinkRequestData{head, nl.NewRtAttr(netlink.NDA_LLADDR, mac[:])}, parts...)...)
}

func (d *devices) HasEntry(mac address.MAC, dst netip.Addr) (bool, error) {
	has, err := d.hasEntry(mac, func(e Entry) bool { return e.Dst == dst })
	if err != nil {
		return false, fmt.Errorf("reading FDB entry %s of %s: %w", mac, d.vxlanName(), classify(err))
	}
	return has, nil
}

// hasEntry reports whether there is an entry for mac, of which there is one at
// most but for Flood, that fits.
func (d *devices) hasEntry(mac address.MAC, fits func(Entry) bool) (bool, error) {
	messages, err := d.entryRequest(unix.RTM_GETNEIGH, 0, mac).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		e, ours, err := parseEntry(m, d.vxlan.Attrs().Index)
		if err != nil {
			return false, err
		}
		if ours && fits(e) {
			return true, nil
		}
	}
	return false, nil
}

func (d *devices) SetEntry(mac address.MAC, dst netip.Addr) error {
	if err := d.setEntry(mac, dst); err != nil {
		return fmt.Errorf("setting FDB entry %s dst %s via %s on %s: %w", mac, dst, d.wireguardName(), d.vxlanName(), err)
	}
	return nil
}

func (d *devices) setEntry(mac address.MAC, dst netip.Addr) error {
	// The kernel takes the entry with IPv6 off, too, but nothing comes through.
	if !d.ipv6 {
		if _, err := d.hasAddress(dst); err != nil {
			return err
		}
	}
	flags := unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	if mac == Flood {
		flags = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	req := d.entryRequest(unix.RTM_NEWNEIGH, flags, mac,
		nl.NewRtAttr(netlink.NDA_DST, dst.AsSlice()),
		nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(d.wireguard.Attrs().Index))))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	// vxlan_fdb_add() and vxlan_fdb_parse() in drivers/net/vxlan/vxlan_core.c.
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("interface %s %w: it takes no IPv6 destinations, it needs an IPv6 address as its local: %w", d.vxlanName(), ErrUnfit, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("interface %s: %w", d.wireguardName(), ErrMissing)
	}
	return classify(err)
}

func (d *devices) RemoveEntry(e Entry) error {
	parts := []nl.NetlinkRequestData{nl.NewRtAttr(netlink.NDA_DST, e.Dst.AsSlice())}
	if e.Via != 0 {
		parts = append(parts, nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(e.Via))))
	}
	err := d.removeEntries(e.MAC, parts...)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = d.removeLostEntry(e)
	}
	if err != nil {
		return fmt.Errorf("removing FDB entry %s dst %s from %s: %w", e.MAC, e.Dst, d.vxlanName(), classify(err))
	}
	return nil
}

// removeEntries removes the entries for mac that match all parts.
func (d *devices) removeEntries(mac address.MAC, parts ...nl.NetlinkRequestData) error {
	_, err := d.entryRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK, mac, parts...).Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// removeLostEntry removes an entry whose Via is gone. vxlan_fdb_parse() in
// drivers/net/vxlan/vxlan_core.c takes no request that names an interface that
// does not exist. So the entry goes by its MAC alone, and one of Flood stays:
// without a destination the request would remove all of them. It leads nowhere.
func (d *devices) removeLostEntry(e Entry) error {
	if e.MAC == Flood {
		return nil
	}
	there, err := d.hasEntry(e.MAC, func(now Entry) bool { return now.Dst == e.Dst && now.Via == e.Via })
	if err != nil || !there { // somebody has replaced it
		return err
	}
	return d.removeEntries(e.MAC)
}

func (d *devices) Entries() ([]Entry, error) {
	entries, err := d.entries()
	if err != nil {
		return nil, fmt.Errorf("reading the FDB of %s: %w", d.vxlanName(), classify(err))
	}
	return entries, nil
}

func (d *devices) entries() ([]Entry, error) {
	var list entryList
	err := Uninterrupted(func() (bool, error) {
		list = entryList{vxlan: d.vxlan.Attrs().Index}
		return dump(unix.NETLINK_ROUTE, d.entriesRequest(), unix.RTM_NEWNEIGH, wholeDump, list.read)
	})
	if err == nil && len(list.entries) == 0 {
		// An interface that is gone has no entries either, and no error.
		head := nl.NewIfInfomsg(unix.AF_UNSPEC)
		head.Index = int32(d.vxlan.Attrs().Index)
		_, err = d.request(unix.RTM_GETLINK, 0, head).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	}
	return list.entries, err
}

// entriesRequest is the request for a dump of the FDB.
func (d *devices) entriesRequest(parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	// An ifinfomsg, not a ndmsg: only with it does rtnl_fdb_dump() in
	// net/core/rtnetlink.c look at one interface alone without strict checks.
	head := nl.NewIfInfomsg(unix.AF_BRIDGE)
	head.Index = int32(d.vxlan.Attrs().Index)
	return d.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, append([]nl.NetlinkRequestData{head}, parts...)...)
}

// entryList collects the FDB entries of a dump.
type entryList struct {
	vxlan   int // the interface's index
	entries []Entry
}

func (l *entryList) read(content []byte) (more bool, err error) {
	e, ours, err := parseEntry(content, l.vxlan)
	if err == nil && ours {
		l.entries = append(l.entries, e)
	}
	return true, err
}

// sizeofNdmsg is the size of struct ndmsg in linux/neighbour.h.
const sizeofNdmsg = 12

// parseEntry reads a RTM_NEWNEIGH message. It is none of the VXLAN interface's
// own entries when ours is false.
func parseEntry(message []byte, index int) (e Entry, ours bool, err error) {
	if len(message) < sizeofNdmsg {
		return Entry{}, false, errCut
	}
	// The layout is that of struct ndmsg.
	if binary.NativeEndian.Uint32(message[4:]) != uint32(index) || message[10]&netlink.NTF_SELF == 0 {
		return Entry{}, false, nil
	}
	e.Permanent = binary.NativeEndian.Uint16(message[8:])&netlink.NUD_PERMANENT != 0
	attrs := message[sizeofNdmsg:]
	for len(attrs) > 0 {
		var kind uint16
		var value []byte
		if kind, value, attrs, err = cutAttribute(attrs); err != nil {
			return Entry{}, false, err
		}
		switch kind {
		case netlink.NDA_LLADDR:
			if len(value) != len(e.MAC) {
				return Entry{}, false, errSize
			}
			e.MAC = address.MAC(value)
		case netlink.NDA_DST:
			e.Dst, _ = netip.AddrFromSlice(value) // invalid when it is no address
		case netlink.NDA_IFINDEX:
			if len(value) != 4 {
				return Entry{}, false, errSize
			}
			e.Via = int(binary.NativeEndian.Uint32(value))
		}
	}
	return e, e.Dst.Is6(), nil
}
