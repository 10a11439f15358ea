// Package kernel is the only one that speaks netlink: WireGuard peers, VXLAN
// FDB entries, and what of the gateway's links and addresses an exchange must
// know. It needs CAP_NET_ADMIN and nothing else.
package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
)

// Devices is a domain's WireGuard interface and its VXLAN interface, as found
// when they were opened. Every error names the object and the interface. It is
// ErrMissing when an interface is not there or not there any more, and ErrUnfit
// when an interface cannot serve until the admin has changed it.
//
// No method takes a lock; the domain's lock is for the caller to hold.
type Devices interface {
	// Index identifies the two interfaces: a device made anew has another
	// index, whatever its name.
	Index() Index

	// Gateway is what routers have to know of this end of the tunnel. It takes the
	// same time however many peers there are.
	Gateway() (Gateway, error)
	// Owns reports whether the gateway itself has addr on any interface, or
	// its VXLAN interface has mac. It takes the same time however many
	// addresses there are. With IPv6 off the gateway has none.
	Owns(mac address.MAC, addr netip.Addr) (bool, error)

	// Peers reads all peers, in the order in which they were added. It takes
	// time in proportion to their number. The error is ErrInterrupted when others
	// change the device each time that its peers are read.
	Peers() ([]policy.Peer, error)
	// Peer reads the peer with the key, and reports whether there is one. It
	// takes half of the time of Peers on average and all of it when there is no
	// such peer. It returns as soon as it has the peer, so that the peer is as
	// new as it can be. The error is ErrInterrupted as with Peers.
	Peer(key address.Key) (peer policy.Peer, found bool, err error)
	// AddPeer makes sure that there is a peer with the key and that addr is
	// among its allowed IPs. It takes no allowed IP from a peer with the key,
	// but takes addr from any other.
	AddPeer(key address.Key, addr netip.Addr) error
	// AddPeers does to many peers what AddPeer does to one, in few messages.
	// After an error some are added and some are not.
	AddPeers(peers []PeerAddress) error
	// ResetPeer removes the peer with the key, if any, and adds it anew with
	// addr as its sole allowed IP, in one message to the kernel.
	ResetPeer(key address.Key, addr netip.Addr) error
	// Readdress makes addr the sole allowed IP of the peer with the key, taking
	// it from any other peer, and leaves the rest of the peer as it is. A key
	// without a peer is no error.
	Readdress(key address.Key, addr netip.Addr) error
	// RemovePeers removes the peers with these keys, in few messages. A key
	// without a peer is no error. After an error some are removed and some are
	// not.
	RemovePeers(keys []address.Key) error

	// Remote is the VXLAN interface's own default destination (`remote` of
	// ip-link(8)), zero when it is no IPv6 address. The FDB entry Flood towards
	// it comes with the interface, and belongs to the admin.
	Remote() netip.Addr
	// HasEntry reports whether the VXLAN interface has an FDB entry for mac that
	// leads to dst, ours or learned. It takes the same time however many there are.
	HasEntry(mac address.MAC, dst netip.Addr) (bool, error)
	// Entries reads all FDB entries of the VXLAN interface that have an IPv6
	// destination. Each of them was there. One that is missing may be there all
	// the same if others removed entries meanwhile: vxlan_fdb_dump() in
	// drivers/net/vxlan/vxlan_core.c finds the place where it goes on by counting
	// and does not say that it was interrupted. Should a kernel say so, the error
	// is ErrInterrupted as with Peers.
	Entries() ([]Entry, error)
	// SetEntries makes sure of permanent FDB entries via the WireGuard interface,
	// many at a time: for Flood one more destination each, for any other MAC the
	// only one. Doing it again changes nothing. It tries all of them; the error is a
	// *BulkError when some failed. That of one is ErrUnfit when IPv6 is off or the
	// VXLAN interface takes no IPv6 destinations.
	SetEntries(entries []Destination) error
	// RemoveEntries removes FDB entries, many at a time, with an error as of
	// SetEntries. One that is not there is no error. An entry of Flood whose Via is an
	// interface that is gone stays, without an error: the kernel has no request that
	// removes it alone.
	RemoveEntries(entries []Entry) error

	Close() error
}

// Flood is the MAC of the FDB entries whose destinations get all broadcast,
// unknown unicast and multicast frames (bridge(8), "all-zeros mac").
var Flood address.MAC

// Index holds interface indexes.
type Index struct {
	WireGuard int `json:"wireguard"`
	VXLAN     int `json:"vxlan"`
}

// Entry is an FDB entry of a VXLAN interface.
type Entry struct {
	MAC address.MAC
	Dst netip.Addr
	// Via is the index of the interface that leads to Dst, 0 when the entry
	// names none. Without it a link-local Dst has no route.
	Via       int
	Permanent bool
}

// Gateway is the gateway's end of a domain's tunnels.
type Gateway struct {
	// Key is the WireGuard interface's own public key, zero when it has none.
	Key address.Key
	// Port is the WireGuard interface's UDP port, 0 for none.
	Port uint16
	// Addr is the VXLAN interface's local address, from which its packets come,
	// zero when it has none or one of IPv4.
	Addr netip.Addr
}

// PeerAddress is a peer to add, and an address to be among its allowed IPs.
type PeerAddress struct {
	Key  address.Key
	Addr netip.Addr
}

// Destination is an FDB entry to set.
type Destination struct {
	MAC  address.MAC
	Addr netip.Addr
}

// ErrMissing is the error when a domain's interface does not exist.
var ErrMissing = errors.New("no such interface")

