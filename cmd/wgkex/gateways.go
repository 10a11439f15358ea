package main

import (
	"errors"
	"io/fs"

	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/status"

	"github.com/spf13/cobra"
)

func gatewaysCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gateways",
		Short: "Show what is known of other gateways",
		Long: "Prints what wgkex-relay.service knows of the gateways of the community: whether they\n" +
			"are on line, their weight, when they were heard of, and of each domain that this gateway\n" +
			"has, too, how many live peers they have and where routers reach them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			known, err := status.ReadGateways(gateways.Path)
			if errors.Is(err, fs.ErrNotExist) {
				return errors.New("nothing is known of other gateways: wgkex-relay.service has not run since the boot, see wgkex-relay(8)")
			}
			if err != nil {
				return err
			}
			if asJSON {
				_, err := cmd.OutOrStdout().Write(known.Text())
				return err
			}
			cfg, err := config.LoadEffective()
			if err != nil {
				return err
			}
			own, err := cfg.Gateway.OwnName()
			if err != nil {
				return err
			}
			return status.PrintGateways(cmd.OutOrStdout(), status.Gateways(known, own, cfg.Weight, clock.SinceBoot()))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with times in nanoseconds since boot")
	return cmd
}
