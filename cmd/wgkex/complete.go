package main

import (
	"wgkex/internal/config"

	"github.com/spf13/cobra"
)

// completeDomains offers the shell the names of the domains.
func completeDomains(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := config.LoadEffective()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, d := range cfg.Sorted() {
		names = append(names, d.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
