package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
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
domains.ffww02 = { wireguard = "wgww02", vxlan = "vxww02", addresses = "ffmuc", listen = "[fe80::1]:10014%eth0" }
`,
		"conf.d/20.toml": "\xef\xbb\xbfreply = 'ok'\n[domains.ffww01]\nmax_peers = 5\n[domains.ffww02]\nmax_pending = 7\nstale_after = '1d12h'\n",
		"conf.d/25.toml": `
			http = { listen = [80, "[fe80::1%wgww02]:81"], socket = "/run/wgkex/http.sock", trusted_proxies = ["::1", "10.1.2.3/8"], default_domain = "ffww02" }
			gateway = { name = "gw01", address = "gw01.example.org" }
			mqtt = { url = "mqtts://broker.example.org", username = "gw01", password_file = "/etc/wgkex/mqtt.password", ca_file = "/etc/ssl/certs/ca-certificates.crt" }
			gateways = { gw01 = 30, "gw02.example.org" = 0 }
		`,
		"conf.d/26.toml":    "mqtt.certificate_file = '/etc/wgkex/gw01.pem'\nmqtt.key_file = '/etc/wgkex/gw01.key'\ngateways.gw03 = 1000000",
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
		Listen: Listen{Port: 10012}, ReplyOK: true, ProhibitedKeys: []address.Key{a, b},
		Domains: map[string]Domain{
			"ffww01": {Name: "ffww01", WireGuard: "wgww01", VXLAN: "vxww01", Listen: Listen{Port: 10013}, MaxPeers: 5, MaxPending: 1000, StaleAfter: 2 * time.Hour},
			"ffww02": {Name: "ffww02", WireGuard: "wgww02", VXLAN: "vxww02", Listen: listen(t, "[fe80::1]:10014%eth0"), Addresses: address.FFMUC, MaxPeers: 10000, MaxPending: 7, StaleAfter: 36 * time.Hour},
		},
		HTTP: HTTP{
			Listen: []Listen{{Port: 80}, listen(t, "[fe80::1]:81%wgww02")}, Socket: "/run/wgkex/http.sock",
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.0.0.0/8")}, DefaultDomain: "ffww02",
		},
		Metrics: Metrics{Listen: []Listen{listen(t, "[::1]:9587")}},
		Gateway: Gateway{Name: "gw01", Address: "gw01.example.org"},
		MQTT: MQTT{
			URL: "mqtts://broker.example.org:8883", Username: "gw01", PasswordFile: "/etc/wgkex/mqtt.password", CAFile: "/etc/ssl/certs/ca-certificates.crt",
			CertificateFile: "/etc/wgkex/gw01.pem", KeyFile: "/etc/wgkex/gw01.key",
		},
		Weights: map[string]int{"gw01": 30, "gw02.example.org": 0, "gw03": 1000000},
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

	if !c.MQTT.On() || !c.Relays() || (Config{MQTT: c.MQTT}).Relays() || (Config{Domains: c.Domains}).Relays() || c.Weight("gw01") != 30 || c.Weight("gw02.example.org") != 0 || c.Weight("gw04") != 1 {
		t.Error("MQTT.On, Relays or Weight is wrong")
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
	for name, dir := range map[string]string{"empty": write(t, map[string]string{"wgkex.toml": ""}), "no files": t.TempDir()} {
		c, err := Load(dir)
		if err != nil || !c.Listen.IsZero() || len(c.Domains) != 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	if _, err := loadEffective(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no effective configuration: %v", err)
	}
}

func listen(t *testing.T, s string) Listen {
	t.Helper()
	l, err := ParseListen(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Metrics are served on the gateway alone where there are domains, unless the files say
// otherwise, and what the generator writes says the same.
func TestMetrics(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{domain1, "[::1]:9587"},
		{domain1 + "[metrics]\nenabled = true\n", "[::1]:9587"},
		{domain1 + "[metrics]\nenabled = false\n", ""},
		{domain1 + "[metrics]\nenabled = false\nlisten = 9100\n", ""},
		{domain1 + "[metrics]\nlisten = 9100\n", "9100"},
		{"[metrics]\nlisten = 9100\n", "9100"},
		{"listen = 9587\n" + domain1 + "[metrics]\nlisten = [9100, '192.0.2.1:9588']\n", "9100 192.0.2.1:9588"},
		{"listen = '192.0.2.1:9587'\n" + domain1, "[::1]:9587"},
	} {
		cfg, err := Load(write(t, map[string]string{"wgkex.toml": c.text}))
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		got := strings.Trim(fmt.Sprint(cfg.Metrics.Listen), "[]")
		if want := strings.Trim(c.want, "[]"); got != want {
			t.Errorf("%q: on %q, want %q", c.text, got, want)
		}
		text, err := cfg.TOML()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Load(write(t, map[string]string{"wgkex.toml": string(text)})); err != nil || !reflect.DeepEqual(back, cfg) {
			t.Errorf("%q: back %+v, %v, from\n%s", c.text, back, err, text)
		}
	}
}

// A broker is a host and a port, and nothing else.
func TestBroker(t *testing.T) {
	for text, want := range map[string]string{
		"mqtts://broker.example.org":          "mqtts://broker.example.org:8883",
		"mqtts://broker.example.org/":         "mqtts://broker.example.org:8883",
		"mqtts://broker.example.org:":         "mqtts://broker.example.org:8883",
		"MQTT://broker_1":                     "mqtt://broker_1:1883",
		"mqtt://broker:65535":                 "mqtt://broker:65535",
		"mqtt://192.0.2.1":                    "mqtt://192.0.2.1:1883",
		"mqtts://[2001:db8::1]:10":            "mqtts://[2001:db8::1]:10",
		"mqtt://[2001:db8::1]":                "mqtt://[2001:db8::1]:1883",
		"broker.example.org":                  "",
		"broker.example.org:8883":             "",
		"https://broker.example.org":          "",
		"mqtts://":                            "",
		"mqtts://:8883":                       "",
		"mqtts://broker:0":                    "",
		"mqtts://broker:65536":                "",
		"mqtts://gw01:secret@broker":          "",
		"mqtts://broker/path":                 "",
		"mqtts://broker//":                    "",
		"mqtts://broker?":                     "",
		"mqtts://broker?a=b":                  "",
		"mqtts://broker#x":                    "",
		"mqtts:broker":                        "",
		"mqtts://bro\u00e4ker":                "",
		"mqtts://[fe80::1%25eth0]":            "",
		" mqtts://broker":                     "",
		"mqtts://" + strings.Repeat("a", 254): "",
	} {
		cfg, err := Load(write(t, map[string]string{"wgkex.toml": fmt.Sprintf("mqtt.url = %q", text)}))
		if cfg.MQTT.URL != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, cfg.MQTT.URL, err)
		}
	}
}

func TestServes(t *testing.T) {
	domains := map[string]Domain{
		"own": {Listen: Listen{Port: 10013}}, "other": {Listen: Listen{Port: 10014}}, "shared": {},
		"one": {Listen: listen(t, "192.0.2.1:10015")}, "two": {Listen: listen(t, "192.0.2.2:10015")},
		"v4": {Listen: listen(t, "0.0.0.0:10016")}, "zone": {Listen: listen(t, "[fe80::1]:10017%eth0")},
	}
	everywhere := Listen{Port: 10012}
	for _, x := range []struct {
		shared Listen
		domain string
		local  string
		want   bool
	}{
		{everywhere, "own", "192.0.2.1:10012", true},
		{everywhere, "own", "[2001:db8::1]:10013", true},
		{everywhere, "own", "192.0.2.1:10014", false},
		{everywhere, "shared", "192.0.2.1:10012", true},
		{everywhere, "shared", "192.0.2.1:10013", false},
		{everywhere, "shared", "192.0.2.1:0", false},
		{everywhere, "none", "192.0.2.1:10012", false},
		{Listen{}, "shared", "192.0.2.1:0", false},
		{Listen{}, "own", "192.0.2.1:10012", false},
		{Listen{}, "own", "192.0.2.1:10013", true},
		// The same port on two addresses is that of two domains.
		{everywhere, "one", "192.0.2.1:10015", true},
		{everywhere, "one", "192.0.2.2:10015", false},
		{everywhere, "two", "192.0.2.1:10015", false},
		{everywhere, "two", "192.0.2.2:10015", true},
		{everywhere, "two", "192.0.2.2:10012", true},
		{listen(t, "192.0.2.3:10015"), "one", "192.0.2.3:10015", true},
		{listen(t, "192.0.2.3:10015"), "one", "192.0.2.4:10015", false},
		{everywhere, "v4", "192.0.2.9:10016", true},
		{everywhere, "v4", "[2001:db8::1]:10016", false},
		{everywhere, "zone", "[fe80::1%eth0]:10017", true},
		{everywhere, "zone", "[fe80::1%eth1]:10017", false},
		{everywhere, "zone", "[fe80::1]:10017", false},
	} {
		c := Config{Listen: x.shared, Domains: domains}
		if got := c.Serves(netip.MustParseAddrPort(x.local), x.domain); got != x.want {
			t.Errorf("%s, shared %s, domain %s: %v", x.local, x.shared, x.domain, got)
		}
	}
	if (Config{Listen: everywhere, Domains: domains}).Serves(netip.AddrPort{}, "shared") {
		t.Error("no address is served")
	}
}

func TestListen(t *testing.T) {
	for _, s := range []string{"192.0.2.1:10012", "0.0.0.0:1", "127.0.0.1:65535", "[::1]:10012", "[2001:db8::1]:10012", "[fe80::1]:10012%eth0", "[fe80::1]:10012%wg-1.2"} {
		if got := listen(t, s); got.String() != s || got.Where() != s {
			t.Errorf("%s prints as %s, %s", s, got, got.Where())
		}
	}
	if got := listen(t, "[::]:10012"); got != (Listen{Port: 10012}) || got.String() != "10012" || got.Where() != "port 10012" {
		t.Errorf("all addresses are %+v, %s, %s", got, got, got.Where())
	}
	if got := listen(t, "[fe80::1%wg-1.2]:80"); got.String() != "[fe80::1]:80%wg-1.2" {
		t.Errorf("the interface behind the address is %s", got)
	}
	for _, s := range []string{
		"", "10012", ":10012", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:-1", "::1:10012", "[::1]", "[::1]:", "[192.0.2.1]:1",
		"localhost:10012", "*:10012", "192.0.2.1:http", " 192.0.2.1:1", "192.0.2.1:1 ", "[fe80::1]:10012", "[fe80::1]:10012%", "[fe80::1%eth0]:10012%eth0",
		"[fe80::1%]:10012", "[fe80::1%eth0", "[fe80::1%eth0]", "[fe80::1%2]:10012", "fe80::1%eth0:10012",
		"[fe80::1]:10012%a/b", "[fe80::1]:10012%2", "[fe80::1]:10012%eth0%eth1", "[fe80::1]:10012%eth\"0", "[::1]:10012%eth0", "[::]:1%eth0", "192.0.2.1:10012%eth0", "[::ffff:192.0.2.1]:10012",
		"224.0.0.1:10012", "[ff02::1]:10012", "[ff02::1]:10012%eth0", "/run/socket", "@abstract", "vsock:2:1234",
	} {
		if got, err := ParseListen(s); err == nil {
			t.Errorf("%q: %s", s, got)
		}
	}
}

func TestLocal(t *testing.T) {
	for text, want := range map[string]string{
		"[::]:1": "[::1]:1", "0.0.0.0:1": "127.0.0.1:1", "192.0.2.1:1": "192.0.2.1:1", "[fe80::1]:1%eth0": "[fe80::1%eth0]:1",
	} {
		if got := listen(t, text).Local().String(); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestOverlaps(t *testing.T) {
	all := []Listen{
		{Port: 1},
		listen(t, "0.0.0.0:1"), listen(t, "192.0.2.1:1"), listen(t, "192.0.2.2:1"), listen(t, "[2001:db8::1]:1"),
		listen(t, "[fe80::1]:1%eth0"), listen(t, "[fe80::1]:1%eth1"),
		{Port: 2},
		listen(t, "192.0.2.1:2"),
	}
	overlap := map[string]string{ // of each with the others, in this order
		"1": "xxxxxxx--", "0.0.0.0:1": "xxxx-----", "192.0.2.1:1": "xxx------", "192.0.2.2:1": "xx-x-----", "[2001:db8::1]:1": "x---x----",
		"[fe80::1]:1%eth0": "x----x---", "[fe80::1]:1%eth1": "x-----x--", "2": "-------xx", "192.0.2.1:2": "-------xx",
	}
	for _, a := range all {
		for i, b := range all {
			if got, want := a.Overlaps(b), overlap[a.String()][i] == 'x'; got != want {
				t.Errorf("%s and %s: %v", a, b, got)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	for name, c := range map[string]struct {
		main, extra string
		want        []string // as wantErrors wants it
	}{
		"syntax":             {main: "listen = 1\nlisten ==", want: []string{"wgkex.toml:2: "}},
		"unknown key":        {main: "listen = 1\nlissten = 2\n", want: []string{"wgkex.toml:2: unknown key lissten"}},
		"unknown domain key": {main: domain1 + "max_peer = 1\n[nonsense]\n", want: []string{"wgkex.toml:4: unknown key domains.ffww01.max_peer", "wgkex.toml:5: unknown key nonsense"}},
		"wrong type":         {main: "\nlisten = '10012'", want: []string{"wgkex.toml:2: "}},
		"listen":             {main: "listen = 'localhost:10012'", want: []string{`wgkex.toml:1: listen is "localhost:10012": must be a port, such as 10012, or "ADDRESS:PORT"`}},
		"listen, link-local": {main: domain1 + "listen = '[fe80::1]:10012'", want: []string{`wgkex.toml:4: domains.ffww01.listen is "[fe80::1]:10012": a link-local address of IPv6 has an interface, as in`}},
		"http, nowhere":      {main: "[http]\ntrusted_proxies = []", want: []string{"wgkex.toml:2: http has neither listen nor socket"}},
		"http, no port":      {main: "http.listen = [80, 0, 'x', {}]", want: []string{"wgkex.toml:1: 0 is no TCP port", `wgkex.toml:1: http.listen is "x": must be a port`, "wgkex.toml:1: http.listen is a table: must be"}},
		"http, no listen":    {main: "http.listen = []", want: []string{"wgkex.toml:1: http has neither", "wgkex.toml:1: http.listen is empty"}},
		"http, taken":        {main: "listen = 5\n[http]\nlisten = [80, '[::1]:5', '127.0.0.1:80']", want: []string{"wgkex.toml:3: 127.0.0.1:80 of http.listen is already taken by http.listen[0], port 80", "wgkex.toml:3: [::1]:5 of http.listen is already taken by listen, port 5"}},
		"http, sockets":      {main: "http.socket = 'run/x'", extra: "http.listen = 1\nhttp.socks = 1", want: []string{`wgkex.toml:1: http.socket is "run/x": must be an absolute path`, "conf.d/10.toml:2: unknown key http.socks"}},
		"http, socket":       {main: "http.socket = '/run/a%b'", want: []string{`wgkex.toml:1: http.socket is "/run/a%b"`}},
		"http, proxies":      {main: "http.listen = 80\nhttp.trusted_proxies = ['::1', 1, 'nginx', '10.0.0.0/33', 'fe80::1%eth0']", want: []string{`wgkex.toml:2: http.trusted_proxies has "10.0.0.0/33"`, `wgkex.toml:2: http.trusted_proxies has "fe80::1%eth0"`, `wgkex.toml:2: http.trusted_proxies has "nginx"`, "wgkex.toml:2: http.trusted_proxies has a whole number"}},
		"http, domain":       {main: "[http]\nlisten = 80\ndefault_domain = 'x'\n" + domain1, want: []string{`wgkex.toml:3: http.default_domain is "x": there is no such domain`}},
		"http, twice":        {main: "http.listen = 80", extra: "http.listen = 81", want: []string{"conf.d/10.toml:1: http.listen is already set at DIR/wgkex.toml:1"}},
		"tables":             {main: "http = 1\ngateway = 'gw01'", want: []string{"wgkex.toml:1: http is a whole number: must be a table", "wgkex.toml:2: gateway is a string in quotation marks: must be a table"}},
		"metrics":            {main: "[metrics]\nlisten = []\nenabled = 'no'\nport = 1\n", want: []string{"wgkex.toml:2: metrics.listen is empty", "wgkex.toml:3: metrics.enabled is a string in quotation marks: must be a truth value", "wgkex.toml:4: unknown key metrics.port"}},
		"metrics, default":   {main: "listen = 9587\n" + domain1, want: []string{"wgkex.toml:1: port 9587 is taken by metrics, unless metrics.listen is set: [::1]:9587"}},
		"metrics, taken":     {main: "listen = 5\n" + domain1, extra: "metrics.listen = '[::1]:5'", want: []string{"conf.d/10.toml:1: [::1]:5 of metrics.listen is already taken by listen, port 5"}},
		"gateway":            {main: "[gateway]\nname = 'a/b'\naddress = '192.0.2.1:80'", want: []string{`wgkex.toml:2: gateway.name is "a/b"`, `wgkex.toml:3: gateway.address is "192.0.2.1:80"`}},
		"mqtt, no url":       {main: "[mqtt]\nusername = 'gw01'", want: []string{"wgkex.toml:2: mqtt has no url"}},
		"mqtt, files":        {main: "mqtt.url = 'mqtts://b'\nmqtt.username = 'u'\nmqtt.password_file = 'pass'\nmqtt.ca_file = '/a b'\nmqtt.cafile = 'x'", want: []string{`wgkex.toml:3: mqtt.password_file is "pass": must be an absolute path`, `wgkex.toml:4: mqtt.ca_file is "/a b": must be`, "wgkex.toml:5: unknown key mqtt.cafile"}},
		"mqtt, no TLS":       {main: "mqtt.url = 'mqtt://b'\nmqtt.ca_file = '/a'\nmqtt.certificate_file = '/b'\nmqtt.key_file = '/c'", want: []string{"wgkex.toml:2: mqtt.ca_file is of no use without TLS", "wgkex.toml:3: mqtt.certificate_file is of no use without TLS"}},
		"mqtt, halves":       {main: "mqtt.url = 'mqtts://b'\nmqtt.password_file = '/a'\nmqtt.key_file = '/c'", want: []string{"wgkex.toml:2: mqtt.password_file is of no use without mqtt.username", "wgkex.toml:3: mqtt.key_file is of no use without mqtt.certificate_file"}},
		"mqtt, half":         {main: "mqtt.url = 'mqtts://b'\nmqtt.certificate_file = '/c'", want: []string{"wgkex.toml:2: mqtt.certificate_file is of no use without mqtt.key_file"}},
		"mqtt, username":     {main: "mqtt.url = 'mqtts://b'\nmqtt.username = \"a\\u0000\"", want: []string{`wgkex.toml:2: mqtt.username is "a\x00"`}},
		"mqtt, twice":        {main: "mqtt.url = 'mqtts://b'", extra: "[mqtt]\nurl = 'mqtts://b'", want: []string{"conf.d/10.toml:2: mqtt.url is already set at DIR/wgkex.toml:1"}},
		"mqtt, no metrics":   {main: "mqtt.url = 'mqtts://b'\nmetrics.enabled = false\n" + domain1, want: []string{"wgkex.toml:2: metrics.enabled is false, but mqtt needs metrics"}},
		"mqtt, unread":       {main: "mqtt.username = 'gw01'", extra: "[", want: []string{"conf.d/10.toml:1: "}},
		"gateways":           {main: "[gateways]\ngw01.example = 1\ngw02 = -1\ngw03 = 1000001\ngw04 = '1'\n'a/b' = 1", extra: "gateways.gw02 = 1", want: []string{"wgkex.toml:2: gateways.gw01 is a table: a name with a dot", "wgkex.toml:3: the weight -1 is out of range: must be 0 to 1000000", "wgkex.toml:4: the weight 1000001 is out", "wgkex.toml:5: gateways.gw04 is a string in quotation marks: must be a whole number", `wgkex.toml:6: gateway name "a/b"`, "conf.d/10.toml:1: gateways.gw02 is already set at DIR/wgkex.toml:3"}},

		"same address":       {main: "listen = 6\n" + domain1 + "listen = '192.0.2.1:5'", extra: "[domains.b]\nlisten = '192.0.2.1:5'\nwireguard = 'a'\nvxlan='b'", want: []string{"conf.d/10.toml:2: 192.0.2.1:5 of domain b is already taken by domains.ffww01.listen, 192.0.2.1:5"}},
		"overlapping":        {main: "listen = 5\n" + domain1 + "listen = '192.0.2.1:5'", extra: "[domains.b]\nlisten = '0.0.0.0:5'\nwireguard = 'a'\nvxlan='b'", want: []string{"wgkex.toml:5: 192.0.2.1:5 of domain ffww01 is already taken by listen, port 5", "conf.d/10.toml:2: 0.0.0.0:5 of domain b is already taken by domains.ffww01.listen, 192.0.2.1:5", "conf.d/10.toml:2: 0.0.0.0:5 of domain b is already taken by listen, port 5"}},
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
		"no interfaces":      {main: "\n[domains.a]\n", want: []string{"wgkex.toml:2: domain a has no vxlan interface: set domains.a.vxlan", "wgkex.toml:2: domain a has no wireguard interface"}},
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
		"set twice":          {main: domain1 + "max_peers = 5", extra: "[domains.ffww01]\n\nmax_peers = 6", want: []string{"conf.d/10.toml:3: domains.ffww01.max_peers is already set at DIR/wgkex.toml:4"}},
		"reply twice":        {main: "\nreply = 'ok'", extra: "reply = 'ok'", want: []string{"conf.d/10.toml:1: reply is already set at DIR/wgkex.toml:2"}},
		"the whole domain":   {main: domain1, extra: domain1, want: []string{"conf.d/10.toml:2: domains.ffww01.wireguard is already set at DIR/wgkex.toml:2", "conf.d/10.toml:3: domains.ffww01.vxlan is already set at DIR/wgkex.toml:3"}},
		"capital letters":    {main: "listen = 1\nLISTEN = 2", want: []string{"wgkex.toml:2: unknown key LISTEN: write listen in small letters"}},
		"domain's capitals":  {main: domain1 + "MAX_Peers = 2\n[Domains.b]\n", want: []string{"wgkex.toml:4: unknown key domains.ffww01.MAX_Peers: write max_peers in small letters", "wgkex.toml:5: unknown key Domains: write domains in small letters"}},
		"in order": {
			main:  "listen = 0\nreply = 1\nx = 1\n[domains.a]\nmax_peers = 0\nvxlan = 'v'\nwireguard = 'w'\n",
			extra: "y = 1\nprohibited_keys = ['z']\n[domains.b]\nmax_peers = 0\nvxlan = 'v'\nwireguard = 'w'\nz = 1\n",
			want: []string{
				"wgkex.toml:1: 0 is no TCP port", "wgkex.toml:2: reply is a whole number: must be a string in quotation marks",
				"wgkex.toml:3: unknown key x", "wgkex.toml:5: 0 is out of range", "conf.d/10.toml:1: unknown key y",
				"conf.d/10.toml:2: prohibited key", "conf.d/10.toml:4: 0 is out of range", "conf.d/10.toml:5: interface v of",
				"conf.d/10.toml:6: interface w of", "conf.d/10.toml:7: unknown key domains.b.z",
			},
		},
		// What a file lacks may be in the one that did not parse.
		"beside bad syntax": {main: "listen = 0\n[domains.a]\nmax_peers = 0", extra: "[", want: []string{"wgkex.toml:1: ", "wgkex.toml:3: ", "conf.d/10.toml:1: "}},
		"types": {
			main: "domains = 1", extra: "prohibited_keys = [1, ['x'], true]\n[[domains.a]]\n",
			want: []string{
				"wgkex.toml:1: domains is a whole number: must be a table", "conf.d/10.toml:1: prohibited_keys has a truth value: must be",
				"conf.d/10.toml:1: prohibited_keys has a whole number", "conf.d/10.toml:1: prohibited_keys has an array",
				"conf.d/10.toml:2: domains.a is an array: must be a table",
			},
		},
		"more types": {main: domain1 + "max_peers = 1.5\nlisten = 2026-11-01\naddresses = {}\nstale_after = []", want: []string{
			"wgkex.toml:4: domains.ffww01.max_peers is a number with a fraction: must be a whole number", "wgkex.toml:5: domains.ffww01.listen is a date or a time",
			"wgkex.toml:6: domains.ffww01.addresses is a table", "wgkex.toml:7: domains.ffww01.stale_after is an array",
		}},
		"no quotes":            {main: "\n[domains.a]\nwireguard = wgww01 # the interface\n", want: []string{`wgkex.toml:3: the value of wireguard lacks its quotation marks: write wireguard = "wgww01"`}},
		"no quotes, a number":  {main: "stale_after = 1h", want: []string{`wgkex.toml:1: the value of stale_after lacks its quotation marks: write stale_after = "1h"`}},
		"no quotes, IPv4":      {main: "listen = 127.0.0.1:10012", want: []string{`wgkex.toml:1: the value of listen lacks its quotation marks: write listen = "127.0.0.1:10012"`}},
		"no quotes, IPv6":      {main: "listen = [::1]:10012", want: []string{`wgkex.toml:1: the value of listen lacks its quotation marks: write listen = "[::1]:10012"`}},
		"no quotes, a key":     {main: "prohibited_keys = [ " + keyA + " ]", want: []string{"wgkex.toml:1: unexpected character 'D': a string must be in quotation marks"}},
		"no quotes, two lines": {main: "prohibited_keys = [\n" + keyA + ",\n]", want: []string{"wgkex.toml:2: unexpected character 'D': a string must be in quotation marks"}},
		"no closing quote":     {main: "x = 'y\nz = 1", want: []string{"wgkex.toml:1: the value of x lacks its closing quotation mark"}},
		"a text's quotes":      {main: "reply = “ok”", want: []string{`wgkex.toml:1: the value of reply is not in plain quotation marks: write reply = "..."`}},
		"no value":             {main: "listen =\nreply = 'ok'", want: []string{"wgkex.toml:1: listen has no value"}},
		"no value, a comment":  {main: "listen = # 10012", want: []string{"wgkex.toml:1: listen has no value"}},
		"two values":           {main: "listen = 1 2", want: []string{"wgkex.toml:1: expected newline but got '2'"}},
		"no equals sign":       {main: "listen 10012", want: []string{"wgkex.toml:1: a line is KEY = VALUE, [TABLE] or"}},
		"as in YAML":           {main: "\nlisten: 10012", want: []string{"wgkex.toml:2: a line is KEY = VALUE, [TABLE] or"}},
		"an umlaut":            {main: "\n[domains.ä]", want: []string{"wgkex.toml:2: invalid character at start of key 'ä'"}},
		"an end too early":     {main: "x = { a =", want: []string{"wgkex.toml:1: "}},
		"UTF-16":               {main: "\xff\xfel\x00i\x00", want: []string{"wgkex.toml:1: is not UTF-8 text"}},
		"UTF-16 without mark":  {main: "a = 1\nl\x00i\x00", want: []string{"wgkex.toml:2: is not UTF-8 text"}},
		"Latin-1":              {main: "\n# caf\xe9\n", want: []string{"wgkex.toml:2: is not UTF-8 text"}},
		"two marks":            {main: "\xef\xbb\xbf\xef\xbb\xbflisten = 1", want: []string{"wgkex.toml:1: invalid character at start of key '\\ufeff'"}},
		"escapes":              {main: "\"a\\n\\u001b\" = 1\n'a\u200b' = 1\n", want: []string{`wgkex.toml:1: unknown key "a\n\x1b"`, "wgkex.toml:2: unknown key \"a\\u200b\""}},
	} {
		dir := write(t, map[string]string{"wgkex.toml": c.main, "conf.d/10.toml": c.extra})
		_, err := Load(dir)
		wantErrors(t, name, dir, err, c.want)
	}
}

// wantErrors wants the lines of the error to begin like this, DIR for dir and
// left out where it comes first.
func wantErrors(t *testing.T, name, dir string, err error, want []string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", name)
		return
	}
	lines := strings.Split(strings.ReplaceAll(err.Error(), dir, "DIR"), "\n")
	if len(lines) != len(want) {
		t.Errorf("%s: %d errors, want %d:\n%v", name, len(lines), len(want), err)
	}
	for i, w := range want {
		if i < len(lines) && !strings.HasPrefix(strings.TrimPrefix(lines[i], "DIR/"), w) {
			t.Errorf("%s: got %q, want %q", name, lines[i], w)
		}
	}
}

// What cannot be read is a mistake, not an empty configuration.
func TestLoadFiles(t *testing.T) {
	for name, c := range map[string]struct {
		do   string
		want []string // none when it is no mistake
	}{
		"no directory":            {"rm -r ../dir", []string{"DIR: no such file or directory"}},
		"a file as directory":     {"rm -r ../dir; touch ../dir", []string{"DIR: not a directory"}},
		"no main file":            {"rm wgkex.toml", nil},
		"no conf.d":               {"rm -r conf.d", nil},
		"a file as conf.d":        {"rm -r conf.d; touch conf.d", []string{"conf.d: not a directory"}},
		"conf.d to nowhere":       {"rm -r conf.d; ln -s nowhere conf.d", []string{"conf.d: is a symbolic link to nowhere, which does not exist"}},
		"conf.d elsewhere":        {"mv conf.d other; ln -s other conf.d", nil},
		"link to nowhere":         {"ln -s ../nowhere conf.d/20.toml", []string{"conf.d/20.toml: is a symbolic link to ../nowhere, which does not exist"}},
		"main to nowhere":         {"rm wgkex.toml; ln -s nowhere wgkex.toml", []string{"wgkex.toml: is a symbolic link to nowhere"}},
		"link in a circle":        {"ln -s 20.toml conf.d/20.toml", []string{"conf.d/20.toml: too many levels of symbolic links"}},
		"a hidden link":           {"ln -s nowhere conf.d/.20.toml", nil},
		"masked":                  {"ln -s /dev/null conf.d/20.toml", nil},
		"a FIFO":                  {"mkfifo conf.d/20.toml", []string{"conf.d/20.toml: is not a regular file"}},
		"a directory in conf.d":   {"mkdir conf.d/20.toml", []string{"conf.d/20.toml: is not a regular file"}},
		"beside others' mistakes": {"echo x > wgkex.toml; echo y > conf.d/30.toml; ln -s nowhere conf.d/20.toml", []string{"wgkex.toml:1: ", "conf.d/20.toml: ", "conf.d/30.toml:1: "}},
		"conf.d comes last":       {"echo x > wgkex.toml; rm -r conf.d; touch conf.d", []string{"wgkex.toml:1: ", "conf.d: "}},
	} {
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.Rename(write(t, map[string]string{"wgkex.toml": "", "conf.d/10.toml": "[domains.a]\nwireguard='w'\nvxlan='v'\n"}), dir); err != nil {
			t.Fatal(err)
		}
		sh := exec.Command("sh", "-ec", c.do)
		sh.Dir = dir
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v, %s", name, err, out)
		}
		_, err := Load(dir)
		if len(c.want) > 0 {
			wantErrors(t, name, dir, err, c.want)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	for _, path := range []string{"conf.d", "conf.d/10.toml", "wgkex.toml"} {
		dir := write(t, map[string]string{"wgkex.toml": "", "conf.d/10.toml": ""})
		if err := os.Chmod(filepath.Join(dir, path), 0); err != nil {
			t.Fatal(err)
		}
		_, err := Load(dir)
		wantErrors(t, path, dir, err, []string{path + ": permission denied"})
		_ = os.Chmod(filepath.Join(dir, path), 0o700)
	}
}

func TestLocate(t *testing.T) {
	dir := write(t, map[string]string{"wgkex.toml": "[domains.a]\nmax_peers=1\n", "conf.d/10.toml": "\n[domains.a]\nwireguard='w'\n[domains.'b.c']\n"})
	for want, parts := range map[string][]string{
		"wgkex.toml:1":     {"domains", "a"},
		"conf.d/10.toml:3": {"domains", "a", "wireguard"},
		"conf.d/10.toml:4": {"domains", "b.c"},
	} {
		if got := Locate(dir, parts...).String(); got != filepath.Join(dir, want) {
			t.Errorf("%v: %s, want %s", parts, got, want)
		}
	}
	if got := Locate(dir, "domains", "none").String(); got != dir {
		t.Errorf("a domain that is not there: %s", got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1h": time.Hour, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "180s": 3 * time.Minute, "1.5h": 90 * time.Minute,
		"1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "0d1h": time.Hour, "100000d": 2400000 * time.Hour, "0": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "d", "1", "1 d", " 1d", "1D", "+1d", "-1d", "1d-1h", "1h1d", "1.5d", "1d1d", "1w", "-1h", "100001d", "99999999999999999999d",
		"100000d9999999h", "9999999999999h", "1d ", "1h\n",
	} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// Whatever a file holds, reading it ends, in a configuration that reads back
// as itself or in errors that name the file.
func FuzzLoad(f *testing.F) {
	f.Add(domain1 + "listen = 10013\nstale_after = '2h'\naddresses = 'ffmuc'\n")
	f.Add("listen = '[fe80::1]:10012%eth0'\n[domains.a]\nlisten = '192.0.2.1:10012'\nwireguard = 'w'\nvxlan = 'v'\n[domains.b]\nlisten = '[::]:10013'\nwireguard = 'x'\nvxlan = 'y'\n")
	f.Add("listen = 10012\nreply = 'ok'\nprohibited_keys = ['" + keyA + "']\n")
	f.Add("http = { listen = [80, '[fe80::1%a]:81'], socket = '/x', trusted_proxies = ['::1', '10.0.0.0/8'] }\ngateway.name = 'g'")
	f.Add("domains.a = { wireguard = \"w\", vxlan = \"v\" }")
	f.Add("\xef\xbb\xbfLISTEN = 1\nlisten = 2\nreply = ok\n[domains.a]\nstale_after = '1d'\nlisten = 1.5\n")
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
