package status

import (
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

func TestView(t *testing.T) {
	ago := func(d time.Duration) *time.Time { return new(time.Unix(1e9, 0).Add(-d)) }
	// By their names, in the order of the kernel.
	names := map[address.Key]string{{3}: "c", {1}: "a", {4}: "d", {2}: "b"}
	all := Status{Domains: []Domain{{Counts: policy.Counts{Peers: 3}, Peers: []Peer{
		{Key: address.Key{3}, State: policy.StateStale, LastHandshake: ago(time.Hour), Received: 1, Sent: 4},
		{Key: address.Key{1}, State: policy.StateLive, LastHandshake: ago(time.Minute), Received: 2, Sent: 3},
		{Key: address.Key{4}, State: policy.StatePending},
		{Key: address.Key{2}, State: policy.StateLive, LastHandshake: ago(time.Second), Received: 2, Sent: 5},
	}}}}
	for _, c := range []struct {
		view View
		want string
	}{
		{View{}, "c a d b"},
		{View{Sort: SortState}, "b a c d"},
		{View{Sort: SortHandshake}, "b a c d"},
		{View{Sort: SortKey}, "a b c d"},
		{View{Sort: SortReceived}, "a b c d"},
		{View{Sort: SortSent}, "b c a d"},
		{View{States: []policy.State{policy.StatePending, policy.StateLive}}, "a d b"},
		{View{States: []policy.State{policy.StateStale}, Sort: SortKey}, "c"},
		{View{States: []policy.State{policy.StateStatic}}, ""},
	} {
		selected := c.view.Select(all)
		var got []string
		for _, p := range selected.Domains[0].Peers {
			got = append(got, names[p.Key])
		}
		if strings.Join(got, " ") != c.want || selected.Domains[0].Counts.Peers != 3 || selected.Domains[0].Peers == nil {
			t.Errorf("%+v: got %q, want %q, of %+v", c.view, got, c.want, selected)
		}
	}
	if len(all.Domains[0].Peers) != 4 || all.Domains[0].Peers[0].Key != (address.Key{3}) {
		t.Errorf("what was selected from has changed: %+v", all)
	}
}

func TestParseStates(t *testing.T) {
	for _, c := range []struct {
		text string
		want []policy.State
		err  string
	}{
		{"live", []policy.State{policy.StateLive}, ""},
		{"left-over,pending", []policy.State{policy.StateLeftOver, policy.StatePending}, ""},
		{"", nil, `unknown state "": must be one of live, idle, stale, restored, pending, left-over, static`},
		{"live,Idle", nil, `unknown state "Idle": must be one of`},
		{"live,", nil, `unknown state ""`},
	} {
		got, err := ParseStates(c.text)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%q: got %q, %v, want %q, %s", c.text, got, err, c.want, c.err)
		}
	}
}

func TestSort(t *testing.T) {
	for _, s := range Sorts {
		var got Sort
		if err := got.UnmarshalText([]byte(s)); err != nil || got != s {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	got := SortKey
	if err := got.UnmarshalText([]byte("size")); err == nil || err.Error() != `unknown order "size": must be one of state, handshake, key, received, sent` || got != SortKey {
		t.Errorf("got %s, %v", got, err)
	}
}
