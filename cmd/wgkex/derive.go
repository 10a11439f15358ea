package main

import (
	"io"
	"strings"

	"wgkex/internal/address"

	"github.com/spf13/cobra"
)

func deriveCommand() *cobra.Command {
	var profile address.Profile
	cmd := &cobra.Command{
		Use:   "derive [KEY...]",
		Short: "Print MAC and link-local address of public keys",
		Long: "Prints a line with the public key, its MAC and its link-local address, separated\n" +
			"by tabs, for each KEY or, without any, for each line of standard input.",
		Example: "  wg pubkey < private.key | wgkex derive",
		RunE: func(cmd *cobra.Command, args []string) error {
			var keys io.Reader = cmd.InOrStdin()
			if len(args) > 0 {
				keys = strings.NewReader(strings.Join(args, "\n"))
			}
			return profile.DeriveLines(keys, cmd.OutOrStdout())
		},
	}
	var profiles []string
	for _, p := range address.Profiles {
		profiles = append(profiles, p.String())
	}
	cmd.Flags().TextVar(&profile, "addresses", address.RFC4291, "address `PROFILE` of the domain: "+strings.Join(profiles, ", "))
	// The names are fixed and short: completing file names would only mislead.
	if err := cmd.RegisterFlagCompletionFunc("addresses", cobra.FixedCompletions(profiles, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag exists
	}
	return cmd
}
