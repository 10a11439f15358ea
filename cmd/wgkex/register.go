package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// registerTimeout is longer than the slowest handler: two lines, the lock and an
// answer (5, 5, 30 and 5 s), and the start of its sandbox.
const registerTimeout = 70 * time.Second

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
			answer, err := register(args[0], args[1], args[2])
			if err != nil {
				return err
			}
			if answer == "" {
				answer = "OK\n"
			}
			fmt.Fprint(cmd.OutOrStdout(), printable(answer))
			if answer != "OK\n" {
				return fmt.Errorf("%s did not accept the key", args[0])
			}
			return nil
		},
	}
}

// printable escapes all that is not text in lines: what a gateway sends must not
// get to the terminal's controls.
func printable(answer string) string {
	var b strings.Builder
	for line := range strings.Lines(answer) {
		text, hasNewline := strings.CutSuffix(line, "\n")
		if strings.ContainsFunc(text, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
			text = strconv.Quote(text)
		}
		b.WriteString(text)
		if hasNewline {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// register returns the gateway's answer, empty when it closed without one.
func register(hostPort, domain, key string) (answer string, err error) {
	conn, err := net.DialTimeout("tcp", hostPort, registerTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(registerTimeout)); err != nil {
		return "", err
	}
	// A gateway may refuse before it has read all: what it says then counts,
	// not that it would not listen.
	_, writeErr := io.WriteString(conn, domain+"\n"+key+"\n")
	data, readErr := io.ReadAll(io.LimitReader(conn, 1024))
	if len(data) > 0 {
		return string(data), nil
	}
	return "", errors.Join(writeErr, readErr)
}
