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
	var listen string
	cmd := &cobra.Command{
		Use:   "prepare [DOMAIN]",
		Short: "Check that a socket may listen (run by the sockets)",
		Long: "Run by wgkex@DOMAIN.socket, without DOMAIN by wgkex.socket, before it listens:\n" +
			"fails unless the configuration as of the last daemon-reload makes the socket\n" +
			"listen where it is about to, and reads the domain's peers for the first exchange.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
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
			}.Run(cmd.Context(), name, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "the port or address and port that the socket was given, empty for none")
	return cmd
}
