package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strconv"
	"sync"
	"time"

	"wgkex/internal/protocol"
)

const (
	// dialTimeout is for a local socket with a full queue.
	dialTimeout = 5 * time.Second
	// retryAfter is the pause before a connection is made anew that could not be
	// made, or was closed without an answer.
	retryAfter = 100 * time.Millisecond
	// maxLinks is how many connections LinkOf spreads domains over.
	maxLinks = 4
	// maxWaiting is how many requests are under way on a connection: less than what a
	// UNIX socket takes while nobody reads at its other end, which is some 280, so that
	// to write never waits.
	maxWaiting = 128
)

// Links asks for exchanges on a local socket as they come, over connections that it
// keeps, with many exchanges at a time on each. Who asks says which connection: one
// whose exchanges wait, as for a domain that others use, lets those behind wait, too.
type Links struct {
	Socket string
	// Idle is how long a connection is kept without an exchange, Patience how long an
	// answer may take before the connection is given up.
	Idle, Patience time.Duration

	mu    sync.Mutex
	links map[string]*link
}

// Ask asks for an exchange over the connection of the name, until the context is
// done. What a process at the other end has not answered when it ends, another one is
// asked: an exchange that is done twice is done once. The error is the context's, with
// why there was no answer.
func (l *Links) Ask(ctx context.Context, name string, r protocol.Request) (protocol.Answer, error) {
	var why error
	pause := time.Duration(0) // connections end now and then
	for {
		answer, err := l.try(ctx, name, r)
		if err == nil {
			return answer, nil
		}
		if why == nil || !errors.Is(err, ctx.Err()) {
			why = err
		}
		select {
		case <-ctx.Done():
			return protocol.Answer{}, fmt.Errorf("%w, last: %w", ctx.Err(), why)
		case <-time.After(pause):
			pause = retryAfter
		}
	}
}

// LinkOf is the name of the connection for a domain, be there one of the name or not: one
// of a few, since each costs a process, and not always the same, since a domain that others
// use lets those behind wait.
func LinkOf(domain string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(domain)) // it never fails
	return strconv.Itoa(int(hash.Sum32() % maxLinks))
}

func (l *Links) try(ctx context.Context, name string, r protocol.Request) (protocol.Answer, error) {
	k := l.link(name)
	select {
	case <-k.dialed:
	case <-ctx.Done():
		return protocol.Answer{}, ctx.Err()
	}
	select {
	case k.places <- struct{}{}: // until there is an answer, whoever waits for it
	case <-k.over:
		return protocol.Answer{}, k.failure()
	case <-ctx.Done():
		return protocol.Answer{}, ctx.Err()
	}
	answered, err := k.send(r)
	if err != nil {
		return protocol.Answer{}, err
	}
	select {
	case a, ok := <-answered:
		if !ok {
			return protocol.Answer{}, errEnded
		}
		return a, nil
	case <-ctx.Done():
		return protocol.Answer{}, ctx.Err()
	}
}

var errEnded = errors.New("the connection ended without an answer")

// link is the connection of the name, which is made if there is none.
func (l *Links) link(name string) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.links[name]; k != nil && k.failure() == nil {
		return k
	}
	k := &link{dialed: make(chan struct{}), over: make(chan struct{}), places: make(chan struct{}, maxWaiting)}
	if l.links == nil {
		l.links = map[string]*link{}
	}
	l.links[name] = k
	go func() {
		l.serve(k)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.links[name] == k {
			delete(l.links, name)
		}
	}()
	return k
}

// link is one connection. Its answers come in the order of the requests.
type link struct {
	dialed chan struct{} // closed when conn or err is there
	over   chan struct{} // closed when there will be no more answers
	places chan struct{} // of requests under way

	mu      sync.Mutex
	conn    net.Conn
	err     error // why nothing can be asked any more
	waiting []waiting
	// last is when it was last of use.
	last time.Time
}

// waiting is a request without an answer.
type waiting struct {
	since    time.Time
	answered chan protocol.Answer // closed if there will be none
}

// serve makes the connection and reads answers until it ends.
func (l *Links) serve(k *link) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	conn, err := new(net.Dialer).DialContext(ctx, "unix", l.Socket)
	cancel()
	k.mu.Lock()
	k.conn, k.err, k.last = conn, err, time.Now()
	k.mu.Unlock()
	close(k.dialed)
	if err != nil {
		close(k.over)
		return
	}
	defer conn.Close()
	go func() {
		watch := time.NewTicker(min(l.Idle, l.Patience) / 2)
		defer watch.Stop()
		for {
			select {
			case <-k.over:
				return
			case <-watch.C:
			}
			if k.useless(l.Idle, l.Patience) {
				_ = conn.Close() // ends what reads below
			}
		}
	}()
	answers := bufio.NewReader(conn)
	for {
		line, err := answers.ReadSlice('\n')
		var a protocol.Answer
		if err == nil {
			a, err = protocol.ParseAnswer(string(line))
		}
		if err == nil {
			err = k.answer(a)
		}
		if err != nil {
			k.end(fmt.Errorf("%w: %w", errEnded, err))
			return
		}
	}
}

// failure is why nothing can be asked any more, nil if it can.
func (k *link) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// send sends a request.
func (k *link) send(r protocol.Request) (answered <-chan protocol.Answer, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	w := waiting{time.Now(), make(chan protocol.Answer, 1)}
	// There is room for it, as far as anybody knows.
	if err := k.conn.SetWriteDeadline(w.since.Add(time.Second)); err != nil {
		return nil, err
	}
	if _, err := k.conn.Write([]byte(r.Lines())); err != nil {
		k.err = err // half a request may be out
		_ = k.conn.Close()
		return nil, err
	}
	k.waiting, k.last = append(k.waiting, w), w.since
	return w.answered, nil
}

// answer passes an answer on to whom it is for.
func (k *link) answer(a protocol.Answer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) == 0 {
		return errors.New("an answer that nobody has asked for")
	}
	k.waiting[0].answered <- a
	k.waiting, k.last = k.waiting[1:], time.Now()
	<-k.places
	return nil
}

// useless reports whether nobody has asked for so long, or has had no answer, and
// lets nobody ask any more then.
func (k *link) useless(idle, patience time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	useless := len(k.waiting) == 0 && now.Sub(k.last) >= idle || len(k.waiting) > 0 && now.Sub(k.waiting[0].since) >= patience
	if useless && k.err == nil {
		k.err = errEnded
	}
	return useless
}

// end tells all who wait that there will be no answers.
func (k *link) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	for _, w := range k.waiting {
		close(w.answered)
	}
	k.waiting = nil
	close(k.over)
}
