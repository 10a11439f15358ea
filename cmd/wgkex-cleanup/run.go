package main

import (
	"time"

	"wgkex/internal/cleanup"
	"wgkex/internal/config"
	"wgkex/internal/domain"
)

// lockTimeout is how long a run waits for the domain each time that it needs it:
// longer than an exchange, since nobody waits for the run.
const lockTimeout = 2 * time.Minute

// run cleans up the domain that the reporter names.
func run(o options, reporter cleanup.Reporter) error {
	_, d, err := config.EffectiveDomain(reporter.Domain.Name)
	if err != nil {
		return err
	}
	reporter.Domain = d
	if o.staleAfter == 0 {
		o.staleAfter = d.StaleAfter
	}
	report, err := cleanup.Cleanup{
		Host:        domain.System,
		Domain:      d,
		LockTimeout: lockTimeout,
		StaleAfter:  o.staleAfter,
		MarkAge:     o.markAge,
		DryRun:      o.dryRun,
		Sleep:       time.Sleep,
		Removed:     reporter.Removed,
		Warn:        reporter.Warn,
	}.Run()
	err = domain.Privileged(err)
	reporter.Finished(report, err)
	return err
}
