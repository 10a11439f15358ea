package status

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"wgkex/internal/counters"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

// Print writes the Status as text, with ages as of now, the wall clock of its
// source. The tables fit into 80 columns; wide ones have all columns, whatever
// their width. The error is that of w.
func Print(w io.Writer, all Status, now time.Time, wide bool) error {
	out := new(bytes.Buffer)
	fmt.Fprintf(out, "exchanges without a domain since boot: %s\n", resultsText(all.Results))
	printWays(out, all.ByWay)
	for _, s := range all.Sockets {
		fmt.Fprintf(out, "connections to %s: %d accepted, %d turned away\n", s.Unit, s.Accepted, s.TurnedAway)
	}
	for _, s := range all.Domains {
		fmt.Fprintln(out)
		fmt.Fprintf(out, "domain %s on %s and %s: %d of %d peers, %d of %d pending\n",
			s.Domain, s.WireGuard, s.VXLAN, s.Counts.Peers, s.MaxPeers, s.Counts.Pending, s.MaxPending)
		fmt.Fprintf(out, "exchanges since boot: %s\n", resultsText(s.Results))
		printWays(out, s.ByWay)
		if s.ClockStep != nil {
			fmt.Fprintf(out, "the clock was set by %+.0f s, as seen at %s\n", s.ClockStep.Seconds, s.ClockStep.At.Local().Format(time.DateTime))
		}
		if s.Saved != nil {
			fmt.Fprintf(out, "saved: %s\n", s.Saved)
		}
		if s.Restored != nil {
			fmt.Fprintf(out, "restored: %s\n", s.Restored)
		}
		fmt.Fprintf(out, "peers: %s\n", statesText(s.Peers))
		if len(s.Peers) == 0 {
			continue
		}
		printPeers(out, s, now, wide)
	}
	_, err := out.WriteTo(w)
	return err
}

// WriteJSON writes the Status as JSON. The error is that of w.
func (s Status) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

// States are all of them, in the order in which they are shown.
var States = []policy.State{
	policy.StateLive, policy.StateIdle, policy.StateStale, policy.StateRestored, policy.StatePending, policy.StateLeftOver, policy.StateStatic,
}

// String is the two in words.
func (s Saved) String() string {
	return fmt.Sprintf("%d peers at %s", s.Peers, s.At.Local().Format(time.DateTime))
}

func statesText(peers []Peer) string {
	counts := map[policy.State]int{}
	for _, p := range peers {
		counts[p.State]++
	}
	var parts []string
	for _, s := range States {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// printPeers prints a table by state, those with the latest handshake first.
func printPeers(out *bytes.Buffer, s Domain, now time.Time, wide bool) {
	peers := slices.Clone(s.Peers)
	slices.SortStableFunc(peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(slices.Index(States, a.State), slices.Index(States, b.State)), -compareTimes(a.LastHandshake, b.LastHandshake))
	})
	padding := 1
	if wide {
		padding = 2
	}
	table := tabwriter.NewWriter(out, 0, 0, padding, ' ', 0)
	if wide {
		fmt.Fprintln(table, "PUBLIC KEY\tADDRESS\tSTATE\tHANDSHAKE\tRECEIVED\tSENT\tENDPOINT")
	} else {
		fmt.Fprintln(table, "PUBLIC KEY\tSTATE\tHANDSHAKE\tRECEIVED\tSENT")
	}
	for _, p := range peers {
		if wide {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Key, orDash(p.Address), p.stateText(s.StaleAfter), p.ageText(now),
				byteText(p.Received), byteText(p.Sent), orDash(p.Endpoint))
		} else {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.Key, p.State, p.shortAge(now), shortBytes(p.Received), shortBytes(p.Sent))
		}
	}
	_ = table.Flush() // a buffer takes all
}

// compareTimes orders times, none before all others.
func compareTimes(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return a.Compare(*b)
}

// shortAge is the age of the last handshake in its largest unit.
func (p Peer) shortAge(now time.Time) string {
	if p.LastHandshake == nil {
		return "-"
	}
	age := now.Sub(*p.LastHandshake)
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if age >= unit.is {
			return fmt.Sprintf("%d %s", age/unit.is, unit.name)
		}
	}
	return fmt.Sprintf("%d s", age/time.Second)
}

// shortBytes is a number of bytes in four characters, with the first letter of
// its binary prefix.
func shortBytes(n int64) string {
	const prefixes = " KMGTPE"
	i := 0
	for ; n >= 1000 && i < len(prefixes)-1; i++ {
		n = (n + 512) / 1024
	}
	return strings.TrimSpace(fmt.Sprint(n) + prefixes[i:i+1])
}

// printWays prints a line for each way, unless all came the first one.
func printWays(out *bytes.Buffer, results counters.Results) {
	for _, way := range outcome.Ways {
		if counts := results[way]; counts != nil && (len(results) > 1 || way != outcome.TCP) {
			fmt.Fprintf(out, "  by %s: %s\n", way, resultsText(counts))
		}
	}
}

func resultsText(results map[outcome.Code]uint64) string {
	if results == nil {
		return "unknown"
	}
	var parts []string
	for _, code := range outcome.Codes {
		if n := results[code]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", code, n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func (p Peer) stateText(staleAfter time.Duration) string {
	if p.State == policy.StateStale {
		return "stale since " + p.LastHandshake.Add(staleAfter).Local().Format(time.DateTime)
	}
	return string(p.State)
}

func (p Peer) ageText(now time.Time) string {
	if p.LastHandshake == nil {
		return "-"
	}
	return now.Sub(*p.LastHandshake).Round(time.Second).String() + " ago"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// byteText is a number of bytes with a binary prefix, as wg(8) shows it.
func byteText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value /= 1024; value < 1024 {
			break
		}
	}
	return fmt.Sprintf("%.2f %s", value, unit)
}
