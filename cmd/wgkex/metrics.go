package main

import (
	"fmt"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/gateways"
	"wgkex/internal/metrics"
	"wgkex/internal/status"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print metrics for Prometheus",
		Long: "Prints what wgkex-metrics.socket serves, in the text format of Prometheus: for the\n" +
			"textfile collector of its node exporter. A domain that cannot be read is a metric, too,\n" +
			"and no failure.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return metrics.Gateway{
				Status: status.Source{
					Host: domain.System, Units: systemd.Units,
					Warn: func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "wgkex: %v\n", err) },
				},
				Effective: config.Effective, ReadEffective: config.LoadEffective, RelayStats: gateways.StatsPath, Gateways: gateways.Path, Dir: config.Dir,
			}.Print(cmd.Context(), cmd.OutOrStdout())
		},
	}
}
