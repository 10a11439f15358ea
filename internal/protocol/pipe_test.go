package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
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
		"ways":                 {[]string{"a http 192.0.2.7\nk\nb relay\nl\n c\nm\n"}, "a k OK http 192.0.2.7,b l OK relay, m INVALID_DOMAIN"},
		"addresses":            {[]string{"a http 2001:db8::7\nk\na http fe80::7\nk\na local 192.0.2.7\nk\n"}, "a k OK http 2001:db8::7,a k OK http fe80::7,a k OK 192.0.2.7"},
		"no domain but a way":  {[]string{" http 192.0.2.7\nk\n"}, " k NO_DOMAIN http 192.0.2.7"},
		"no such way":          {[]string{"a tcp\nk\na ftp\nk\na HTTP\nk\na \nk\n"}, " k INVALID_DOMAIN, k INVALID_DOMAIN, k INVALID_DOMAIN| k INVALID_DOMAIN"},
		"no address":           {[]string{"a http 192.0.2\nk\na http ::ffff:192.0.2.7%\nk\na http 2001:DB8::7\nk\n"}, " k INVALID_DOMAIN http, k INVALID_DOMAIN http, k INVALID_DOMAIN http"},
		"an interface":         {[]string{"a http fe80::7%a\nk\na http fe80::7 b\nk\na http \nk\n"}, " k INVALID_DOMAIN http, k INVALID_DOMAIN http, k INVALID_DOMAIN http"},
		"the longest of all":   {[]string{long[1:] + " relay ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\nk\n"}, long[1:] + " k OK relay ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"a long domain, a way": {[]string{long + " http 192.0.2.7\nk\n"}, " k INVALID_DOMAIN http 192.0.2.7"},
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
				text := r.Domain + " " + r.Key + " " + string(outcome.CodeOf(r.Err))
				if r.Way != outcome.Local {
					text += " " + r.Way.String()
				}
				if r.Remote.IsValid() {
					text += " " + r.Remote.String()
				}
				batch = append(batch, text)
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
	key := strings.Repeat("k", 43) + "="
	answers := []Answer{
		{},
		{Code: outcome.OK},
		{Code: outcome.Busy},
		{Code: outcome.OK, Gateway: &Gateway{netip.MustParseAddr("fe80::1"), 51820, key}},
		{Code: outcome.OK, Gateway: &Gateway{Key: key}},
	}
	answers[0].Code = outcome.Internal
	want := "ERR: INTERNAL\nOK\nERR: BUSY\nOK fe80::1 51820 " + key + "\nOK - 0 " + key + "\n"
	if err := NewPipe(s).Answer(answers...); err != nil || s.String() != want {
		t.Errorf("%q, %v", s.String(), err)
	}
	i := 0
	for line := range strings.Lines(want) {
		if a, err := ParseAnswer(line); err != nil || !reflect.DeepEqual(a, answers[i]) {
			t.Errorf("%q: %+v, %v", line, a, err)
		}
		i++
	}
	for _, line := range []string{"", "OK", "\n", "ok\n", "OK \n", "OK fe80::1 1\n", "OK fe80::1 65536 k\n", "OK x 1 k\n", "OK - 1 k k\n", "ERR: OK\n", "ERR: \n", "ERR: BUSY", "ERR: NONE\n", "BUSY\n"} {
		if a, err := ParseAnswer(line); err == nil {
			t.Errorf("%q is %+v", line, a)
		}
	}
}

// What is sent is read as what was to be said or, if that can be no line, refused.
func TestRequestLines(t *testing.T) {
	far := netip.MustParseAddr("2001:db8::7")
	for _, c := range []struct {
		send Request
		want string
	}{
		{Request{Domain: "a", Key: "k", Way: outcome.Local}, "a\nk\n"},
		{Request{Domain: "a", Key: "k", Way: outcome.Local, Remote: far}, "a\nk\n"},
		{Request{Domain: "a", Key: "k", Way: outcome.HTTP, Remote: far}, "a http 2001:db8::7\nk\n"},
		{Request{Domain: "a", Key: "k", Way: outcome.Relay}, "a relay\nk\n"},
		{Request{Way: outcome.HTTP, Remote: far}, " http 2001:db8::7\n\n"},
		{Request{Domain: "a b", Key: "k\nl", Way: outcome.HTTP}, "- http\n-\n"},
		{Request{Domain: strings.Repeat("a", MaxLine+1), Key: "ü", Way: outcome.HTTP}, "- http\n-\n"},
	} {
		if got := c.send.Lines(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.send, got, c.want)
		}
	}
}

// Whoever asks cannot ask more than one thing at a time, nor under another name.
func FuzzRequest(f *testing.F) {
	f.Add("d", "k", uint8(2), []byte{192, 0, 2, 7})
	f.Add("d http", "k\nd", uint8(3), make([]byte, 16))
	f.Fuzz(func(t *testing.T, domain, key string, way uint8, address []byte) {
		sent := Request{Domain: domain, Key: key, Way: outcome.Ways[1:][int(way)%(len(outcome.Ways)-1)]}
		sent.Remote, _ = netip.AddrFromSlice(address)
		got, err := NewPipe(&script{parts: []string{sent.Lines()}, end: io.EOF}).Next(10, time.Time{})
		if err != nil || len(got) != 1 || got[0].Way != sent.Way {
			t.Fatalf("%q is read as %+v, %v", sent.Lines(), got, err)
		}
		if r := got[0]; r.Err == nil && (r.Domain != domain && r.Domain != "-" || r.Key != key && r.Key != "-" ||
			sent.Way != outcome.Local && r.Remote != sent.Remote) {
			t.Errorf("%+v is read as %+v", sent, r)
		}
	})
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
