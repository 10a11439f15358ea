package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/restore"
)

const (
	// restoreTimeout is how long a restore waits for the domain each time that it
	// needs it, as the cleanup does.
	restoreTimeout = 2 * time.Minute
	// saveTimeout is how long a save waits for it, while an interface or the
	// gateway waits to go down.
	saveTimeout = 30 * time.Second
)

func restoreDomain(ctx context.Context, reporter *restore.Reporter) error {
	cfg, d, err := config.EffectiveDomain(reporter.Domain)
	if err != nil {
		return err
	}
	return domain.Privileged(restore.Restore{
		Host: domain.System, Domain: d, Prohibited: cfg.Prohibited, LockTimeout: restoreTimeout,
		Sleep: time.Sleep, Refused: reporter.Refused,
	}.Attend(ctx, func() error { return kernel.Ready(d.WireGuard, d.VXLAN) }, reporter.Finished))
}

func saveDomain(ctx context.Context, reporter *restore.Reporter) error {
	_, d, err := config.EffectiveDomain(reporter.Domain)
	if err != nil {
		return err
	}
	n, err := restore.Save(ctx, domain.System, d, saveTimeout)
	if errors.Is(err, kernel.ErrMissing) {
		return fmt.Errorf("%w: %w", restore.ErrNothingToSave, err)
	}
	if err == nil {
		reporter.Saved(n)
	}
	return domain.Privileged(err)
}
