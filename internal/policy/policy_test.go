package policy

import (
	"net/netip"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/protocol"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func key(n byte) address.Key { return address.Key{31: n} }

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// managed is a peer as an exchange leaves it, its last handshake age ago; a
// negative age is none at all.
func managed(profile address.Profile, k address.Key, age time.Duration) Peer {
	_, addr := profile.Of(k)
	p := Peer{Key: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(addr, 128)}}
	if age >= 0 {
		p.LastHandshake = now.Add(-age)
	}
	return p
}

func TestManaged(t *testing.T) {
	p := managed(address.RFC4291, key(1), 0)
	if !p.Managed(address.RFC4291) {
		t.Error("a managed peer is not managed")
	}
	if p.Managed(address.FFMUC) {
		t.Error("a peer with the other profile's address is managed")
	}
	other := managed(address.RFC4291, key(2), 0)
	for name, ips := range map[string][]netip.Prefix{
		"none":           nil,
		"another's":      other.AllowedIPs,
		"own and more":   append(prefixes("fd00::/64"), p.AllowedIPs...),
		"own subnet":     prefixes("fe80::/64"),
		"own, wider":     {netip.PrefixFrom(p.AllowedIPs[0].Addr(), 127)},
		"everything":     prefixes("::/0"),
		"IPv4":           prefixes("10.0.0.1/32"),
		"own twice over": append(p.AllowedIPs, p.AllowedIPs...),
	} {
		if (Peer{Key: key(1), AllowedIPs: ips}).Managed(address.RFC4291) {
			t.Errorf("%s: managed", name)
		}
	}
}

func TestLive(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{0, true}, {179 * time.Second, true}, {LiveFor - 1, true}, {LiveFor, false}, {time.Hour, false}} {
		if got := managed(address.RFC4291, key(1), c.age).Live(now); got != c.want {
			t.Errorf("%s after the handshake: live %v", c.age, got)
		}
	}
	future := Peer{LastHandshake: now.Add(24 * time.Hour)}
	if !future.Live(now) {
		t.Error("a handshake in the future does not count as fresh")
	}
	if (Peer{}).Live(time.Unix(10, 0)) {
		t.Error("no handshake counts as live while the clock is near zero")
	}
}

func TestStale(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		want bool
	}{{-1, true}, {0, false}, {time.Hour, false}, {time.Hour + 1, true}} {
		if got := managed(address.RFC4291, key(1), c.age).Stale(now, time.Hour); got != c.want {
			t.Errorf("%s after the handshake: stale %v", c.age, got)
		}
	}
	if (Peer{LastHandshake: now.Add(24 * time.Hour)}).Stale(now, time.Hour) {
		t.Error("a handshake in the future does not count as fresh")
	}
}

