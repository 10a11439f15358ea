package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/outcome"
)

// script is a connection whose client sends parts, one each time that it is read,
// and then ends with an error.
type script struct {
	parts []string
	end   error
	bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, s.end
	}
	n := copy(b, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; s.parts[0] == "" {
		s.parts = s.parts[1:]
	}
	return n, nil
}
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }
func (*script) CloseWrite() error                { return nil }

func TestPipe(t *testing.T) {
	long := strings.Repeat("x", MaxLine+1)
	huge := strings.Repeat("x", 3*pipeBuffer)
	for what, c := range map[string]struct {
		parts []string
		want  string // requests as DOMAIN KEY CODE, "|" between batches
	}{
		"nothing":              {nil, ""},
		"one":                  {[]string{"a\nk\n"}, "a k OK"},
		"one in parts":         {[]string{"a", "\n", "k", "\n"}, "a k OK"},
		"several at a time":    {[]string{"a\nk\nb\nl\r\n"}, "a k OK,b l OK"},
		"one after the other":  {[]string{"a\nk\n", "b\nl\n"}, "a k OK|b l OK"},
		"one and a half":       {[]string{"a\nk\nb\n", "l\n"}, "a k OK|b l OK"},
		"at most three":        {[]string{"a\nk\na\nk\na\nk\na\nk\n"}, "a k OK,a k OK,a k OK|a k OK"},
		"without an end":       {[]string{"a\nk"}, "a k OK"},
		"half":                 {[]string{"a\n"}, "a  NO_WGKEY"},
		"half a line":          {[]string{"a"}, "a  NO_WGKEY"},
		"no domain":            {[]string{"\nk\na\nk\n"}, " k NO_DOMAIN,a k OK"},
		"no key":               {[]string{"a\n\na\nk\n"}, "a  NO_WGKEY,a k OK"},
		"a long domain":        {[]string{long + "\nk\na\nk\n"}, " k INVALID_DOMAIN,a k OK"},
		"a long key":           {[]string{"a\n" + long + "\na\nk\n"}, "a  INVALID_WGKEY,a k OK"},
		"the longest":          {[]string{long[1:] + "\r\nk\n"}, long[1:] + " k OK"},
		"huge":                 {[]string{"a\n" + huge + "\n", "b\nl\n"}, "a  INVALID_WGKEY|b l OK"},
		"huge without an end":  {[]string{huge}, "  INVALID_DOMAIN"},
		"huge in both, no end": {[]string{huge + "\n" + huge}, "  INVALID_DOMAIN"},
	} {
		s := &script{parts: c.parts, end: io.EOF}
		p := NewPipe(s)
		var batches []string
		for {
			requests, err := p.Next(3, time.Time{})
			var batch []string
			for _, r := range requests {
				batch = append(batch, r.Domain+" "+r.Key+" "+string(outcome.CodeOf(r.Err)))
			}
			if len(batch) > 0 {
				batches = append(batches, strings.Join(batch, ","))
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v", what, err)
				}
				break
			}
		}
		if got := strings.Join(batches, "|"); got != c.want {
			t.Errorf("%s: got %.200q, want %.200q", what, got, c.want)
		}
	}
}

func TestPipeTimeout(t *testing.T) {
	p := NewPipe(&script{end: os.ErrDeadlineExceeded})
	if requests, err := p.Next(3, time.Time{}); len(requests) > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing: %v, %v", requests, err)
	}
	p = NewPipe(&script{parts: []string{"a\n"}, end: os.ErrDeadlineExceeded})
	if requests, err := p.Next(3, time.Time{}); len(requests) != 1 || outcome.CodeOf(requests[0].Err) != outcome.NoKey || err == nil {
		t.Errorf("half a request: %v, %v", requests, err)
	}
}

// The deadlines are those of a real connection.
func TestPipeDeadline(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	p := NewPipe(struct {
		net.Conn
		closer
	}{server, closer{}})
	if _, err := p.Next(1, time.Now().Add(-time.Second)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	go func() { _, _ = io.WriteString(client, "a\nk\n") }()
	if requests, err := p.Next(1, time.Now().Add(time.Minute)); err != nil || len(requests) != 1 {
		t.Errorf("%v, %v", requests, err)
	}
}

type closer struct{}

func (closer) CloseWrite() error { return nil }

func TestPipeAnswer(t *testing.T) {
	s := new(script)
	if err := NewPipe(s).Answer(outcome.OK, outcome.Busy, outcome.OK); err != nil || s.String() != "OK\nERR: BUSY\nOK\n" {
		t.Errorf("%q, %v", s.String(), err)
	}
}

// Whatever comes, each request has two lines, and none takes more memory than its
// lines may have.
func FuzzPipe(f *testing.F) {
	f.Add([]byte("a\nk\nb\nl\r\n"), 3)
	f.Add([]byte("\n\n\r\n\r\n"+strings.Repeat("x", 200)+"\nk"), 1)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		at = min(max(at, 0), len(data))
		p := NewPipe(&script{parts: slices.DeleteFunc([]string{string(data[:at]), string(data[at:])}, func(s string) bool { return s == "" }), end: io.EOF})
		n := 0
		for {
			requests, err := p.Next(10, time.Time{})
			n += len(requests)
			for _, r := range requests {
				if len(r.Domain) > MaxLine || len(r.Key) > MaxLine || strings.Contains(r.Domain+r.Key, "\n") {
					t.Errorf("request %q", r)
				}
				if r.Err == nil && (r.Domain == "" || r.Key == "") {
					t.Errorf("accepted request %q", r)
				}
			}
			if err != nil {
				break
			}
		}
		lines := bytes.Count(data, []byte("\n"))
		if len(data) > 0 && data[len(data)-1] != '\n' {
			lines++
		}
		if want := (lines + 1) / 2; n != want {
			t.Errorf("%d requests in %d lines", n, lines)
		}
	})
}
