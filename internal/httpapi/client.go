package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Client is the address of the client that has sent the request: that of the
// connection or, where the connection is one of a trusted proxy, the one that the
// proxy says. It is zero when a proxy on the UNIX socket says none.
//
// A proxy adds the address of its own client at the end of what it was sent, so the
// last address that is not of a trusted proxy counts, and what stands before it may
// be forged. X-Forwarded-For counts before Forwarded (RFC 7239): most proxies set
// the former, and pass on the latter as it came.
func Client(r *http.Request, trusted []netip.Prefix) netip.Addr {
	var client netip.Addr
	if connection, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		// A zone would be the number of an interface, which says nothing in a log.
		client = connection.Addr().Unmap().WithZone("")
		if !Trusted(client, trusted) {
			return client
		}
	} // otherwise it is of the UNIX socket
	hops := forwardedFor(r.Header)
	for _, text := range slices.Backward(hops) {
		hop, ok := parseHop(text)
		if !ok {
			return client // of the last who said what can be read
		}
		client = hop
		if !Trusted(client, trusted) {
			return client
		}
	}
	return client
}

// Trusted reports whether the address is of one of the proxies.
func Trusted(addr netip.Addr, proxies []netip.Prefix) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Source is what counts as one client: an address of IPv4, a /64 of IPv6, but an
// address where a whole link shares the /64.
func Source(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLinkLocalUnicast() {
		bits = 64
	}
	source, _ := addr.Prefix(bits) // zero for the zero Addr
	return source
}

// forwardedFor is the addresses that proxies have noted, the last one's last.
func forwardedFor(h http.Header) (hops []string) {
	for _, line := range h.Values("X-Forwarded-For") {
		hops = append(hops, strings.Split(line, ",")...)
	}
	if hops != nil {
		return hops
	}
	for _, line := range h.Values("Forwarded") {
		elements := splitQuoted(line, ',')
		if strings.Count(line, `"`)%2 != 0 { // or what a client sends would hide the rest
			elements = strings.Split(line, ",")
		}
		for _, hop := range elements {
			hops = append(hops, forParameter(hop))
		}
	}
	return hops
}

// forParameter is the value of the parameter for of an element of Forwarded, empty
// without one.
func forParameter(element string) string {
	for _, pair := range splitQuoted(element, ';') {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(name, "for") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// splitQuoted splits where the separator is not between quotation marks. An address
// needs no backslash (RFC 7239 section 6), so none is known.
func splitQuoted(text string, separator rune) []string {
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == separator && !quoted
	})
}

// parseHop reads an address with or without a port. One of IPv6 with a port is in
// brackets.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(text)
		addr = withPort.Addr()
	}
	// A zone is of another machine's.
	return addr.Unmap().WithZone(""), err == nil
}
