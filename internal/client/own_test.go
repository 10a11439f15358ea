package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/gateways"
)

func TestMetrics(t *testing.T) {
	var answer string
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, strings.ReplaceAll(answer, "PATH", r.URL.Path))
	}))
	defer server.Close()
	m := Metrics{netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))}
	const text = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="
	key, err := address.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}

	answer = `[{"domain":"d","live":3,"port":51820,"public_key":"` + text + `","link_address":"fe80::1"},{"domain":"PATH","live":0,"port":0,"public_key":"` + text + `","link_address":""}]`
	want := []gateways.Own{
		{Domain: "d", Live: 3, Port: 51820, Key: key, Link: netip.MustParseAddr("fe80::1")},
		{Domain: OwnPath, Key: key},
	}
	if own, err := m.Own(t.Context()); err != nil || !reflect.DeepEqual(own, want) {
		t.Errorf("%+v, %v", own, err)
	}
	answer = "d\nd " + text + "\nd AAAA\ne\n"
	if peers, err := m.Peers(t.Context()); err != nil || !reflect.DeepEqual(peers, map[string][]address.Key{"d": {key}, "e": {}}) {
		t.Errorf("%+v, %v", peers, err)
	}
	for _, answer = range []string{"../d\n", "\n", "PATH\n", strings.Repeat("d", 100000)} {
		if peers, err := m.Peers(t.Context()); err == nil {
			t.Errorf("%.20q: %v", answer, peers)
		}
		if own, err := m.Own(t.Context()); err == nil {
			t.Errorf("%.20q: %v", answer, own)
		}
	}
	answer, status = "[]", http.StatusServiceUnavailable
	if own, err := m.Own(t.Context()); err == nil {
		t.Errorf("an error is taken for %v", own)
	}
	if peers, err := m.Peers(t.Context()); err == nil {
		t.Errorf("an error is taken for %v", peers)
	}
}
