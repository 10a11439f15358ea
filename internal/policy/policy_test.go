package policy

import (
	"errors"
	"net/netip"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/outcome"
)

func key(n byte) address.Key { return address.Key{0: 9, 30: n} }

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// peer is one with the derived address of a profile.
func peer(profile address.Profile, k address.Key) Peer {
	return Peer{Key: k, AllowedIPs: []netip.Prefix{soleAddress(profile, k)}}
}

func TestKind(t *testing.T) {
	own, other := peer(address.RFC4291, key(1)).AllowedIPs, peer(address.RFC4291, key(2)).AllowedIPs
	for name, c := range map[string]struct {
		ips  []netip.Prefix
		want Kind
	}{
		"own":             {own, Managed},
		"own, of another": {peer(address.FFMUC, key(1)).AllowedIPs, LeftOver},
		"own, of gluon":   {peer(address.Gluon, key(1)).AllowedIPs, LeftOver},
		"none":            {nil, LeftOver},
		"another's":       {other, Static},
		"own and more":    {append(prefixes("fd00::/64"), own...), Static},
		"own subnet":      {prefixes("fe80::/64"), Static},
		"own, wider":      {[]netip.Prefix{netip.PrefixFrom(own[0].Addr(), 127)}, Static},
		"everything":      {prefixes("::/0"), Static},
		"IPv4":            {prefixes("10.0.0.1/32"), Static},
		"own twice over":  {append(own, own...), Static},
	} {
		if got := (Peer{Key: key(1), AllowedIPs: c.ips}).Kind(address.RFC4291); got != c.want {
			t.Errorf("%s: kind %d, want %d", name, got, c.want)
		}
	}
}

func TestCount(t *testing.T) {
	handshake := Record{Kind: Managed, LastHandshake: wall}
	var c Counts
	for _, r := range []Record{handshake, handshake, {Kind: Managed}, {Kind: Static}, {Kind: LeftOver}} {
		c.Add(r)
	}
	if c != (Counts{Peers: 3, Pending: 1}) {
		t.Errorf("got %+v", c)
	}
	c.Remove(Record{Kind: Managed})
	c.Remove(Record{Kind: Static})
	if c != (Counts{Peers: 2}) {
		t.Errorf("got %+v", c)
	}
	c.Remove(handshake)
	if c != (Counts{Peers: 1}) {
		t.Errorf("got %+v", c)
	}
}

