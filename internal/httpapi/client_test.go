package httpapi

import (
	"net/http"
	"net/netip"
	"testing"
)

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func TestClient(t *testing.T) {
	for _, c := range []struct {
		name, remote   string
		xff, forwarded []string
		want           string
	}{
		{"direct", "192.0.2.7:1", nil, nil, "192.0.2.7"},
		{"direct, of both families", "[::ffff:192.0.2.7]:1", nil, nil, "192.0.2.7"},
		{"direct, on a link", "[fe80::1%wg0]:1", nil, nil, "fe80::1"},
		{"forged", "192.0.2.7:1", []string{"192.0.2.8"}, []string{"for=192.0.2.8"}, "192.0.2.7"},
		{"by a proxy", "10.0.0.1:1", []string{"192.0.2.8"}, nil, "192.0.2.8"},
		{"by a proxy of both families", "[::ffff:10.0.0.1]:1", []string{"192.0.2.8"}, nil, "192.0.2.8"},
		{"by the UNIX socket", "@", []string{"192.0.2.8"}, nil, "192.0.2.8"},
		{"by the UNIX socket without a name", "", []string{"192.0.2.8"}, nil, "192.0.2.8"},
		{"forged, by a proxy", "@", []string{"192.0.2.9, 192.0.2.8"}, nil, "192.0.2.8"},
		{"forged, in lines", "@", []string{"192.0.2.9", "192.0.2.8"}, nil, "192.0.2.8"},
		{"two proxies", "[::1]:1", []string{"192.0.2.9, 192.0.2.8 ,10.1.1.1"}, nil, "192.0.2.8"},
		{"proxies alone", "[::1]:1", []string{"10.3.3.3, 10.1.1.1"}, nil, "10.3.3.3"},
		{"with ports", "@", []string{"[2001:db8::1]:80"}, nil, "2001:db8::1"},
		{"with an IPv4 port", "@", []string{"192.0.2.8:80"}, nil, "192.0.2.8"},
		{"in brackets", "@", []string{"[2001:db8::1]"}, nil, "2001:db8::1"},
		{"a zone of another machine", "@", []string{"fe80::1%eth0"}, nil, "fe80::1"},
		{"nobody", "@", nil, nil, "invalid IP"},
		{"nobody by a proxy", "10.0.0.1:1", nil, nil, "10.0.0.1"},
		{"unknown", "10.0.0.1:1", []string{"192.0.2.8, unknown"}, nil, "10.0.0.1"},
		{"escapes", "10.0.0.1:1", []string{"\x1b[2J"}, nil, "10.0.0.1"},
		{"unknown behind a proxy", "@", []string{"192.0.2.8, unknown, 10.1.1.1"}, nil, "10.1.1.1"},
		{"empty", "10.0.0.1:1", []string{""}, nil, "10.0.0.1"},
		{"RFC 7239", "@", nil, []string{`for=192.0.2.9;proto=https, For="[2001:db8::1]:80";by=10.0.0.1`}, "2001:db8::1"},
		{"RFC 7239, a separator in quotation marks", "@", nil, []string{`for=192.0.2.8;host="a,b;for=192.0.2.9"`}, "192.0.2.8"},
		{"RFC 7239, hidden", "10.0.0.1:1", nil, []string{"for=192.0.2.8, for=_hidden"}, "10.0.0.1"},
		{"RFC 7239, no for", "10.0.0.1:1", nil, []string{"proto=http"}, "10.0.0.1"},
		{"RFC 7239, a quotation mark without another", "@", nil, []string{`for=", for=192.0.2.8`}, "192.0.2.8"},
		{"both", "@", []string{"192.0.2.8"}, []string{"for=192.0.2.9"}, "192.0.2.8"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.xff, "Forwarded": c.forwarded}}
		if got := Client(r, proxies); got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "2001:db8::7": "2001:db8::/64", "fe80::7%wg0": "fe80::7/128",
	} {
		if got := Source(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := Source(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("nobody: %s", got)
	}
}

// Whatever a client sends through a proxy, nobody but the proxy says who it is.
func FuzzClient(f *testing.F) {
	f.Add("192.0.2.9, unknown", `for="`)
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		direct := &http.Request{RemoteAddr: "192.0.2.7:1", Header: http.Header{"X-Forwarded-For": {xff}, "Forwarded": {forwarded}}}
		if got := Client(direct, proxies); got.String() != "192.0.2.7" {
			t.Errorf("direct: %s", got)
		}
		proxied := &http.Request{RemoteAddr: "@", Header: http.Header{"X-Forwarded-For": {xff + ", 192.0.2.8"}, "Forwarded": {forwarded}}}
		if got := Client(proxied, proxies); got.String() != "192.0.2.8" {
			t.Errorf("by a proxy: %s", got)
		}
	})
}
