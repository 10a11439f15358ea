package main

import (
	"context"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/restore"

	"github.com/spf13/cobra"
)

func restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore [DOMAIN...]",
		Short: "Put saved peers of domains, or of all, back",
		Long: "Puts the saved peers of each DOMAIN, of all without any, back on its interfaces, if\n" +
			"they are not there. systemd does so when an interface appears; by hand it is for\n" +
			"interfaces that were set up anew without being made anew, as by wg syncconf.",
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachDomain(cmd, args, func(ctx context.Context, cfg config.Config, d config.Domain, r *restore.Reporter) error {
				report, err := restore.Restore{
					Host: domain.System, Domain: d, Prohibited: cfg.Prohibited, LockTimeout: lockTimeout,
					Sleep: time.Sleep, Refused: r.Refused,
				}.Run(ctx)
				r.Finished(report, err)
				return err
			})
		},
	}
}
