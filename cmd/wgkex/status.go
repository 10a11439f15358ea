package main

import (
	"errors"
	"fmt"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/status"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var asJSON, wide bool
	cmd := &cobra.Command{
		Use:   "status [DOMAIN]",
		Short: "Show the peers of a domain, or of all",
		Long: "Prints a table of the peers. STATE is live (a handshake within 3 minutes), idle\n" +
			"(within stale_after), stale, pending (never a handshake), restored (none since the\n" +
			"peer was restored), static (not managed by wgkex), or left-over (of another address\n" +
			"profile, or without an address).\n" +
			"Exchanges then know of static peers that were added since.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, domains, err := config.EffectiveDomains(args...)
			if err != nil {
				return err
			}
			warn := func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "wgkex: %v\n", err) }
			all, err := status.Source{Host: domain.System, Units: systemd.Units, Warn: warn}.Collect(cmd.Context(), cfg, domains)
			if asJSON {
				return errors.Join(err, all.WriteJSON(cmd.OutOrStdout()))
			}
			return errors.Join(err, status.Print(cmd.OutOrStdout(), all, time.Now(), wide))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&wide, "wide", false, "print all columns, wider than 80 characters")
	return cmd
}