func TestDecide(t *testing.T) {
	const profile = address.RFC4291
	other := func(kind Kind, k address.Key, ips ...string) []Other {
		return []Other{{Kind: kind, Peer: Peer{Key: k, AllowedIPs: prefixes(ips...)}}}
	}
	static := func(k address.Key, ips ...string) []Other { return other(Static, k, ips...) }
	_, addr := profile.Of(key(1))
	on := func(bits int) string {
		p, _ := addr.Prefix(bits)
		return p.String()
	}
	pending := []Record{{Key: key(1), Kind: Managed, Registered: boot - PendingFor + 1}}
	overdue := []Record{{Key: key(1), Kind: Managed, Registered: boot - PendingFor}}
	live := []Record{{Key: key(1), Kind: Managed, LastHandshake: wall, Active: boot - LiveFor + 1}}
	silent := []Record{{Key: key(1), Kind: Managed, LastHandshake: wall, Active: boot - LiveFor}}
	collider := []Record{{Key: key(2), Kind: Managed}}
	for name, c := range map[string]struct {
		change func(*Exchange)
		action Action
		code   outcome.Code
	}{
		"a new key":                      {func(*Exchange) {}, Add, outcome.OK},
		"the gateway's key":              {func(e *Exchange) { e.GatewayKey = e.Key }, 0, outcome.ProhibitedKey},
		"a static peer's key":            {func(e *Exchange) { e.Others = static(key(1), "fd00::/64") }, 0, outcome.ProhibitedKey},
		"a static peer, own and one":     {func(e *Exchange) { e.Others = static(key(1), on(128), "fd00::1/128") }, 0, outcome.ProhibitedKey},
		"another's address":              {func(e *Exchange) { e.Others = static(key(2), on(128)) }, 0, outcome.AddressConflict},
		"within another's range":         {func(e *Exchange) { e.Others = static(key(2), on(65)) }, 0, outcome.AddressConflict},
		"another has the subnet":         {func(e *Exchange) { e.Others = static(key(2), "fe80::/64") }, Add, outcome.OK},
		"another has everything":         {func(e *Exchange) { e.Others = static(key(2), "::/0", "0.0.0.0/0") }, Add, outcome.OK},
		"a managed peer has the address": {func(e *Exchange) { e.Managed = collider }, 0, outcome.AddressConflict},
		"the gateway's address":          {func(e *Exchange) { e.GatewayOwns = true }, 0, outcome.AddressConflict},
		"a peer without allowed IPs":     {func(e *Exchange) { e.Others = other(LeftOver, key(1)) }, Readdress, outcome.OK},
		"one of another profile":         {func(e *Exchange) { e.Others = []Other{{peer(address.FFMUC, key(1)), LeftOver}} }, Readdress, outcome.OK},
		"left over, address taken": {func(e *Exchange) {
			e.Others, e.Managed = other(LeftOver, key(1)), collider
		}, 0, outcome.AddressConflict},
		"left over, no place":         {func(e *Exchange) { e.Others, e.Counts = other(LeftOver, key(1)), Counts{10, 0} }, 0, outcome.Busy},
		"left over, no pending place": {func(e *Exchange) { e.Others, e.Counts = other(LeftOver, key(1)), Counts{9, 5} }, Readdress, outcome.OK},
		"known and live":              {func(e *Exchange) { e.Managed = live }, Keep, outcome.OK},
		"known and silent":            {func(e *Exchange) { e.Managed = silent }, Reset, outcome.OK},
		"known and pending":           {func(e *Exchange) { e.Managed = pending }, Keep, outcome.OK},
		"known and overdue":           {func(e *Exchange) { e.Managed = overdue }, Renew, outcome.OK},
		"full, known and overdue":     {func(e *Exchange) { e.Counts, e.Managed = Counts{10, 5}, overdue }, Renew, outcome.OK},
		"known and a static address": {func(e *Exchange) {
			e.Managed, e.Others = live, static(key(2), on(128))
		}, 0, outcome.AddressConflict},
		"the last place":                 {func(e *Exchange) { e.Counts = Counts{9, 4} }, Add, outcome.OK},
		"no place":                       {func(e *Exchange) { e.Counts = Counts{10, 0} }, 0, outcome.Busy},
		"no pending place":               {func(e *Exchange) { e.Counts = Counts{5, 5} }, 0, outcome.Busy},
		"no place, one overdue":          {func(e *Exchange) { e.Counts, e.Overdue = Counts{10, 1}, &Record{} }, Replace, outcome.OK},
		"no pending place, one overdue":  {func(e *Exchange) { e.Counts, e.Overdue = Counts{5, 5}, &Record{} }, Replace, outcome.OK},
		"a place, one overdue":           {func(e *Exchange) { e.Counts, e.Overdue = Counts{4, 4}, &Record{} }, Add, outcome.OK},
		"lowered limits, one overdue":    {func(e *Exchange) { e.Counts, e.Overdue = Counts{11, 5}, &Record{} }, 0, outcome.Busy},
		"lowered max_pending, overdue":   {func(e *Exchange) { e.Counts, e.Overdue = Counts{6, 6}, &Record{} }, Replace, outcome.OK},
		"lowered limits":                 {func(e *Exchange) { e.Counts = Counts{11, 11} }, 0, outcome.Busy},
		"full, known, live":              {func(e *Exchange) { e.Counts, e.Managed = Counts{10, 5}, live }, Keep, outcome.OK},
		"full, known, pending":           {func(e *Exchange) { e.Counts, e.Managed = Counts{10, 5}, pending }, Keep, outcome.OK},
		"all places, known, silent":      {func(e *Exchange) { e.Counts, e.Managed = Counts{10, 4}, silent }, Reset, outcome.OK},
		"an admin's without allowed IPs": {func(e *Exchange) { e.Others = static(key(1)) }, 0, outcome.ProhibitedKey},
		"another gateway's":              {func(e *Exchange) { e.Others = []Other{{peer(address.FFMUC, key(1)), Static}} }, 0, outcome.ProhibitedKey},
		"silent, one overdue":            {func(e *Exchange) { e.Counts, e.Managed, e.Overdue = Counts{10, 5}, silent, &Record{} }, Reset, outcome.OK},
		"silent, lowered, one overdue":   {func(e *Exchange) { e.Counts, e.Managed, e.Overdue = Counts{10, 6}, silent, &Record{} }, Reset, outcome.OK},
		"restored, no pending place":     {func(e *Exchange) { e.Counts, e.Restored = Counts{5, 5}, true }, Add, outcome.OK},
		"restored, no place":             {func(e *Exchange) { e.Counts, e.Restored = Counts{10, 0}, true }, 0, outcome.Busy},
		"no pending place, silent":       {func(e *Exchange) { e.Counts, e.Managed = Counts{10, 5}, silent }, Keep, outcome.OK},
	} {
		e := Exchange{Key: key(1), Profile: profile, GatewayKey: key(9), MaxPeers: 10, MaxPending: 5, SinceBoot: boot}
		c.change(&e)
		action, err := e.Decide()
		if code := outcome.CodeOf(err); code != c.code || action != c.action {
			t.Errorf("%s: got %s, %v, want %s, %s", name, action, err, c.action, c.code)
		}
		if errors.Is(err, ErrFull) != (c.code == outcome.Busy) {
			t.Errorf("%s: %v", name, err)
		}
		if starved := name == "no pending place, silent"; e.Starved() != starved {
			t.Errorf("%s: starved %v", name, e.Starved())
		}
		// Whatever is refused without looking at the managed peers is refused.
		if refused := e.Refused(); refused != nil && outcome.CodeOf(refused) != c.code {
			t.Errorf("%s: refused with %v", name, refused)
		}
	}
}
