// Package domain is one domain as it stands on the gateway: its lock, its
// interfaces, what was last known of its peers, and the changes to them.
// Exchange and cleanup both work through it.
package domain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

// Domain is a domain whose lock is held and whose interfaces are open.
type Domain struct {
	Config config.Domain
	Kernel kernel.Devices
	Host   Host
	// Refreshed says that all peers were read, which takes memory.
	Refreshed bool

	lock  *os.File
	state *State // nil until it is needed
}

// Open takes the domain's lock, waiting for it until the context is done, and
// opens the interfaces. Close gives both back. The error is that of the context
// if the wait was in vain.
func (h Host) Open(ctx context.Context, c config.Domain) (*Domain, error) {
	lock, err := takeLock(ctx, filepath.Join(h.Dir, c.Name+".lock"))
	if err != nil {
		return nil, fmt.Errorf("locking domain %s: %w", c.Name, err)
	}
	devices, err := h.Devices(c.WireGuard, c.VXLAN)
	if err != nil {
		_ = lock.Close() // nothing was written to it
		return nil, err
	}
	return &Domain{Config: c, Kernel: devices, Host: h, lock: lock}, nil
}

// Locked calls do with the domain open, for which it waits so long at most.
func (h Host) Locked(ctx context.Context, c config.Domain, timeout time.Duration, do func(*Domain) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d, err := h.Open(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return do(d)
}

// Close closes the interfaces and gives the lock back.
func (d *Domain) Close() error {
	return errors.Join(d.forget(), d.Kernel.Close(), d.lock.Close())
}

// forget closes the state, if one is open.
func (d *Domain) forget() error {
	if d.state == nil {
		return nil
	}
	err := d.state.Close()
	d.state = nil
	return err
}

func (d *Domain) statePath() string { return filepath.Join(d.Host.Dir, d.Config.Name+".state") }

// State is what was known when the peers were last read, and what wgkex has
// changed since. It is nil when there is none that describes these devices, and
// when the time of a restored peer is over, which changes the counts: then
// Refresh has to tell.
func (d *Domain) State() (*State, error) {
	if d.state != nil {
		return d.state, nil
	}
	s, err := openState(d.statePath())
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	case !s.describes(d.Host.BootID(), d.Kernel.Index(), d.Config.Addresses), s.Reading.Ended > d.Host.SinceBoot(),
		s.recount != 0 && s.recount <= d.Host.SinceBoot():
		return nil, s.Close()
	}
	d.state = s
	return s, nil
}

// Survey is all peers and, in the same order, what is known of them.
type Survey struct {
	Reading policy.Reading
	Peers   []policy.Peer
	Records []policy.Record
	// Kept says that Refresh has kept what it read, whatever became of the FDB.
	Kept bool
	// Repaired is what was wrong with the FDB, if Refresh has repaired it.
	Repaired Drift
}

// Read reads all peers, and changes nothing.
func (d *Domain) Read() (Survey, error) {
	s, _, err := d.read()
	return s, err
}

// read also returns the head of the next state.
func (d *Domain) read() (s Survey, h header, err error) {
	profile, index := d.Config.Addresses, d.Kernel.Index()
	// A reading during which the wall clock was set tells nothing of either
	// time. Nobody sets it that often.
	for range 3 {
		s.Reading.Offset, s.Reading.Began = d.Host.Clocks()
		if s.Peers, err = d.Kernel.Peers(); err != nil {
			return s, h, err
		}
		var offset time.Duration
		offset, s.Reading.Ended = d.Host.Clocks()
		if (offset - s.Reading.Offset).Abs() < time.Second {
			break
		}
	}
	last, before, h, err := d.history(s.Reading)
	if err != nil {
		return s, h, err
	}
	s.Records = make([]policy.Record, len(s.Peers))
	for i, p := range s.Peers {
		s.Records[i] = policy.Follow(before[p.Key], p, profile, last, s.Reading)
	}
	h.BootID, h.WireGuard, h.VXLAN, h.Profile = fixedBootID(d.Host.BootID()), uint32(index.WireGuard), uint32(index.VXLAN), uint32(profile)
	h.Began, h.Ended, h.Offset = int64(s.Reading.Began), int64(s.Reading.Ended), int64(s.Reading.Offset)
	return s, h, nil
}

