// Package cleanup removes peers that show no handshake any more. One run marks
// a stale peer, a later one removes it.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
	"wgkex/internal/statefile"
)

const (
	// MarkAge is how old a mark must be for its peer to be removed.
	MarkAge = policy.PendingFor
	// batchSize is how many peers are removed while the lock is held: that is how
	// long an exchange waits, but for the reading of all peers before some batches.
	batchSize = 64
	// batchPause is how long the lock is free between two batches: flock(2)
	// makes no queue, and without a pause the same process would have it again
	// before anybody who waits has woken up.
	batchPause = 2 * time.Millisecond
	// maxReadingAge bounds how long before its removal a peer may have had a
	// handshake that went unnoticed, where a reading does not take half as long
	// itself.
	maxReadingAge = 3 * time.Second
	// maxReaddressed bounds how long the first part of a run keeps the lock.
	maxReaddressed = 1000
)

// Cleanup is one run for one domain.
type Cleanup struct {
	Host   domain.Host
	Domain config.Domain
	// LockTimeout is how long to wait for the domain each time.
	LockTimeout time.Duration
	StaleAfter  time.Duration
	MarkAge     time.Duration
	// Sleep is time.Sleep, but in tests.
	Sleep func(time.Duration)
	// DryRun changes nothing and counts what would be done.
	DryRun bool
	// Removed is told of each peer that was removed, with its record and the
	// time since boot then.
	Removed func(policy.Record, time.Duration)
	// Warn is told of what the run does not depend on.
	Warn func(error)
}

// Report counts what a run did.
type Report struct {
	Seen        int // managed peers
	Static      int // peers that are not wgkex's
	LeftOver    int // peers of another address profile, or without an address
	Readdressed int // of these, those that were given their address
	Live        int // managed peers that are not stale
	Marked      int // newly found stale
	Unmarked    int // marked before and not stale any more
	Removed     int
	Repaired    int // peers that lacked FDB entries
	Orphans     int // FDB entries without a peer, removed
	Saved       int // peers for a restore
	Duration    time.Duration
}

// Run does the work. Its error says what could not be done; everything that
// could is done, and the next run goes on with the rest.
func (c Cleanup) Run() (Report, error) {
	start := c.Host.SinceBoot()
	r, err := c.run()
	r.Duration = c.Host.SinceBoot() - start
	return r, err
}

func (c Cleanup) run() (r Report, err error) {
	var due []policy.Record
	var latest reading
	marked := false
	err = c.locked(func(d *domain.Domain) (err error) {
		marked, err = c.survey(d, &r, func(s domain.Survey) {
			due = c.mark(s, &r)
			latest = newReading(s.Reading, s.Peers, due)
		})
		return err
	})
	if err != nil && !marked {
		return r, err // where marks cannot be kept, nobody is removed
	}
	if c.DryRun {
		for _, record := range due {
			c.Removed(record, c.Host.SinceBoot())
		}
		r.Removed = len(due)
		return r, err
	}
	// What could not be put right does not keep the stale.
	removed, removeErr := c.remove(due, latest, &r)
	return r, errors.Join(err, removeErr, c.save(&r, removed))
}

// remove removes those that are due, and returns whom it removed.
func (c Cleanup) remove(due []policy.Record, latest reading, r *Report) (removed []address.Key, err error) {
	for len(due) > 0 && err == nil {
		err = c.locked(func(d *domain.Domain) (err error) {
			var gone []address.Key
			due, gone, err = c.removeBatch(d, due, &latest)
			r.Removed += len(gone)
			removed = append(removed, gone...)
			return err
		})
		c.Sleep(batchPause)
	}
	return removed, err
}

// save saves the peers that are left, and how far the counters are.
func (c Cleanup) save(r *Report, removed []address.Key) error {
	return c.locked(func(d *domain.Domain) error {
		if err := c.keepHistory(); err != nil {
			c.Warn(fmt.Errorf("history of the counters: %w", err))
		}
		state, err := d.State()
		if err == nil && state == nil { // interfaces were made anew, or the state is gone
			_, err = d.Refresh(nil)
		}
		if err == nil {
			r.Saved, err = d.Save(removed...)
		}
		return err
	})
}

// keepHistory adds how far the counters are now. What it does not know as a history it
// replaces.
func (c Cleanup) keepHistory() error {
	results, err := counters.Read(counters.Path(c.Host.Dir, c.Domain.Name))
	if err != nil {
		return err
	}
	path := counters.HistoryPath(c.Host.Dir, c.Domain.Name)
	var history counters.History
	if text, err := statefile.Read(path, counters.MaxHistory); err == nil {
		history, _ = counters.ParseHistory(text)
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, statefile.ErrForeign) {
		return err
	}
	return statefile.Write(path, history.Add(c.Host.SinceBoot(), results.Total()).Text(), 0o640)
}

// locked calls do with the domain's lock held.
func (c Cleanup) locked(do func(*domain.Domain) error) error {
	return c.Host.Locked(context.Background(), c.Domain, c.LockTimeout, do)
}

