package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/restore"

	"github.com/spf13/cobra"
)

func saveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "save [DOMAIN...]",
		Short: "Save the peers of domains, or of all, for a restore",
		Long: "Saves the managed peers of each DOMAIN, of all without any, in /var/lib/wgkex. The\n" +
			"cleanup does so every 15 minutes, and the gateway when it shuts down.",
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachDomain(cmd, args, func(ctx context.Context, _ config.Config, d config.Domain, r *restore.Reporter) error {
				n, err := restore.Save(ctx, domain.System, d, lockTimeout)
				if err == nil {
					r.Saved(n)
				}
				return err
			})
		},
	}
}

// lockTimeout is how long these commands wait for a domain that others use.
const lockTimeout = time.Minute

// eachDomain calls do for the named domains of the configuration, or for all. One
// that fails does not keep the others.
func eachDomain(cmd *cobra.Command, names []string, do func(context.Context, config.Config, config.Domain, *restore.Reporter) error) error {
	cfg, domains, err := config.EffectiveDomains(names...)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range domains {
		if err := do(cmd.Context(), cfg, d, reporter(cmd.OutOrStdout(), d)); err != nil {
			errs = append(errs, fmt.Errorf("domain %s: %w", d.Name, domain.Privileged(err)))
		}
	}
	return errors.Join(errs...)
}

func reporter(out io.Writer, d config.Domain) *restore.Reporter {
	return &restore.Reporter{Domain: d.Name, Log: logging.Log, Out: out}
}
