package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"wgkex/internal/policy"
)

// View is which peers are shown, and how.
type View struct {
	// States are those of the peers that are shown. None are all.
	States []policy.State
	// Sort is their order, that of the kernel if it is empty.
	Sort Sort
	// Wide has all columns, whatever their width.
	Wide bool
	// Limit is how many peers of a domain are printed at most, 0 for all.
	Limit int
}

// Sort is an order of peers.
type Sort string

// The orders.
const (
	SortState     Sort = "state" // as in States, then as SortHandshake
	SortHandshake Sort = "handshake"
	SortKey       Sort = "key"
	SortReceived  Sort = "received"
	SortSent      Sort = "sent"
)

// Sorts are all of them.
var Sorts = []Sort{SortState, SortHandshake, SortKey, SortReceived, SortSent}

// MarshalText is the name of the order.
func (s Sort) MarshalText() ([]byte, error) { return []byte(s), nil }

// UnmarshalText takes one of Sorts.
func (s *Sort) UnmarshalText(text []byte) error {
	if !slices.Contains(Sorts, Sort(text)) {
		return fmt.Errorf("unknown order %q: must be one of %s", text, list(Sorts))
	}
	*s = Sort(text)
	return nil
}

// ParseStates reads states that are separated by commas.
func ParseStates(text string) ([]policy.State, error) {
	var states []policy.State
	for name := range strings.SplitSeq(text, ",") {
		if !slices.Contains(States, policy.State(name)) {
			return nil, fmt.Errorf("unknown state %q: must be one of %s", name, list(States))
		}
		states = append(states, policy.State(name))
	}
	return states, nil
}

// list is the words, separated by commas.
func list[S ~string](words []S) string {
	var text []string
	for _, w := range words {
		text = append(text, string(w))
	}
	return strings.Join(text, ", ")
}

// Select is the Status with the peers of the View alone, in its order. All counts stay
// those of all peers.
func (v View) Select(all Status) Status {
	all.Domains = slices.Clone(all.Domains)
	for i := range all.Domains {
		all.Domains[i].Peers = v.peers(all.Domains[i].Peers)
	}
	return all
}

// peers are those of the View, in its order. They are never nil.
func (v View) peers(all []Peer) []Peer {
	shown := make([]Peer, 0, len(all))
	for _, p := range all {
		if len(v.States) == 0 || slices.Contains(v.States, p.State) {
			shown = append(shown, p)
		}
	}
	if compare := v.Sort.compare(); compare != nil {
		slices.SortStableFunc(shown, compare)
	}
	return shown
}

// compare compares two peers, nil for no order.
func (s Sort) compare() func(a, b Peer) int {
	latest := func(a, b Peer) int { return -CompareTimes(a.LastHandshake, b.LastHandshake) }
	switch s {
	case SortState:
		return func(a, b Peer) int {
			return cmp.Or(cmp.Compare(slices.Index(States, a.State), slices.Index(States, b.State)), latest(a, b))
		}
	case SortHandshake:
		return latest
	case SortKey:
		return func(a, b Peer) int { return cmp.Compare(a.Key.String(), b.Key.String()) }
	case SortReceived:
		return func(a, b Peer) int { return -cmp.Compare(a.Received, b.Received) }
	case SortSent:
		return func(a, b Peer) int { return -cmp.Compare(a.Sent, b.Sent) }
	}
	return nil
}
