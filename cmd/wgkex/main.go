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
		Use:           "wgkex COMMAND",
		Short:         "WireGuard key exchange for Freifunk gateways",
		Long:          "WireGuard key exchange for Freifunk gateways: checks the configuration, shows\npeers, derives addresses, registers keys. See wgkex(8).",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddCommand(applyCommand(), checkCommand(), deriveCommand(), prepareCommand(), registerCommand(), statusCommand(), versionCommand())
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
	if !understood {
		fmt.Fprintf(os.Stderr, "usage: %s\n", cmd.UseLine())
		os.Exit(2)
	}
	os.Exit(1)
}

// refuseUnknown makes errors of commands and shells that do not exist, where the
// commands that come with package cobra print help and succeed.
func refuseUnknown(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Use = "help [COMMAND]"
			cmd.Args = func(_ *cobra.Command, args []string) error {
				_, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("unknown command %q", rest)
				}
				return err
			}
		case "completion": // its Args are refused only if it can run
			cmd.Use = "completion SHELL"
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
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
