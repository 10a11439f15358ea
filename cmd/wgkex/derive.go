package main

import (
	"bufio"
	"errors"
	"fmt"
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
			return derive(keys, cmd.OutOrStdout(), profile)
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

// derive goes on after a bad key, so that one line in a long list costs only
// itself.
func derive(keys io.Reader, out io.Writer, profile address.Profile) error {
	var errs []error
	lines := bufio.NewScanner(keys)
	n := 0
	for lines.Scan() {
		n++
		key, err := address.ParseKey(lines.Text())
		if err != nil {
			errs = append(errs, fmt.Errorf("key %d: %q is %w", n, lines.Text(), err))
			continue
		}
		mac, addr := profile.Of(key)
		if _, err := fmt.Fprintf(out, "%s\t%s\t%s\n", key, mac, addr); err != nil {
			return err
		}
	}
	if n == 0 && lines.Err() == nil {
		return errors.New("no key to derive from")
	}
	return errors.Join(append(errs, lines.Err())...)
}
