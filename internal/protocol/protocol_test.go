package protocol

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"wgkex/internal/outcome"
)

// fakeConn serves a Reader what in holds, then end.
type fakeConn struct {
	in       io.Reader
	out      bytes.Buffer
	deadline time.Time
	halfshut bool
	writeErr error
}

func (c *fakeConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *fakeConn) Write(p []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	return c.out.Write(p)
}
func (c *fakeConn) SetReadDeadline(t time.Time) error { c.deadline = t; return nil }
func (c *fakeConn) SetWriteDeadline(time.Time) error  { return nil }
func (c *fakeConn) CloseWrite() error                 { c.halfshut = true; return nil }

func conn(in string, end error) *fakeConn {
	return &fakeConn{in: io.MultiReader(strings.NewReader(in), iotest.ErrReader(end))}
}

const key = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="

func TestRead(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for name, c := range map[string]struct {
		in         string
		end        error
		domain     string
		key        string
		domainCode outcome.Code
		keyCode    outcome.Code
	}{
		"two lines":                       {in: "ffww01\n" + key + "\n", end: io.EOF, domain: "ffww01", key: key},
		"CRLF":                            {in: "ffww01\r\n" + key + "\r\n", end: io.EOF, domain: "ffww01", key: key},
		"no last newline":                 {in: "ffww01\n" + key, end: io.EOF, domain: "ffww01", key: key},
		"a third line":                    {in: "ffww01\n" + key + "\nmore\n", end: io.EOF, domain: "ffww01", key: key},
		"one CR only is dropped":          {in: "ffww01\r\r\n" + key + "\r\r\n", end: io.EOF, domain: "ffww01\r", key: key + "\r"},
		"CR is kept without LF":           {in: "ffww01\n" + key + "\r", end: io.EOF, domain: "ffww01", key: key + "\r"},
		"NUL and 8 bit":                   {in: "f\x00f\n\xff\xfe\n", end: io.EOF, domain: "f\x00f", key: "\xff\xfe"},
		"64 bytes":                        {in: long + "\n" + long + "\n", end: io.EOF, domain: long, key: long},
		"64 bytes and CRLF":               {in: long + "\r\n" + long + "\r\n", end: io.EOF, domain: long, key: long},
		"64 bytes at EOF":                 {in: "d\n" + long, end: io.EOF, domain: "d", key: long},
		"nothing":                         {end: io.EOF, domainCode: outcome.NoDomain},
		"empty domain":                    {in: "\n" + key + "\n", end: io.EOF, domainCode: outcome.NoDomain},
		"empty domain CRLF":               {in: "\r\n" + key + "\n", end: io.EOF, domainCode: outcome.NoDomain},
		"silence":                         {end: os.ErrDeadlineExceeded, domainCode: outcome.NoDomain},
		"silence within the domain":       {in: "ffww", end: os.ErrDeadlineExceeded, domainCode: outcome.NoDomain},
		"reset":                           {end: syscall.ECONNRESET, domainCode: outcome.NoDomain},
		"domain of 65":                    {in: long + "x\n", end: io.EOF, domainCode: outcome.InvalidDomain},
		"domain of 65, no newline":        {in: long + "x", end: os.ErrDeadlineExceeded, domainCode: outcome.InvalidDomain},
		"domain of 64, CR, EOF":           {in: long + "\r", end: io.EOF, domainCode: outcome.InvalidDomain},
		"domain of 64, CR, not LF":        {in: long + "\rx\n", end: io.EOF, domainCode: outcome.InvalidDomain},
		"domain of 4096":                  {in: strings.Repeat("x", 4096) + "\n", end: io.EOF, domainCode: outcome.InvalidDomain},
		"endless domain":                  {in: strings.Repeat("x", 1<<20), end: os.ErrDeadlineExceeded, domainCode: outcome.InvalidDomain},
		"EOF after the domain":            {in: "ffww01", end: io.EOF, domain: "ffww01", keyCode: outcome.NoKey},
		"EOF after the domain's LF":       {in: "ffww01\n", end: io.EOF, domain: "ffww01", keyCode: outcome.NoKey},
		"empty key":                       {in: "ffww01\n\n", end: io.EOF, domain: "ffww01", keyCode: outcome.NoKey},
		"silence after the domain":        {in: "ffww01\n", end: os.ErrDeadlineExceeded, domain: "ffww01", keyCode: outcome.NoKey},
		"silence within the key":          {in: "ffww01\nDw6z", end: os.ErrDeadlineExceeded, domain: "ffww01", keyCode: outcome.NoKey},
		"reset within the key":            {in: "ffww01\nDw6z", end: syscall.ECONNRESET, domain: "ffww01", keyCode: outcome.NoKey},
		"key of 65":                       {in: "ffww01\n" + long + "x\n", end: io.EOF, domain: "ffww01", keyCode: outcome.InvalidKey},
		"key of 4096":                     {in: "ffww01\n" + strings.Repeat("x", 4096), end: io.EOF, domain: "ffww01", keyCode: outcome.InvalidKey},
		"key of 64, CR, then silence":     {in: "ffww01\n" + long + "\r", end: os.ErrDeadlineExceeded, domain: "ffww01", keyCode: outcome.NoKey},
		"key of 64, CR, and the rest EOF": {in: "ffww01\n" + long + "\r", end: io.EOF, domain: "ffww01", keyCode: outcome.InvalidKey},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"whole":       func(r io.Reader) io.Reader { return r },
			"byte a time": iotest.OneByteReader,
			"error early": iotest.DataErrReader,
		} {
			fake := conn(c.in, c.end)
			fake.in = wrap(fake.in)
			r := NewReader(fake)
			domain, err := r.Domain()
			if c.domainCode != "" {
				if outcome.CodeOf(err) != c.domainCode {
					t.Errorf("%s, %s: domain %q, %v, want %s", name, how, domain, err, c.domainCode)
				}
				continue
			}
			if err != nil || domain != c.domain {
				t.Errorf("%s, %s: domain %q, %v, want %q", name, how, domain, err, c.domain)
				continue
			}
			key, err := r.Key()
			if c.keyCode != "" {
				if outcome.CodeOf(err) != c.keyCode {
					t.Errorf("%s, %s: key %q, %v, want %s", name, how, key, err, c.keyCode)
				}
				continue
			}
			if err != nil || key != c.key {
				t.Errorf("%s, %s: key %q, %v, want %q", name, how, key, err, c.key)
			}
		}
	}
}

