package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"wgkex/internal/address"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

// Add asks for exchanges with many keys, and tells what became of them.
type Add struct {
	Socket, Domain string
	// Out gets a summary, Err a line for each key that was not accepted.
	Out, Err io.Writer
	// Progress, if not nil, is told from time to time how many of how many were
	// answered, if there are many, the last time of all.
	Progress func(done, of int)
}

// progressSteps is how often Progress is told. Fewer keys are not many.
const progressSteps = 100

// Run reads a key from each line, as wg show INTERFACE peers and wg show INTERFACE
// allowed-ips print them, asks for exchanges with all of them, and reports whether
// all were accepted. Empty lines and those that begin with # are left out. The
// error says that not all were answered.
func (a Add) Run(ctx context.Context, keys io.Reader) (all bool, err error) {
	var requests []protocol.Request
	refused := 0
	lines := bufio.NewScanner(keys)
	for lines.Scan() {
		key, err := routerKey(lines.Text())
		switch {
		case err != nil:
			refused++
			fmt.Fprintf(a.Err, "%s: %v\n", printable(key), err)
		case key != "":
			requests = append(requests, protocol.Request{Domain: a.Domain, Key: key, Way: outcome.Local})
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("reading keys: %w", err)
	}
	accepted := 0
	err = Local(ctx, a.Socket, requests, func(i int, answer Answer) {
		if answer.Accepted() {
			accepted++
		} else {
			refused++
			fmt.Fprintf(a.Err, "%s: %s", printable(requests[i].Key), answer.Printable())
		}
		if done := i + 1; a.Progress != nil && len(requests) > progressSteps && (done == len(requests) || done%max(len(requests)/progressSteps, 1) == 0) {
			a.Progress(done, len(requests))
		}
	})
	fmt.Fprintf(a.Out, "domain %s: %d accepted, %d refused\n", a.Domain, accepted, refused)
	return refused == 0 && err == nil, err
}

// routerKey is the key in a line, "" if there is none. One that comes with allowed
// IPs must be a router's: have its own link-local address and no other.
func routerKey(line string) (key string, err error) {
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return "", nil
	}
	key = fields[0]
	if len(fields) == 1 {
		return key, nil
	}
	parsed, err := address.ParseKey(key)
	if err != nil {
		return key, fmt.Errorf("the public key is %w", err)
	}
	own := slices.ContainsFunc(address.Profiles, func(p address.Profile) bool {
		_, addr := p.Of(parsed)
		return fields[1] == addr.String()+"/128"
	})
	if len(fields) != 2 || !own {
		return key, fmt.Errorf("not a router's: its allowed IPs are not its own link-local address alone")
	}
	return key, nil
}

// printable is a text for a terminal.
func printable(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "..."
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
