// Package status reads what there is to know of the domains: their peers, the
// outcomes of exchanges and the connections to the sockets. A program that shows
// it, as text or otherwise, reads nothing itself.
package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// Status is what is known of all domains or of some. Its JSON is what wgkex
// status --json prints.
type Status struct {
	// Results counts the exchanges, by their outcome, that named no domain. It
	// is null when the counters cannot be read.
	Results map[outcome.Code]uint64 `json:"results"`
	// ByWay are the same, by the way on which they came and the outcome.
	ByWay counters.Results `json:"results_by_way"`
	// Sockets is null when systemd cannot be asked.
	Sockets []SocketStatus `json:"sockets"`
	// Domains are in the order of their names, without those that could not be
	// read. It is never null.
	Domains []Domain `json:"domains"`
}

// SocketStatus is what systemd has counted of a socket's connections since it
// first loaded the unit.
type SocketStatus struct {
	Unit string `json:"unit"`
	// Domain is absent for the shared port.
	Domain   string `json:"domain,omitempty"`
	Accepted uint32 `json:"accepted"`
	// TurnedAway are those above MaxConnections= or MaxConnectionsPerSource=,
	// which were closed at once.
	TurnedAway uint32 `json:"turned_away"`
}

// Domain is one domain and its peers.
type Domain struct {
	Domain     string        `json:"domain"`
	WireGuard  string        `json:"wireguard"` // interface name
	VXLAN      string        `json:"vxlan"`     // interface name
	Counts     policy.Counts `json:"managed"`
	MaxPeers   int           `json:"max_peers"`
	MaxPending int           `json:"max_pending"`
	// StaleAfter is for how long a peer has no handshake until it is stale.
	StaleAfter time.Duration `json:"-"`
	// Results counts the exchanges since boot by their outcome, null as above.
	Results map[outcome.Code]uint64 `json:"results"`
	// ByWay are the same, by the way on which they came and the outcome.
	ByWay counters.Results `json:"results_by_way"`
	// ClockStep is absent when the wall clock was not seen to be set.
	ClockStep *ClockStep `json:"clock_step,omitempty"`
	// Saved is absent when no peers are saved, or what is saved cannot be read.
	Saved *Saved `json:"saved,omitempty"`
	// Restored is absent when no peers were restored since the interfaces are
	// there.
	Restored *Saved `json:"restored,omitempty"`
	// Peers are in the order in which the kernel has them. It is never null.
	Peers []Peer `json:"peers"`
}

// ClockStep is when the wall clock was seen to be set, and by how much.
type ClockStep struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
}

// Saved is when peers were saved or restored, and how many.
type Saved struct {
	At    time.Time `json:"at"`
	Peers int       `json:"peers"`
}

// Peer is a peer of the domain's WireGuard interface, wgkex's or not.
type Peer struct {
	Key address.Key `json:"public_key"`
	// Address is the derived address, empty for a static peer.
	Address string `json:"address,omitempty"`
	// AllowedIPs is never null.
	AllowedIPs []netip.Prefix `json:"allowed_ips"`
	State      policy.State   `json:"state"`
	// LastHandshake is absent when there never was one. It is by the wall clock
	// of now, whatever that was set to then.
	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	Received      int64      `json:"received"` // bytes
	Sent          int64      `json:"sent"`     // bytes
	Endpoint      string     `json:"endpoint,omitempty"`
}

const (
	// systemdTimeout is how long to wait for systemd: there is more to show.
	systemdTimeout = 20 * time.Second
	// DomainTimeout is how long to wait for a domain that others use.
	DomainTimeout = 10 * time.Second
)

// Source is where a Status is read.
type Source struct {
	// Host has the domains, the counters in its directory, and the clocks.
	Host domain.Host
	// Units asks systemd about units and returns them in the order of the names
	// (systemd.Units).
	Units func(ctx context.Context, names ...string) ([]systemd.Unit, error)
	// Warn is told of counters that cannot be read. That is no error: what else
	// there is to show does not depend on them.
	Warn func(error)
}

// atOnce is how many domains are read at a time. Each takes a thread while it waits
// for its lock, and six descriptors, and a unit may have 32 and 64 of them.
const atOnce = 6

// each calls do for each domain, several at a time, so that one that others use does
// not make all others wait.
func each(domains []config.Domain, do func(i int, d config.Domain)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for i, d := range domains {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			do(i, d)
		})
	}
	wg.Wait()
}

