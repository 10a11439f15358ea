package gateways

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"wgkex/internal/message"
	"wgkex/internal/protocol"
)

func TestHear(t *testing.T) {
	k := Known{}
	for i, heard := range []message.Heard{
		message.Status{Gateway: "b", Online: true},
		message.Data{Gateway: "b", Domain: "d", Endpoint: *endpoint},
		message.Live{Gateway: "b", Domain: "d", Peers: 7},
		message.Live{Gateway: "c", Domain: "e", Peers: 0},
		message.Status{Gateway: "c", Online: false},
		message.Data{Gateway: "a", Domain: "d", Endpoint: *endpoint},
		message.Data{Gateway: "a", Domain: "d"},
		message.Key{Domain: "d", Key: key(1)},
	} {
		if err := k.Hear(heard, "own", time.Duration(i)); err != nil {
			t.Errorf("%+v: %v", heard, err)
		}
	}
	want := Known{
		"a": {Heard: 6, Domains: map[string]Domain{"d": {Live: -1}}},
		"b": {Online: true, Heard: 2, Domains: map[string]Domain{"d": {Live: 7, Counted: 2, Endpoint: endpoint}}},
		"c": {Heard: 4, Domains: map[string]Domain{"e": {Live: 0, Counted: 3}}},
	}
	if !reflect.DeepEqual(k, want) {
		t.Errorf("got  %+v\nwant %+v", k, want)
	}
	if back, err := Parse(k.Text()); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("back %+v, %v", back, err)
	}
	k.Forget(func(domain string) bool { return domain == "e" })
	if len(k["b"].Domains) != 0 || len(k["c"].Domains) != 1 {
		t.Errorf("without a domain: %+v", k)
	}
}

// Whoever makes names up does not make the gateways forget each other.
func TestHearBound(t *testing.T) {
	k := Known{}
	for i := range maxGateways - 1 {
		_ = k.Hear(message.Status{Gateway: fmt.Sprint("on", i), Online: true}, "own", 1)
	}
	for i := range 3 * maxGateways {
		if err := k.Hear(message.Status{Gateway: fmt.Sprint("off", i)}, "own", time.Duration(10+i)); err != nil || len(k) != maxGateways {
			t.Fatalf("%d: %v, %d gateways", i, err, len(k))
		}
	}
	if err := k.Hear(message.Status{Gateway: "last", Online: true}, "own", 2000); err != nil {
		t.Error(err)
	}
	if err := k.Hear(message.Status{Gateway: "own"}, "own", 2000); err != nil || len(k) != maxGateways+1 {
		t.Errorf("no room for this gateway: %v, %d", err, len(k))
	}
	delete(k, "own")
	if err := k.Hear(message.Live{Gateway: "one too many", Domain: "d", Peers: 1}, "own", 2000); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if g, ok := k["on0"]; !ok || !g.Online {
		t.Error("a gateway on line is forgotten")
	}
	for i := range maxDomains + 1 {
		err := k.Hear(message.Live{Gateway: "on0", Domain: fmt.Sprint("d", i), Peers: 1}, "own", 1)
		if (err != nil) != (i == maxDomains) {
			t.Errorf("domain %d: %v", i, err)
		}
	}
	text := k.Text()
	if back, err := Parse(text); err != nil || !reflect.DeepEqual(back, k) || len(text) > MaxSize {
		t.Errorf("%d bytes are not read: %v", len(text), err)
	}
}

// The largest file that there can be is read.
func TestMaxSize(t *testing.T) {
	d := Domain{Live: message.MaxLive, Counted: 1<<63 - 1, Endpoint: &message.Endpoint{
		Host: strings.Repeat("a", 253), Port: 65535, Key: key(1), Link: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
	}}
	domains := map[string]Domain{}
	for i := range maxDomains {
		domains[fmt.Sprintf("%0*d", protocol.MaxLine, i)] = d
	}
	k := Known{}
	for i := range maxGateways {
		k[fmt.Sprintf("%0*d", protocol.MaxLine, i)] = Gateway{Online: true, Heard: 1<<63 - 1, Domains: domains}
	}
	if n := len(k.Text()); n > MaxSize {
		t.Errorf("%d bytes", n)
	}
}

func TestParseErrors(t *testing.T) {
	good := string(Known{"b": on(3)}.Text())
	for _, text := range []string{
		"", "{}", "[]", "null", good + good, good + "x", strings.TrimSuffix(good, "}\n"),
		strings.Replace(good, `"version":1`, `"version":2`, 1),
		strings.Replace(good, `"version":1`, `"version":1,"more":1`, 1),
		strings.Replace(good, `"live"`, `"dead"`, 1),
		strings.Replace(good, `"live":3`, `"live":-2`, 1),
		strings.Replace(good, `"live":3`, `"live":1e3`, 1),
		strings.Replace(good, `"b":`, `"../b":`, 1),
		strings.Replace(good, `"d":`, `"":`, 1),
		strings.Replace(good, `"Port":51820`, `"Port":0`, 1),
		strings.Replace(good, `gw.example.org`, `<script>`, 1),
		`{"version":1,"gateways":null}`,
	} {
		if text == good {
			t.Fatal("nothing was replaced")
		}
		if k, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, k)
		}
	}
	if _, err := Parse([]byte(good)); err != nil {
		t.Error(err)
	}
	if k, err := Parse(Known{}.Text()); err != nil || k == nil {
		t.Errorf("%v, %v", k, err)
	}
}

// What is read is what can be written.
func FuzzParse(f *testing.F) {
	f.Add(Known{"b": on(3)}.Text())
	f.Add([]byte(`{"version":1,"gateways":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Parse(text)
		if err != nil {
			return
		}
		if back, err := Parse(k.Text()); err != nil || len(back) != len(k) {
			t.Errorf("%s reads as %+v, which reads as %+v, %v", text, k, back, err)
		}
	})
}
