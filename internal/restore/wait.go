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
)

// ErrNotReady is the error when the interfaces did not become ready in time.
var ErrNotReady = errors.New("not restored")

// Wait waits until ready says so, as kernel.Ready does, but not for ever. It
// returns at once if an interface can never serve.
func Wait(ctx context.Context, ready func() error, sleep func(time.Duration)) error {
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
		sleep(waitPause)
	}
}
