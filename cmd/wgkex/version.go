package main

import (
	"fmt"

	"wgkex/internal/version"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "version [--verbose]",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verbose {
				return version.WriteBuild(cmd.OutOrStdout())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Version)
			return err
		},
	}
	cmd.Flags().BoolVar(&verbose, "verbose", false, "print the Go modules that it is made of, too")
	return cmd
}
