// Package protocol is the wire protocol: two lines from the router, at most
// one line back. docs/protocol.md describes it for those who write clients.
package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"wgkex/internal/outcome"
)

const (
	// MaxLine is the longest line, in bytes, without its LF or CRLF.
	MaxLine = 64
	// LineTimeout is how long each line may take, however slowly it drips.
	LineTimeout = 5 * time.Second
	// maxDrain bounds, in bytes, what Finish discards for a client that keeps
	// on sending.
	maxDrain = 64 << 10
)

// Conn is what the protocol needs of a TCP connection.
type Conn interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	CloseWrite() error
}

// Reader reads a request from one connection: Domain, then Key.
type Reader struct {
	conn Conn
	buf  []byte // received, not yet part of a line
	err  error  // why nothing more will be received
}

// NewReader makes a Reader; it reads nothing yet.
func NewReader(conn Conn) *Reader { return &Reader{conn: conn} }

// Domain reads the first line. It is a Refusal with NoDomain or InvalidDomain
// when there is no such line; whether the domain exists is for others to say.
func (r *Reader) Domain() (string, error) {
	return r.line("domain", outcome.NoDomain, outcome.InvalidDomain)
}

// Key reads the second line. It is a Refusal with NoKey or InvalidKey when
// there is no such line; whether it is a public key is for others to say.
func (r *Reader) Key() (string, error) {
	return r.line("public key", outcome.NoKey, outcome.InvalidKey)
}

func (r *Reader) line(what string, missing, invalid outcome.Code) (string, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(LineTimeout)); err != nil {
		return "", fmt.Errorf("setting the read deadline: %w", err)
	}
	var chunk [MaxLine + len("\r\n")]byte
	for {
		line, rest, whole := bytes.Cut(r.buf, []byte("\n"))
		if whole {
			line = bytes.TrimSuffix(line, []byte("\r"))
		} else {
			whole = errors.Is(r.err, io.EOF)
		}
		switch {
		// A CR after the longest line may be half of a CRLF.
		case len(line) > MaxLine && (whole || len(line) > MaxLine+1 || line[MaxLine] != '\r'):
			return "", outcome.Refuse(invalid, "the %s line is longer than %d bytes", what, MaxLine)
		case whole && len(line) == 0:
			return "", outcome.Refuse(missing, "the %s line is empty or missing", what)
		case whole:
			r.buf = rest
			return string(line), nil
		case errors.Is(r.err, os.ErrDeadlineExceeded):
			return "", outcome.Refuse(missing, "no whole %s line within %s", what, LineTimeout)
		case r.err != nil:
			return "", outcome.Refuse(missing, "the connection broke before the %s line: %v", what, r.err)
		}
		var n int
		n, r.err = r.conn.Read(chunk[:])
		r.buf = append(r.buf, chunk[:n]...)
	}
}

// Finish answers the request and ends the conversation. It writes nothing for
// OK unless sayOK, half-closes, and discards what the client still sends until
// the client closes or LineTimeout has passed: closing a socket with unread
// bytes in it makes the kernel send a RST (RFC 1122 section 4.2.2.13), which
// may overtake the answer.
func Finish(conn Conn, code outcome.Code, sayOK bool) error {
	deadline := time.Now().Add(LineTimeout)
	if err := errors.Join(conn.SetReadDeadline(deadline), conn.SetWriteDeadline(deadline)); err != nil {
		return fmt.Errorf("setting the deadlines: %w", err)
	}
	var answer string
	switch {
	case code != outcome.OK:
		answer = "ERR: " + string(code) + "\n"
	case sayOK:
		answer = "OK\n"
	}
	if answer != "" {
		if _, err := io.WriteString(conn, answer); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("half-closing: %w", err)
	}
	// The answer is out: how the client leaves is its own affair.
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, maxDrain))
	return nil
}

// ValidName reports whether a domain or a gateway may have this name: it has to be a
// systemd instance name, a file name and a level of an MQTT topic without any escaping.
func ValidName(s string) bool {
	return len(s) >= 1 && len(s) <= MaxLine && s[0] != '.' && s[0] != '-' && isPlain(s)
}

// MaxHostName is the longest name of a host, in bytes (RFC 1035 section 2.3.4).
const MaxHostName = 253

// ValidHostName reports whether a host may have this name. Some have a "_" in it.
func ValidHostName(s string) bool { return s != "" && len(s) <= MaxHostName && isPlain(s) }

// isPlain reports whether there is nothing but letters and digits of ASCII, "_", "." and "-".
func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-", c) >= 0) {
			return false
		}
	}
	return true
}
