package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
)

const (
	keyA = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="
	keyB = "QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU="
)

// write makes a configuration directory of files by name.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const domain1 = "[domains.ffww01]\nwireguard = 'wgww01'\nvxlan = 'vxww01'\n"

func TestLoad(t *testing.T) {
	dir := write(t, map[string]string{
		"wgkex.toml": "listen = 10012\nprohibited_keys = ['" + keyA + "']\n" + domain1 + "listen = 10013\nstale_after = '2h'\n",
		"conf.d/10.toml": `
prohibited_keys = ["` + keyB + `"]
domains.ffww02 = { wireguard = "wgww02", vxlan = "vxww02", addresses = "ffmuc" }
`,
		"conf.d/20.toml":    "reply = 'ok'\n[domains.ffww01]\nmax_peers = 5\n[domains.ffww02]\nmax_pending = 7\n",
		"conf.d/30.toml.no": "this is not read",
		"conf.d/.40.toml":   "nor is this",
	})
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := address.ParseKey(keyA)
	b, _ := address.ParseKey(keyB)
	want := Config{
		Listen: 10012, ReplyOK: true, ProhibitedKeys: []address.Key{a, b},
		Domains: map[string]Domain{
			"ffww01": {Name: "ffww01", WireGuard: "wgww01", VXLAN: "vxww01", Listen: 10013, MaxPeers: 5, MaxPending: 1000, StaleAfter: 2 * time.Hour},
			"ffww02": {Name: "ffww02", WireGuard: "wgww02", VXLAN: "vxww02", Addresses: address.FFMUC, MaxPeers: 10000, MaxPending: 7, StaleAfter: time.Hour},
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if !c.Prohibited(b) || c.Prohibited(address.Key{1}) {
		t.Error("Prohibited is wrong")
	}
	if s := c.Sorted(); len(s) != 2 || s[0].Name != "ffww01" || s[1].Name != "ffww02" {
		t.Errorf("Sorted: %v", s)
	}

	// What the generator writes is the same.
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "effective.toml")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if back, err := loadEffective(path); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("back  %+v, %v\nfrom\n%s", back, err, text)
	}
}

