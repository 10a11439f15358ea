package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"wgkex/internal/protocol"
)

// LocalSocket is where programs of this gateway ask for exchanges.
const LocalSocket = "/run/wgkex/local.sock"

// Local asks for exchanges on a local socket, many at a time, and tells of each
// answer, in order. The process at the other end may end between two of them:
// then it asks another one for the rest. The error says that there are no more
// answers.
func Local(ctx context.Context, socket string, requests []protocol.Request, answered func(i int, a Answer)) error {
	for done := 0; done < len(requests); {
		n, err := askLocal(ctx, socket, requests[done:], func(i int, a Answer) { answered(done+i, a) })
		done += n
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("the connection was closed without an answer")
		}
	}
	return nil
}

// askLocal asks on one connection and returns how many were answered.
func askLocal(ctx context.Context, socket string, requests []protocol.Request, answered func(int, Answer)) (n int, err error) {
	dialed, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return 0, err
	}
	conn := dialed.(*net.UnixConn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	go func() {
		// What cannot be written is not answered.
		buffer := bufio.NewWriter(conn)
		for _, r := range requests {
			_, _ = buffer.WriteString(r.Lines())
		}
		_ = buffer.Flush()
		_ = conn.CloseWrite()
	}()
	answers := bufio.NewReader(conn)
	for ; n < len(requests); n++ {
		if err := conn.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
			return n, err
		}
		line, err := answers.ReadSlice('\n')
		switch {
		case ctx.Err() != nil:
			return n, ctx.Err()
		// One that ends with requests unread resets the connection.
		case errors.Is(err, io.EOF) && len(line) == 0, errors.Is(err, syscall.ECONNRESET):
			return n, nil
		case err != nil:
			return n, err
		}
		answered(n, Answer(line))
	}
	return n, nil
}
