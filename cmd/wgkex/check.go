package main

import (
	"context"
	"errors"
	"io"

	"wgkex/internal/check"
	"wgkex/internal/config"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var dir string
	var configOnly, asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, interfaces, units and ports",
		Long: "Prints a line for each thing that was looked at: ok, a warning, or FAILED if routers\n" +
			"cannot be served, with what to do about it. Exits with status 1 if anything failed.\n" +
			"Mistakes in the configuration are reported with file and line. With --json, all of\n" +
			"this is one object, for monitoring.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := newChecker(cmd, dir)
			if asJSON {
				c.Out = io.Discard
			}
			if c.CheckConfig() && !configOnly {
				c.CheckGateway(cmd.Context())
			}
			if asJSON {
				return errors.Join(c.Err(), c.Report().WriteJSON(cmd.OutOrStdout()))
			}
			return c.Err()
		},
	}
	cmd.Flags().StringVar(&dir, "config", config.Dir, "directory of the configuration")
	cmd.Flags().BoolVar(&configOnly, "config-only", false, "look at the configuration alone, as before installing it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// newChecker makes a checker of the configuration in dir and of this gateway.
func newChecker(cmd *cobra.Command, dir string) check.Checker {
	return check.Checker{
		Out: cmd.OutOrStdout(), Dir: dir, Effective: config.LoadEffective,
		Connect: func(ctx context.Context) (check.Gateway, func(), error) {
			manager, err := systemd.Connect(ctx)
			if err != nil {
				return nil, nil, err
			}
			return gateway{manager}, manager.Close, nil
		},
	}
}
