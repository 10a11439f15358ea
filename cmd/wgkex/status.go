package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/systemd"
	"wgkex/internal/units"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var asJSON, wide bool
	cmd := &cobra.Command{
		Use:   "status [DOMAIN]",
		Short: "Show the peers of a domain, or of all",
		Long: "Prints a table of the peers. STATE is live (a handshake within 3 minutes), idle\n" +
			"(within stale_after), stale, pending (never a handshake), static (not managed by\n" +
			"wgkex), or left-over (of another address profile, or without an address). Reading the peers also tells the exchanges of new static ones.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.LoadEffective()
			if err != nil {
				return err
			}
			domains := cfg.Sorted()
			if len(args) > 0 {
				d, ok := cfg.Domains[args[0]]
				if !ok {
					return fmt.Errorf("domain %s is not in the configuration as of the last daemon-reload, %s", args[0], config.Effective)
				}
				domains = []config.Domain{d}
			}
			all := status{
				Results: readResults(cmd, ""),
				Sockets: readSockets(cmd.Context(), socketsOf(cfg, domains)),
				Domains: []domainStatus{},
			}
			results, errs := make([]domainStatus, len(domains)), make([]error, len(domains))
			var wg sync.WaitGroup
			for i, d := range domains {
				wg.Go(func() { results[i], errs[i] = readStatus(d) })
			}
			wg.Wait()
			for i, d := range domains {
				if errs[i] != nil {
					errs[i] = fmt.Errorf("domain %s: %w", d.Name, domain.Privileged(errs[i]))
					continue
				}
				results[i].Results = readResults(cmd, d.Name)
				all.Domains = append(all.Domains, results[i])
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				errs = append(errs, encoder.Encode(all))
			} else {
				errs = append(errs, printStatus(cmd.OutOrStdout(), all, wide))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&wide, "wide", false, "print all columns, wider than 80 characters")
	return cmd
}

func completeDomains(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := config.LoadEffective()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, d := range cfg.Sorted() {
		names = append(names, d.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// status is the JSON output.
type status struct {
	// Results counts the exchanges, by their outcome, that named no domain. It
	// is null when the counters cannot be read.
	Results map[outcome.Code]uint64 `json:"results"`
	// Sockets is null when systemd cannot be asked.
	Sockets []socketStatus `json:"sockets"`
	Domains []domainStatus `json:"domains"`
}

// socketStatus is what systemd has counted of a socket's connections.
type socketStatus struct {
	Unit string `json:"unit"`
	// Domain is absent for the shared port.
	Domain   string `json:"domain,omitempty"`
	Accepted uint32 `json:"accepted"`
	// TurnedAway are those above MaxConnections= or MaxConnectionsPerSource=,
	// which were closed at once.
	TurnedAway uint32 `json:"turned_away"`
}

// domainStatus is a domain in the JSON output.
type domainStatus struct {
	Domain     string        `json:"domain"`
	WireGuard  string        `json:"wireguard"`
	VXLAN      string        `json:"vxlan"`
	Counts     policy.Counts `json:"managed"`
	MaxPeers   int           `json:"max_peers"`
	MaxPending int           `json:"max_pending"`
	// Results counts the exchanges since boot by their outcome, null as above.
	Results map[outcome.Code]uint64 `json:"results"`
	// ClockStep is absent when the wall clock was not seen to be set.
	ClockStep *clockStep   `json:"clock_step,omitempty"`
	Peers     []peerStatus `json:"peers"`
}

// clockStep is when the wall clock was seen to be set, and by how much.
type clockStep struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
}

type peerStatus struct {
	Key address.Key `json:"public_key"`
	// Address is the derived address, empty for a static peer.
	Address    string         `json:"address,omitempty"`
	AllowedIPs []netip.Prefix `json:"allowed_ips"`
	State      policy.State   `json:"state"`
	// LastHandshake is absent when there never was one. It is by the wall clock
	// of now, whatever that was set to then.
	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	Received      int64      `json:"received"` // bytes
	Sent          int64      `json:"sent"`     // bytes
	Endpoint      string     `json:"endpoint,omitempty"`
	staleAfter    time.Duration
}

// socketsOf is the sockets on which some of the domains are served.
func socketsOf(cfg config.Config, domains []config.Domain) []units.Socket {
	return slices.DeleteFunc(units.Sockets(cfg), func(s units.Socket) bool {
		return s.Domain != "" && !slices.ContainsFunc(domains, func(d config.Domain) bool { return d.Name == s.Domain })
	})
}

// systemdTimeout is how long the status waits for systemd: there is more to show.
const systemdTimeout = 20 * time.Second

// readSockets asks systemd about the sockets. It returns nil where that cannot
// be asked.
func readSockets(ctx context.Context, sockets []units.Socket) []socketStatus {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	manager, err := systemd.Connect(ctx)
	if err != nil {
		return nil
	}
	defer manager.Close()
	all := make([]socketStatus, len(sockets))
	for i, s := range sockets {
		u, err := manager.Unit(ctx, s.Unit)
		if err != nil {
			return nil
		}
		all[i] = socketStatus{Unit: s.Unit, Domain: s.Domain, Accepted: u.Accepted, TurnedAway: u.Refused}
	}
	return all
}

// readResults reads the counters of a domain, or of none for "". Where it
// cannot, it says so: what else there is to show does not depend on them.
func readResults(cmd *cobra.Command, name string) map[outcome.Code]uint64 {
	results, err := counters.Read(counters.Path(domain.System.Dir, name))
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "wgkex: counters: %v\n", domain.Privileged(err))
		return nil
	}
	return results
}

