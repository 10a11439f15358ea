package status

import (
	"bytes"
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

// columns is how wide all but wide tables are at most.
const columns = 80

// Print writes the Status as text, with ages as of now, the wall clock of its
// source: what is known of all domains, then each of them. All but a wide table
// fits into 80 columns. The error is that of w.
func Print(w io.Writer, all Status, now time.Time, view View) error {
	out := new(bytes.Buffer)
	printTotals(out, all.Domains)
	printList(out, "exchanges without a domain since boot: ", resultsText(all.Results))
	printWays(out, all.ByWay)
	for _, s := range all.Sockets {
		printList(out, fmt.Sprintf("connections to %s: ", s.Unit), fmt.Sprintf("%d accepted, %d turned away", s.Accepted, s.TurnedAway))
	}
	for _, s := range all.Domains {
		fmt.Fprintln(out)
		printList(out, fmt.Sprintf("domain %s on %s and %s: ", s.Domain, s.WireGuard, s.VXLAN),
			fmt.Sprintf("%d of %d peers, %d of %d pending", s.Counts.Peers, s.MaxPeers, s.Counts.Pending, s.MaxPending))
		printList(out, "exchanges since boot: ", resultsText(s.Results))
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
		printList(out, "peers: ", statesText(countStates(s.Peers)))
		if peers := view.peers(s.Peers); len(peers) > 0 {
			if view.Limit > 0 {
				peers = peers[:min(len(peers), view.Limit)]
			}
			printPeers(out, peers, s.StaleAfter, now, view.Wide)
		}
	}
	_, err := out.WriteTo(w)
	return err
}

// printTotals prints a table of the domains, with all of them together in its first
// row. A single one needs none.
func printTotals(out *bytes.Buffer, domains []Domain) {
	if len(domains) < 2 {
		return
	}
	states := make([]map[policy.State]int, len(domains))
	total, totalStates := Domain{Domain: fmt.Sprintf("all %d domains", len(domains))}, map[policy.State]int{}
	for i, d := range domains {
		states[i] = countStates(d.Peers)
		for state, n := range states[i] {
			totalStates[state] += n
		}
		total.Counts.Peers += d.Counts.Peers
		total.Counts.Pending += d.Counts.Pending
		total.MaxPeers += d.MaxPeers
		total.MaxPending += d.MaxPending
	}
	// Pending peers have a column with their limit. States that most gateways do not
	// have get one only where they are.
	shown := slices.DeleteFunc(slices.Clone(States), func(s policy.State) bool {
		usual := s == policy.StateLive || s == policy.StateIdle || s == policy.StateStale
		return s == policy.StatePending || !usual && totalStates[s] == 0
	})
	row := func(d Domain, states map[policy.State]int) []string {
		cells := []string{d.Domain, fmt.Sprintf("%d/%d", d.Counts.Peers, d.MaxPeers), fmt.Sprintf("%d/%d", d.Counts.Pending, d.MaxPending)}
		for _, s := range shown {
			cells = append(cells, fmt.Sprint(states[s]))
		}
		return cells
	}
	head := []string{"DOMAIN", "PEERS", "PENDING"}
	for _, s := range shown {
		head = append(head, strings.ToUpper(string(s)))
	}
	rows := [][]string{head, row(total, totalStates)}
	for i, d := range domains {
		rows = append(rows, row(d, states[i]))
	}
	printColumns(out, rows)
	fmt.Fprintln(out)
}

// printColumns prints a table of numbers with names in its first column. Names that
// are too long for it stand above their numbers.
func printColumns(out *bytes.Buffer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	others := 0
	for _, width := range widths[1:] {
		others += 1 + width
	}
	widths[0] = min(widths[0], max(columns-others, len(rows[0][0])))
	for _, row := range rows {
		if len(row[0]) > widths[0] {
			fmt.Fprintln(out, row[0])
			row[0] = ""
		}
		fmt.Fprintf(out, "%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			fmt.Fprintf(out, " %*s", widths[i+1], cell)
		}
		fmt.Fprintln(out)
	}
}

// printList prints what is separated by commas, in as many lines as it takes.
func printList(out *bytes.Buffer, title, list string) {
	out.WriteString(title)
	at := len(title)
	for i, part := range strings.SplitAfter(list, ", ") {
		if at+len(strings.TrimSuffix(part, " ")) > columns && (i > 0 || len(title) > indent) {
			out.Truncate(len(bytes.TrimRight(out.Bytes(), " ")))
			fmt.Fprintf(out, "\n%*s", indent, "")
			at = indent
		}
		out.WriteString(part)
		at += len(part)
	}
	out.WriteByte('\n')
}

// indent is how far the lines of a list stand in that follow its first.
const indent = 4

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

func countStates(peers []Peer) map[policy.State]int {
	counts := map[policy.State]int{}
	for _, p := range peers {
		counts[p.State]++
	}
	return counts
}

func statesText(counts map[policy.State]int) string {
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

func printPeers(out *bytes.Buffer, peers []Peer, staleAfter time.Duration, now time.Time, wide bool) {
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
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Key, orDash(p.Address), p.stateText(staleAfter), p.ageText(now),
				Bytes(p.Received), Bytes(p.Sent), orDash(p.Endpoint))
		} else {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.Key, p.State, p.Age(now), shortBytes(p.Received), shortBytes(p.Sent))
		}
	}
	_ = table.Flush() // a buffer takes all
}

// CompareTimes orders times, none before all others.
func CompareTimes(a, b *time.Time) int {
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

// Age is how long ago the last handshake was, in its largest unit, "-" for never.
func (p Peer) Age(now time.Time) string {
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
			printList(out, fmt.Sprintf("  by %s: ", way), resultsText(counts))
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

// Bytes is a number of bytes with a binary prefix, as wg(8) shows it.
func Bytes(n int64) string {
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