// Collect reads the given domains of the configuration, several at a time. Its error joins one for each domain that could not be
// read; the Status has the others all the same.
func (s Source) Collect(ctx context.Context, cfg config.Config, domains []config.Domain) (Status, error) {
	all := Status{
		Sockets: s.sockets(ctx, socketsOf(cfg, domains)),
		Domains: []Domain{},
	}
	all.Results, all.ByWay = s.results("")
	found, errs := make([]Domain, len(domains)), make([]error, len(domains))
	each(domains, func(i int, d config.Domain) { found[i], errs[i] = s.Domain(ctx, d) })
	for i, d := range domains {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("domain %s: %w", d.Name, errs[i])
			continue
		}
		found[i].Results, found[i].ByWay = s.results(d.Name)
		all.Domains = append(all.Domains, found[i])
	}
	return all, errors.Join(errs...)
}

// socketsOf is the sockets on which some of the domains are served.
func socketsOf(cfg config.Config, domains []config.Domain) []units.Socket {
	return slices.DeleteFunc(units.Sockets(cfg), func(s units.Socket) bool {
		if s.HTTP || s.Metrics { // systemd does not take those of HTTP, and no exchange is served on the other
			return true
		}
		return s.Domain != "" && !slices.ContainsFunc(domains, func(d config.Domain) bool { return d.Name == s.Domain })
	})
}

// sockets asks systemd about the sockets. It returns nil where that cannot be
// asked.
func (s Source) sockets(ctx context.Context, sockets []units.Socket) []SocketStatus {
	ctx, cancel := context.WithTimeout(ctx, systemdTimeout)
	defer cancel()
	var names []string
	for _, socket := range sockets {
		names = append(names, socket.Unit)
	}
	found, err := s.Units(ctx, names...)
	if err != nil {
		return nil
	}
	all := make([]SocketStatus, len(sockets))
	for i, socket := range sockets {
		all[i] = SocketStatus{Unit: socket.Unit, Domain: socket.Domain, Accepted: found[i].Accepted, TurnedAway: found[i].Refused}
	}
	return all
}

// results reads the counters of a domain, or of none for "".
func (s Source) results(name string) (total map[outcome.Code]uint64, byWay counters.Results) {
	results, err := counters.Read(counters.Path(s.Host.Dir, name))
	if err != nil {
		s.Warn(fmt.Errorf("counters: %w", domain.Privileged(err)))
		return nil, nil
	}
	return results.Total(), results
}

// Domain reads one domain with its peers, but for its counters.
func (s Source) Domain(ctx context.Context, c config.Domain) (read Domain, err error) {
	err = s.Host.Locked(ctx, c, DomainTimeout, func(d *domain.Domain) (err error) {
		read, err = s.read(c, d)
		return err
	})
	return read, domain.Privileged(err)
}

// head is what is known of a domain without its peers.
func (s Source) head(c config.Domain) Domain {
	d := Domain{
		Domain: c.Name, WireGuard: c.WireGuard, VXLAN: c.VXLAN,
		MaxPeers: c.MaxPeers, MaxPending: c.MaxPending, StaleAfter: c.StaleAfter,
	}
	switch at, peers, err := s.Host.SavedSummary(c.Name); {
	case err == nil:
		d.Saved = &Saved{At: at, Peers: peers}
	case !errors.Is(err, fs.ErrNotExist):
		s.Warn(fmt.Errorf("saved peers: %w", domain.Privileged(err)))
	}
	return d
}

// know takes what a state tells beside its peers.
func (d *Domain) know(state *domain.State, now time.Time, sinceBoot time.Duration) {
	d.Counts = state.Counts
	if state.Step != 0 {
		d.ClockStep = &ClockStep{At: now.Add(state.StepAt - sinceBoot), Seconds: state.Step.Seconds()}
	}
	if state.RestoredAt != 0 {
		d.Restored = &Saved{At: now.Add(state.RestoredAt - sinceBoot), Peers: state.RestoredPeers}
	}
}

func (s Source) read(c config.Domain, d *domain.Domain) (read Domain, err error) {
	survey, err := d.Refresh(nil)
	if err != nil {
		return read, err
	}
	state, err := d.State()
	if err != nil {
		return read, err
	}
	read = s.head(c)
	read.Peers = make([]Peer, len(survey.Peers))
	now, sinceBoot := s.Host.Now(), s.Host.SinceBoot()
	read.know(state, now, sinceBoot)
	for i, p := range survey.Peers {
		record := survey.Records[i]
		row := Peer{
			Key: p.Key, AllowedIPs: p.AllowedIPs, State: record.State(sinceBoot, c.StaleAfter),
			Received: p.Received, Sent: p.Sent,
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
		read.Peers[i] = row
	}
	return read, nil
}
