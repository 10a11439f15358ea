package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"wgkex/internal/address"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// WireGuard is what decides whether a WireGuard interface can serve a domain.
type WireGuard struct {
	Index int
	Up    bool
	MTU   int
	// IPv6 says that the interface may have IPv6 addresses.
	IPv6      bool
	Addresses []netip.Addr // IPv6
	// Key is the interface's own public key, zero without a private key.
	Key address.Key
	// Port is the UDP port, 0 for none.
	Port int
}

// VXLAN is what decides whether a VXLAN interface can serve a domain.
type VXLAN struct {
	Index int
	Up    bool
	MTU   int
	VNI   int
	// Port is the UDP port.
	Port int
	// Local is the address that packets are sent from, Remote the destination
	// that the interface was made with (ip-link(8): remote or group). Both may
	// be missing, which is the zero Addr.
	Local, Remote netip.Addr
	// Lower is the index of the interface that it is bound to (ip-link(8): dev),
	// 0 for none.
	Lower int
	// External says that others choose VNI and destination for each packet.
	External bool
	// Learning says that it learns FDB entries from packets.
	Learning bool
	// Limit is how many FDB entries there may be, 0 for any number.
	Limit int
}

// InspectWireGuard reads all about a WireGuard interface but its peers. The
// error is ErrMissing if there is no such interface.
func InspectWireGuard(name string) (WireGuard, error) {
	link, err := inspectLink(name, "wireguard")
	if err != nil {
		return WireGuard{}, err
	}
	w := WireGuard{Index: link.Attrs().Index, Up: link.Attrs().Flags&net.FlagUp != 0, MTU: link.Attrs().MTU}
	if w.IPv6, err = ipv6Enabled(link.Attrs().Index); err != nil {
		return WireGuard{}, err
	}
	if w.IPv6 {
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return WireGuard{}, fmt.Errorf("reading the addresses of %s: %w", name, err)
		}
		for _, a := range list {
			w.Addresses = append(w.Addresses, addrOf(a.IP))
		}
	}
	// Without the peers, of which there may be many.
	device, err := (&devices{wireguard: link}).Gateway()
	if err != nil {
		return WireGuard{}, err
	}
	w.Key, w.Port = device.Key, int(device.Port)
	return w, nil
}

// InspectVXLAN reads all about a VXLAN interface but its FDB entries. The error
// is ErrMissing if there is no such interface.
func InspectVXLAN(name string) (VXLAN, error) {
	link, err := inspectLink(name, "vxlan")
	if err != nil {
		return VXLAN{}, err
	}
	v, ok := link.(*netlink.Vxlan)
	if !ok {
		return VXLAN{}, fmt.Errorf("interface %s: the kernel's answer is a %T", name, link)
	}
	return VXLAN{
		Index: v.Index, Up: v.Flags&net.FlagUp != 0, MTU: v.MTU, VNI: v.VxlanId, Port: v.Port,
		Local: addrOf(v.SrcAddr), Remote: addrOf(v.Group), Lower: v.VtepDevIndex,
		External: v.FlowBased, Learning: v.Learning, Limit: v.Limit,
	}, nil
}

func inspectLink(name, kind string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		err = ErrMissing
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if link.Type() != kind {
		return nil, fmt.Errorf("interface %s is of type %q, not %q", name, link.Type(), kind)
	}
	return link, nil
}

// addrOf is zero for nil.
func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(slices.Clone(ip))
	return addr
}

// What of an interface tells about IPv6 (linux/if_link.h, linux/ipv6.h).
const (
	inet6Conf   = 2  // IFLA_INET6_CONF: the settings in /proc/sys/net/ipv6/conf, 32 bits each
	disableIPv6 = 26 // DEVCONF_DISABLE_IPV6: which of them
)

// ipv6Enabled reports whether an interface may have IPv6 addresses. It asks by netlink, since
// there is no /proc in the sandboxes.
func ipv6Enabled(index int) (bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	req.AddData(head)
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return false, fmt.Errorf("reading whether IPv6 is on: %w", err)
	}
	for _, content := range messages {
		if enabled, err := parseIPv6(content); enabled || err != nil {
			return enabled, err
		}
	}
	return false, nil
}

// parseIPv6 reads a RTM_NEWLINK message. An interface without IPv6, as where the kernel
// has none or the MTU is too small, says nothing about it.
func parseIPv6(content []byte) (enabled bool, err error) {
	if len(content) < unix.SizeofIfInfomsg {
		return false, errCut
	}
	attrs := content[unix.SizeofIfInfomsg:]
	for _, wanted := range []uint16{unix.IFLA_AF_SPEC, unix.AF_INET6, inet6Conf} {
		var inner []byte
		for len(attrs) > 0 && inner == nil {
			var kind uint16
			var value []byte
			if kind, value, attrs, err = cutAttribute(attrs); err != nil {
				return false, err
			}
			if kind == wanted {
				inner = value
			}
		}
		if attrs = inner; attrs == nil {
			return false, nil
		}
	}
	if len(attrs) < 4*(disableIPv6+1) {
		return false, errCut
	}
	return binary.NativeEndian.Uint32(attrs[4*disableIPv6:]) == 0, nil
}
