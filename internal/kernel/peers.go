package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The messages of a WireGuard device's dump are described in linux/wireguard.h
// and written by wg_get_device_dump() in drivers/net/wireguard/netlink.c. A peer
// whose allowed IPs do not fit into a message goes on at the start of the next
// one, with its public key and the allowed IPs that are left.

// eachPeer passes the attributes of each peer in a message on to do.
func eachPeer(content []byte, do func(attrs []byte) error) error {
	attrs, err := deviceAttributes(content)
	if err != nil {
		return err
	}
	for len(attrs) > 0 {
		var kind uint16
		var peers []byte
		if kind, peers, attrs, err = cutAttribute(attrs); err != nil {
			return err
		}
		if kind != unix.WGDEVICE_A_PEERS {
			continue
		}
		for len(peers) > 0 {
			var peer []byte
			if _, peer, peers, err = cutAttribute(peers); err != nil {
				return err
			}
			if err := do(peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// deviceAttributes is what follows a message's generic netlink header.
func deviceAttributes(content []byte) ([]byte, error) {
	if len(content) < nl.SizeofGenlmsg {
		return nil, errCut
	}
	return content[nl.SizeofGenlmsg:], nil
}

// parseGateway finds the device's own key and port in the first message of a dump.
// What the device has not is zero.
func parseGateway(content []byte) (g Gateway, err error) {
	attrs, err := deviceAttributes(content)
	if err != nil {
		return Gateway{}, err
	}
	key, err := find(attrs, unix.WGDEVICE_A_PUBLIC_KEY, len(g.Key))
	if err != nil {
		return Gateway{}, err
	}
	port, err := find(attrs, unix.WGDEVICE_A_LISTEN_PORT, 2)
	if err != nil {
		return Gateway{}, err
	}
	copy(g.Key[:], key)
	if port != nil {
		g.Port = binary.NativeEndian.Uint16(port)
	}
	return g, nil
}

// find finds the value of an attribute, which has so many bytes. It is nil when
// there is none.
func find(attrs []byte, wanted uint16, size int) (value []byte, err error) {
	for len(attrs) > 0 {
		var kind uint16
		if kind, value, attrs, err = cutAttribute(attrs); err != nil {
			return nil, err
		}
		if kind != wanted {
			continue
		}
		if len(value) != size {
			return nil, errSize
		}
		return value, nil
	}
	return nil, nil
}

// peerKey finds a peer's key in its attributes.
func peerKey(attrs []byte) (key address.Key, err error) {
	value, err := find(attrs, unix.WGPEER_A_PUBLIC_KEY, len(key))
	if copy(key[:], value); err == nil && key.IsZero() {
		err = errors.New("the kernel's answer has a peer without a key")
	}
	return key, err
}

// addAttributes adds to a peer what its attributes in one message say.
func addAttributes(p *policy.Peer, attrs []byte) (err error) {
	for len(attrs) > 0 {
		var kind uint16
		var value []byte
		if kind, value, attrs, err = cutAttribute(attrs); err != nil {
			return err
		}
		switch kind {
		case unix.WGPEER_A_LAST_HANDSHAKE_TIME: // struct __kernel_timespec
			if len(value) != 16 {
				return errSize
			}
			seconds, nanoseconds := int64(binary.NativeEndian.Uint64(value)), int64(binary.NativeEndian.Uint64(value[8:]))
			if seconds != 0 || nanoseconds != 0 {
				p.LastHandshake = time.Unix(seconds, nanoseconds)
			}
		case unix.WGPEER_A_RX_BYTES:
			p.Received, err = parseCount(value)
		case unix.WGPEER_A_TX_BYTES:
			p.Sent, err = parseCount(value)
		case unix.WGPEER_A_ENDPOINT:
			p.Endpoint, err = parseEndpoint(value)
		case unix.WGPEER_A_ALLOWEDIPS:
			for len(value) > 0 {
				var ip []byte
				if _, ip, value, err = cutAttribute(value); err != nil {
					return err
				}
				prefix, err := parseAllowedIP(ip)
				if err != nil {
					return err
				}
				p.AllowedIPs = append(p.AllowedIPs, prefix)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseCount(value []byte) (int64, error) {
	if len(value) != 8 {
		return 0, errSize
	}
	return int64(binary.NativeEndian.Uint64(value)), nil
}

// parseEndpoint reads a struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)).
func parseEndpoint(value []byte) (netip.AddrPort, error) {
	var addr netip.Addr
	switch len(value) {
	case unix.SizeofSockaddrInet4:
		addr = netip.AddrFrom4([4]byte(value[4:]))
	case unix.SizeofSockaddrInet6:
		addr = netip.AddrFrom16([16]byte(value[8:])).Unmap()
	default:
		return netip.AddrPort{}, errSize
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(value[2:])), nil
}

func parseAllowedIP(attrs []byte) (netip.Prefix, error) {
	var addr netip.Addr
	bits := -1
	for len(attrs) > 0 {
		kind, value, rest, err := cutAttribute(attrs)
		if err != nil {
			return netip.Prefix{}, err
		}
		attrs = rest
		switch kind {
		case unix.WGALLOWEDIP_A_IPADDR:
			addr, _ = netip.AddrFromSlice(value) // invalid when it is no address
		case unix.WGALLOWEDIP_A_CIDR_MASK:
			if len(value) != 1 {
				return netip.Prefix{}, errSize
			}
			bits = int(value[0])
		}
	}
	prefix := netip.PrefixFrom(addr, bits)
	if !prefix.IsValid() {
		return netip.Prefix{}, errors.New("the kernel's answer has an allowed IP that is none")
	}
	return prefix, nil
}

// peerList collects all peers of a dump.
type peerList []policy.Peer

func (l *peerList) read(content []byte) (more bool, err error) {
	return true, eachPeer(content, func(attrs []byte) error {
		key, err := peerKey(attrs)
		if err != nil {
			return err
		}
		if n := len(*l); n == 0 || (*l)[n-1].Key != key {
			*l = append(*l, policy.Peer{Key: key})
		}
		return addAttributes(&(*l)[len(*l)-1], attrs)
	})
}

// peerSearch collects the peer with the key, until it is whole: the last peer of
// a message may go on in the next.
type peerSearch struct {
	key   address.Key
	peer  policy.Peer
	found bool
}

func (s *peerSearch) read(content []byte) (more bool, err error) {
	more = true
	err = eachPeer(content, func(attrs []byte) error {
		key, err := peerKey(attrs)
		switch {
		case err != nil:
			return err
		case key != s.key:
			more = !s.found
			return nil
		}
		s.found = true
		s.peer.Key = key
		return addAttributes(&s.peer, attrs)
	})
	return more, err
}
