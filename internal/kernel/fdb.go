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

func (d *devices) SetEntries(entries []Destination) error {
	// The kernel takes entries with IPv6 off, too, but nothing comes through.
	if !d.ipv6 && len(entries) > 0 {
		if _, err := d.hasAddress(entries[0].Addr); err != nil {
			return fmt.Errorf("setting FDB entries on %s: %w", d.vxlanName(), err)
		}
	}
	requests := make([]*nl.NetlinkRequest, len(entries))
	for i, e := range entries {
		flags := unix.NLM_F_CREATE | unix.NLM_F_REPLACE
		if e.MAC == Flood {
			flags = unix.NLM_F_CREATE | unix.NLM_F_APPEND
		}
		requests[i] = d.entryRequest(unix.RTM_NEWNEIGH, flags, e.MAC, destination(e.Addr, d.Index().WireGuard)...)
	}
	errs, err := sendAll(unix.NETLINK_ROUTE, requests)
	if err != nil {
		return fmt.Errorf("setting %d FDB entries on %s: %w", len(entries), d.vxlanName(), err)
	}
	for i, e := range entries {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("setting FDB entry %s dst %s via %s on %s: %w", e.MAC, e.Addr, d.wireguardName(), d.vxlanName(), d.setError(errs[i]))
		}
	}
	return bulkError(errs)
}

// setError says what the kernel means by an error of vxlan_fdb_add() and
// vxlan_fdb_parse() in drivers/net/vxlan/vxlan_core.c.
func (d *devices) setError(err error) error {
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("interface %s %w: it takes no IPv6 destinations, it needs an IPv6 address as its local: %w", d.vxlanName(), ErrUnfit, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("interface %s: %w", d.wireguardName(), ErrMissing)
	}
	return classify(err)
}

// destination is where an entry leads to, as attributes of a request.
func destination(dst netip.Addr, via int) []nl.NetlinkRequestData {
	parts := []nl.NetlinkRequestData{nl.NewRtAttr(netlink.NDA_DST, dst.AsSlice())}
	if via != 0 {
		parts = append(parts, nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(via))))
	}
	return parts
}

func (d *devices) RemoveEntries(entries []Entry) error {
	requests := make([]*nl.NetlinkRequest, len(entries))
	for i, e := range entries {
		requests[i] = d.entryRequest(unix.RTM_DELNEIGH, 0, e.MAC, destination(e.Dst, e.Via)...)
	}
	errs, err := sendAll(unix.NETLINK_ROUTE, requests)
	if err != nil {
		return fmt.Errorf("removing %d FDB entries from %s: %w", len(entries), d.vxlanName(), err)
	}
	for i, e := range entries {
		if errors.Is(errs[i], unix.EADDRNOTAVAIL) {
			errs[i] = d.removeLostEntry(e)
		}
		switch {
		case errors.Is(errs[i], unix.ENOENT):
			errs[i] = nil
		case errs[i] != nil:
			errs[i] = fmt.Errorf("removing FDB entry %s dst %s from %s: %w", e.MAC, e.Dst, d.vxlanName(), classify(errs[i]))
		}
	}
	return bulkError(errs)
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
	_, err = d.entryRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK, e.MAC).Execute(unix.NETLINK_ROUTE, 0)
	return err
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
