package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wgkex/internal/kernel"
)

const (
	// WaitFor is how long the interfaces may take. systemd starts a run when the
	// first of them appears, and a later one does so again.
	WaitFor = 5 * time.Minute
	// waitPause is the time between two looks.
	waitPause = 200 * time.Millisecond
	// SettleFor is how long after a run another one looks whether the peers are
	// still there. systemd-networkd, which removes those of an interface that it
	// finds when it starts, does so some time after it has said that it has started;
	// a script may call wg setconf after it has brought the interface up.
	SettleFor = 3 * time.Second
	// maxRuns bounds the runs where somebody removes peers over and over.
	maxRuns = 10
)

// ErrNotReady is the error when the interfaces did not become ready in time.
var ErrNotReady = errors.New("not restored")

// Attend restores what is saved as soon as ready says so, as kernel.Ready does, and
// again until the peers stay. It tells of each run but those that found all of them
// there after another.
func (r Restore) Attend(ctx context.Context, ready func() error, finished func(Report, error)) error {
	for n := 1; ; n++ {
		if err := r.wait(ctx, ready); err != nil {
			return err
		}
		report, err := r.Run(ctx)
		if errors.Is(err, kernel.ErrMissing) && n < maxRuns {
			continue // an interface went meanwhile, and may be there again
		}
		if n == 1 || report.Restored > 0 || err != nil {
			finished(report, err)
		}
		if err != nil || n > 1 && report.Restored == 0 || report.Saved == report.Gone || n == maxRuns {
			return err
		}
		r.Sleep(SettleFor)
	}
}

// wait waits until ready says so, but not for ever. It returns at once if an
// interface can never serve.
func (r Restore) wait(ctx context.Context, ready func() error) error {
	for waited := time.Duration(0); ; waited += waitPause {
		err := ready()
		switch {
		case err == nil, !errors.Is(err, kernel.ErrMissing) && !errors.Is(err, kernel.ErrDown):
			return err
		case waited >= WaitFor:
			return fmt.Errorf("%w: after %s: %w", ErrNotReady, WaitFor, err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		r.Sleep(waitPause)
	}
}