// statusTimeout is how long the status waits for a domain that others use.
const statusTimeout = 10 * time.Second

func readStatus(c config.Domain) (s domainStatus, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	d, err := domain.System.Open(ctx, c)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	survey, err := d.Refresh(nil)
	if err != nil {
		return s, err
	}
	state, err := d.State()
	if err != nil {
		return s, err
	}
	s = domainStatus{
		Domain: c.Name, WireGuard: c.WireGuard, VXLAN: c.VXLAN, Counts: state.Counts,
		MaxPeers: c.MaxPeers, MaxPending: c.MaxPending, Peers: make([]peerStatus, len(survey.Peers)),
	}
	now, sinceBoot := domain.System.Now(), domain.System.SinceBoot()
	if state.Step != 0 {
		s.ClockStep = &clockStep{At: now.Add(state.StepAt - sinceBoot), Seconds: state.Step.Seconds()}
	}
	for i, p := range survey.Peers {
		record := survey.Records[i]
		row := peerStatus{
			Key: p.Key, AllowedIPs: p.AllowedIPs, State: record.State(sinceBoot, c.StaleAfter),
			Received: p.Received, Sent: p.Sent, staleAfter: c.StaleAfter,
		}
		if record.Kind == policy.Managed {
			row.Address = p.AllowedIPs[0].Addr().String()
		}
		if p.AllowedIPs == nil {
			row.AllowedIPs = []netip.Prefix{} // not null
		}
		if !p.Pending() {
			at := now.Add(record.Active - sinceBoot)
			row.LastHandshake = &at
		}
		if p.Endpoint.IsValid() {
			row.Endpoint = p.Endpoint.String()
		}
		s.Peers[i] = row
	}
	return s, nil
}

func printStatus(out io.Writer, all status, wide bool) error {
	fmt.Fprintf(out, "exchanges without a domain since boot: %s\n", resultsText(all.Results))
	for _, s := range all.Sockets {
		fmt.Fprintf(out, "connections to %s: %d accepted, %d turned away\n", s.Unit, s.Accepted, s.TurnedAway)
	}
	for _, s := range all.Domains {
		fmt.Fprintln(out)
		fmt.Fprintf(out, "domain %s on %s and %s: %d of %d peers, %d of %d pending\n",
			s.Domain, s.WireGuard, s.VXLAN, s.Counts.Peers, s.MaxPeers, s.Counts.Pending, s.MaxPending)
		fmt.Fprintf(out, "exchanges since boot: %s\n", resultsText(s.Results))
		if s.ClockStep != nil {
			fmt.Fprintf(out, "the clock was set by %+.0f s, as seen at %s\n", s.ClockStep.Seconds, s.ClockStep.At.Local().Format(time.DateTime))
		}
		fmt.Fprintf(out, "peers: %s\n", statesText(s.Peers))
		if len(s.Peers) == 0 {
			continue
		}
		if err := printPeers(out, s.Peers, wide); err != nil {
			return err
		}
	}
	return nil
}

// states are all of them, in the order in which they are shown.
var states = []policy.State{
	policy.StateLive, policy.StateIdle, policy.StateStale, policy.StatePending, policy.StateLeftOver, policy.StateStatic,
}

func statesText(peers []peerStatus) string {
	counts := map[policy.State]int{}
	for _, p := range peers {
		counts[p.State]++
	}
	var parts []string
	for _, s := range states {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// printPeers prints a table by state, those with the latest handshake first. It
// fits into 80 columns unless wide.
func printPeers(out io.Writer, peers []peerStatus, wide bool) error {
	peers = slices.Clone(peers)
	slices.SortStableFunc(peers, func(a, b peerStatus) int {
		return cmp.Or(cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)), -compareTimes(a.LastHandshake, b.LastHandshake))
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
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Key, orDash(p.Address), p.stateText(), p.ageText(),
				byteText(p.Received), byteText(p.Sent), orDash(p.Endpoint))
		} else {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.Key, p.State, p.shortAge(), shortBytes(p.Received), shortBytes(p.Sent))
		}
	}
	return table.Flush()
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
func (p peerStatus) shortAge() string {
	if p.LastHandshake == nil {
		return "-"
	}
	age := time.Since(*p.LastHandshake)
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

func (p peerStatus) stateText() string {
	if p.State == policy.StateStale {
		return "stale since " + p.LastHandshake.Add(p.staleAfter).Local().Format(time.DateTime)
	}
	return string(p.State)
}

func (p peerStatus) ageText() string {
	if p.LastHandshake == nil {
		return "-"
	}
	return time.Since(*p.LastHandshake).Round(time.Second).String() + " ago"
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
