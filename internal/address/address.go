// Package address holds the rules that turn a WireGuard public key into the
// MAC and the link-local IPv6 address of its router. Router and gateway
// compute them independently and never exchange them, so every byte counts.
package address

import (
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// KeySize is the length of a Curve25519 public key in bytes (RFC 7748).
const KeySize = 32

// Key is a WireGuard public key. Its zero value is no valid key.
type Key [KeySize]byte

// Errors of ParseKey, for errors.Is.
var (
	ErrKeyEncoding = errors.New("not the canonical base64 of 32 bytes")
	ErrKeyRange    = errors.New("not below 2^255-19, so no private key has it")
	ErrKeyLowOrder = errors.New("a low-order Curve25519 point")
)

// ParseKey reads a public key as `wg pubkey` prints it: 44 characters of
// standard base64 (RFC 4648 section 4) with its padding, unused bits zero, and
// nothing around them. The strictness is needed, not taste: the MAC is a hash
// over these very characters, so a second spelling of a key would be a second
// address for it.
//
// The bytes are a number, the least significant byte first (RFC 7748 section 5).
// What WireGuard computes from a private key is always below the field's prime.
// Decoding ignores the top bit and reduces the rest by the prime, so a larger
// number is a second spelling of a point. WireGuard compares the bytes of keys:
// a peer with such a spelling can never have a handshake.
//
// Points of low order are refused: a handshake with one has a shared secret
// that everybody knows (RFC 7748 section 6.1).
func ParseKey(s string) (Key, error) {
	k, err := decodeKey(s)
	switch {
	case err != nil:
		return Key{}, err
	case !k.belowPrime():
		return Key{}, ErrKeyRange
	case slices.Contains(lowOrder[:], k):
		return Key{}, ErrKeyLowOrder
	}
	return k, nil
}

func decodeKey(s string) (Key, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	// The decoder skips CR and LF, hence the comparison of the whole.
	if err != nil || len(raw) != KeySize || base64.StdEncoding.EncodeToString(raw) != s {
		return Key{}, ErrKeyEncoding
	}
	return Key(raw), nil
}

// belowPrime reports whether k is below 2^255-19, whose bytes are ed, thirty
// times ff, and 7f.
func (k Key) belowPrime() bool {
	notMax := func(b byte) bool { return b != 0xff }
	return k[31] < 0x7f || k[31] == 0x7f && (k[0] < 0xed || slices.ContainsFunc(k[1:31], notMax))
}

// lowOrder is the u-coordinates below the prime of all points on Curve25519 and
// its twist whose order divides 8: 0, 1, -1 and the two of order 8.
var lowOrder = [...]Key{
	{},
	{1},
	{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	},
	{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	},
	{
		0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
	},
}

// String is the key's canonical base64.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero reports whether k is the zero value, as of a device without a key.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText is String, for JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads back what MarshalText wrote. Unlike ParseKey it takes
// any point, since the kernel holds whatever an admin gave it.
func (k *Key) UnmarshalText(text []byte) error {
	parsed, err := decodeKey(string(text))
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	*k = parsed
	return nil
}

// MAC is an EUI-48 address.
type MAC [6]byte

// String is the MAC in lower-case hexadecimal with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Profile is the way in which the routers of a domain derive their MAC and
// link-local address. Its zero value is RFC4291.
type Profile uint8

// The profiles.
const (
	// RFC4291 hashes the key and a newline, and inverts the universal/local bit
	// in the address, as RFC 4291 appendix A asks for: 02 becomes 00.
	RFC4291 Profile = iota
	// FFMUC hashes the same and leaves the bit set, as the routers of Freifunk
	// Munich do.
	FFMUC
	// Gluon hashes the key alone and leaves the bit set, as the routers with
	// Gluon's package mesh-vpn-wireguard do.
	Gluon
)

// Profiles is all of them.
var Profiles = []Profile{RFC4291, FFMUC, Gluon}

var profileNames = [...]string{RFC4291: "rfc4291", FFMUC: "ffmuc", Gluon: "gluon"}

// String is the profile's name in the configuration.
func (p Profile) String() string { return profileNames[p] }

// MarshalText is String.
func (p Profile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a profile's name in the configuration.
func (p *Profile) UnmarshalText(text []byte) error {
	for i, name := range profileNames {
		if name == string(text) {
			*p = Profile(i)
			return nil
		}
	}
	return fmt.Errorf("unknown address profile %q: must be one of %s", text, strings.Join(profileNames[:], ", "))
}

// MAC is the Ethernet address of the router's VXLAN interface: 02 and the first
// five bytes of an MD5 digest of the key's base64. RFC4291 and FFMUC add a
// newline, since `wg pubkey | md5sum` on the router does.
func (p Profile) MAC(k Key) MAC {
	var buffer [45]byte // 44 characters of base64, and the newline
	text := buffer[:44]
	base64.StdEncoding.Encode(text, k[:])
	if p != Gluon {
		text = append(text, '\n')
	}
	digest := md5.Sum(text)
	return MAC{0x02, digest[0], digest[1], digest[2], digest[3], digest[4]}
}

// LinkLocal is the fe80::/64 address with the MAC's EUI-64 as interface
// identifier (RFC 4291 section 2.5.6 and appendix A).
func (p Profile) LinkLocal(m MAC) netip.Addr {
	first := m[0]
	if p == RFC4291 {
		first ^= 0x02
	}
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: first, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// Derived reports whether a could be the address of some key: MAC and address
// determine each other, so a derived address names its MAC. The MAC is
// meaningless when it could not.
func (p Profile) Derived(a netip.Addr) (MAC, bool) {
	if !a.Is6() || a.Is4In6() {
		return MAC{}, false
	}
	b := a.As16()
	m := MAC{0x02, b[9], b[10], b[13], b[14], b[15]}
	return m, p.LinkLocal(m) == a.WithZone("")
}

// Of derives both addresses of a key.
func (p Profile) Of(k Key) (MAC, netip.Addr) {
	m := p.MAC(k)
	return m, p.LinkLocal(m)
}
