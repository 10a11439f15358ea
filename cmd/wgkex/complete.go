package main

import (
	"slices"
	"strings"

	"wgkex/internal/config"

	"github.com/spf13/cobra"
)

// completeDomains offers the shell the names of the domains.
func completeDomains(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := config.LoadEffective()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return cfg.Names(), cobra.ShellCompDirectiveNoFileComp
}

// completeList completes a list that is separated by commas, each word once, by what
// completes one word.
func completeList(one cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndexByte(typed, ',')+1]
		words, directive := one(cmd, args, typed[len(before):])
		var lists []string
		for _, word := range words {
			if !slices.Contains(strings.Split(before, ","), word) {
				lists = append(lists, before+word)
			}
		}
		return lists, directive
	}
}
