package kernel

import (
	"errors"
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

func (d *devices) PublicKey() (address.Key, error) {
	key, err := d.publicKey()
	if err != nil {
		return address.Key{}, fmt.Errorf("reading the public key of %s: %w", d.wireguardName(), classify(err))
	}
	return key, nil
}

// publicKey starts a dump of the device and reads its first message alone. The
// kernel puts the device's own attributes in front of the first peers and waits
// for the reader before it goes on to the next (wg_get_device_dump() in
// drivers/net/wireguard/netlink.c), so closing the socket ends it there. wgctrl
// knows only the whole dump.
func (d *devices) publicKey() (address.Key, error) {
	family, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
	if err != nil {
		return address.Key{}, err
	}
	socket, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return address.Key{}, err
	}
	defer socket.Close()
	timeout := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	if err := socket.SetReceiveTimeout(&timeout); err != nil {
		return address.Key{}, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: unix.WG_CMD_GET_DEVICE, Version: unix.WG_GENL_VERSION})
	req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFINDEX, nl.Uint32Attr(uint32(d.wireguard.Attrs().Index))))
	if err := socket.Send(req); err != nil {
		return address.Key{}, err
	}
	messages, _, err := socket.Receive()
	if err != nil {
		return address.Key{}, err
	}
	if len(messages) == 0 {
		return address.Key{}, errors.New("the kernel's answer is empty")
	}
	first := messages[0]
	if first.Header.Type == unix.NLMSG_ERROR || first.Header.Type == unix.NLMSG_DONE {
		if len(first.Data) >= 4 {
			if code := int32(nl.NativeEndian().Uint32(first.Data)); code < 0 {
				return address.Key{}, unix.Errno(-code)
			}
		}
		return address.Key{}, errors.New("the kernel's answer has no device")
	}
	if len(first.Data) < nl.SizeofGenlmsg {
		return address.Key{}, errors.New("the kernel's answer is cut short")
	}
	attrs, err := nl.ParseRouteAttr(first.Data[nl.SizeofGenlmsg:])
	if err != nil {
		return address.Key{}, err
	}
	var key address.Key
	for _, a := range attrs {
		if a.Attr.Type == unix.WGDEVICE_A_PUBLIC_KEY && len(a.Value) == len(key) {
			copy(key[:], a.Value)
		}
	}
	return key, nil
}

func (d *devices) Peers() ([]policy.Peer, error) {
	device, err := d.wg.Device(d.wireguardName())
	if err != nil {
		return nil, fmt.Errorf("reading the peers of %s: %w", d.wireguardName(), classify(err))
	}
	peers := make([]policy.Peer, len(device.Peers))
	for i, p := range device.Peers {
		peers[i] = policy.Peer{
			Key:           address.Key(p.PublicKey),
			LastHandshake: p.LastHandshakeTime,
			Received:      p.ReceiveBytes,
			Sent:          p.TransmitBytes,
		}
		if p.Endpoint != nil {
			at := p.Endpoint.AddrPort()
			peers[i].Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
		for _, ip := range p.AllowedIPs {
			addr, _ := netip.AddrFromSlice(ip.IP)
			bits, _ := ip.Mask.Size()
			peers[i].AllowedIPs = append(peers[i].AllowedIPs, netip.PrefixFrom(addr, bits))
		}
	}
	return peers, nil
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

func (d *devices) RemovePeers(keys []address.Key) error {
	if len(keys) == 0 {
		return nil
	}
	peers := make([]wgtypes.PeerConfig, len(keys))
	for i, key := range keys {
		peers[i] = wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), Remove: true}
	}
	return d.configure(fmt.Sprintf("removing %d peers, the first of them %s,", len(keys), keys[0]), peers...)
}
