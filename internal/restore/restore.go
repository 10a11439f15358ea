// Package restore puts saved peers back on a domain's interfaces when these have
// lost them: after a reboot, or when somebody has made them anew.
package restore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/saved"
)

const (
	// batchSize is how many peers are restored while the lock is held: that is how
	// long an exchange waits.
	batchSize = 256
	// batchPause is how long the lock is free between two batches, as in the
	// cleanup.
	batchPause = 2 * time.Millisecond
)

// Restore is one run for one domain.
type Restore struct {
	Host   domain.Host
	Domain config.Domain
	// Prohibited says that a key is refused in every domain.
	Prohibited func(address.Key) bool
	// LockTimeout is how long to wait for the domain each time.
	LockTimeout time.Duration
	// Sleep is time.Sleep, but in tests.
	Sleep func(time.Duration)
	// Refused is told of each peer that the rules of an exchange refuse.
	Refused func(address.Key, error)
}

// Report counts what a run did.
type Report struct {
	// Saved is how many peers the file has, and SavedAt when it was written.
	Saved   int
	SavedAt time.Time
	// Damage is what is wrong with the file, nil if nothing is.
	Damage error
	// Gone are peers that cleanup would have removed by now or that were removed
	// meanwhile, There those that the interface has already.
	Gone, There       int
	Refused, Restored int
	Duration          time.Duration
}

// ErrForeign is the error for a file that is of another domain, or of the domain
// when its addresses were others. Nothing of it is restored.
var ErrForeign = errors.New("the saved peers are of another domain or with other addresses")

// Run does the work. It does nothing, without an error, when no peers are saved.
// After an error some of the peers are restored; another run goes on with the
// rest.
func (r Restore) Run(ctx context.Context) (Report, error) {
	start := r.Host.SinceBoot()
	report, err := r.run(ctx, start)
	report.Duration = r.Host.SinceBoot() - start
	return report, err
}

func (r Restore) run(ctx context.Context, start time.Duration) (report Report, err error) {
	run := run{Restore: r, start: start, info: r.Host.SavedInfo(r.Domain.Name)}
	file, err := r.Host.Saved(r.Domain.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return report, nil
	}
	if err != nil {
		return report, err
	}
	if !domain.Fits(file, r.Domain) {
		return report, ErrForeign
	}
	report.SavedAt, report.Damage = file.Saved, file.Damage
	peers := r.peers(file, &report)
	gone := report.Gone
	for done := 0; ; {
		anew := false
		err := r.Host.Locked(ctx, r.Domain, r.LockTimeout, func(d *domain.Domain) (err error) {
			if anew, err = run.prepare(d); err != nil || anew {
				return err
			}
			batch := peers[done:min(done+batchSize, len(peers))]
			if err = run.forget(peers); err != nil {
				return err
			}
			if err = run.batch(d, batch, &report); err != nil {
				return err
			}
			if done += len(batch); done == len(peers) && report.Restored > 0 {
				return d.NoteRestored(report.Restored, start)
			}
			return nil
		})
		switch {
		case anew: // the interfaces were made anew meanwhile, without what was restored
			done = 0
			report.Gone, report.There, report.Refused, report.Restored = gone, 0, 0, 0
		case err != nil:
			return report, err
		case done == len(peers):
			return report, nil
		default:
			r.Sleep(batchPause)
		}
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
	}
}

// peers is those of the file that are not gone, each once. Who was heard of last
// comes first: should there not be room for all, it is for them.
func (r Restore) peers(file saved.File, report *Report) []policy.Saved {
	slices.SortFunc(file.Peers, bySilence)
	seen := make(map[address.Key]bool, len(file.Peers))
	file.Peers = slices.DeleteFunc(file.Peers, func(p policy.Saved) bool {
		twice := seen[p.Key]
		seen[p.Key] = true
		return twice
	})
	report.Saved = len(file.Peers)
	peers := r.Host.Restorable(file, r.Domain.StaleAfter)
	report.Gone = report.Saved - len(peers)
	return peers
}

// bySilence is the order of peers to restore: those that had a handshake first.
func bySilence(a, b policy.Saved) int {
	switch {
	case a.Pending != b.Pending && a.Pending:
		return 1
	case a.Pending != b.Pending:
		return -1
	case a.Silent < b.Silent:
		return -1
	case a.Silent > b.Silent:
		return 1
	}
	return 0
}

