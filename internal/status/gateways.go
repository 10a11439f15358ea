package status

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"wgkex/internal/gateways"
)

// PrintGateways writes what is known of the gateways as a table, a line for each of their
// domains. Own is the name of this one, and sinceBoot the clock of what is known now. The
// error is that of w.
func PrintGateways(w io.Writer, known gateways.Known, own string, weight func(string) int, sinceBoot time.Duration) error {
	out := new(bytes.Buffer)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GATEWAY\tSTATE\tWEIGHT\tHEARD\tDOMAIN\tLIVE\tENDPOINT")
	for _, name := range slices.Sorted(maps.Keys(known)) {
		g := known[name]
		state := "off line"
		if g.Online {
			state = "on line"
		}
		shown := name
		if name == own {
			shown += " (this)"
		}
		head := fmt.Sprintf("%s\t%s\t%d\t%s ago", shown, state, weight(name), ago(sinceBoot, g.Heard))
		if len(g.Domains) == 0 {
			fmt.Fprintf(table, "%s\t-\t-\t-\n", head)
		}
		for _, domain := range slices.Sorted(maps.Keys(g.Domains)) {
			d := g.Domains[domain]
			live, endpoint := "-", "-"
			if d.Live >= 0 {
				live = strconv.Itoa(d.Live)
				if sinceBoot-d.Counted >= gateways.SilentFor {
					live += fmt.Sprintf(", %s ago", ago(sinceBoot, d.Counted)) // it does not count any more
				}
			}
			if d.Endpoint != nil {
				endpoint = net.JoinHostPort(d.Endpoint.Host, strconv.Itoa(int(d.Endpoint.Port)))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", head, domain, live, endpoint)
			head = "\t\t\t"
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := out.WriteTo(w)
	return err
}

func ago(now, then time.Duration) time.Duration { return (now - then).Round(time.Second) }
