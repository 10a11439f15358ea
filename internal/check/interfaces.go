package check

import (
	"fmt"
	"net/netip"
	"slices"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
)

const (
	minIPv6MTU = 1280 // RFC 8200 section 5
	// vxlanOverhead is what VXLAN adds to a frame's payload inside of WireGuard:
	// IPv6 40, UDP 8, VXLAN 8, Ethernet 14 bytes (RFC 7348 section 5).
	vxlanOverhead = 70
)

// interfaces is about a domain's two interfaces. at is where the configuration
// names them.
func interfaces(d config.Domain, at config.Position, w kernel.WireGuard, wErr error, v kernel.VXLAN, vErr error) findings {
	var found findings
	for _, err := range []error{wErr, vErr} {
		if err != nil {
			found.add(Failed, "%v: make the interface, or correct its name", err)
		}
	}
	if wErr == nil {
		found = append(found, wireguard(d, w)...)
	}
	if wErr == nil && vErr == nil {
		found = append(found, vxlan(d, w, v)...)
	}
	found = found.of(d, at)
	if found.worst() < Failed {
		found.add(OK, "domain %s: interfaces %s with public key %s, and %s", d.Name, d.WireGuard, w.Key, d.VXLAN)
	}
	return found
}

func wireguard(d config.Domain, w kernel.WireGuard) findings {
	var found findings
	failed := func(format string, args ...any) { found.add(Failed, format, args...) }
	if w.Key.IsZero() {
		failed("%s has no private key: run %s", d.WireGuard, run("wg set %s private-key FILE", d.WireGuard))
	}
	if !w.Up {
		failed("%s is down: run %s", d.WireGuard, run("ip link set %s up", d.WireGuard))
	}
	if w.Port == 0 {
		failed("%s has no UDP port: run %s", d.WireGuard, run("wg set %s listen-port PORT", d.WireGuard))
	}
	switch own := ownAddress(w); {
	case w.MTU < minIPv6MTU:
		failed("the MTU of %s is %d, which is too small for IPv6: run %s, then give it its addresses anew",
			d.WireGuard, w.MTU, run("ip link set %s mtu 1420", d.WireGuard))
	case !w.IPv6:
		failed("IPv6 is off on %s: run %s, or boot without ipv6.disable=1; then give it its addresses anew",
			d.WireGuard, run("sysctl -w net/ipv6/conf/%s/disable_ipv6=0", d.WireGuard))
	case !own.IsValid() && w.Key.IsZero():
		failed("%s has no link-local address", d.WireGuard)
	case !own.IsValid():
		_, derived := d.Addresses.Of(w.Key)
		failed("%s has no link-local address: run %s", d.WireGuard, run("ip address add %s/64 dev %s", derived, d.WireGuard))
	default:
		found = append(found, profile(d, w)...)
	}
	return found
}

// ownAddress is a link-local address of the interface.
func ownAddress(w kernel.WireGuard) netip.Addr {
	i := slices.IndexFunc(w.Addresses, netip.Addr.IsLinkLocalUnicast)
	if i < 0 {
		return netip.Addr{}
	}
	return w.Addresses[i]
}

// profile warns if the gateway's address is what another profile derives from
// its key: routers of that profile would be refused nothing and reach nobody.
// Routers may have any other address of the gateway in their firmware.
func profile(d config.Domain, w kernel.WireGuard) findings {
	if w.Key.IsZero() {
		return nil
	}
	if _, derived := d.Addresses.Of(w.Key); slices.Contains(w.Addresses, derived) {
		return nil
	}
	var found findings
	for _, other := range address.Profiles {
		if _, derived := other.Of(w.Key); other != d.Addresses && slices.Contains(w.Addresses, derived) {
			found.add(Warning, "the address %s of %s is that of the address profile %q, but the domain's profile is %q: if its routers are of the former, set addresses = %[3]q",
				derived, d.WireGuard, other.String(), d.Addresses.String())
		}
	}
	return found
}

func vxlan(d config.Domain, w kernel.WireGuard, v kernel.VXLAN) findings {
	var found findings
	failed := func(format string, args ...any) { found.add(Failed, format, args...) }
	warn := func(format string, args ...any) { found.add(Warning, format, args...) }
	// How to make it anew, which is what most mistakes need.
	own := "ADDRESS"
	if a := ownAddress(w); a.IsValid() {
		own = a.String()
	}
	anew := fmt.Sprintf("delete it and make it anew with local %s dev %s nolearning", own, d.WireGuard)
	if !v.Up {
		failed("%s is down: run %s", d.VXLAN, run("ip link set %s up", d.VXLAN))
	}
	switch {
	case v.External:
		failed("%s is external, so that FDB entries have no effect: %s, without external", d.VXLAN, anew)
		return found
	case v.Local.Is4() || v.Remote.Is4():
		failed("%s is made for IPv4, but the addresses of routers are IPv6: %s", d.VXLAN, anew)
	case !v.Local.IsValid():
		failed("%s has no local address, so that it cannot have IPv6 destinations: %s", d.VXLAN, anew)
	case !slices.Contains(w.Addresses, v.Local):
		failed("the local address %s of %s is no address of %s: %s", v.Local, d.VXLAN, d.WireGuard, anew)
	}
	if v.Lower != w.Index {
		failed("%s is not bound to %s: %s", d.VXLAN, d.WireGuard, anew)
	}
	if v.Remote.IsMulticast() {
		warn("%s sends to the multicast group %s, which WireGuard carries to no router: %s, without group", d.VXLAN, v.Remote, anew)
	}
	if v.Learning {
		warn("%s learns, so that routers can fill its FDB: run %s", d.VXLAN, run("ip link set %s type vxlan nolearning", d.VXLAN))
	}
	if v.Limit > 0 && v.Limit < d.MaxPeers {
		warn("%s takes %d FDB entries, which is less than max_peers, %d: %s, without maxaddress", d.VXLAN, v.Limit, d.MaxPeers, anew)
	}
	if v.MTU > w.MTU-vxlanOverhead {
		warn("the MTU of %s is %d, which is more than that of %s (%d) less %d, so that large frames are lost: run %s",
			d.VXLAN, v.MTU, d.WireGuard, w.MTU, vxlanOverhead, run("ip link set %s mtu %d", d.VXLAN, w.MTU-vxlanOverhead))
	}
	return found
}
