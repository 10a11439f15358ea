package status

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

// What an admin sees fits onto a terminal of 80 columns, with what matters first.
func TestPrint(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) *time.Time { return new(now.Add(-d)) }
	key := func(n byte) address.Key { return address.Key{n} }
	peers := []Peer{
		{Key: key(1), State: policy.StateLeftOver, LastHandshake: ago(400 * 24 * time.Hour), Received: 1 << 62, Sent: 1 << 62},
		{Key: key(2), State: policy.StatePending},
		{Key: key(3), State: policy.StateLive, LastHandshake: ago(2 * time.Minute), Received: 999, Sent: 1000},
		{Key: key(4), State: policy.StateLive, LastHandshake: ago(5 * time.Second), Received: 1023, Sent: 1023 << 10},
	}
	var out strings.Builder
	all := Status{Domains: []Domain{{Domain: "a", Peers: peers}, {Domain: "b"}}}
	if err := Print(&out, all, now, false); err != nil {
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
	if err := Print(&out, all, now, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "ENDPOINT") {
		t.Errorf("not all columns:\n%s", out.String())
	}
}

// The numbers of all domains and sockets, and the columns of a wide table.
func TestPrintWide(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	ago := func(d time.Duration) *time.Time { return new(now.Add(-d)) }
	all := Status{
		Sockets: []SocketStatus{{Unit: "wgkex.socket", Accepted: 7, TurnedAway: 2}},
		Domains: []Domain{{
			Domain: "d", WireGuard: "w", VXLAN: "v", Counts: policy.Counts{Peers: 1, Pending: 0}, MaxPeers: 10, MaxPending: 5, StaleAfter: time.Hour,
			Results:   map[outcome.Code]uint64{outcome.Busy: 2, outcome.OK: 3},
			ClockStep: &ClockStep{At: now.Add(-time.Minute), Seconds: -3600.4},
			Peers: []Peer{
				{Key: address.Key{1}, State: policy.StateStatic, Endpoint: "192.0.2.1:5000"},
				{Key: address.Key{2}, Address: "fe80::2", State: policy.StateStale, LastHandshake: ago(2 * time.Hour), Received: 1023, Sent: 1 << 30},
			},
		}, {Domain: "e", Results: map[outcome.Code]uint64{}}},
	}
	want := `exchanges without a domain since boot: unknown
connections to wgkex.socket: 7 accepted, 2 turned away

domain d on w and v: 1 of 10 peers, 0 of 5 pending
exchanges since boot: OK 3, BUSY 2
the clock was set by -3600 s, as seen at 2026-11-22 11:59:00
peers: 1 stale, 1 static
PUBLIC KEY                                    ADDRESS  STATE                            HANDSHAKE   RECEIVED  SENT      ENDPOINT
` + address.Key{2}.String() + `  fe80::2  stale since 2026-11-22 11:00:00  2h0m0s ago  1023 B    1.00 GiB  -
` + address.Key{1}.String() + `  -        static                           -           0 B       0 B       192.0.2.1:5000

domain e on  and : 0 of 0 peers, 0 of 0 pending
exchanges since boot: none
peers: none
`
	var out strings.Builder
	if err := Print(&out, all, now, true); err != nil || out.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, out.String(), want)
	}
}

// A full disk is noticed, also by a status without any table.
func TestPrintError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := Print(full, Status{}, time.Now(), false); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
