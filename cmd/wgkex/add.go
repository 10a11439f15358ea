package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"wgkex/internal/client"
	"wgkex/internal/config"

	"github.com/spf13/cobra"
)

func addCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add DOMAIN [KEY...]",
		Short: "Add public keys to a domain, as if their routers had registered",
		Long: "Asks this gateway for an exchange with each KEY or, without any, with the key in\n" +
			"each line of standard input, as wg show INTERFACE peers or allowed-ips prints\n" +
			"them. All rules of an exchange apply. Prints how many were accepted and, on\n" +
			"standard error, each that was not; exits with status 0 if all were.",
		Example:           "  ssh gw1 wg show wgww01 allowed-ips | wgkex add ffww01",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, _, err := config.EffectiveDomain(args[0]); err != nil {
				return err
			}
			var keys io.Reader = cmd.InOrStdin()
			if len(args) > 1 {
				keys = strings.NewReader(strings.Join(args[1:], "\n"))
			}
			add := client.Add{Socket: client.LocalSocket, Domain: args[0], Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
			if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				add.Progress = func(done, of int) {
					end := ""
					if done == of {
						end = "\n"
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d%s", done, of, end)
				}
			}
			all, err := add.Run(cmd.Context(), keys)
			switch {
			case err != nil:
				return fmt.Errorf("%w (wgkex-local.socket has to be active, and it is for root and the group wgkex-relay)", err)
			case !all:
				return errors.New("not all keys were accepted")
			}
			return nil
		},
	}
}
