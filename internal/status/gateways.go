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
	"wgkex/internal/statefile"
)

// GatewayState is what is shown of a gateway.
type GatewayState struct {
	Name string
	// Own says that it is this one.
	Own, Online bool
	Weight      int
	// Silent is for how long nothing was heard of it.
	Silent time.Duration
	// Domains are in the order of their names.
	Domains []GatewayDomain
}

// GatewayDomain is what is shown of a domain of a gateway.
type GatewayDomain struct {
	Name string
	// Live is how many live peers it has, -1 for not known.
	Live int
	// Old says that Live is too old to go by, and Age how old it is.
	Old bool
	Age time.Duration
	// Endpoint is where routers reach it, empty for not known.
	Endpoint string
}

// Gateways is what is shown of those that are known, in the order of their names. Own is
// the name of this one, and sinceBoot the clock of what is known.
func Gateways(known gateways.Known, own string, weight func(string) int, sinceBoot time.Duration) []GatewayState {
	var all []GatewayState
	for _, name := range slices.Sorted(maps.Keys(known)) {
		g := known[name]
		state := GatewayState{Name: name, Own: name == own, Online: g.Online, Weight: weight(name), Silent: sinceBoot - g.Heard}
		for _, domain := range slices.Sorted(maps.Keys(g.Domains)) {
			d := g.Domains[domain]
			shown := GatewayDomain{Name: domain, Live: d.Live, Old: d.Live >= 0 && !d.Counts(sinceBoot), Age: sinceBoot - d.Counted}
			if d.Endpoint != nil {
				shown.Endpoint = net.JoinHostPort(d.Endpoint.Host, strconv.Itoa(int(d.Endpoint.Port)))
			}
			state.Domains = append(state.Domains, shown)
		}
		all = append(all, state)
	}
	return all
}

// OnlineText says whether the gateway is on line.
func (g GatewayState) OnlineText() string {
	if g.Online {
		return "on line"
	}
	return "off line"
}

// PrintGateways writes the gateways as a table, a line for each of their domains. The
// error is that of w.
func PrintGateways(w io.Writer, all []GatewayState) error {
	out := new(bytes.Buffer)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GATEWAY\tSTATE\tWEIGHT\tHEARD\tDOMAIN\tLIVE\tENDPOINT")
	for _, g := range all {
		shown := g.Name
		if g.Own {
			shown += " (this)"
		}
		head := fmt.Sprintf("%s\t%s\t%d\t%s ago", shown, g.OnlineText(), g.Weight, g.Silent.Round(time.Second))
		if len(g.Domains) == 0 {
			fmt.Fprintf(table, "%s\t-\t-\t-\n", head)
		}
		for _, d := range g.Domains {
			live, endpoint := "-", "-"
			if d.Live >= 0 {
				live = strconv.Itoa(d.Live)
			}
			if d.Old {
				live += fmt.Sprintf(", %s ago", d.Age.Round(time.Second))
			}
			if d.Endpoint != "" {
				endpoint = d.Endpoint
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", head, d.Name, live, endpoint)
			head = "\t\t\t"
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := out.WriteTo(w)
	return err
}

// ReadGateways reads what the relay knows, from gateways.Path. The error is
// fs.ErrNotExist where no relay has run since the boot.
func ReadGateways(path string) (gateways.Known, error) {
	return statefile.ReadAs(path, gateways.MaxSize, gateways.Parse)
}

// ReadRelayStats reads the relay's numbers, from gateways.StatsPath. The error is
// fs.ErrNotExist where no relay has run since the boot.
func ReadRelayStats(path string) (gateways.Stats, error) {
	return statefile.ReadAs(path, gateways.MaxStatsSize, gateways.ParseStats)
}