func TestEachLineHasItsOwnDeadline(t *testing.T) {
	fake := conn("d\nk\n", io.EOF)
	r := NewReader(fake)
	for _, line := range []func() (string, error){r.Domain, r.Key} {
		fake.deadline = time.Time{}
		if _, err := line(); err != nil {
			t.Fatal(err)
		}
		if fake.deadline.IsZero() {
			t.Error("a line was read without a deadline of its own")
		}
	}
}

func TestFinish(t *testing.T) {
	for _, c := range []struct {
		code  outcome.Code
		sayOK bool
		want  string
	}{
		{outcome.OK, false, ""},
		{outcome.OK, true, "OK\n"},
		{outcome.Busy, false, "ERR: BUSY\n"},
		{outcome.Busy, true, "ERR: BUSY\n"},
	} {
		fake := conn(strings.Repeat("z", 2*maxDrain), io.EOF)
		if err := Finish(fake, c.code, c.sayOK); err != nil {
			t.Errorf("%s: %v", c.code, err)
		}
		if got := fake.out.String(); got != c.want || !fake.halfshut {
			t.Errorf("%s, sayOK %v: wrote %q, half-closed %v", c.code, c.sayOK, got, fake.halfshut)
		}
		if rest, _ := io.ReadAll(fake.in); len(rest) != maxDrain {
			t.Errorf("%s: drained all but %d bytes, want all but %d", c.code, len(rest), maxDrain)
		}
	}
	fake := conn("", io.EOF)
	fake.writeErr = syscall.EPIPE
	if err := Finish(fake, outcome.Busy, false); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a failed write: %v", err)
	}
}

// However the bytes arrive, the lines are the same, no longer than allowed and
// without their ends, and every refusal carries a code of its own line.
func FuzzReader(f *testing.F) {
	f.Add("ffww01\n"+key+"\n", true)
	f.Add("ffww01\r\n"+key, false)
	f.Add(strings.Repeat("x", MaxLine)+"\r\n\r\n", true)
	f.Add(strings.Repeat("x", MaxLine+1), false)
	f.Fuzz(func(t *testing.T, in string, eof bool) {
		end := io.EOF
		if !eof {
			end = os.ErrDeadlineExceeded
		}
		read := func(c *fakeConn) (domain, key string, code outcome.Code) {
			r := NewReader(c)
			domain, err := r.Domain()
			if err == nil {
				key, err = r.Key()
			}
			return domain, key, outcome.CodeOf(err)
		}
		slow := conn(in, end)
		slow.in = iotest.OneByteReader(slow.in)
		domain, key, code := read(conn(in, end))
		if d, k, c := read(slow); d != domain || k != key || c != code {
			t.Errorf("%q: %q %q %s at once, %q %q %s byte by byte", in, domain, key, code, d, k, c)
		}
		switch code {
		case outcome.OK, outcome.NoDomain, outcome.InvalidDomain, outcome.NoKey, outcome.InvalidKey:
		default:
			t.Errorf("%q: %s", in, code)
		}
		for _, line := range []string{domain, key} {
			if len(line) > MaxLine || strings.Contains(line, "\n") {
				t.Errorf("%q: a line of %q", in, line)
			}
		}
	})
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"ffww01": true, "gw04.in.ffmuc.net": true, "_a-B": true, strings.Repeat("a", MaxLine): true,
		"": false, ".": false, "..": false, "-a": false, "a/b": false, "a+": false, "#": false, "a b": false, "\u00e4": false, "a\x00": false, strings.Repeat("a", MaxLine+1): false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
