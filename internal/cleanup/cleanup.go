// Package cleanup removes peers that show no handshake any more. One run marks
// a stale peer, a later one removes it.
package cleanup

import (
	"context"
	"errors"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
)

const (
	// MarkAge is how old a mark must be for its peer to be removed.
	MarkAge = policy.PendingFor
	// batchSize is how many peers are removed while the lock is held, so that
	// an exchange waits for some milliseconds at most.
	batchSize = 64
	// batchPause is how long the lock is free between two batches: flock(2)
	// makes no queue, and without a pause the same process would have it again
	// before anybody who waits has woken up.
	batchPause = 2 * time.Millisecond
	// maxReadingAge bounds how long before its removal a peer may have had a
	// handshake that went unnoticed. To read many peers takes longer than to
	// remove a batch.
	maxReadingAge = 10 * time.Second
)

// Cleanup is one run for one domain.
type Cleanup struct {
	Host   domain.Host
	Domain config.Domain
	// Path is the file of marks, BootID the boot that it must be of.
	Path, BootID string
	StaleAfter   time.Duration
	MarkAge      time.Duration
	// DryRun changes nothing and counts what would be done.
	DryRun bool
	// Removed is told of each peer that was removed, and Warn of trouble that
	// does not stop the run.
	Removed func(policy.Peer)
	Warn    func(error)
}

// Report counts what a run did.
type Report struct {
	Seen     int // managed peers
	Static   int // peers that are not wgkex's
	Live     int // managed peers that are not stale
	Marked   int // newly found stale
	Unmarked int // marked before and not stale any more
	Removed  int
	Mended   int // peers that lacked FDB entries
	Orphans  int // FDB entries without a peer, removed
	Duration time.Duration
}

// Run does the work. Its error says what could not be done; everything that
// could is done, and the next run goes on with the rest.
func (c Cleanup) Run() (Report, error) {
	start := c.Host.SinceBoot()
	r, err := c.run(start)
	r.Duration = c.Host.SinceBoot() - start
	return r, err
}

func (c Cleanup) run(start time.Duration) (r Report, err error) {
	old, err := readMarks(c.Path, c.BootID)
	if err != nil {
		c.Warn(err)
	}
	peers, read, err := c.survey(&r)
	if err != nil {
		return r, err
	}
	marks, due := c.sort(peers, old, start, &r)
	if c.DryRun {
		for _, p := range due {
			c.Removed(p)
		}
		r.Removed = len(due)
		return r, nil
	}
	// First the marks: where they cannot be kept, nobody is removed. Those of
	// the peers to be removed stay until they are, so that the next run goes on
	// where this one was killed.
	if err := writeMarks(c.Path, c.BootID, marks); err != nil {
		return r, err
	}
	if len(due) == 0 {
		return r, nil
	}
	err = c.remove(due, read, marks, &r)
	return r, errors.Join(err, writeMarks(c.Path, c.BootID, marks))
}

// reading tells one reading of the peers from another.
type reading struct {
	at time.Duration // since boot
	// written is that of the snapshot that came of it, or of our own changes.
	written int64
}

// survey reads the managed peers and mends the FDB.
func (c Cleanup) survey(r *Report) (peers []policy.Peer, read reading, err error) {
	d, err := c.Host.Open(context.Background(), c.Domain)
	if err != nil {
		return nil, read, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	read.at = c.Host.SinceBoot()
	if peers, err = d.Peers(); err != nil {
		return nil, read, err
	}
	var damage domain.Damage
	if c.DryRun {
		damage, err = d.Survey(peers)
	} else if damage, err = d.Mend(peers); err == nil {
		var snapshot domain.Snapshot
		snapshot, err = d.Remember(peers)
		read.written = snapshot.Written
	}
	r.Mended, r.Orphans = len(damage.Peers), len(damage.Orphans)
	static := func(p policy.Peer) bool { return !p.Managed(d.Addresses) }
	managed := slices.DeleteFunc(slices.Clone(peers), static)
	r.Seen, r.Static = len(managed), len(peers)-len(managed)
	return managed, read, err
}

// sort makes the new marks of the old ones, and picks the peers to be removed.
// Marks are dated to the start of the run and their age is told now, so that
// runs a MarkAge apart are so however long each takes to read the peers.
func (c Cleanup) sort(peers []policy.Peer, old map[address.Key]mark, start time.Duration, r *Report) (marks map[address.Key]mark, due []policy.Peer) {
	now, sinceBoot := c.Host.Now(), c.Host.SinceBoot()
	marks = map[address.Key]mark{}
	for _, p := range peers {
		m, marked := old[p.Key]
		if !p.Stale(now, c.StaleAfter) {
			r.Live++
			if marked {
				r.Unmarked++
			}
			continue
		}
		// A mark from the future is no mark of this clock.
		if !marked || !m.LastHandshake.Equal(p.LastHandshake) || m.At > sinceBoot {
			marks[p.Key] = mark{At: start, LastHandshake: p.LastHandshake}
			r.Marked++
			continue
		}
		marks[p.Key] = m
		if sinceBoot-m.At >= c.MarkAge {
			due = append(due, p)
		}
	}
	return marks, due
}

// remove removes the peers in batches, each with the lock held, and takes the
// marks of the removed away.
func (c Cleanup) remove(due []policy.Peer, read reading, marks map[address.Key]mark, r *Report) (err error) {
	for len(due) > 0 {
		if due, err = c.removeBatch(due, &read, marks, r); err != nil {
			return err
		}
		time.Sleep(batchPause)
	}
	return nil
}

// removeBatch removes the first of those that are due and returns the rest. It
// reads the peers anew when an exchange has changed any in the meantime, or when
// so much time has passed that many may have had a handshake.
func (c Cleanup) removeBatch(due []policy.Peer, read *reading, marks map[address.Key]mark, r *Report) (rest []policy.Peer, err error) {
	d, err := c.Host.Open(context.Background(), c.Domain)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	snapshot, ok := d.Snapshot()
	if !ok || snapshot.Written != read.written || c.Host.SinceBoot()-read.at > maxReadingAge {
		var peers []policy.Peer
		read.at = c.Host.SinceBoot()
		if peers, snapshot, err = d.Dump(); err != nil {
			return nil, err
		}
		due = stillDue(due, peers, d.Addresses, marks)
	}
	gone := due[:min(batchSize, len(due))]
	keys := make([]address.Key, len(gone))
	for i, p := range gone {
		keys[i] = p.Key
	}
	if err := d.RemovePeers(keys); err != nil {
		return nil, err
	}
	for _, p := range gone {
		// The peer is gone, whatever becomes of its FDB entries: as orphans
		// they are the next run's.
		delete(marks, p.Key)
		snapshot.Counts.Remove(p)
		r.Removed++
		c.Removed(p)
		err = errors.Join(err, d.RemoveEntries(p.Key))
	}
	snapshot, saveErr := d.Save(snapshot)
	read.written = snapshot.Written
	return due[len(gone):], errors.Join(err, saveErr)
}

// stillDue is those of due that are among peers as they were when they were
// found stale. Whoever is not there any more needs no mark, either.
func stillDue(due, peers []policy.Peer, profile address.Profile, marks map[address.Key]mark) []policy.Peer {
	known := make(map[address.Key]policy.Peer, len(peers))
	for _, p := range peers {
		known[p.Key] = p
	}
	return slices.DeleteFunc(due, func(p policy.Peer) bool {
		now, there := known[p.Key]
		if !there {
			delete(marks, p.Key)
		}
		return !there || !now.Managed(profile) || !now.LastHandshake.Equal(p.LastHandshake)
	})
}
