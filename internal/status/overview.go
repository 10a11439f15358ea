package status

import (
	"context"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
	"wgkex/internal/units"
)

const (
	// OverviewAge is how old a reading of the peers may be for an Overview to count
	// those: several who ask at a time cost one reading.
	OverviewAge = 15 * time.Second
	// OverviewTimeout is how long an Overview waits for a domain that others use.
	OverviewTimeout = 5 * time.Second
)

// Overview is what is known of all domains without the single peers. It costs much
// less than a Status where others ask, too.
type Overview struct {
	// ByWay counts the exchanges that named no domain. It is nil when the counters
	// cannot be read.
	ByWay counters.Results
	// Sockets are those that are to be active. It is nil when systemd cannot be asked.
	Sockets []SocketState
	// Domains are in the order of their names.
	Domains []Summary
}

// SocketState is a socket as systemd has it.
type SocketState struct {
	units.Socket
	Active bool
	// Accepted and TurnedAway are those of SocketStatus. They are not known of the
	// sockets of HTTP, whose connections systemd does not take.
	Accepted, TurnedAway uint32
}

// Summary is a Domain without its peers. When those could not be read, Err says why,
// and what depends on them is zero.
type Summary struct {
	Domain
	// States counts all peers by their state.
	States map[policy.State]int
	Err    error
	// Cleanup and Restore are the last runs, nil when systemd cannot be asked.
	Cleanup, Restore *Run
}

// Run is the last run of a service.
type Run struct {
	// Failed says that it did. It is false while the service runs.
	Failed bool
	// Started and Ended are zero for never.
	Started, Ended time.Time
}

// Overview reads all domains, several at a time.
func (s Source) Overview(ctx context.Context, cfg config.Config) Overview {
	domains := cfg.Sorted()
	all := Overview{Domains: make([]Summary, len(domains))}
	each(domains, func(i int, d config.Domain) { all.Domains[i] = s.summary(ctx, d) })
	s.askSystemd(ctx, cfg, &all)
	_, all.ByWay = s.results("")
	for i, d := range domains {
		all.Domains[i].Results, all.Domains[i].ByWay = s.results(d.Name)
	}
	return all
}

func (s Source) summary(ctx context.Context, c config.Domain) Summary {
	found := Summary{Domain: s.head(c)}
	err := s.Host.Locked(ctx, c, OverviewTimeout, func(d *domain.Domain) error {
		records, state, err := s.records(d)
		if err != nil {
			return err
		}
		sinceBoot := s.Host.SinceBoot()
		found.know(state, s.Host.Now(), sinceBoot)
		found.States = map[policy.State]int{}
		for _, r := range records {
			found.States[r.State(sinceBoot, c.StaleAfter)]++
		}
		return nil
	})
	if err != nil {
		found.States, found.Err = nil, domain.Privileged(err)
	}
	return found
}

// records is what is known of the peers by a reading that is young enough, and the
// state that it is in.
func (s Source) records(d *domain.Domain) ([]policy.Record, *domain.State, error) {
	state, err := d.State()
	if err != nil {
		return nil, nil, err
	}
	if state != nil && s.Host.SinceBoot()-state.Reading.Ended < OverviewAge {
		records, err := state.All()
		return records, state, err
	}
	survey, err := d.Refresh(nil)
	if err != nil {
		return nil, nil, err
	}
	state, err = d.State()
	return survey.Records, state, err
}

// askSystemd asks about all units at once.
func (s Source) askSystemd(ctx context.Context, cfg config.Config, all *Overview) {
	ctx, cancel := context.WithTimeout(ctx, OverviewTimeout)
	defer cancel()
	sockets := units.Sockets(cfg)
	if len(cfg.Domains) > 0 {
		sockets = append(sockets, units.Socket{Unit: units.LocalSocket})
	}
	var names []string
	for _, socket := range sockets {
		names = append(names, socket.Unit)
	}
	for _, d := range all.Domains {
		names = append(names, units.CleanupName(d.Domain.Domain), units.RestoreName(d.Domain.Domain))
	}
	found, err := s.Units(ctx, names...)
	if err != nil {
		return
	}
	all.Sockets = []SocketState{}
	for i, socket := range sockets {
		if u := found[i]; !u.Masked() {
			all.Sockets = append(all.Sockets, SocketState{Socket: socket, Active: u.Active == "active", Accepted: u.Accepted, TurnedAway: u.Refused})
		}
	}
	runs := found[len(sockets):]
	for i := range all.Domains {
		d := &all.Domains[i]
		for j, run := range []**Run{&d.Cleanup, &d.Restore} {
			u := runs[2*i+j]
			*run = &Run{Failed: u.Active == "failed", Started: u.Started, Ended: u.Ended}
		}
	}
}
