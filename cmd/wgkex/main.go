// wgkex is the gateway admin's command.
package main

import (
	"fmt"
	"os"

	"wgkex/internal/version"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{
		Use:           "wgkex",
		Short:         "WireGuard key exchange for Freifunk gateways",
		Long:          "WireGuard key exchange for Freifunk gateways: checks the configuration, shows\npeers, derives addresses, registers keys. See wgkex(8).",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(applyCommand(), checkCommand(), deriveCommand(), prepareCommand(), registerCommand(), statusCommand(), versionCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "wgkex: %v\n", err)
		os.Exit(1)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), version.Version)
		},
	}
}
