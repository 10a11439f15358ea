package main

import (
	"errors"
	"fmt"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/restore"

	"github.com/spf13/cobra"
)

func removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove DOMAIN KEY...",
		Short: "Remove peers from a domain, and from what is saved",
		Long: "Removes the managed peers with these public keys, with their FDB entries, and takes\n" +
			"them out of what is saved. Their routers may register again: prohibited_keys in\n" +
			"the configuration keeps them away. Other peers are left alone. Exits with status\n" +
			"0 if all were removed.",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, d, err := config.EffectiveDomain(args[0])
			if err != nil {
				return err
			}
			keys := make([]address.Key, len(args)-1)
			for i, text := range args[1:] {
				if keys[i], err = address.ParseKey(text); err != nil {
					return fmt.Errorf("nothing was removed: %q is %w", text, err)
				}
			}
			errs, err := restore.Remove(cmd.Context(), domain.System, d, lockTimeout, keys)
			if err != nil {
				return domain.Privileged(err)
			}
			r := reporter(cmd.OutOrStdout(), d)
			for i, err := range errs {
				if err == nil {
					r.Removed(keys[i])
				} else {
					errs[i] = fmt.Errorf("peer %s: %w", keys[i], err)
				}
			}
			return errors.Join(errs...)
		},
	}
}