func TestLoadNothing(t *testing.T) {
	for name, dir := range map[string]string{"empty": write(t, map[string]string{"wgkex.toml": ""}), "missing": t.TempDir()} {
		c, err := Load(dir)
		if err != nil || c.Listen != 0 || len(c.Domains) != 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if _, err := loadEffective(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no effective configuration: %v", err)
	}
}

func TestServes(t *testing.T) {
	domains := map[string]Domain{"own": {Listen: 10013}, "other": {Listen: 10014}, "shared": {}}
	for _, x := range []struct {
		shared uint16
		domain string
		port   uint16
		want   bool
	}{
		{10012, "own", 10012, true},
		{10012, "own", 10013, true},
		{10012, "own", 10014, false},
		{10012, "shared", 10012, true},
		{10012, "shared", 10013, false},
		{10012, "shared", 0, false},
		{10012, "none", 10012, false},
		{0, "shared", 0, false},
		{0, "own", 10012, false},
		{0, "own", 10013, true},
	} {
		c := Config{Listen: x.shared, Domains: domains}
		if got := c.Serves(x.port, x.domain); got != x.want {
			t.Errorf("port %d, shared %d, domain %s: %v", x.port, x.shared, x.domain, got)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for name, c := range map[string]struct {
		main, extra string
		want        []string // each at the start of a line of the error, DIR/ left out
	}{
		"syntax":             {main: "listen = 1\nlisten ==", want: []string{"wgkex.toml:2: "}},
		"unknown key":        {main: "listen = 1\nlissten = 2\n", want: []string{"wgkex.toml:2: unknown key lissten"}},
		"unknown domain key": {main: domain1 + "max_peer = 1\n[nonsense]\n", want: []string{"wgkex.toml:4: unknown key domains.ffww01.max_peer", "wgkex.toml:5: unknown key nonsense"}},
		"wrong type":         {main: "\nlisten = '10012'", want: []string{"wgkex.toml:2: "}},
		"huge number":        {main: "listen = 99999999999999999999", want: []string{"wgkex.toml:1: "}},
		"key twice":          {main: "listen = 1\nlisten = 2", want: []string{"wgkex.toml:2: "}},
		"port 0":             {main: "listen = 0", want: []string{"wgkex.toml:1: 0 is no TCP port"}},
		"port 65536":         {main: domain1 + "listen = 65536", want: []string{"wgkex.toml:4: 65536 is no TCP port"}},
		"reply":              {main: "reply = 'OK'", want: []string{`wgkex.toml:1: reply is "OK"`}},
		"prohibited key":     {main: "prohibited_keys = [\n'" + keyA + "',\n'x']", want: []string{`wgkex.toml:3: prohibited key "x"`}},
		"same port":          {main: domain1 + "listen = 5", extra: "listen = 6\n[domains.b]\nlisten = 5\nwireguard = 'a'\nvxlan='b'", want: []string{"conf.d/10.toml:3: port 5 of domain b is already taken by domains.ffww01.listen"}},
		"the shared port":    {main: "listen = 5\n" + domain1 + "listen = 5", want: []string{"wgkex.toml:5: port 5 of domain ffww01 is already taken by listen"}},
		"interface of two":   {main: domain1, extra: "[domains.b]\nwireguard = 'wgww01'\nvxlan='b'", want: []string{"conf.d/10.toml:2: interface wgww01 of domain b is already used by domains.ffww01.wireguard"}},
		"interface as both":  {main: "[domains.a]\nwireguard = 'x'\nvxlan = 'x'", want: []string{"wgkex.toml:3: interface x of domain a is already used by domains.a.wireguard"}},
		"no interfaces":      {main: "\n[domains.a]\n", want: []string{"wgkex.toml:2: domain a has no wireguard interface: set domains.a.wireguard", "wgkex.toml:2: domain a has no vxlan interface"}},
		"long interface":     {main: "domains.a.wireguard = '1234567890123456'\ndomains.a.vxlan = 'v'", want: []string{`wgkex.toml:1: "1234567890123456" is no interface name`}},
		"interface a/b":      {main: "domains.a.wireguard = 'a/b'\ndomains.a.vxlan = '..'", want: []string{`wgkex.toml:1: "a/b" is no`, `wgkex.toml:2: ".." is no`}},
		"interface empty":    {main: "domains.a.wireguard = ''\ndomains.a.vxlan = 'a b'", want: []string{`wgkex.toml:1: "" is no`, `wgkex.toml:2: "a b" is no`}},
		"interface escaped":  {main: "domains.a.wireguard = \"a\\u0000\"\ndomains.a.vxlan = 'b'", want: []string{`wgkex.toml:1: "a\x00" is no`}},
		"domain name":        {main: "[domains.'a/b']\nwireguard='a'\nvxlan='b'\n[domains.\"\\n\"]\nwireguard='c'\nvxlan='d'", want: []string{`wgkex.toml:1: domain name "a/b"`, `wgkex.toml:4: domain name "\n"`}},
		"dotted, inline":     {main: "\n\ndomains.a = {wireguard = 'w', vxlan = 'v',\nmax_peers = 0}", want: []string{"wgkex.toml:4: 0 is out of range"}},
		"addresses":          {main: domain1 + "addresses = 'eui64'", want: []string{`wgkex.toml:4: unknown address profile "eui64"`}},
		"stale_after":        {main: domain1 + "stale_after = '1 hour'", want: []string{`wgkex.toml:4: stale_after is "1 hour"`}},
		"stale_after short":  {main: domain1 + "stale_after = '179s'", want: []string{"wgkex.toml:4: stale_after is 2m59s"}},
		"stale_after number": {main: domain1 + "stale_after = 3600", want: []string{"wgkex.toml:4: "}},
		"max_pending":        {main: domain1 + "max_pending = -1", want: []string{"wgkex.toml:4: -1 is out of range"}},
		"all at once":        {main: "listen = 0\nreply = 1", extra: "x = 1", want: []string{"wgkex.toml:2: ", "conf.d/10.toml:1: unknown key x"}},
		"the later one":      {main: domain1 + "max_peers = 5", extra: "[domains.ffww01]\n\nmax_peers = 0", want: []string{"conf.d/10.toml:3: 0 is"}},
	} {
		dir := write(t, map[string]string{"wgkex.toml": c.main, "conf.d/10.toml": c.extra})
		_, err := Load(dir)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		lines := strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%s: %d errors, want %d:\n%v", name, len(lines), len(c.want), err)
		}
		for i, want := range c.want {
			if i < len(lines) && !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: got %q, want %q", name, lines[i], want)
			}
		}
	}
}

// Whatever a file holds, reading it ends, in a configuration that reads back
// as itself or in errors that name the file.
func FuzzLoad(f *testing.F) {
	f.Add(domain1 + "listen = 10013\nstale_after = '2h'\naddresses = 'ffmuc'\n")
	f.Add("listen = 10012\nreply = 'ok'\nprohibited_keys = ['" + keyA + "']\n")
	f.Add("domains.a = { wireguard = \"w\", vxlan = \"v\" }")
	f.Add("prohibited_keys = [ 'x', # c\n \"\\u0041\" ]\n[domains.\"a\\n\"]\n[[domains.b]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "fuzz.toml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := loadEffective(path)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, path) {
					t.Errorf("%q: an error without the file: %s", text, line)
				}
			}
			return
		}
		out, err := c.TOML()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
		back, err := loadEffective(path)
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%q: %+v came back as %+v, %v", text, c, back, err)
		}
	})
}
