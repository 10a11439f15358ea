package kernel

import (
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

func (d *devices) HasEntry(mac address.MAC) (bool, error) {
	_, err := d.entryRequest(unix.RTM_GETNEIGH, 0, mac).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading FDB entry %s of %s: %w", mac, d.vxlanName(), classify(err))
	}
	return true, nil
}

func (d *devices) SetEntry(mac address.MAC, dst netip.Addr) error {
	flags := unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	if mac == Flood {
		flags = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	req := d.entryRequest(unix.RTM_NEWNEIGH, flags, mac,
		nl.NewRtAttr(netlink.NDA_DST, dst.AsSlice()),
		nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(d.wireguard.Attrs().Index))))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("setting FDB entry %s dst %s via %s on %s: %w", mac, dst, d.wireguardName(), d.vxlanName(), classify(err))
	}
	return nil
}

func (d *devices) RemoveEntry(e Entry) error {
	parts := []nl.NetlinkRequestData{nl.NewRtAttr(netlink.NDA_DST, e.Dst.AsSlice())}
	if e.Via != 0 {
		parts = append(parts, nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(e.Via))))
	}
	_, err := d.entryRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK, e.MAC, parts...).Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing FDB entry %s dst %s from %s: %w", e.MAC, e.Dst, d.vxlanName(), classify(err))
	}
	return nil
}

func (d *devices) Entries() ([]Entry, error) {
	// An ifinfomsg, not a ndmsg: only with it does rtnl_fdb_dump() in
	// net/core/rtnetlink.c look at one interface alone without strict checks.
	head := nl.NewIfInfomsg(unix.AF_BRIDGE)
	head.Index = int32(d.vxlan.Attrs().Index)
	messages, err := d.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, head).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("reading the FDB of %s: %w", d.vxlanName(), classify(err))
	}
	entries := make([]Entry, 0, len(messages))
	for _, m := range messages {
		e, ours, err := parseEntry(m, d.vxlan.Attrs().Index)
		if err != nil {
			return nil, fmt.Errorf("reading the FDB of %s: %w", d.vxlanName(), err)
		}
		if ours {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// sizeofNdmsg is the size of struct ndmsg in linux/neighbour.h.
const sizeofNdmsg = 12

// parseEntry reads a RTM_NEWNEIGH message. It is none of the VXLAN interface's
// own entries when ours is false.
func parseEntry(message []byte, index int) (e Entry, ours bool, err error) {
	if len(message) < sizeofNdmsg {
		return Entry{}, false, errors.New("the kernel's answer is cut short")
	}
	// The layout is that of struct ndmsg.
	if nl.NativeEndian().Uint32(message[4:]) != uint32(index) || message[10]&netlink.NTF_SELF == 0 {
		return Entry{}, false, nil
	}
	e.Permanent = nl.NativeEndian().Uint16(message[8:])&netlink.NUD_PERMANENT != 0
	attrs, err := nl.ParseRouteAttr(message[sizeofNdmsg:])
	if err != nil {
		return Entry{}, false, err
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case netlink.NDA_LLADDR:
			copy(e.MAC[:], a.Value)
		case netlink.NDA_DST:
			e.Dst, _ = netip.AddrFromSlice(a.Value)
		case netlink.NDA_IFINDEX:
			if len(a.Value) == 4 {
				e.Via = int(nl.NativeEndian().Uint32(a.Value))
			}
		}
	}
	return e, e.Dst.Is6(), nil
}
