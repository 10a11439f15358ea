// wgkex is the gateway admin's command.
package main

import (
	"errors"
	"fmt"
	"os"

	"wgkex/internal/version"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{
		Use:           "wgkex COMMAND",
		Short:         "WireGuard key exchange for Freifunk gateways",
		Long:          "WireGuard key exchange for Freifunk gateways: checks the configuration, shows,\nadds, removes, saves and restores peers, derives addresses, registers keys. See\nwgkex(8).",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(addCommand(), applyCommand(), checkCommand(), deriveCommand(), gatewaysCommand(), metricsCommand(), prepareCommand(), registerCommand(),
		removeCommand(), restoreCommand(), saveCommand(), statusCommand(), versionCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	refuseUnknown(root)
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	cmd, err := root.ExecuteC()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "wgkex: %v\n", err)
	if wrong := (wrongUsage{}); !understood || errors.As(err, &wrong) {
		fmt.Fprintf(os.Stderr, "usage: %s\n", cmd.UseLine())
		os.Exit(2)
	}
	os.Exit(1)
}

// wrongUsage is what a command itself finds wrong in how it was called.
type wrongUsage struct{ error }

func (w wrongUsage) Unwrap() error { return w.error }
