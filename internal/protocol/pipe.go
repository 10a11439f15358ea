package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"wgkex/internal/outcome"
)

// pipeBuffer is how much is received at a time, in bytes: some hundred requests.
const pipeBuffer = 16 << 10

// Pipe is a connection on which many requests come one after the other, each of
// two lines, without waiting for answers. Each is answered by a line, in order.
type Pipe struct {
	conn   Conn
	reader *bufio.Reader
}

// NewPipe makes a Pipe; it reads nothing yet.
func NewPipe(conn Conn) *Pipe {
	return &Pipe{conn: conn, reader: bufio.NewReaderSize(conn, pipeBuffer)}
}

// Request is what was read of a request. Err is a Refusal when one of its lines is
// missing or too long; where a line is there, its text is, too.
type Request struct {
	Domain, Key string
	Err         error
}

// Next waits for the next request, until the deadline, and returns it with those
// that have arrived with it, at most so many. The error says that there will be no
// more requests; it is io.EOF when the client has closed its end, and
// os.ErrDeadlineExceeded when none came. Requests are returned with an error, too.
func (p *Pipe) Next(atMost int, deadline time.Time) ([]Request, error) {
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("setting the read deadline: %w", err)
	}
	if _, err := p.reader.Peek(1); err != nil {
		return nil, err
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(LineTimeout)); err != nil {
		return nil, fmt.Errorf("setting the read deadline: %w", err)
	}
	var requests []Request
	for len(requests) == 0 || len(requests) < atMost && p.arrived() {
		r, err := p.request()
		requests = append(requests, r)
		if err != nil {
			return requests, err
		}
	}
	return requests, nil
}

// arrived reports whether a whole request was received.
func (p *Pipe) arrived() bool {
	received, _ := p.reader.Peek(p.reader.Buffered())
	return bytes.Count(received, []byte("\n")) >= 2
}

// request reads both lines, even if the first is none that may be: what follows
// is the next request.
func (p *Pipe) request() (r Request, err error) {
	var keyErr error
	r.Domain, r.Err, err = p.line("domain", outcome.NoDomain, outcome.InvalidDomain)
	if err != nil {
		if r.Err == nil {
			r.Err = outcome.Refuse(outcome.NoKey, "the connection ended before the public key line")
		}
		return r, err
	}
	r.Key, keyErr, err = p.line("public key", outcome.NoKey, outcome.InvalidKey)
	if r.Err == nil {
		r.Err = keyErr
	}
	return r, err
}

// line reads a line. What is wrong with it is refused, err says that nothing more
// will be read.
func (p *Pipe) line(what string, missing, invalid outcome.Code) (text string, refused, err error) {
	line, err := p.reader.ReadSlice('\n')
	long := false
	for errors.Is(err, bufio.ErrBufferFull) {
		long = true
		line, err = p.reader.ReadSlice('\n')
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", outcome.Refuse(missing, "no whole request within %s", LineTimeout), err
	case errors.Is(err, io.EOF) && (long || len(line) > 0): // the last line needs no end
	case err != nil:
		return "", outcome.Refuse(missing, "the connection ended before the %s line: %w", what, err), err
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	switch {
	case long || len(line) > MaxLine:
		return "", outcome.Refuse(invalid, "the %s line is longer than %d bytes", what, MaxLine), err
	case len(line) == 0:
		return "", outcome.Refuse(missing, "the %s line is empty", what), err
	}
	return string(line), nil, err
}

// Answer answers requests, in order.
func (p *Pipe) Answer(codes ...outcome.Code) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(LineTimeout)); err != nil {
		return fmt.Errorf("setting the write deadline: %w", err)
	}
	var text []byte
	for _, code := range codes {
		if code != outcome.OK {
			text = append(text, "ERR: "...)
		}
		text = append(append(text, code...), '\n')
	}
	_, err := p.conn.Write(text)
	return err
}