// ErrUnfit is the error when a domain's interface exists but cannot serve as it
// is. Its message is never without what is wrong.
var ErrUnfit = errors.New("cannot serve")

// ErrDown is the error when a domain's WireGuard interface is not up.
var ErrDown = errors.New("down")

// Ready reports whether the two interfaces exist and the WireGuard interface is
// up, by an error that is ErrMissing, ErrUnfit or ErrDown when they do not, and nil
// when they do. Before it is up, whoever made the interface may still set it up,
// and wg setconf, wg-quick and systemd-networkd remove all peers when they do.
func Ready(wireguard, vxlan string) (err error) {
	opened, err := Open(wireguard, vxlan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if d, ok := opened.(*devices); ok && d.wireguard.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is %w", wireguard, ErrDown)
	}
	return nil
}

// devices is Devices in the running kernel.
type devices struct {
	wireguard, vxlan netlink.Link
	wg               *wgctrl.Client
	family           uint16 // WireGuard's in generic netlink, 0 until it is needed
	ipv6             bool   // known to be on
	route            map[int]*nl.SocketHandle
}

// Open finds the two interfaces by name and type.
func Open(wireguard, vxlan string) (Devices, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a route netlink socket: %w", err)
	}
	d := &devices{route: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}
	if err := d.open(wireguard, vxlan); err != nil {
		_ = d.Close() // the error that matters is the first
		return nil, err
	}
	return d, nil
}

func (d *devices) open(wireguard, vxlan string) (err error) {
	timeout := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	if err := errors.Join(d.socket().SetSendTimeout(&timeout), d.socket().SetReceiveTimeout(&timeout)); err != nil {
		return fmt.Errorf("setting netlink timeouts: %w", err)
	}
	if d.wireguard, err = d.link(wireguard, "wireguard"); err != nil {
		return err
	}
	if d.vxlan, err = d.link(vxlan, "vxlan"); err != nil {
		return err
	}
	if d.wg, err = wgctrl.New(); err != nil {
		return fmt.Errorf("opening WireGuard's netlink: %w", err)
	}
	return nil
}

func (d *devices) socket() *nl.NetlinkSocket { return d.route[unix.NETLINK_ROUTE].Socket }

func (d *devices) Close() error {
	d.socket().Close()
	if d.wg == nil {
		return nil
	}
	return d.wg.Close()
}

func (d *devices) Index() Index {
	return Index{WireGuard: d.wireguard.Attrs().Index, VXLAN: d.vxlan.Attrs().Index}
}

// request makes a route netlink request on the one socket.
func (d *devices) request(message, flags int, parts ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(message, flags)
	req.Sockets = d.route
	for _, p := range parts {
		req.AddData(p)
	}
	return req
}

func (d *devices) link(name, kind string) (netlink.Link, error) {
	req := d.request(unix.RTM_GETLINK, 0,
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, classify(err))
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("interface %s: the kernel gave %d answers", name, len(messages))
	}
	link, err := netlink.LinkDeserialize(nil, messages[0])
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if link.Type() != kind {
		return nil, fmt.Errorf("interface %s %w: it is of type %q, not %q", name, ErrUnfit, link.Type(), kind)
	}
	return link, nil
}

func (d *devices) Remote() netip.Addr {
	if vxlan, ok := d.vxlan.(*netlink.Vxlan); ok {
		return ipv6(vxlan.Group)
	}
	return netip.Addr{}
}

// ipv6 is the zero Addr for what is no IPv6 address.
func ipv6(ip net.IP) netip.Addr {
	if addr, ok := netip.AddrFromSlice(ip); ok && addr.Is6() {
		return addr
	}
	return netip.Addr{}
}

func (d *devices) Owns(mac address.MAC, addr netip.Addr) (bool, error) {
	if string(d.vxlan.Attrs().HardwareAddr) == string(mac[:]) {
		return true, nil
	}
	has, err := d.hasAddress(addr)
	if errors.Is(err, ErrUnfit) {
		return false, nil
	}
	return has, err
}

// hasAddress reports whether any interface has addr. The error is ErrUnfit when
// IPv6 is off.
func (d *devices) hasAddress(addr netip.Addr) (bool, error) {
	// Not a dump: with the address given and no interface,
	// inet6_rtm_getaddr() in net/ipv6/addrconf.c looks it up on all of them.
	req := d.request(unix.RTM_GETADDR, 0,
		nl.NewIfAddrmsg(unix.AF_INET6),
		nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	_, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if off := ipv6Off(err); off != nil {
		return false, off
	}
	d.ipv6 = err == nil || errors.Is(err, unix.EADDRNOTAVAIL)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("looking for address %s on the gateway: %w", addr, err)
	}
	return true, nil
}

// ipv6Off is ErrUnfit when the answer to a request about IPv6 addresses says
// that the kernel was started with ipv6.disable=1. Then nothing answers for
// AF_INET6, and rtnetlink_rcv_msg() in net/core/rtnetlink.c falls back to what
// answers for AF_UNSPEC, which only knows dumps.
func ipv6Off(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the gateway %w: IPv6 is switched off (ipv6.disable=1): %w", ErrUnfit, err)
	}
	return nil
}

// classify makes ErrMissing of the errors that say so. os.ErrNotExist itself
// is wgctrl's word for ENODEV; errors.Is would take ENOENT for it as well.
func classify(err error) error {
	if errors.Is(err, unix.ENODEV) || err == os.ErrNotExist {
		return ErrMissing
	}
	return err
}
