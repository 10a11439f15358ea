// age reads all peers of the domain bench, and makes what is known of some of
// them older than it is, for the bench: to wait until a peer has been silent for
// long enough would take it three minutes each time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
)

func main() {
	silent := flag.String("silent", "", "as if the last handshake of the peers in this file had been so long ago that their tunnels are dead")
	unread := flag.String("unread", "", "as if the last handshake of the peers in this file had come after the reading, which found an older one of a tunnel that was dead by now")
	flag.Parse()
	if err := run(*silent, *unread); err != nil {
		fmt.Fprintln(os.Stderr, "age:", err)
		os.Exit(1)
	}
}

func run(silent, unread string) (err error) {
	cfg, err := config.LoadEffective()
	if err != nil {
		return err
	}
	older, err := readKeys(silent)
	if err != nil {
		return err
	}
	overtaken, err := readKeys(unread)
	if err != nil {
		return err
	}
	d, err := domain.System.Open(context.Background(), cfg.Domains["bench"])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	aged := 0
	_, err = d.Refresh(func(s domain.Survey) {
		for i := range s.Records {
			r := &s.Records[i]
			switch key := r.Key.String(); {
			case r.Pending():
			case slices.Contains(older, key):
				age(r)
				aged++
			case slices.Contains(overtaken, key):
				age(r)
				r.LastHandshake = r.LastHandshake.Add(-policy.LiveFor)
				aged++
			}
		}
	})
	if err == nil && aged != len(older)+len(overtaken) {
		return fmt.Errorf("%d of %d peers had a handshake", aged, len(older)+len(overtaken))
	}
	return err
}

func age(r *policy.Record) {
	r.Registered -= policy.LiveFor
	r.Active -= policy.LiveFor
}

func readKeys(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	return strings.Fields(string(text)), err
}
