package main

import (
	"fmt"

	"wgkex/internal/apply"
	"wgkex/internal/config"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func applyCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Apply the configuration, then check",
		Long: "Checks the configuration and, if there is no mistake in it, makes systemd run what it\n" +
			"asks for: daemon-reload, start, restart and stop, each only where it is needed, with a\n" +
			"line for each. Then it checks everything, as wgkex check does. Exits with status 0 if\n" +
			"all is well.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := newChecker(cmd, config.Dir)
			if !c.CheckConfig() {
				return fmt.Errorf("nothing was changed: %w", c.Err())
			}
			manager, err := systemd.Connect(cmd.Context())
			if err != nil {
				return fmt.Errorf("%w (it needs root)", err)
			}
			defer manager.Close()
			verb, changes := "done", 0
			if dryRun {
				verb = "would"
			}
			if err := (apply.Apply{
				Gateway: gateway{manager},
				Config:  c.Config,
				Current: c.Current(),
				DryRun:  dryRun,
				Done: func(change string) {
					changes++
					fmt.Fprintf(c.Out, "%s: %s\n", verb, change)
				},
				Failed: func(err error) { c.Fail("%v", err) },
			}).Run(cmd.Context()); err != nil {
				return err
			}
			if changes == 0 {
				fmt.Fprintln(c.Out, "unchanged: systemd runs what the configuration asks for")
			}
			if !dryRun {
				c.CheckGateway(cmd.Context())
			}
			return c.Err()
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, print what would be done")
	return cmd
}
