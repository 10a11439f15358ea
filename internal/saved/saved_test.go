package saved

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

func key(n int) address.Key { return address.Key{0: 9, 29: byte(n >> 8), 30: byte(n)} }

func sample(n int) File {
	f := File{
		Domain: "ffww01", Addresses: address.FFMUC, Saved: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC),
		BootID: "5f1b7c0e8c3f4c9d8a2f6f0b1d2e3a4b", SinceBoot: 24 * time.Hour,
	}
	for i := range n {
		f.Peers = append(f.Peers, policy.Saved{Key: key(i), Pending: i%3 == 0, Silent: time.Duration(i) * time.Second})
	}
	return f
}

// The form is one that people read and that other versions have written.
func TestText(t *testing.T) {
	f := sample(2)
	slices.Reverse(f.Peers)
	want := `# Managed peers as wgkex saved them, for wgkex-restore(8).
wgkex-peers 1
domain ffww01
addresses ffmuc
saved 2026-11-27T08:00:00Z
boot 5f1b7c0e8c3f4c9d8a2f6f0b1d2e3a4b
uptime 86400
peers 2
checksum CHECKSUM
CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= registered 2026-11-27T08:00:00Z
CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQA= handshake 2026-11-27T07:59:59Z
`
	got := string(f.Text())
	_, sum, _ := strings.Cut(got, "checksum ")
	if want = strings.Replace(want, "CHECKSUM", sum[:8], 1); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 500} {
		want := sample(n)
		got, err := Parse(bytes.NewReader(want.Text()))
		if err != nil || got.Damage != nil {
			t.Fatalf("%d peers: %v, %v", n, err, got.Damage)
		}
		if !slices.Equal(got.Peers, want.Peers) {
			t.Errorf("%d peers came back as %v", n, got.Peers)
		}
		got.Peers, want.Peers = nil, nil
		if got.Domain != want.Domain || got.Addresses != want.Addresses || !got.Saved.Equal(want.Saved) || got.BootID != want.BootID || got.SinceBoot != want.SinceBoot {
			t.Errorf("%+v came back as %+v", want, got)
		}
	}
}

// Cut anywhere, a file gives the peers of its whole lines, and says so.
// The header alone tells of the file, as it was written.
func TestSummary(t *testing.T) {
	f := sample(3)
	text := f.Text()
	for _, text := range [][]byte{text, text[:len(text)-1]} {
		if at, peers, err := Summary(bytes.NewReader(text)); !at.Equal(f.Saved) || peers != 3 || err != nil {
			t.Errorf("got %s, %d, %v", at, peers, err)
		}
	}
	if _, _, err := Summary(strings.NewReader("x\n")); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}

func TestCut(t *testing.T) {
	f := sample(5)
	text := f.Text()
	head := bytes.Index(text, []byte(key(0).String()))
	for n := range text {
		got, err := Parse(bytes.NewReader(text[:n]))
		if n < head {
			if !errors.Is(err, ErrForeign) {
				t.Errorf("cut after %d bytes: %v", n, err)
			}
			continue
		}
		if whole := bytes.Count(text[head:n], []byte("\n")); err != nil || got.Damage == nil || !slices.Equal(got.Peers, f.Peers[:whole]) {
			t.Errorf("cut after %d bytes: %d peers, %v, %v", n, len(got.Peers), got.Damage, err)
		}
	}
}

// No byte can change unnoticed.
func TestChanged(t *testing.T) {
	text := sample(3).Text()
	for i := range text {
		changed := bytes.Clone(text)
		changed[i] ^= 1
		if got, err := Parse(bytes.NewReader(changed)); err == nil && got.Damage == nil {
			t.Errorf("byte %d is %q", i, changed[i])
		}
	}
}

