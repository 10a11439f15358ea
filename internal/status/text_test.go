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
	if err := Print(&out, all, now, View{Sort: SortState}); err != nil {
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
	if err := Print(&out, all, now, View{Sort: SortState, Wide: true}); err != nil {
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
	want := `DOMAIN        PEERS PENDING LIVE IDLE STALE STATIC
all 2 domains  1/10     0/5    0    0     1      1
d              1/10     0/5    0    0     1      1
e               0/0     0/0    0    0     0      0

exchanges without a domain since boot: unknown
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
	if err := Print(&out, all, now, View{Sort: SortState, Wide: true}); err != nil || out.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, out.String(), want)
	}
}

// With 20,000 peers, all kinds of peers and refusals, and long names, it still is 80
// columns wide, and all of it is there.
func TestPrintLarge(t *testing.T) {
	const peers = 20000
	long := Domain{
		Domain: "ffmuc_muenchen_nord", WireGuard: "wg-ffmuc-nord01", VXLAN: "vx-ffmuc-nord01",
		Counts: policy.Counts{Peers: peers, Pending: 1999}, MaxPeers: 25000, MaxPending: 2000,
		Results: map[outcome.Code]uint64{},
	}
	for _, code := range outcome.Codes {
		long.Results[code] = 12345678
	}
	long.ByWay = map[outcome.Way]map[outcome.Code]uint64{outcome.HTTP: long.Results, outcome.TCP: {outcome.OK: 1}}
	for i := range peers {
		long.Peers = append(long.Peers, Peer{Key: address.Key{byte(i), byte(i >> 8)}, State: States[i%len(States)], LastHandshake: new(time.Now())})
	}
	short := long
	short.Domain = "ffww"
	all := Status{
		Results: long.Results, ByWay: long.ByWay, Domains: []Domain{long, short},
		Sockets: []SocketStatus{{Unit: "wgkex@ffmuc_muenchen_nord.socket", Domain: long.Domain, Accepted: 4294967295, TurnedAway: 4294967295}},
	}
	var out strings.Builder
	if err := Print(&out, all, time.Now(), View{Sort: SortKey, States: []policy.State{policy.StateStale}, Limit: 3}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || strings.HasSuffix(line, " ") {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	const want = `DOMAIN                 PEERS   PENDING LIVE IDLE STALE RESTORED LEFT-OVER STATIC
all 2 domains    40000/50000 3998/4000 5716 5714  5714     5714      5714   5714
ffmuc_muenchen_nord
                 20000/25000 1999/2000 2858 2857  2857     2857      2857   2857
ffww             20000/25000 1999/2000 2858 2857  2857     2857      2857   2857
`
	if !strings.HasPrefix(text, want) {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	lines := strings.ReplaceAll(text, "\n    ", " ")
	for _, want := range []string{
		"\nconnections to wgkex@ffmuc_muenchen_nord.socket: 4294967295 accepted, 4294967295 turned away\n",
		"\ndomain ffmuc_muenchen_nord on wg-ffmuc-nord01 and vx-ffmuc-nord01: 20000 of 25000 peers, 1999 of 2000 pending\n",
		"\nexchanges since boot: " + resultsText(long.Results) + "\n  by tcp: OK 1\n  by http: " + resultsText(long.Results) + "\n",
		"\npeers: 2858 live, 2857 idle, ",
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
	if n := strings.Count(text, "= stale 0 s "); n != 6 {
		t.Errorf("%d stale peers, want 3 for each domain", n)
	}
}

// A full disk is noticed, also by a status without any table.
func TestPrintError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := Print(full, Status{}, time.Now(), View{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
