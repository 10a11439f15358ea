package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// netlinkTimeout bounds each wait for the kernel's answer.
const netlinkTimeout = 10 * time.Second

func (d *devices) wireguardName() string { return d.wireguard.Attrs().Name }

// Gateway reads the first message of a dump, in which the kernel puts the
// device's own attributes. wgctrl knows only the whole dump.
func (d *devices) Gateway() (g Gateway, err error) {
	err = Uninterrupted(func() (bool, error) {
		return d.dumpDevice(partDump, func(content []byte) (more bool, err error) {
			g, err = parseGateway(content)
			return false, err
		})
	})
	if err != nil {
		return Gateway{}, fmt.Errorf("reading the public key of %s: %w", d.wireguardName(), classify(err))
	}
	if vxlan, ok := d.vxlan.(*netlink.Vxlan); ok {
		g.Addr = ipv6(vxlan.SrcAddr)
	}
	return g, nil
}

// dumpDevice dumps the WireGuard device once.
func (d *devices) dumpDevice(size int, each func(content []byte) (more bool, err error)) (interrupted bool, err error) {
	req, family, err := d.deviceRequest()
	if err != nil {
		return false, err
	}
	return dump(unix.NETLINK_GENERIC, req, family, size, each)
}

// deviceRequest is the request for a dump of the WireGuard device. The family is
// the type of the answer's messages.
func (d *devices) deviceRequest() (req *nl.NetlinkRequest, family uint16, err error) {
	if family, err = d.wireguardFamily(); err != nil {
		return nil, 0, err
	}
	req = nl.NewNetlinkRequest(int(family), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: unix.WG_CMD_GET_DEVICE, Version: unix.WG_GENL_VERSION})
	req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFINDEX, nl.Uint32Attr(uint32(d.wireguard.Attrs().Index))))
	return req, family, nil
}

// wireguardFamily is the type of WireGuard's messages in generic netlink.
func (d *devices) wireguardFamily() (uint16, error) {
	if d.family == 0 {
		family, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
		if err != nil {
			return 0, fmt.Errorf("looking for WireGuard's netlink: %w", err)
		}
		d.family = family.ID
	}
	return d.family, nil
}

func (d *devices) Peers() ([]policy.Peer, error) {
	var peers peerList
	err := Uninterrupted(func() (bool, error) {
		peers = nil
		return d.dumpDevice(wholeDump, peers.read)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the peers of %s: %w", d.wireguardName(), classify(err))
	}
	return peers, nil
}

func (d *devices) Peer(key address.Key) (policy.Peer, bool, error) {
	var search peerSearch
	err := Uninterrupted(func() (bool, error) {
		search = peerSearch{key: key}
		return d.dumpDevice(partDump, search.read)
	})
	if err != nil {
		return policy.Peer{}, false, fmt.Errorf("reading peer %s of %s: %w", key, d.wireguardName(), classify(err))
	}
	return search.peer, search.found, nil
}

func peerConfig(key address.Key, addr netip.Addr) wgtypes.PeerConfig {
	return wgtypes.PeerConfig{
		PublicKey:  wgtypes.Key(key),
		AllowedIPs: []net.IPNet{{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}},
	}
}

// configure changes peers; doing says which, for an error.
func (d *devices) configure(doing string, peers ...wgtypes.PeerConfig) error {
	if err := d.wg.ConfigureDevice(d.wireguardName(), wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("%s on %s: %w", doing, d.wireguardName(), classify(err))
	}
	return nil
}

func (d *devices) AddPeer(key address.Key, addr netip.Addr) error {
	return d.configure(fmt.Sprintf("adding peer %s", key), peerConfig(key, addr))
}

func (d *devices) ResetPeer(key address.Key, addr netip.Addr) error {
	// wgctrl sends up to 32 peers in one message, which the kernel works off
	// in order.
	return d.configure(fmt.Sprintf("resetting peer %s", key), wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true}, peerConfig(key, addr))
}

func (d *devices) Readdress(key address.Key, addr netip.Addr) error {
	peer := peerConfig(key, addr)
	peer.UpdateOnly, peer.ReplaceAllowedIPs = true, true
	return d.configure(fmt.Sprintf("changing the allowed IPs of peer %s", key), peer)
}

// peersPerMessage is how many peers are changed by one message. They must fit
// into one attribute, which has at most 64 KiB; a peer with an allowed IP takes
// 92 bytes. While the kernel works on a message nobody else can change an
// interface of the gateway (rtnl_lock() in wg_set_device()).
const peersPerMessage = 256

func (d *devices) AddPeers(peers []PeerAddress) error {
	if len(peers) == 0 {
		return nil
	}
	doing := fmt.Sprintf("adding %d peers, the first of them %s,", len(peers), peers[0].Key)
	return d.setPeers(doing, len(peers), func(b []byte, i int) []byte {
		p := peers[i]
		b = appendAttribute(b, unix.WGPEER_A_PUBLIC_KEY, p.Key[:])
		family := unix.AF_INET6
		if p.Addr.Is4() {
			family = unix.AF_INET
		}
		var ip []byte
		ip = appendAttribute(ip, unix.WGALLOWEDIP_A_FAMILY, nl.Uint16Attr(uint16(family)))
		ip = appendAttribute(ip, unix.WGALLOWEDIP_A_IPADDR, p.Addr.AsSlice())
		ip = appendAttribute(ip, unix.WGALLOWEDIP_A_CIDR_MASK, []byte{byte(p.Addr.BitLen())})
		ips := appendAttribute(nil, unix.NLA_F_NESTED, ip) // an array, of one
		return appendAttribute(b, unix.WGPEER_A_ALLOWEDIPS|unix.NLA_F_NESTED, ips)
	})
}

func (d *devices) RemovePeers(keys []address.Key) error {
	if len(keys) == 0 {
		return nil
	}
	doing := fmt.Sprintf("removing %d peers, the first of them %s,", len(keys), keys[0])
	return d.setPeers(doing, len(keys), func(b []byte, i int) []byte {
		b = appendAttribute(b, unix.WGPEER_A_PUBLIC_KEY, keys[i][:])
		return appendAttribute(b, unix.WGPEER_A_FLAGS, nl.Uint32Attr(unix.WGPEER_F_REMOVE_ME))
	})
}

// setPeers changes n peers, in few messages; attrs appends the attributes of one.
// doing says what for, for an error.
func (d *devices) setPeers(doing string, n int, attrs func(b []byte, i int) []byte) error {
	family, err := d.wireguardFamily()
	if err != nil {
		return fmt.Errorf("%s on %s: %w", doing, d.wireguardName(), err)
	}
	var requests []*nl.NetlinkRequest
	for first := 0; first < n; first += peersPerMessage {
		var peers []byte
		for i := first; i < min(first+peersPerMessage, n); i++ {
			peers = appendAttribute(peers, unix.NLA_F_NESTED, attrs(nil, i)) // an array
		}
		req := nl.NewNetlinkRequest(int(family), 0)
		req.AddData(&nl.Genlmsg{Command: unix.WG_CMD_SET_DEVICE, Version: unix.WG_GENL_VERSION})
		req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFINDEX, nl.Uint32Attr(uint32(d.wireguard.Attrs().Index))))
		req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_PEERS|unix.NLA_F_NESTED, peers))
		requests = append(requests, req)
	}
	// One at a time: together they might be more than the kernel takes in one go.
	for _, req := range requests {
		errs, err := sendAll(unix.NETLINK_GENERIC, []*nl.NetlinkRequest{req})
		if err == nil {
			err = errs[0]
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", doing, d.wireguardName(), classify(err))
		}
	}
	return nil
}
