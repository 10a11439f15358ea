package main

import (
	"fmt"

	"wgkex/internal/client"

	"github.com/spf13/cobra"
)

func registerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "register HOST:PORT DOMAIN KEY",
		Short: "Register a public key with a gateway, as a router does",
		Long: "Sends DOMAIN and KEY as they are, prints the gateway's answer and exits with\n" +
			"status 0 if it accepted the key. A gateway that accepts without a word, as is the\n" +
			"default, is printed as OK.",
		Example: "  wgkex register gw.example.org:10012 ffww01 $(wg pubkey < private.key)",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := client.Register(cmd.Context(), args[0], args[1], args[2], client.Timeout)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), answer.Printable())
			if !answer.Accepted() {
				return fmt.Errorf("%s did not accept the key", args[0])
			}
			return nil
		},
	}
}
