// Package client is the other end of an exchange: it sends what a router sends,
// as it is, and reads the answer. docs/protocol.md describes both.
package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// Timeout is for Register. It is longer than the slowest handler: two lines,
	// the lock and an answer (5, 5, 30 and 5 s), and the start of its sandbox.
	Timeout = 70 * time.Second
	// probeTimeout is how long a handler may take to start and to refuse what
	// names no domain, on a gateway that has much else to do.
	probeTimeout = 30 * time.Second
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 1024
)

// Register asks the gateway at address, HOST:PORT, to take the key in the domain.
// Both are text and not looked at. Connecting may take as long as the timeout, and
// the exchange as long again. The error says that there was neither an answer nor
// an acceptance by silence.
func Register(ctx context.Context, address, domain, key string, timeout time.Duration) (Answer, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, writeErr, readErr := ask(ctx, conn, domain+"\n"+key+"\n")
	if answer != "" {
		return answer, nil
	}
	return "", errors.Join(writeErr, readErr)
}

// Probe names no domain at a port of this gateway: a handler that starts refuses
// that. The Answer is empty for a connection that was closed without one.
func Probe(ctx context.Context, at netip.AddrPort) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// A connection that is closed at once may not take this any more.
	answer, writeErr, readErr := ask(ctx, conn, "\n")
	// Closed with what was sent unread, which is silence, too.
	if answer != "" || errors.Is(readErr, syscall.ECONNRESET) {
		return answer, nil
	}
	return "", errors.Join(writeErr, readErr)
}

// ask sends the text and reads what is answered until the other end closes, or
// until the context is done. Neither error matters when
// there is an answer, in part at least: a gateway may refuse before it has read
// all, and what it says then counts, not that it would not listen.
func ask(ctx context.Context, conn net.Conn, text string) (answer Answer, writeErr, readErr error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err, nil
	}
	// A context that is cancelled ends what waits for the connection.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, writeErr = io.WriteString(conn, text)
	data, readErr := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if errors.Is(ctx.Err(), context.Canceled) {
		readErr = ctx.Err() // and not that of a timeout
	}
	return Answer(data), writeErr, readErr
}
