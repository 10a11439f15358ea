package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/outcome"
)

// pipeBuffer is how much is received at a time, in bytes: some hundred requests.
const pipeBuffer = 16 << 10

// maxFirst is the longest first line of a request on a Pipe, in bytes.
const maxFirst = MaxLine + len(" relay ") + len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

// Pipe is a connection on which many requests come one after the other, each of
// two lines, without waiting for answers. Each is answered by a line, in order.
// The first line is DOMAIN [WAY [ADDRESS]]: the program at the other end may say
// by which way the exchange came to it, and from whom.
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
	Way         outcome.Way
	// Remote is the address of who asks, zero for nobody in particular.
	Remote netip.Addr
	Err    error
}

// Lines is the request as it is sent. What cannot be in a line of its own is sent as
// something that is refused for the same reason.
func (r Request) Lines() string {
	first := sendable(r.Domain)
	if r.Way != outcome.Local {
		first += " " + r.Way.String()
		if r.Remote.IsValid() {
			first += " " + r.Remote.String()
		}
	}
	return first + "\n" + sendable(r.Key) + "\n"
}

// sendable is the text or, if that can be no line, a text that is neither a domain
// nor a key.
func sendable(text string) string {
	if len(text) > MaxLine || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "-"
	}
	return text
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
	r.Way = outcome.Local
	first, refused, err := p.line("domain", maxFirst, outcome.NoDomain, outcome.InvalidDomain)
	if r.Err = refused; r.Err == nil {
		r.Err = r.first(first)
	}
	if err != nil {
		if r.Err == nil {
			r.Err = outcome.Refuse(outcome.NoKey, "the connection ended before the public key line")
		}
		return r, err
	}
	r.Key, keyErr, err = p.line("public key", MaxLine, outcome.NoKey, outcome.InvalidKey)
	if r.Err == nil {
		r.Err = keyErr
	}
	return r, err
}

// first reads the fields of the first line. Each is as strictly read as what comes
// from the internet: who asks here may have been taken over from there.
func (r *Request) first(line string) error {
	domain, rest, more := strings.Cut(line, " ")
	if more {
		name, address, hasAddress := strings.Cut(rest, " ")
		way, err := outcome.ParseWay(name)
		if err != nil || way == outcome.TCP {
			return outcome.Refuse(outcome.InvalidDomain, "the second field of the domain line is no way of a program")
		}
		r.Way = way
		if hasAddress {
			if r.Remote, err = parseRemote(address); err != nil {
				return outcome.Refuse(outcome.InvalidDomain, "the third field of the domain line is no address")
			}
		}
	}
	switch {
	case domain == "":
		return outcome.Refuse(outcome.NoDomain, "the domain line has no domain")
	case len(domain) > MaxLine:
		return outcome.Refuse(outcome.InvalidDomain, "the domain is longer than %d bytes", MaxLine)
	}
	r.Domain = domain
	return nil
}

// parseRemote reads an address without a zone that is written as netip writes it,
// since it goes into logs.
func parseRemote(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, err
	}
	if addr.String() != text || addr.Zone() != "" {
		return netip.Addr{}, errors.New("not in its usual form")
	}
	return addr, nil
}

// line reads a line of so many bytes at most. What is wrong with it is refused, err
// says that nothing more will be read.
func (p *Pipe) line(what string, most int, missing, invalid outcome.Code) (text string, refused, err error) {
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
	case long || len(line) > most:
		return "", outcome.Refuse(invalid, "the %s line is longer than %d bytes", what, most), err
	case len(line) == 0:
		return "", outcome.Refuse(missing, "the %s line is empty", what), err
	}
	return string(line), nil, err
}

// Answer is how a request was answered. An accepted one of the way http comes with
// the end of the tunnel that the router connects to.
type Answer struct {
	Code    outcome.Code
	Gateway *Gateway
}

// Gateway is the end of a domain's tunnels at a gateway.
type Gateway struct {
	// Addr is zero where the gateway has none.
	Addr netip.Addr
	// Port is a UDP port, 0 where the gateway has none.
	Port uint16
	// Key is the base64 of a public key.
	Key string
}

// Line is the answer as it is sent: OK, OK ADDRESS PORT KEY with - for an address
// that is not there, or ERR: CODE.
func (a Answer) Line() string {
	switch {
	case a.Code != outcome.OK:
		return "ERR: " + string(a.Code) + "\n"
	case a.Gateway == nil:
		return "OK\n"
	}
	addr := "-"
	if a.Gateway.Addr.IsValid() {
		addr = a.Gateway.Addr.String()
	}
	return fmt.Sprintf("OK %s %d %s\n", addr, a.Gateway.Port, a.Gateway.Key)
}

// ParseAnswer reads a Line.
func ParseAnswer(line string) (Answer, error) {
	line, whole := strings.CutSuffix(line, "\n")
	if code, refused := strings.CutPrefix(line, "ERR: "); refused && whole && slices.Contains(outcome.Codes[1:], outcome.Code(code)) {
		return Answer{Code: outcome.Code(code)}, nil
	}
	fields := strings.Split(line, " ")
	if !whole || fields[0] != "OK" || len(fields) != 1 && len(fields) != 4 {
		return Answer{}, errors.New("no answer of a gateway")
	}
	a := Answer{Code: outcome.OK}
	if len(fields) == 1 {
		return a, nil
	}
	port, err := strconv.ParseUint(fields[2], 10, 16)
	a.Gateway = &Gateway{Port: uint16(port), Key: fields[3]}
	if fields[1] != "-" && err == nil {
		a.Gateway.Addr, err = netip.ParseAddr(fields[1])
	}
	if err != nil {
		return Answer{}, fmt.Errorf("no answer of a gateway: %w", err)
	}
	return a, nil
}

// Answer answers requests, in order.
func (p *Pipe) Answer(answers ...Answer) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(LineTimeout)); err != nil {
		return fmt.Errorf("setting the write deadline: %w", err)
	}
	var text []byte
	for _, a := range answers {
		text = append(text, a.Line()...)
	}
	_, err := p.conn.Write(text)
	return err
}
