package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"wgkex/internal/protocol"
)

// Listen is where a socket listens. Its zero value is nowhere.
type Listen struct {
	// Addr is the one address, or 0.0.0.0 for all of IPv4. The zero Addr stands
	// for all addresses of IPv4 and IPv6. A link-local address has a zone.
	Addr netip.Addr
	// Port is a TCP port, 0 for nowhere.
	Port uint16
}

// ParseListen reads "ADDRESS:PORT" as ListenStream= takes it
// (systemd.socket(5)): "192.0.2.1:10012", "[2001:db8::1]:10012", or
// "[fe80::1]:10012%eth0", the interface behind the port; it may stand behind the
// address, too, as in "[fe80::1%eth0]:10012". "[::]:10012" is all addresses of IPv4,
// too, since the sockets have BindIPv6Only=both.
func ParseListen(s string) (Listen, error) {
	hostPort, zone, hasZone := strings.Cut(s, "%")
	if name, port, inside := strings.Cut(zone, "]"); inside && !strings.Contains(hostPort, "]") {
		hostPort, zone = hostPort+"]"+port, name
	}
	ap, err := netip.ParseAddrPort(hostPort)
	addr := ap.Addr()
	switch {
	case err != nil:
		return Listen{}, errors.New(`must be a port, such as 10012, or "ADDRESS:PORT", such as "192.0.2.1:10012" or "[2001:db8::1]:10012"`)
	case ap.Port() == 0:
		return Listen{}, errors.New("0 is no TCP port")
	case addr.IsMulticast() || addr.Is4In6():
		return Listen{}, fmt.Errorf("nobody can connect to the address %s", addr)
	case addr.Is6() && addr.IsLinkLocalUnicast() != hasZone, addr.Is4() && hasZone:
		return Listen{}, errors.New(`a link-local address of IPv6 has an interface, as in "[fe80::1%eth0]:10012", and no other has`)
	// systemd takes a number for an index, and the name goes into a unit, where
	// it must need no quotation marks.
	case hasZone && (!validInterfaceName(zone) || !protocol.ValidName(zone) || strings.Trim(zone, "0123456789") == ""):
		return Listen{}, fmt.Errorf("%q is no interface name that a socket can be given", zone)
	case addr == netip.IPv6Unspecified():
		addr = netip.Addr{}
	case hasZone:
		addr = addr.WithZone(zone)
	}
	return Listen{addr, ap.Port()}, nil
}

// IsZero reports whether l is nowhere.
func (l Listen) IsZero() bool { return l.Port == 0 }

// String is l as ListenStream= takes it: a port alone for all addresses.
func (l Listen) String() string {
	switch {
	case !l.Addr.IsValid():
		return strconv.Itoa(int(l.Port))
	case l.Addr.Zone() != "":
		return fmt.Sprintf("[%s]:%d%%%s", l.Addr.WithZone(""), l.Port, l.Addr.Zone())
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

// Where is l in a sentence: "port 10012", or "192.0.2.1:10012".
func (l Listen) Where() string {
	if !l.Addr.IsValid() {
		return "port " + l.String()
	}
	return l.String()
}

// Accepts reports whether a connection to the local address comes to this
// socket. An IPv4 address is one, not in the form of IPv6.
func (l Listen) Accepts(local netip.AddrPort) bool {
	return l.Port != 0 && l.Port == local.Port() && l.covers(local.Addr())
}

// Overlaps reports whether both cannot listen at the same time.
func (l Listen) Overlaps(o Listen) bool {
	return l.Port == o.Port && (l.covers(o.Addr) || o.covers(l.Addr))
}

func (l Listen) covers(a netip.Addr) bool {
	return !l.Addr.IsValid() || l.Addr == a || l.Addr == netip.IPv4Unspecified() && a.Is4()
}

// Local is where programs of the gateway itself reach it.
func (l Listen) Local() netip.AddrPort {
	addr := l.Addr
	switch {
	case !addr.IsValid():
		addr = netip.IPv6Loopback()
	case addr == netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(addr, l.Port)
}