func TestHostile(t *testing.T) {
	text := string(sample(2).Text())
	line := key(7).String() + " handshake 2026-11-27T07:59:59Z\n"
	for what, c := range map[string]struct {
		text  string
		peers int // of those that can be read, -1 for an error
	}{
		"nothing":               {"", -1},
		"another version":       {strings.Replace(text, "wgkex-peers 1", "wgkex-peers 2", 1), -1},
		"another profile":       {strings.Replace(text, "ffmuc", "mine", 1), -1},
		"no number":             {strings.Replace(text, "peers 2\n", "peers -2\n", 1), -1},
		"too large a number":    {strings.Replace(text, "peers 2\n", "peers 99999999999999999999\n", 1), -1},
		"a line before":         {"\n" + text, -1},
		"fields in other order": {strings.Replace(text, "domain ffww01\naddresses ffmuc", "addresses ffmuc\ndomain ffww01", 1), -1},
		"more than it says":     {text + line, 3},
		"a key twice":           {text + line + line, 4},
		"escapes":               {text + "\x1b[2J\x1b]0;x\x07\n", 2},
		"NULs":                  {text + strings.Repeat("\x00", 100000), 2},
		"a long line":           {text + strings.Repeat("x", 100000) + "\n" + line, 3},
		"more fields":           {text + strings.TrimSuffix(line, "\n") + " x\n", 2},
		"two spaces":            {text + strings.Replace(line, " ", "  ", 1), 2},
		"another word":          {text + strings.Replace(line, "handshake", "static", 1), 2},
		"no time":               {text + strings.Replace(line, "2026-11", "2026-13", 1), 2},
		"no key":                {text + "A" + line, 2},
		"a low-order key":       {text + address.Key{}.String() + " handshake 2026-11-27T07:59:59Z\n", 2},
		"a carriage return":     {strings.ReplaceAll(text, "\n", "\r\n"), -1},
	} {
		got, err := Parse(strings.NewReader(c.text))
		switch {
		case c.peers < 0 && !errors.Is(err, ErrForeign):
			t.Errorf("%s: %v", what, err)
		case c.peers >= 0 && (err != nil || got.Damage == nil || len(got.Peers) != c.peers):
			t.Errorf("%s: %d peers, damage %v, %v", what, len(got.Peers), got.Damage, err)
		}
	}
	if _, err := Parse(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a file that cannot be read: %v", err)
	}
	many := strings.NewReader(text + strings.Repeat(line, maxPeers))
	if got, err := Parse(many); err != nil || got.Damage == nil || len(got.Peers) != maxPeers {
		t.Errorf("more than a million: %d, %v, %v", len(got.Peers), got.Damage, err)
	}
}

// A handshake after the time of the file is one before the clock was set.
func TestFuture(t *testing.T) {
	text := strings.ReplaceAll(string(sample(2).Text()), "07:59:59", "09:59:59")
	if got, err := Parse(strings.NewReader(text)); err != nil || got.Peers[1].Silent != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestElapsed(t *testing.T) {
	f := sample(0)
	for _, c := range []struct {
		boot      string
		sinceBoot time.Duration
		want      time.Duration
	}{
		{f.BootID, f.SinceBoot + time.Minute, time.Minute},
		{f.BootID, f.SinceBoot - time.Minute, 0}, // nobody has seen that
		{"another", 3 * time.Minute, time.Minute},
		{"another", time.Minute, 0},
	} {
		if got := f.Elapsed(c.boot, 2*time.Minute, c.sinceBoot); got != c.want {
			t.Errorf("%s after %s: %s, want %s", c.boot, c.sinceBoot, got, c.want)
		}
	}
}

// Whatever the file holds, what was read of it is read again from what it is
// written as.
func FuzzParse(f *testing.F) {
	f.Add(sample(3).Text())
	f.Add([]byte(comment + "wgkex-peers 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := Parse(bytes.NewReader(file.Text()))
		if err != nil || again.Damage != nil || len(again.Peers) != len(file.Peers) {
			t.Errorf("%+v came back as %+v, %v", file, again, err)
		}
	})
}
