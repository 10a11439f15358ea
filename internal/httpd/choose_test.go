package httpd

import (
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/message"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	routerKey = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="
	otherKey  = "QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU="
)

// v2 names the gateway that is best for the router, by what the relay has written.
func TestElsewhere(t *testing.T) {
	socket, _ := local(t)
	path := filepath.Join(t.TempDir(), "gateways.json")
	key, err := address.ParseKey(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	domain := func(live int, counted time.Duration) map[string]gateways.Domain {
		return map[string]gateways.Domain{"d": {Live: live, Counted: counted, Endpoint: &message.Endpoint{
			Host: "gw02.example.org", Port: 40000, Key: key, Link: netip.MustParseAddr("fe80::2"),
		}}}
	}
	cfg := config.Config{
		Domains: map[string]config.Domain{"d": {Name: "d"}}, Gateway: config.Gateway{Name: "gw01"},
		MQTT: config.MQTT{URL: "mqtt://b:1883"}, Weights: map[string]int{"gw01": 10, "gw02": 20},
	}
	now := time.Hour
	var logged []string
	s := New(Gateway{
		Socket: socket, Config: func() (config.Config, error) { return cfg, nil },
		Known: KnownReloaded(path), SinceBoot: func() time.Duration { return now },
		Log: func(_ journal.Priority, message string, _ ...logging.Field) { logged = append(logged, message) },
	})
	const here = `{"Endpoint":{"Address":"gw01","Port":"51820","AllowedIPs":["fe80::1"],"PublicKey":"KEY"}}` + "\n"
	const there = `{"Endpoint":{"Address":"gw02.example.org","Port":"40000","AllowedIPs":["fe80::2"],"PublicKey":"` + otherKey + `"}}` + "\n"
	ask := func(what, key, want string) {
		t.Helper()
		r := httptest.NewRequest("POST", "/api/v2/wg/key/exchange", strings.NewReader(`{"domain": "d", "public_key": "`+key+`"}`))
		w := httptest.NewRecorder()
		s.Handler.ServeHTTP(w, r)
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	ask("no file", routerKey, here)
	if logged != nil {
		t.Errorf("logged %q", logged)
	}
	write([]byte("{}"))
	ask("a file of another version", routerKey, here)
	if len(logged) != 1 || !strings.Contains(logged[0], "not a file of known gateways") {
		t.Errorf("logged %q", logged)
	}
	known := gateways.Known{"gw01": {Domains: domain(10, now)}, "gw02": {Online: true, Domains: domain(20, now)}}
	write(known.Text())
	ask("full here with one more", routerKey, there)
	ask("the same", routerKey, there)
	ask("another, since one was sent there", otherKey, here)
	cfg.MQTT = config.MQTT{}
	ask("without a broker", routerKey, here)
	cfg.MQTT = config.MQTT{URL: "mqtt://b:1883"}
	ask("with a broker", routerKey, there)
	now += gateways.SilentFor
	ask("nothing heard for so long", routerKey, here)
	known = gateways.Known{"gw01": {Domains: domain(10, now)}, "gw02": {Online: true, Domains: domain(100, now)}}
	write(known.Text())
	ask("where it was at first", routerKey, here)
}
