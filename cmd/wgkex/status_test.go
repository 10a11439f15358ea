package main

import (
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

// What an admin sees fits onto a terminal of 80 columns, with what matters first.
func TestPrintStatus(t *testing.T) {
	ago := func(d time.Duration) *time.Time { return new(time.Now().Add(-d)) }
	key := func(n byte) address.Key { return address.Key{n} }
	peers := []peerStatus{
		{Key: key(1), State: policy.StateLeftOver, LastHandshake: ago(400 * 24 * time.Hour), Received: 1 << 62, Sent: 1 << 62},
		{Key: key(2), State: policy.StatePending},
		{Key: key(3), State: policy.StateLive, LastHandshake: ago(2 * time.Minute), Received: 999, Sent: 1000},
		{Key: key(4), State: policy.StateLive, LastHandshake: ago(5 * time.Second), Received: 1023, Sent: 1023 << 10},
	}
	var out strings.Builder
	all := status{Domains: []domainStatus{{Domain: "a", Peers: peers}, {Domain: "b"}}}
	if err := printStatus(&out, all, false); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for line := range strings.Lines(text) {
		if len(line) > 81 { // with its newline
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	at := -1
	for _, want := range []string{
		"domain a on ", "peers: 2 live, 1 pending, 1 left-over\n", key(4).String() + " live      5 s       1K       1M\n",
		key(3).String() + " live      2 min     999      1K\n", key(2).String() + " pending   -         0        0\n",
		key(1).String() + " left-over 400 d     4E       4E\n", "domain b on ", "peers: none\n",
	} {
		next := strings.Index(text, want)
		if next <= at {
			t.Errorf("no %q in its place in\n%s", want, text)
		}
		at = next
	}
	out.Reset()
	if err := printStatus(&out, all, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "ENDPOINT") {
		t.Errorf("not all columns:\n%s", out.String())
	}
}
