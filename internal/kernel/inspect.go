package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"wgkex/internal/address"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
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
	if w.IPv6, err = ipv6Enabled(name); err != nil {
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
	client, err := wgctrl.New()
	if err != nil {
		return WireGuard{}, fmt.Errorf("opening WireGuard's netlink: %w", err)
	}
	defer client.Close()
	device, err := client.Device(name)
	if err != nil {
		return WireGuard{}, fmt.Errorf("reading %s: %w", name, classify(err))
	}
	w.Key, w.Port = address.Key(device.PublicKey), device.ListenPort
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

// ipv6Enabled reads disable_ipv6 of an interface
// (Documentation/networking/ip-sysctl.rst). A kernel without IPv6 has no such
// file.
func ipv6Enabled(name string) (bool, error) {
	value, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(value)) == "0", err
}