// history is the last reading of these peers and what was known of them since,
// nothing if there was none, and a header with what the clock did.
func (d *Domain) history(now policy.Reading) (last policy.Reading, before map[address.Key]*policy.Record, h header, err error) {
	s, err := openState(d.statePath())
	if missing(err) {
		return last, nil, h, nil
	}
	if err != nil {
		return last, nil, h, err
	}
	defer s.Close()
	if !s.follows(d.Host.BootID(), d.Kernel.Index()) || s.Reading.Ended > now.Began {
		return last, nil, h, nil
	}
	records, err := s.All()
	if err != nil {
		return last, nil, h, err
	}
	before = make(map[address.Key]*policy.Record, len(records))
	for i := range records {
		before[records[i].Key] = &records[i]
	}
	h.Step, h.StepAt = s.header.Step, s.header.StepAt
	h.RestoredAt, h.RestoredPeers = s.header.RestoredAt, s.header.RestoredPeers
	if step := now.Step(s.Reading); step != 0 {
		h.Step, h.StepAt = int64(step), int64(now.Ended)
	}
	return s.Reading, before, h, nil
}

// Refresh reads all peers and keeps what it learned as the new State. When the
// last one was not of these devices it then repairs the FDB: on a VXLAN interface
// made anew all entries are gone.
//
// It calls change, if there is one, with what it has read, before it is kept.
func (d *Domain) Refresh(change func(Survey)) (Survey, error) {
	old, err := d.State()
	if err != nil {
		return Survey{}, err
	}
	d.Refreshed = true
	survey, h, err := d.read()
	if err != nil {
		return survey, err
	}
	if change != nil {
		change(survey)
	}
	var others []policy.Other
	for i, p := range survey.Peers {
		if kind := survey.Records[i].Kind; kind != policy.Managed {
			others = append(others, policy.Other{Peer: p, Kind: kind})
		}
	}
	save := func() (*State, error) { return saveState(d.statePath(), h, survey.Records, others) }
	if err := d.keep(save); err != nil {
		return survey, err
	}
	survey.Kept = true
	if old == nil {
		survey.Repaired, err = d.Repair(survey.Peers)
	}
	return survey, err
}

// keep replaces the state by the one that save has written.
func (d *Domain) keep(save func() (*State, error)) error {
	if err := d.forget(); err != nil {
		return err
	}
	var err error
	if d.state, err = save(); err != nil {
		return fmt.Errorf("the state of domain %s: %w", d.Config.Name, err)
	}
	return nil
}

// NoteRestored keeps that so many saved peers were restored at the given time.
func (d *Domain) NoteRestored(peers int, at time.Duration) error {
	h := d.state.header
	h.RestoredAt, h.RestoredPeers = int64(at), uint32(peers)
	return d.rewrite(h)
}

// rewrite writes the state anew with the header, its events as part of the records.
func (d *Domain) rewrite(h header) error {
	s := d.state
	table, err := s.table()
	if err != nil {
		return err
	}
	return d.keep(func() (*State, error) { return saveTable(d.statePath(), h, table, s.Others) })
}

// note keeps events. When there are many it makes them part of the records first.
func (d *Domain) note(events ...event) error {
	for some := range slices.Chunk(events, maxEvents) {
		if s := d.state; len(s.events)+len(some) > maxEvents {
			if err := d.rewrite(s.header); err != nil {
				return err
			}
		}
		if err := d.state.append(some...); err != nil {
			return err
		}
	}
	return nil
}

// noteOne keeps an event, with the counts that it leads to.
func (d *Domain) noteOne(kind uint8, key address.Key, at time.Duration, counts policy.Counts) error {
	return d.note(event{Kind: kind, Key: key, At: int64(at), Peers: uint32(counts.Peers), Pending: uint32(counts.Pending)})
}

// Seen keeps that the peer had a handshake since the reading, as its record says,
// for the next exchange to know.
func (d *Domain) Seen(r policy.Record) error {
	return d.note(event{
		Kind: seen, Key: r.Key, At: int64(r.Active), Handshake: r.LastHandshake.UnixNano(),
		Peers: uint32(d.state.Counts.Peers), Pending: uint32(d.state.Counts.Pending),
	})
}
