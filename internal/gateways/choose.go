package gateways

import (
	"cmp"
	"slices"
	"time"

	"wgkex/internal/message"
)

const (
	// SilentFor is after which time without a number of peers a gateway does not count
	// any more: each gateway says it every minute.
	SilentFor = 3 * time.Minute
	// StickFor is for how long a router is sent to the same gateway.
	StickFor = 10 * time.Minute
)

// Choice is everything that the choice of a gateway for a router depends on.
type Choice struct {
	Known Known
	// Now is the time since boot.
	Now time.Duration
	// Own is the name of this gateway, and Usable says that routers could connect to it.
	Own    string
	Usable bool
	// Domain is that of the router.
	Domain string
	// Weight is that of a gateway, see package config.
	Weight func(gateway string) int
	// Sent is how many routers were sent to the gateway in the domain since that number
	// of its peers.
	Sent func(gateway, domain string, counted time.Duration) int
	// Before is where the router was sent of late, empty for nowhere.
	Before string
}

// Gateway is the name of the gateway that the router is to connect to: of those that are
// on line in the domain the one with the fewest live peers in all domains, in proportion
// to its weight, but the same one as before. It is Own where no other gateway is known to
// be on line, and where it is not known how many peers this one has. Of equals, Own comes
// first, then the first by name. A weight of 0 is for a gateway that gets no routers where
// there is another one.
func (c Choice) Gateway() string {
	if c.Usable && !c.counts(c.Own) {
		return c.Own
	}
	var names []string
	for name := range c.Known {
		if c.counts(name) {
			names = append(names, name)
		}
	}
	if weighted := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return c.Weight(name) == 0 }); len(weighted) > 0 {
		names = weighted
	}
	if slices.Contains(names, c.Before) {
		return c.Before
	}
	if len(names) == 0 {
		return c.Own
	}
	return slices.MinFunc(names, func(a, b string) int {
		own := func(name string) int {
			if name == c.Own {
				return 0
			}
			return 1
		}
		return cmp.Or(c.compare(a, b), cmp.Compare(own(a), own(b)), cmp.Compare(a, b))
	})
}

// counts reports whether the router could be sent to the gateway.
func (c Choice) counts(name string) bool {
	g := c.Known[name]
	d, ok := g.Domains[c.Domain]
	if !ok || !d.Counts(c.Now) {
		return false
	}
	if name == c.Own {
		return c.Usable
	}
	return g.Online && d.Endpoint != nil
}

// compare compares how full both are with one more router. Weights of 0 are compared only
// with each other.
func (c Choice) compare(a, b string) int {
	return cmp.Compare(c.peers(a)*weight(c.Weight(b)), c.peers(b)*weight(c.Weight(a)))
}

func weight(w int) int64 { return int64(max(w, 1)) }

// peers is how many live peers the gateway has or will have with one more router.
func (c Choice) peers(name string) int64 {
	n := int64(1)
	for domain, d := range c.Known[name].Domains {
		if d.Counts(c.Now) {
			n += int64(d.Live) + int64(c.Sent(name, domain, d.Counted))
		}
	}
	return n
}

const (
	// maxSent is how many routers are remembered. They take some 5 MiB.
	maxSent = 1 << 15
	// maxPlaces is how many gateways and domains are counted for.
	maxPlaces = 1 << 12
)

// Sent remembers where routers were sent, in bounded memory: where there are too many,
// the oldest are forgotten. Its zero value remembers none.
type Sent struct {
	routers map[message.Key]sent
	order   []message.Key // from first on, in the order of their times
	first   int
	since   map[place]since
}

// sent is where a router was sent, and when.
type sent struct {
	gateway string
	at      time.Duration
}

type place struct{ gateway, domain string }

// since is how many were sent since a number was counted.
type since struct {
	counted time.Duration
	n       int
}

// Before is where the router was sent of late, empty for nowhere.
func (s *Sent) Before(router message.Key, now time.Duration) string {
	s.expire(now)
	return s.routers[router].gateway
}

// Since is how many routers were sent to the gateway since that number of its peers.
func (s *Sent) Since(gateway, domain string, counted time.Duration) int {
	if n := s.since[place{gateway, domain}]; n.counted == counted {
		return n.n
	}
	return 0
}

// Add notes that the router was sent to the gateway, whose peers were counted then. It
// counts once in StickFor, unless it is sent elsewhere.
func (s *Sent) Add(router message.Key, gateway string, counted, now time.Duration) {
	s.expire(now)
	before, known := s.routers[router]
	if known && before.gateway == gateway {
		return
	}
	if s.routers == nil {
		s.routers = map[message.Key]sent{}
	}
	if s.since == nil || len(s.since) >= maxPlaces {
		s.since = map[place]since{} // what is forgotten is of the last minute
	}
	at := place{gateway, router.Domain}
	n := s.since[at]
	if n.counted != counted {
		n = since{counted: counted}
	}
	n.n++
	s.since[at] = n
	if known {
		// It keeps its place in the order, and its time.
		s.routers[router] = sent{gateway, before.at}
		return
	}
	if len(s.routers) == maxSent {
		s.drop()
	}
	s.routers[router] = sent{gateway, now}
	s.order = append(s.order, router)
}

func (s *Sent) expire(now time.Duration) {
	for s.first < len(s.order) && now-s.routers[s.order[s.first]].at >= StickFor {
		s.drop()
	}
	if s.first == len(s.order) {
		*s = Sent{} // neither maps nor slices become smaller
	}
}

// drop forgets the oldest router.
func (s *Sent) drop() {
	delete(s.routers, s.order[s.first])
	if s.first++; s.first >= maxSent {
		s.order, s.first = slices.Clone(s.order[s.first:]), 0
	}
}
