package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

func newLinks(socket string) *Links {
	return &Links{Socket: socket, Idle: time.Minute, Patience: time.Minute}
}

func httpRequest(key string) protocol.Request {
	return protocol.Request{Domain: "d", Key: key, Way: outcome.HTTP, Remote: netip.MustParseAddr("192.0.2.7")}
}

// echo answers with the number in the key as a port, until so many were answered.
func echo(connections *atomic.Int32, n int) func(*bufio.Scanner, io.Writer) {
	return func(in *bufio.Scanner, out io.Writer) {
		connections.Add(1)
		for range n {
			in.Scan() // the domain
			if !in.Scan() {
				return
			}
			if in.Text() == "bad" {
				fmt.Fprintln(out, "ERR: INVALID_WGKEY")
				continue
			}
			fmt.Fprintf(out, "OK fe80::1 %s k\n", in.Text())
		}
	}
}

// Each gets its own answer, however many ask at a time and however often the other
// end is another process.
func TestLinks(t *testing.T) {
	for _, share := range []int{1 << 30, 7} {
		var connections atomic.Int32
		l := newLinks(local(t, echo(&connections, share)))
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				a, err := l.Ask(t.Context(), "d", httpRequest(fmt.Sprint(i)))
				if err != nil || a.Code != outcome.OK || a.Gateway == nil || int(a.Gateway.Port) != i {
					t.Errorf("%d: %+v, %v", i, a, err)
				}
			})
		}
		wg.Wait()
		if a, err := l.Ask(t.Context(), "d", httpRequest("bad")); err != nil || a.Code != outcome.InvalidKey {
			t.Errorf("refused: %+v, %v", a, err)
		}
		if n := int(connections.Load()); n < 301/share || share > 300 && n != 1 {
			t.Errorf("%d connections of %d each", n, share)
		}
	}
}

// However many ask while the other end takes its time to start, one is enough.
func TestLinksSlowStart(t *testing.T) {
	var connections atomic.Int32
	l := newLinks(local(t, func(in *bufio.Scanner, out io.Writer) {
		time.Sleep(1500 * time.Millisecond)
		echo(&connections, 1<<30)(in, out)
	}))
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			if a, err := l.Ask(t.Context(), "d", httpRequest(fmt.Sprint(i))); err != nil || int(a.Gateway.Port) != i {
				t.Errorf("%d: %+v, %v", i, a, err)
			}
		})
	}
	wg.Wait()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// One connection that waits is of no harm to another.
func TestLinksApart(t *testing.T) {
	release, began, slow := make(chan struct{}), make(chan struct{}), make(chan error)
	l := newLinks(local(t, func(in *bufio.Scanner, out io.Writer) {
		for in.Scan() { // the domain
			in.Scan()
			if in.Text() == "1" {
				close(began)
				<-release
			}
			fmt.Fprintf(out, "OK fe80::1 %s k\n", in.Text())
		}
	}))
	go func() {
		_, err := l.Ask(t.Context(), "slow", httpRequest("1"))
		slow <- err
	}()
	<-began
	if a, err := l.Ask(t.Context(), "d", httpRequest("2")); err != nil || a.Gateway.Port != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	// Nor does it take the answer of one who does not wait for it any more.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Ask(ctx, "slow", httpRequest("3")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its time: %v", err)
	}
	close(release)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if a, err := l.Ask(t.Context(), "slow", httpRequest("4")); err != nil || a.Gateway.Port != 4 {
		t.Errorf("%+v, %v", a, err)
	}
}

// Whoever does not answer, or not as a gateway does, is not taken for an acceptance.
func TestLinksFail(t *testing.T) {
	for what, socket := range map[string]string{
		"no socket": filepath.Join(t.TempDir(), "s"),
		"no answer": local(t, func(in *bufio.Scanner, _ io.Writer) { in.Scan() }),
		"half":      local(t, func(in *bufio.Scanner, out io.Writer) { in.Scan(); in.Scan(); fmt.Fprint(out, "O") }),
		"another":   local(t, func(in *bufio.Scanner, out io.Writer) { in.Scan(); in.Scan(); fmt.Fprint(out, "HELLO\n") }),
		"none at all": local(t, func(in *bufio.Scanner, _ io.Writer) {
			for in.Scan() {
			}
		}),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		a, err := newLinks(socket).Ask(ctx, "d", httpRequest("1"))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %+v, %v", what, a, err)
		}
	}
}

// A connection that is not used is given up, and so is one that does not answer.
func TestLinksEnd(t *testing.T) {
	var connections atomic.Int32
	l := newLinks(local(t, echo(&connections, 1<<30)))
	l.Idle = 20 * time.Millisecond
	for n := int32(1); n <= 2; n++ {
		if _, err := l.Ask(t.Context(), "d", httpRequest("1")); err != nil || connections.Load() != n {
			t.Errorf("%v, %d connections", err, connections.Load())
		}
		for gone := false; !gone; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			gone = len(l.links) == 0
			l.mu.Unlock()
		}
	}
	// The first is silent, the second answers.
	l = newLinks(local(t, func(in *bufio.Scanner, _ io.Writer) {
		for in.Scan() {
		}
	}, echo(&connections, 1<<30)))
	l.Patience = 20 * time.Millisecond
	if a, err := l.Ask(t.Context(), "d", httpRequest("5")); err != nil || a.Gateway.Port != 5 {
		t.Errorf("%+v, %v", a, err)
	}
}
