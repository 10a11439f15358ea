package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

// local serves connections to a local socket, each by one of the functions, the
// last by those that are left, and returns its path. What a function leaves unread
// resets the connection.
func local(t *testing.T, serve ...func(in *bufio.Scanner, out io.Writer)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			one := serve[0]
			if len(serve) > 1 {
				serve = serve[1:]
			}
			wg.Go(func() {
				one(bufio.NewScanner(conn), conn)
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		wg.Wait()
	})
	return path
}

// answering answers at most n requests: OK, but for keys that begin with "bad".
func answering(n int) func(*bufio.Scanner, io.Writer) {
	return func(in *bufio.Scanner, out io.Writer) {
		for range n {
			in.Scan() // the domain
			if !in.Scan() {
				return
			}
			if strings.HasPrefix(in.Text(), "bad") || in.Text() == "-" { // what can be no line is sent as -
				fmt.Fprintf(out, "ERR: INVALID_WGKEY\n")
			} else {
				fmt.Fprintf(out, "OK\n")
			}
		}
	}
}

func requests(n int) (list []protocol.Request) {
	for i := range n {
		list = append(list, protocol.Request{Domain: "d", Key: fmt.Sprint("key", i), Way: outcome.Local})
	}
	return list
}

func TestLocal(t *testing.T) {
	// The third connection ends after two, the others after 1000.
	socket := local(t, answering(1000), answering(1000), answering(2), answering(1000))
	next := 0
	if err := Local(t.Context(), socket, requests(2500), func(i int, a Answer) {
		if i != next || a != "OK\n" {
			t.Errorf("answer %d is %d, %q", next, i, a)
		}
		next++
	}); err != nil || next != 2500 {
		t.Errorf("%d answers, %v", next, err)
	}
}

func TestLocalFails(t *testing.T) {
	nothing := func(int, Answer) { t.Error("an answer") }
	if err := Local(t.Context(), filepath.Join(t.TempDir(), "none"), requests(1), nothing); err == nil {
		t.Error("no socket, no error")
	}
	if err := Local(t.Context(), local(t, answering(0)), requests(1), nothing); err == nil {
		t.Error("no answer, no error")
	}
	half := local(t, func(in *bufio.Scanner, out io.Writer) { fmt.Fprint(out, "O") })
	if err := Local(t.Context(), half, requests(1), nothing); err == nil {
		t.Error("half an answer, no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	silent := local(t, func(in *bufio.Scanner, _ io.Writer) {
		in.Scan()
		cancel()
		for in.Scan() { // until the client is gone
		}
	})
	if err := Local(ctx, silent, requests(1), nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAdd(t *testing.T) {
	key := address.Key{9}
	_, own := address.FFMUC.Of(key)
	for what, c := range map[string]struct {
		in, out, err string
		all          bool
	}{
		"nothing":            {"", "domain d: 0 accepted, 0 refused\n", "", true},
		"keys":               {"one\n\n  # comment\ntwo", "domain d: 2 accepted, 0 refused\n", "", true},
		"a refusal":          {"one\nbad\n", "domain d: 1 accepted, 1 refused\n", "bad: ERR: INVALID_WGKEY\n", false},
		"escapes":            {"bad\x1b[2J\n", "domain d: 0 accepted, 1 refused\n", "\"bad\\x1b[2J\": ERR: INVALID_WGKEY\n", false},
		"allowed IPs":        {key.String() + "\t" + own.String() + "/128\n", "domain d: 1 accepted, 0 refused\n", "", true},
		"another gateway":    {key.String() + "\t" + own.String() + "/128 fd00::/64\n", "domain d: 0 accepted, 1 refused\n", key.String() + ": not a router's: its allowed IPs are not its own link-local address alone\n", false},
		"another's address":  {key.String() + "\tfe80::1/128\n", "domain d: 0 accepted, 1 refused\n", key.String() + ": not a router's: its allowed IPs are not its own link-local address alone\n", false},
		"no allowed IPs":     {key.String() + "\t(none)\n", "domain d: 0 accepted, 1 refused\n", key.String() + ": not a router's: its allowed IPs are not its own link-local address alone\n", false},
		"what is no key":     {"x y\n", "domain d: 0 accepted, 1 refused\n", "x: the public key is not the canonical base64 of 32 bytes\n", false},
		"one that is longer": {"bad" + strings.Repeat("x", 200), "domain d: 0 accepted, 1 refused\n", "bad" + strings.Repeat("x", 97) + "...: ERR: INVALID_WGKEY\n", false},
	} {
		var out, errs strings.Builder
		add := Add{Socket: local(t, answering(100)), Domain: "d", Out: &out, Err: &errs}
		all, err := add.Run(t.Context(), strings.NewReader(c.in))
		if err != nil || all != c.all || out.String() != c.out || errs.String() != c.err {
			t.Errorf("%s: %v, %v, %q, %q", what, all, err, out.String(), errs.String())
		}
	}
}

func TestAddProgress(t *testing.T) {
	var told []int
	add := Add{Socket: local(t, answering(1000)), Domain: "d", Out: io.Discard, Err: io.Discard, Progress: func(done, of int) {
		if of != 450 {
			t.Errorf("of %d", of)
		}
		told = append(told, done)
	}}
	if all, err := add.Run(t.Context(), strings.NewReader(strings.Repeat("k\n", 450))); !all || err != nil {
		t.Error(all, err)
	}
	if len(told) < 2 || told[len(told)-1] != 450 {
		t.Errorf("told %v", told)
	}
	told = nil
	if all, err := add.Run(t.Context(), strings.NewReader("k\nk\n")); !all || err != nil || told != nil {
		t.Error(all, err, told)
	}
}
