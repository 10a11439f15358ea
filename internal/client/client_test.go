package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve lets do have the first connection to a listener, which is closed after
// it, and returns where it listens.
func serve(t *testing.T, do func(*net.TCPConn)) *net.TCPAddr {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.AcceptTCP()
		if err != nil {
			return
		}
		defer conn.Close()
		do(conn)
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().(*net.TCPAddr)
}

// readAll reads the two lines that Register sends here.
func readAll(t *testing.T, conn io.Reader) {
	const want = "ffww01\nKEY\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("sent %q, %v, want %q", got, err, want)
	}
}

// reset closes with a RST in place of a FIN.
func reset(t *testing.T, conn *net.TCPConn) {
	if err := conn.SetLinger(0); err != nil {
		t.Error(err)
	}
	conn.Close()
}

// answer writes; what the client does not take is its own affair.
func answer(conn io.Writer, text string) { _, _ = io.WriteString(conn, text) }

func TestRegister(t *testing.T) {
	const short, long = 50 * time.Millisecond, time.Minute
	for _, c := range []struct {
		name    string
		gateway func(*net.TCPConn)
		timeout time.Duration
		want    Answer
		err     error
	}{
		{"silence", func(conn *net.TCPConn) { readAll(t, conn) }, long, "", nil},
		{"OK", func(conn *net.TCPConn) { readAll(t, conn); answer(conn, "OK\n") }, long, "OK\n", nil},
		{"a refusal", func(conn *net.TCPConn) { readAll(t, conn); answer(conn, "ERR: BUSY\n") }, long, "ERR: BUSY\n", nil},
		{"an answer in pieces", func(conn *net.TCPConn) {
			readAll(t, conn)
			answer(conn, "ERR: ")
			time.Sleep(short)
			answer(conn, "BUSY\n")
		}, long, "ERR: BUSY\n", nil},
		{"a refusal before all is read", func(conn *net.TCPConn) {
			_, _ = conn.Read(make([]byte, 1))
			answer(conn, "ERR: INVALID_DOMAIN\n")
			// Unread bytes make a RST of this, behind the answer.
			conn.Close()
		}, long, "ERR: INVALID_DOMAIN\n", nil},
		{"an answer without end", func(conn *net.TCPConn) {
			for {
				if _, err := io.WriteString(conn, strings.Repeat("x", 100)); err != nil {
					return
				}
			}
		}, long, Answer(strings.Repeat("x", maxAnswer)), nil},
		{"an answer that nobody ends", func(conn *net.TCPConn) {
			answer(conn, "ERR: BU")
			_, _ = io.Copy(io.Discard, conn) // until the client closes
		}, short, "ERR: BU", nil},
		{"neither an answer nor an end", func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, short, "", os.ErrDeadlineExceeded},
		{"a reset", func(conn *net.TCPConn) { readAll(t, conn); reset(t, conn) }, long, "", syscall.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := serve(t, c.gateway)
			got, err := Register(t.Context(), at.String(), "ffww01", "KEY", c.timeout)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

// What a gateway said before it hung up counts, though nothing can be sent to it.
func TestAnswerBeforeSending(t *testing.T) {
	there, gone := make(chan struct{}), make(chan struct{})
	at := serve(t, func(conn *net.TCPConn) {
		<-there
		answer(conn, "ERR: BUSY\n")
		reset(t, conn)
		close(gone)
	})
	conn, err := net.DialTCP("tcp", nil, at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	close(there)
	<-gone
	got, writeErr, _ := ask(t.Context(), conn, "ffww01\nKEY\n")
	if got != "ERR: BUSY\n" || writeErr == nil {
		t.Errorf("got %q, sending %v", got, writeErr)
	}
}

func TestNobodyThere(t *testing.T) {
	at := serve(t, func(*net.TCPConn) {})
	at.Port = 1
	if got, err := Register(t.Context(), at.String(), "ffww01", "KEY", time.Minute); got != "" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := Probe(t.Context(), at.AddrPort()); got != "" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("probe: got %q, %v", got, err)
	}
}

// A context that is cancelled ends the wait.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	at := serve(t, func(conn *net.TCPConn) {
		readAll(t, conn)
		cancel()
		_, _ = io.Copy(io.Discard, conn) // until the client closes
	})
	if got, err := Register(ctx, at.String(), "ffww01", "KEY", time.Minute); got != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name    string
		gateway func(*net.TCPConn)
		want    Answer
		err     error
	}{
		{"a handler", func(conn *net.TCPConn) {
			line := make([]byte, 2)
			n, _ := conn.Read(line)
			if string(line[:n]) != "\n" {
				t.Errorf("sent %q", line[:n])
			}
			answer(conn, "ERR: NO_DOMAIN\n")
		}, "ERR: NO_DOMAIN\n", nil},
		{"closed at once", func(*net.TCPConn) {}, "", nil},
		{"closed with what was sent unread", func(conn *net.TCPConn) { time.Sleep(50 * time.Millisecond) }, "", nil},
		{"a reset", func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 1)); reset(t, conn) }, "", nil},
		{"no answer", func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, "", os.ErrDeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			if c.err != nil { // not the whole probeTimeout
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			got, err := Probe(ctx, serve(t, c.gateway).AddrPort())
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		answer    Answer
		accepted  bool
		printable string
	}{
		{"", true, "OK\n"},
		{"OK\n", true, "OK\n"},
		{"OK", false, "OK"},
		{"OK\r\n", false, `"OK\r"` + "\n"},
		{"OK\nOK\n", false, "OK\nOK\n"},
		{"ERR: BUSY\n", false, "ERR: BUSY\n"},
		{"käse", false, "käse"},
		{"\n", false, "\n"},
		{"ERR: \x1b[2J\x07\r\n\xff\u202eok\n\x9b1m", false, `"ERR: \x1b[2J\a\r"` + "\n" + `"\xff\u202eok"` + "\n" + `"\x9b1m"`},
	} {
		if c.answer.Accepted() != c.accepted || c.answer.Printable() != c.printable {
			t.Errorf("%q: accepted %v, printed %q, want %v, %q", string(c.answer), c.answer.Accepted(), c.answer.Printable(), c.accepted, c.printable)
		}
	}
}