// survey reads all peers, which mark looks at, and puts right what is not as it
// should be. It reports whether the marks are kept.
func (c Cleanup) survey(d *domain.Domain, r *Report, mark func(domain.Survey)) (marked bool, err error) {
	var survey domain.Survey
	if c.DryRun {
		if survey, err = d.Read(); err == nil {
			mark(survey)
		}
	} else {
		survey, err = d.Refresh(mark)
	}
	if err != nil {
		return survey.Kept, err
	}
	for _, record := range survey.Records {
		switch record.Kind {
		case policy.Managed:
			r.Seen++
		case policy.LeftOver:
			r.LeftOver++
		case policy.Static:
			r.Static++
		}
	}
	if c.DryRun {
		drift, err := d.Drift(survey.Peers)
		r.Repaired, r.Orphans = len(drift.Peers), len(drift.Orphans)
		return true, err
	}
	repaired, orphans := len(survey.Repaired.Peers), len(survey.Repaired.Orphans)
	if r.LeftOver > 0 {
		keys, err := c.readdressable(d, survey)
		if err == nil && len(keys) > 0 {
			survey, err = d.Readdress(keys...)
		}
		if err != nil {
			return true, err
		}
		r.Readdressed = len(keys)
	}
	drift, err := d.Repair(survey.Peers)
	r.Repaired, r.Orphans = len(drift.Peers)+repaired, len(drift.Orphans)+orphans
	return true, err
}

// readdressable are left-over peers, at most maxReaddressed, whose derived address
// nobody else has.
func (c Cleanup) readdressable(d *domain.Domain, survey domain.Survey) (keys []address.Key, err error) {
	taken := map[netip.Addr]bool{}
	var claims []netip.Prefix
	for i, p := range survey.Peers {
		for _, prefix := range p.AllowedIPs {
			switch {
			case prefix.IsSingleIP():
				taken[prefix.Addr()] = true
			case prefix.Bits() > 64 && survey.Records[i].Kind == policy.Static:
				claims = append(claims, prefix)
			}
		}
	}
	for i, p := range survey.Peers {
		if survey.Records[i].Kind != policy.LeftOver {
			continue
		}
		mac, addr := d.Config.Addresses.Of(p.Key)
		if taken[addr] || slices.ContainsFunc(claims, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			continue
		}
		if gateways, err := d.Kernel.Owns(mac, addr); err != nil || gateways {
			if err != nil {
				return keys, err
			}
			continue
		}
		taken[addr] = true
		if keys = append(keys, p.Key); len(keys) == maxReaddressed {
			break
		}
	}
	return keys, nil
}

// mark marks stale peers, takes the marks of the others away, and returns those
// that are to be removed. Marks are dated to the start of the reading and their
// age is told now, so that runs a MarkAge apart are so however long each takes to
// read the peers.
func (c Cleanup) mark(s domain.Survey, r *Report) (due []policy.Record) {
	now := c.Host.SinceBoot()
	for i := range s.Records {
		record := &s.Records[i]
		switch {
		case record.Kind != policy.Managed:
			record.Marked = 0
		case !record.Stale(now, c.StaleAfter):
			r.Live++
			if record.Marked != 0 {
				r.Unmarked++
			}
			record.Marked = 0
		case record.MarkedFor(now) < 0:
			record.Marked = s.Reading.Began
			r.Marked++
		case record.MarkedFor(now) >= c.MarkAge:
			due = append(due, *record)
		}
	}
	return due
}

// reading is when all peers were last read, and those that were due then.
type reading struct {
	when  policy.Reading
	peers map[address.Key]policy.Peer
}

func newReading(when policy.Reading, peers []policy.Peer, due []policy.Record) reading {
	r := reading{when, make(map[address.Key]policy.Peer, len(due))}
	for _, record := range due {
		r.peers[record.Key] = policy.Peer{}
	}
	for _, p := range peers {
		if _, is := r.peers[p.Key]; is {
			r.peers[p.Key] = p
		}
	}
	return r
}

// old reports whether the peers have to be read again.
func (r reading) old(now time.Duration) bool {
	return now-r.when.Began > max(maxReadingAge, 2*(r.when.Ended-r.when.Began))
}

// still reports whether the peer is managed and has had no handshake since its
// record was made.
func (r reading) still(record policy.Record, profile address.Profile) bool {
	p := r.peers[record.Key]
	return p.Managed(profile) && p.LastHandshake.Equal(record.LastHandshake)
}

// removeBatch removes the first of those that are due and returns the rest, and
// whom it removed. Who
// has had a handshake or was registered anew in the meantime is not due any
// more: the state tells of registrations, the kernel of handshakes. It only reads
// the peers for that: a Refresh would take three times as long.
func (c Cleanup) removeBatch(d *domain.Domain, due []policy.Record, latest *reading) (rest []policy.Record, removed []address.Key, err error) {
	state, err := d.State()
	if err != nil {
		return nil, nil, err
	}
	if state == nil { // interfaces were made anew, or the state is gone
		survey, err := d.Refresh(nil)
		if err != nil {
			return nil, nil, err
		}
		*latest = newReading(survey.Reading, survey.Peers, due)
		if state, err = d.State(); err != nil {
			return nil, nil, err
		}
	}
	if now := c.Host.SinceBoot(); latest.old(now) {
		peers, err := d.Kernel.Peers()
		if err != nil {
			return nil, nil, err
		}
		*latest = newReading(policy.Reading{Began: now, Ended: c.Host.SinceBoot()}, peers, due)
	}
	batch := due[:min(batchSize, len(due))]
	var gone []policy.Record
	for _, marked := range batch {
		if !latest.still(marked, d.Config.Addresses) {
			continue
		}
		mac, _ := d.Config.Addresses.Of(marked.Key)
		records, err := state.Find(mac)
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(records, marked.Same) {
			gone = append(gone, marked)
		}
	}
	if len(gone) == 0 {
		return due[len(batch):], nil, nil
	}
	peersGone, err := d.Remove(gone...)
	if peersGone {
		for _, record := range gone {
			removed = append(removed, record.Key)
			c.Removed(record, c.Host.SinceBoot())
		}
	}
	return due[len(batch):], removed, err
}
