package address

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Each file has a column with the addresses of each of its profiles.
func TestVectors(t *testing.T) {
	for file, profiles := range map[string][]Profile{
		"testdata/vectors.tsv":       {RFC4291, FFMUC},
		"testdata/vectors-gluon.tsv": {Gluon},
	} {
		data, err := os.ReadFile(file)
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
			for i, profile := range profiles {
				mac, addr := profile.Of(key)
				if mac.String() != f[1] || addr.String() != f[2+i] {
					t.Errorf("%s %s: got %s %s, want %s %s", profile, key, mac, addr, f[1], f[2+i])
				}
				back, ok := profile.Derived(addr)
				if !ok || back != mac {
					t.Errorf("%s: %s came back as %s, %v", profile, addr, back, ok)
				}
			}
		}
		if lines != 13 {
			t.Errorf("%s: %d vectors", file, lines)
		}
	}
}

// What docs/protocol.md gives those who write clients, its shell function and
// its tables, is right.
func TestDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin = "```sh\n# derive KEY PROFILE"
	_, script, found := strings.Cut(string(data), begin)
	script, _, closed := strings.Cut(script, "```")
	if !found || !closed {
		t.Fatalf("no %q", begin)
	}
	tables := 0
	for line := range strings.Lines(string(data)) {
		cells := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("| `\n", r) })
		if len(cells) < 3 {
			continue
		}
		key, err := ParseKey(cells[0])
		if err != nil {
			continue
		}
		profiles := map[int][]Profile{3: {Gluon}, 4: {RFC4291, FFMUC}}[len(cells)]
		for i, p := range profiles {
			tables++
			mac, addr := p.Of(key)
			if cells[1] != mac.String() || cells[2+i] != addr.String() {
				t.Errorf("%s: %s, want %s %s", p, line, mac, addr)
			}
			out, err := exec.Command("sh", "-c", "#"+script+"derive "+key.String()+" "+p.String()+"; echo $mac $address").CombinedOutput()
			back, parseErr := netip.ParseAddr(strings.TrimPrefix(strings.TrimSpace(string(out)), mac.String()+" "))
			if err != nil || parseErr != nil || back != addr {
				t.Errorf("%s: the shell function prints %q, %v, want %s %s", p, out, err, mac, addr)
			}
		}
	}
	if tables != 3*len(Profiles) {
		t.Errorf("%d vectors", tables)
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

// oracle reports whether k is of low order, by multiplying it: the result is
// zero for exactly these points, since clamping makes every private key a
// multiple of the cofactor 8 (RFC 7748 sections 5 and 6.1).
func oracle(t *testing.T, k Key) bool {
	t.Helper()
	private, err := ecdh.X25519().NewPrivateKey(append([]byte{1}, make([]byte, KeySize-1)...))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		t.Fatal(err)
	}
	_, err = private.ECDH(public) // its one error is the zero result
	return err != nil
}

// number makes a key of a number, of which there is room for 256 bits.
func number(n *big.Int) (k Key) {
	n.FillBytes(k[:])
	slices.Reverse(k[:])
	return k
}

// All numbers that decoding takes for a point of low order: the ones in the
// table, the ones that are the same modulo the prime, and all of these with the
// top bit, which decoding ignores.
func TestParseKeyRefusesLowOrder(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	low := map[Key]error{}
	for _, k := range lowOrder {
		low[k] = ErrKeyLowOrder
		reversed := k
		slices.Reverse(reversed[:])
		second := new(big.Int).Add(new(big.Int).SetBytes(reversed[:]), p)
		if second.BitLen() <= 255 {
			low[number(second)] = ErrKeyRange
		}
	}
	for k := range maps.Clone(low) {
		k[31] |= 0x80
		low[k] = ErrKeyRange
	}
	if len(low) != 14 {
		t.Errorf("%d spellings of 7 numbers", len(low))
	}
	for k, want := range low {
		if !oracle(t, k) {
			t.Errorf("%x is not of low order", k)
		}
		if _, err := ParseKey(k.String()); !errors.Is(err, want) {
			t.Errorf("%x: got %v, want %v", k, err, want)
		}
		// One bit beside, nothing is of low order but what is in the table.
		for bit := range 8 * KeySize {
			near := k
			near[bit/8] ^= 1 << (bit % 8)
			if _, listed := low[near]; oracle(t, near) != listed {
				t.Errorf("%x is not in the table", near)
			}
		}
	}
}

// All numbers from the prime on that have 255 bits, and the ends of those that
// have 256.
func TestParseKeyRefusesOutOfRange(t *testing.T) {
	top := new(big.Int).Lsh(big.NewInt(1), 255)
	for d := int64(-40); d <= 40; d++ {
		n := new(big.Int).Add(top, big.NewInt(d))
		_, err := ParseKey(number(n).String())
		if d >= -19 && !errors.Is(err, ErrKeyRange) {
			t.Errorf("2^255%+d: got %v, want %v", d, err, ErrKeyRange)
		}
		if d < -20 && err != nil { // -20 is of low order
			t.Errorf("2^255%+d: %v", d, err)
		}
	}
	all := Key(bytes.Repeat([]byte{0xff}, KeySize))
	for i := range KeySize {
		for _, k := range []Key{{0: 9, 31: 0x80}, all} {
			k[i] ^= 1
			k[31] |= 0x80
			if _, err := ParseKey(k.String()); !errors.Is(err, ErrKeyRange) {
				t.Errorf("%x: got %v, want %v", k, err, ErrKeyRange)
			}
			// Read back, as the key of a peer that an admin has added, it is taken.
			var back Key
			if err := back.UnmarshalText([]byte(k.String())); err != nil || back != k {
				t.Errorf("%x came back as %x, %v", k, back, err)
			}
		}
	}
}

// Of what is in range nothing is refused that is not of low order, and what
// WireGuard computes from a private key is in range.
func TestParseKeyAccepts(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	for range randomKeys {
		var k Key
		random.Read(k[:])
		_, err := ParseKey(k.String())
		want := error(nil)
		if k[31]&0x80 != 0 {
			want = ErrKeyRange
		} else if oracle(t, k) {
			want = ErrKeyLowOrder
		}
		if !errors.Is(err, want) {
			t.Errorf("%x: got %v, want %v", k, err, want)
		}
		private, err := ecdh.X25519().NewPrivateKey(k[:])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseKey(Key(private.PublicKey().Bytes()).String()); err != nil {
			t.Errorf("the public key of %x: %v", k, err)
		}
	}
}

// randomKeys is what a test has time for. A million take two minutes.
const randomKeys = 20000

func TestDerivedRefuses(t *testing.T) {
	for _, c := range []struct {
		profile Profile
		addr    string
	}{
		{RFC4291, "fe80::2d0:d1ff:fed2:d3d4"}, // the other profile's
		{FFMUC, "fe80::d0:d1ff:fed2:d3d4"},
		{Gluon, "fe80::d0:d1ff:fed2:d3d4"},
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
	if len(Profiles) != len(profileNames) {
		t.Errorf("Profiles has %d of %d", len(Profiles), len(profileNames))
	}
	for _, p := range Profiles {
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
	const want = `unknown address profile "RFC4291": must be one of rfc4291, ffmuc, gluon`
	if err := p.UnmarshalText([]byte("RFC4291")); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
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
		if oracle(t, key) {
			t.Errorf("%q is of low order", s)
		}
		for _, p := range Profiles {
			mac, addr := p.Of(key)
			if back, ok := p.Derived(addr); !ok || back != mac {
				t.Errorf("%q: %s came back as %s, %v", s, addr, back, ok)
			}
		}
	})
}
