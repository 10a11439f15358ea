package address

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDeriveLines(t *testing.T) {
	const (
		key  = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="
		line = key + "\t02:c4:27:40:6e:a1\tfe80::c4:27ff:fe40:6ea1\n"
		bad  = ` is not the canonical base64 of 32 bytes`
	)
	for _, c := range []struct{ keys, out, err string }{
		{key + "\n", line, ""},
		{key, line, ""},
		{key + "\n" + key + "\n", line + line, ""},
		{"", "", "no key to derive from"},
		{"\n", "", `key 1: ""` + bad},
		{"x\n" + key + "\n\x1b\n", line, `key 1: "x"` + bad + "\n" + `key 3: "\x1b"` + bad},
	} {
		var out strings.Builder
		got := ""
		if err := RFC4291.DeriveLines(strings.NewReader(c.keys), &out); err != nil {
			got = err.Error()
		}
		if out.String() != c.out || got != c.err {
			t.Errorf("%q: got %q, %q, want %q, %q", c.keys, out.String(), got, c.out, c.err)
		}
	}
	if err := RFC4291.DeriveLines(iotest.ErrReader(os.ErrClosed), new(strings.Builder)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("keys that cannot be read: %v", err)
	}
}
