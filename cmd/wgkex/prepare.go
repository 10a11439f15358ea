package main

import (
	"fmt"
	"os"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/prepare"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func prepareCommand() *cobra.Command {
	var unit, listen string
	cmd := &cobra.Command{
		Use:   "prepare --unit UNIT",
		Short: "Check that a socket may listen (run by the sockets)",
		Long: "Run by a socket before it listens: fails unless the configuration as of the last\n" +
			"daemon-reload makes the socket UNIT listen where it is about to, and reads the\n" +
			"peers of its domains for the first exchange.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadEffective()
			if err != nil {
				return err
			}
			return prepare.Prepare{
				Effective: cfg,
				Files:     func() (config.Config, error) { return config.Load(config.Dir) },
				Host:      domain.System,
				Listeners: systemd.AnyListeners,
				// On standard error: of what the sockets say by other ways,
				// LogLevelMax= of their units lets nothing through.
				Complain: func(message string) { fmt.Fprintf(os.Stderr, "wgkex: %s\n", message) },
			}.Run(cmd.Context(), unit, listen)
		},
	}
	cmd.Flags().StringVar(&unit, "unit", "", "the socket unit")
	cmd.Flags().StringVar(&listen, "listen", "", "where the socket is about to listen, empty for nowhere")
	return cmd
}
