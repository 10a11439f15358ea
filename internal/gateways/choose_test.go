package gateways

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/message"
)

const (
	now   = time.Hour
	fresh = now - SilentFor + 1
)

var endpoint = &message.Endpoint{Host: "gw.example.org", Port: 51820, Key: key(9), Link: netip.MustParseAddr("fe80::1")}

func key(n int) (k address.Key) {
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	k[20] = 1
	return k
}

// on is a gateway that is on line with so many live peers in domain d.
func on(live int) Gateway {
	return Gateway{Online: true, Domains: map[string]Domain{"d": {Live: live, Counted: fresh, Endpoint: endpoint}}}
}

func (g Gateway) with(domain string, d Domain) Gateway {
	domains := map[string]Domain{domain: d}
	for name, before := range g.Domains {
		if name != domain {
			domains[name] = before
		}
	}
	g.Domains = domains
	return g
}

func TestGateway(t *testing.T) {
	offline := on(0)
	offline.Online = false
	for name, c := range map[string]struct {
		known    Known
		weights  map[string]int
		sent     map[string]int
		before   string
		unusable bool
		want     string
	}{
		"nothing is known":               {nil, nil, nil, "", false, "a"},
		"nobody else":                    {Known{"a": on(100)}, nil, nil, "", false, "a"},
		"the own number is not known":    {Known{"b": on(0)}, nil, nil, "", false, "a"},
		"the own number is old":          {Known{"a": on(9).with("d", Domain{Live: 9, Counted: fresh - 1}), "b": on(0)}, nil, nil, "", false, "a"},
		"going itself":                   {Known{"a": on(-1), "b": on(0)}, nil, nil, "", false, "a"},
		"fewer":                          {Known{"a": on(10), "b": on(9)}, nil, nil, "", false, "b"},
		"equal, itself":                  {Known{"a": on(10), "b": on(10), "c": on(10)}, nil, nil, "", false, "a"},
		"equal, by name":                 {Known{"a": on(11), "c": on(10), "b": on(10)}, nil, nil, "", false, "b"},
		"more":                           {Known{"a": on(10), "b": on(11)}, nil, nil, "", false, "a"},
		"off line":                       {Known{"a": on(10), "b": offline}, nil, nil, "", false, "a"},
		"itself need not say that it is": {Known{"a": {Domains: on(10).Domains}, "b": on(11)}, nil, nil, "", false, "a"},
		"not in the domain":              {Known{"a": on(10), "b": {Online: true, Domains: map[string]Domain{"e": {Live: 0, Counted: fresh, Endpoint: endpoint}}}}, nil, nil, "", false, "a"},
		"going":                          {Known{"a": on(10), "b": on(-1)}, nil, nil, "", false, "a"},
		"silent":                         {Known{"a": on(10), "b": on(0).with("d", Domain{Live: 0, Counted: fresh - 1, Endpoint: endpoint})}, nil, nil, "", false, "a"},
		"nobody knows how to reach it":   {Known{"a": on(10), "b": on(0).with("d", Domain{Live: 0, Counted: fresh})}, nil, nil, "", false, "a"},
		"other domains count":            {Known{"a": on(10), "b": on(5).with("e", Domain{Live: 6, Counted: fresh})}, nil, nil, "", false, "a"},
		"old numbers of them do not":     {Known{"a": on(10), "b": on(5).with("e", Domain{Live: 6, Counted: fresh - 1})}, nil, nil, "", false, "b"},
		"nor none":                       {Known{"a": on(10), "b": on(9).with("e", Domain{Live: -1, Counted: fresh})}, nil, nil, "", false, "b"},
		"weights":                        {Known{"a": on(20), "b": on(11)}, map[string]int{"a": 20, "b": 10}, nil, "", false, "a"},
		"weights, empty":                 {Known{"a": on(0), "b": on(0)}, map[string]int{"a": 10, "b": 30}, nil, "", false, "b"},
		"weights, one that is not named": {Known{"a": on(20), "b": on(0)}, map[string]int{"a": 30}, nil, "", false, "a"},
		"weight 0":                       {Known{"a": on(1000), "b": on(0)}, map[string]int{"b": 0}, nil, "", false, "a"},
		"weight 0 of its own":            {Known{"a": on(0), "b": on(1000)}, map[string]int{"a": 0}, nil, "", false, "b"},
		"weight 0 of all":                {Known{"a": on(8), "b": on(7)}, map[string]int{"a": 0, "b": 0}, nil, "", false, "b"},
		"weight 0, as before":            {Known{"a": on(8), "b": on(7)}, map[string]int{"b": 0}, nil, "b", false, "a"},
		"weight 0, nobody else":          {Known{"a": on(8), "b": offline}, map[string]int{"a": 0}, nil, "", false, "a"},
		"huge":                           {Known{"a": on(message.MaxLive - 1), "b": on(message.MaxLive)}, map[string]int{"a": 1_000_000, "b": 1_000_000}, nil, "", false, "a"},
		"sent there":                     {Known{"a": on(10), "b": on(9)}, nil, map[string]int{"b": 2}, "", false, "a"},
		"sent here":                      {Known{"a": on(8), "b": on(9)}, nil, map[string]int{"a": 2}, "", false, "b"},
		"as before":                      {Known{"a": on(0), "b": on(9)}, nil, nil, "b", false, "b"},
		"as before, itself":              {Known{"a": on(10), "b": on(9)}, nil, nil, "a", false, "a"},
		"before, off line":               {Known{"a": on(10), "b": offline}, nil, nil, "b", false, "a"},
		"before, unknown":                {Known{"a": on(10), "b": on(9)}, nil, nil, "c", false, "b"},
		"unusable":                       {Known{"a": on(0), "b": on(9)}, nil, nil, "", true, "b"},
		"unusable, as before":            {Known{"a": on(0), "b": on(9)}, nil, nil, "a", true, "b"},
		"unusable and not known":         {Known{"b": on(9)}, nil, nil, "", true, "b"},
		"unusable, nobody else":          {Known{"a": on(0), "b": offline}, nil, nil, "", true, "a"},
	} {
		choice := Choice{
			Known: c.known, Now: now, Own: "a", Usable: !c.unusable, Domain: "d", Before: c.before,
			Weight: func(gateway string) int {
				if w, ok := c.weights[gateway]; ok {
					return w
				}
				return 1
			},
			Sent: func(gateway, domain string, counted time.Duration) int {
				if domain != "d" || counted != fresh {
					return 0
				}
				return c.sent[gateway]
			},
		}
		if got := choice.Gateway(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Many routers at a time, between two numbers, are spread by the weights.
func TestSpread(t *testing.T) {
	known := Known{"a": on(0), "b": on(0), "c": on(30)}
	weights := map[string]int{"a": 30, "b": 20, "c": 10}
	var s Sent
	got := map[string]int{}
	for i := range 570 {
		router := message.Key{Domain: "d", Key: key(i)}
		for range 2 { // each asks again
			g := Choice{
				Known: known, Now: now, Own: "a", Usable: true, Domain: "d", Before: s.Before(router, now),
				Weight: func(name string) int { return weights[name] }, Sent: s.Since,
			}.Gateway()
			s.Add(router, g, known[g].Domains["d"].Counted, now)
			got[g]++
		}
	}
	if got["a"] != 600 || got["b"] != 400 || got["c"] != 140 {
		t.Errorf("%v", got)
	}
}

func TestSent(t *testing.T) {
	var s Sent
	one, two := message.Key{Domain: "d", Key: key(1)}, message.Key{Domain: "d", Key: key(2)}
	check := func(what string, at time.Duration, before string, b, c int) {
		t.Helper()
		if got := s.Before(one, at); got != before {
			t.Errorf("%s: before %q, want %q", what, got, before)
		}
		if gotB, gotC := s.Since("b", "d", 5), s.Since("c", "d", 5); gotB != b || gotC != c || s.Since("b", "e", 5) != 0 {
			t.Errorf("%s: %d and %d, want %d and %d", what, gotB, gotC, b, c)
		}
	}
	check("at first", 10, "", 0, 0)
	s.Add(one, "b", 5, 10)
	check("sent", 10, "b", 1, 0)
	s.Add(one, "b", 5, 11)
	s.Add(two, "b", 5, 11)
	check("again, and another", 11, "b", 2, 0)
	s.Add(one, "c", 5, 12)
	check("elsewhere", 12, "c", 2, 1)
	check("just before its time", 10+StickFor-1, "c", 2, 1)
	check("after its time", 10+StickFor, "", 2, 1)
	s.Add(one, "b", 6, 10+StickFor)
	if n := s.Since("b", "d", 6); n != 1 {
		t.Errorf("after another number: %d", n)
	}
	if n := s.Since("b", "d", 5); n != 0 {
		t.Errorf("with the number of before: %d", n)
	}
	if s.Before(two, 30*StickFor); len(s.routers) != 0 || len(s.since) != 0 {
		t.Errorf("at the end: %v, %v", s.routers, s.since)
	}
}

// However many routers come, no more are remembered than there is room for.
func TestSentBound(t *testing.T) {
	var s Sent
	for i := range 3*maxSent + 7 {
		s.Add(message.Key{Domain: "d", Key: key(i)}, "b", 5, now)
		if len(s.routers) > maxSent || len(s.order)-s.first != len(s.routers) || cap(s.order) > 4*maxSent {
			t.Fatalf("%d: %d routers, order of %d from %d on, room for %d", i, len(s.routers), len(s.order), s.first, cap(s.order))
		}
	}
	if got := s.Before(message.Key{Domain: "d", Key: key(3*maxSent + 6)}, now); got != "b" {
		t.Errorf("the last: %q", got)
	}
	if got := s.Before(message.Key{Domain: "d", Key: key(0)}, now); got != "" {
		t.Errorf("the first: %q", got)
	}
	for i := range 2 * maxPlaces {
		s.Add(message.Key{Domain: "d", Key: key(i)}, "b"+key(i).String(), 5, now)
	}
	if len(s.since) > maxPlaces {
		t.Errorf("%d places", len(s.since))
	}
}