// run is a Restore under way.
type run struct {
	Restore
	start time.Duration
	// index is of the interfaces that peers are restored on, zero before the first.
	index kernel.Index
	state *domain.State
	own   address.Key
	// info is of the file that was read last, removed are peers that are in no
	// later one.
	info    os.FileInfo
	removed map[address.Key]bool
}

// forget learns who was removed since the file was read: they must not come back.
func (r *run) forget(peers []policy.Saved) error {
	now := r.Host.SavedInfo(r.Domain.Name)
	if os.SameFile(r.info, now) {
		return nil
	}
	file, err := r.Host.Saved(r.Domain.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.info = now
	still := make(map[address.Key]bool, len(file.Peers))
	for _, p := range file.Peers {
		still[p.Key] = true
	}
	if r.removed == nil {
		r.removed = map[address.Key]bool{}
	}
	for _, p := range peers {
		if !still[p.Key] {
			r.removed[p.Key] = true
		}
	}
	return nil
}

// prepare reads what the batch must know. It reports whether the interfaces are
// others than those of the batches before.
func (r *run) prepare(d *domain.Domain) (anew bool, err error) {
	now := d.Kernel.Index()
	anew = r.index != kernel.Index{} && r.index != now
	first := r.index != now
	r.index = now
	if anew {
		return true, nil
	}
	gateway, err := d.Kernel.Gateway()
	if err != nil {
		return false, err
	}
	r.own = gateway.Key
	// The first batch reads all peers: the admin's may be new.
	if r.state, err = d.State(); err == nil && (first || r.state == nil) {
		if _, err = d.Refresh(nil); err == nil {
			r.state, err = d.State()
		}
	}
	if err == nil {
		err = r.state.Load()
	}
	return false, err
}

// batch restores some peers.
func (r *run) batch(d *domain.Domain, peers []policy.Saved, report *Report) error {
	var records []policy.Record
	byMAC := map[address.MAC][]policy.Record{}
	counts := r.state.Counts
	for _, p := range peers {
		if r.removed[p.Key] {
			report.Gone++
			continue
		}
		mac, addr := d.Config.Addresses.Of(p.Key)
		managed, err := r.state.Find(mac)
		if err != nil {
			return err
		}
		facts := policy.Exchange{
			Key: p.Key, Profile: d.Config.Addresses, GatewayKey: r.own, Others: r.state.Others,
			Counts: counts, MaxPeers: d.Config.MaxPeers, MaxPending: d.Config.MaxPending,
			SinceBoot: d.Host.SinceBoot(), Restored: !p.Pending,
		}
		for _, record := range append(managed, byMAC[mac]...) {
			if record.Kind == policy.Managed {
				facts.Managed = append(facts.Managed, record)
			}
		}
		if slices.ContainsFunc(facts.Managed, func(r policy.Record) bool { return r.Key == p.Key }) {
			report.There++
			continue
		}
		if facts.GatewayOwns, err = d.Kernel.Owns(mac, addr); err != nil {
			return err
		}
		action, err := r.decide(facts)
		switch {
		case err != nil:
			report.Refused++
			r.Refused(p.Key, err)
		case action != policy.Add: // left over: the next cleanup sees to it
			report.There++
		default:
			record := policy.RestoredRecord(p, r.start)
			records = append(records, record)
			byMAC[mac] = append(byMAC[mac], record)
			counts.Add(record)
		}
	}
	if err := d.Promise(records...); err != nil {
		return err
	}
	var failed error // the first, since there may be hundreds
	for _, err := range d.Add(records...) {
		switch {
		case err == nil:
			report.Restored++
		case failed == nil:
			failed = err
		}
	}
	return failed
}

// decide says what is to be done about a saved peer: Add, if it is not there, or
// nothing. All that an exchange would refuse is refused.
func (r *run) decide(facts policy.Exchange) (policy.Action, error) {
	if r.Prohibited(facts.Key) {
		return 0, outcome.Refuse(outcome.ProhibitedKey, "the key is listed in prohibited_keys")
	}
	return facts.Decide()
}