func TestState(t *testing.T) {
	static := managed(address.FFMUC, key(1), 0)
	for want, p := range map[State]Peer{
		Static:  static,
		Pending: managed(address.RFC4291, key(1), -1),
		Live:    managed(address.RFC4291, key(1), LiveFor-1),
		Idle:    managed(address.RFC4291, key(1), LiveFor),
		Stale:   managed(address.RFC4291, key(1), 2*time.Hour),
	} {
		if got := p.State(address.RFC4291, now, time.Hour); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCount(t *testing.T) {
	peers := []Peer{
		managed(address.RFC4291, key(1), 0),
		managed(address.RFC4291, key(2), -1),
		managed(address.RFC4291, key(3), time.Hour),
		{Key: key(4), AllowedIPs: prefixes("fd00::/64")},
	}
	if got := Count(peers, address.RFC4291); got != (Counts{Peers: 3, Pending: 1}) {
		t.Errorf("got %+v", got)
	}
}

func TestDecide(t *testing.T) {
	const profile = address.RFC4291
	static := func(k address.Key, ips ...string) Peer { return Peer{Key: k, AllowedIPs: prefixes(ips...)} }
	_, addr := profile.Of(key(1))
	on := func(bits int) string {
		p, _ := addr.Prefix(bits)
		return p.String()
	}
	for name, c := range map[string]struct {
		change func(*Exchange)
		action Action
		code   protocol.Code
	}{
		"a new key":                  {func(*Exchange) {}, Add, protocol.OK},
		"the gateway's key":          {func(e *Exchange) { e.GatewayKey = e.Key }, 0, protocol.ProhibitedKey},
		"a static peer's key":        {func(e *Exchange) { e.Peers = []Peer{static(key(1), "fd00::/64")} }, 0, protocol.ProhibitedKey},
		"a static peer without IPs":  {func(e *Exchange) { e.Peers = []Peer{static(key(1))} }, 0, protocol.ProhibitedKey},
		"a static peer, own and one": {func(e *Exchange) { e.Peers = []Peer{static(key(1), on(128), "fd00::1/128")} }, 0, protocol.ProhibitedKey},
		"another's address":          {func(e *Exchange) { e.Peers = []Peer{static(key(2), on(128))} }, 0, protocol.AddressConflict},
		"within another's range":     {func(e *Exchange) { e.Peers = []Peer{static(key(2), on(65))} }, 0, protocol.AddressConflict},
		"another has the subnet":     {func(e *Exchange) { e.Peers = []Peer{static(key(2), "fe80::/64")} }, Add, protocol.OK},
		"another has everything":     {func(e *Exchange) { e.Peers = []Peer{static(key(2), "::/0", "0.0.0.0/0")} }, Add, protocol.OK},
		"another is managed":         {func(e *Exchange) { e.Peers = []Peer{managed(profile, key(2), 0)} }, Add, protocol.OK},
		"the gateway's address":      {func(e *Exchange) { e.GatewayOwns = true }, 0, protocol.AddressConflict},
		"known and live":             {func(e *Exchange) { e.Peers = []Peer{managed(profile, key(1), time.Minute)} }, Keep, protocol.OK},
		"known and silent":           {func(e *Exchange) { e.Peers = []Peer{managed(profile, key(1), time.Hour)} }, Reset, protocol.OK},
		"known and pending":          {func(e *Exchange) { e.Peers = []Peer{managed(profile, key(1), -1)} }, Reset, protocol.OK},
		"known and another's address": {func(e *Exchange) {
			e.Peers = []Peer{managed(profile, key(1), 0), static(key(2), on(128))}
		}, 0, protocol.AddressConflict},
		"the last place":                {func(e *Exchange) { e.Counts = Counts{9, 4} }, Add, protocol.OK},
		"no place":                      {func(e *Exchange) { e.Counts = Counts{10, 0} }, 0, protocol.Busy},
		"no pending place":              {func(e *Exchange) { e.Counts = Counts{5, 5} }, 0, protocol.Busy},
		"no place, one overdue":         {func(e *Exchange) { e.Counts, e.Overdue = Counts{10, 1}, &Peer{} }, Replace, protocol.OK},
		"no pending place, one overdue": {func(e *Exchange) { e.Counts, e.Overdue = Counts{5, 5}, &Peer{} }, Replace, protocol.OK},
		"a place, one overdue":          {func(e *Exchange) { e.Counts, e.Overdue = Counts{4, 4}, &Peer{} }, Add, protocol.OK},
		"lowered limits, one overdue":   {func(e *Exchange) { e.Counts, e.Overdue = Counts{11, 5}, &Peer{} }, 0, protocol.Busy},
		"lowered limits":                {func(e *Exchange) { e.Counts = Counts{11, 11} }, 0, protocol.Busy},
		"full, known, live":             {func(e *Exchange) { e.Counts, e.Peers = Counts{10, 5}, []Peer{managed(profile, key(1), 0)} }, Keep, protocol.OK},
		"full, known, silent": {func(e *Exchange) {
			e.Counts, e.Peers = Counts{10, 5}, []Peer{managed(profile, key(1), time.Hour)}
		}, Keep, protocol.OK},
		"full, known, pending": {func(e *Exchange) {
			e.Counts, e.Peers = Counts{10, 5}, []Peer{managed(profile, key(1), -1)}
		}, Reset, protocol.OK},
	} {
		e := Exchange{Key: key(1), Profile: profile, GatewayKey: key(9), MaxPeers: 10, MaxPending: 5, Now: now}
		c.change(&e)
		action, err := e.Decide()
		if code := protocol.CodeOf(err); code != c.code || action != c.action {
			t.Errorf("%s: got %d, %v, want %d, %s", name, action, err, c.action, c.code)
		}
	}
}
