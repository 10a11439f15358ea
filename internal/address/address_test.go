package address

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/vectors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		key, err := ParseKey(f[0])
		if err != nil {
			t.Errorf("%s: %v", f[0], err)
			continue
		}
		if key.String() != f[0] {
			t.Errorf("%s: prints as %s", f[0], key)
		}
		for profile, want := range map[Profile]string{RFC4291: f[2], FFMUC: f[3]} {
			mac, addr := profile.Of(key)
			if mac.String() != f[1] || addr.String() != want {
				t.Errorf("%s %s: got %s %s, want %s %s", profile, key, mac, addr, f[1], want)
			}
			back, ok := profile.Derived(addr)
			if !ok || back != mac {
				t.Errorf("%s: %s came back as %s, %v", profile, addr, back, ok)
			}
		}
	}
	if lines < 13 {
		t.Errorf("only %d vectors", lines)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	const good = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="
	if _, err := ParseKey(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  string
		want error
	}{
		"empty":              {"", ErrKeyEncoding},
		"no padding":         {strings.TrimSuffix(good, "="), ErrKeyEncoding},
		"more padding":       {good + "=", ErrKeyEncoding},
		"33 bytes":           {base64.StdEncoding.EncodeToString(make([]byte, 33)), ErrKeyEncoding},
		"31 bytes":           {base64.StdEncoding.EncodeToString(make([]byte, 31)), ErrKeyEncoding},
		"unused bits set":    {"Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nB=", ErrKeyEncoding},
		"leading space":      {" " + good, ErrKeyEncoding},
		"trailing newline":   {good + "\n", ErrKeyEncoding},
		"newline inside":     {good[:10] + "\n" + good[10:], ErrKeyEncoding},
		"carriage return":    {good + "\r", ErrKeyEncoding},
		"NUL":                {good[:43] + "\x00", ErrKeyEncoding},
		"base64url alphabet": {"-F4syGoGzSmrvkr6CDh7RcVFvp0fcd99BOPDYov481o=", ErrKeyEncoding},
		"hexadecimal":        {strings.Repeat("0f", 32), ErrKeyEncoding},
		"shell":              {"$(reboot)", ErrKeyEncoding},
	} {
		if _, err := ParseKey(c.key); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// The x-coordinates of all points of low order on Curve25519 and its twist,
// with the second spellings above the field prime and with the unused top bit.
func TestParseKeyRefusesLowOrder(t *testing.T) {
	low := []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
	for _, h := range low {
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		for _, top := range []byte{0, 0x80} {
			point := append([]byte(nil), raw...)
			point[31] |= top
			if _, err := ParseKey(base64.StdEncoding.EncodeToString(point)); !errors.Is(err, ErrKeyLowOrder) {
				t.Errorf("%x: got %v, want %v", point, err, ErrKeyLowOrder)
			}
		}
	}
}

func TestDerivedRefuses(t *testing.T) {
	for _, c := range []struct {
		profile Profile
		addr    string
	}{
		{RFC4291, "fe80::2d0:d1ff:fed2:d3d4"}, // the other profile's
		{FFMUC, "fe80::d0:d1ff:fed2:d3d4"},
		{RFC4291, "fe80::d0:d1ff:ffd2:d3d4"}, // no ff:fe in the middle
		{RFC4291, "fe80:0:0:1:d0:d1ff:fed2:d3d4"},
		{RFC4291, "fd00::d0:d1ff:fed2:d3d4"},
		{RFC4291, "::ffff:10.0.0.1"},
		{RFC4291, "10.0.0.1"},
	} {
		if mac, ok := c.profile.Derived(netip.MustParseAddr(c.addr)); ok {
			t.Errorf("%s %s: taken for derived from %s", c.profile, c.addr, mac)
		}
	}
	if _, ok := RFC4291.Derived(netip.Addr{}); ok {
		t.Error("the zero address is taken for derived")
	}
}

func TestProfileText(t *testing.T) {
	for _, p := range []Profile{RFC4291, FFMUC} {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		back := Profile(99)
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%s came back as %d, %v", p, back, err)
		}
	}
	var p Profile
	if err := p.UnmarshalText([]byte("RFC4291")); err == nil {
		t.Error("an unknown profile was accepted")
	}
}

// What ParseKey accepts has one spelling, and its addresses lead back to it.
func FuzzParseKey(f *testing.F) {
	f.Add("Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA=")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nB=")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := ParseKey(s)
		if err != nil {
			if key != (Key{}) {
				t.Errorf("%q: an error and a key", s)
			}
			return
		}
		if key.String() != s {
			t.Errorf("%q prints as %q", s, key)
		}
		for _, p := range []Profile{RFC4291, FFMUC} {
			mac, addr := p.Of(key)
			if back, ok := p.Derived(addr); !ok || back != mac {
				t.Errorf("%q: %s came back as %s, %v", s, addr, back, ok)
			}
		}
	})
}
