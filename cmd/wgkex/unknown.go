package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

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
