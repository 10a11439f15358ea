package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/announce"
	"wgkex/internal/client"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/message"
	"wgkex/internal/mqtt/mqtttest"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestSetup(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config{
		Domains: map[string]config.Domain{"e": {}, "d": {}},
		Metrics: config.Metrics{Listen: []config.Listen{{Addr: netip.MustParseAddr("192.0.2.1"), Port: 1}, {Port: 9587}, {Addr: netip.MustParseAddr("127.0.0.1"), Port: 2}}},
		MQTT: config.MQTT{
			URL: "mqtts://b:8883", Username: "u", PasswordFile: "/etc/p", CAFile: "/etc/ca", CertificateFile: "/etc/c", KeyFile: "/etc/k",
		},
	}
	want := setup{
		Settings: Settings{URL: "mqtts://b:8883", Gateway: host, Username: "u", PasswordFile: "/run/c/password", CAFile: "/run/c/ca", CertificateFile: "/run/c/certificate", KeyFile: "/run/c/key"},
		address:  host, domains: []string{"d", "e"}, metrics: netip.MustParseAddrPort("[::1]:9587"),
	}
	if got, err := setupOf(c, "/run/c"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	c.Gateway = config.Gateway{Name: "gw01", Address: "192.0.2.1"}
	c.MQTT = config.MQTT{URL: "mqtt://b:1883", PasswordFile: "/etc/p"}
	c.Metrics.Listen = c.Metrics.Listen[:1]
	want = setup{
		Settings: Settings{URL: "mqtt://b:1883", Gateway: "gw01", PasswordFile: "/etc/p"},
		address:  "192.0.2.1", domains: []string{"d", "e"}, metrics: netip.MustParseAddrPort("192.0.2.1:1"),
	}
	if got, err := setupOf(c, ""); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	c.Gateway.Name = "a/b"
	if _, err := setupOf(c, ""); err == nil || !strings.Contains(err.Error(), "set gateway.name") {
		t.Error(err)
	}
	if _, err := setupOf(config.Config{}, ""); err == nil || !strings.Contains(err.Error(), "set mqtt.url") {
		t.Error(err)
	}
}

// A relay as its program makes it takes keys from handlers, and adds those of others by
// the local socket.
func TestNewRelay(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	var mu sync.Mutex
	var asked []string
	local, err := net.Listen("unix", file("local.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	go func() {
		for {
			c, err := local.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); fmt.Fprintln(c, "OK") {
					text := in.Text()
					in.Scan()
					mu.Lock()
					asked = append(asked, text+" "+in.Text())
					mu.Unlock()
				}
			}()
		}
	}()
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == client.OwnPath {
			fmt.Fprintf(w, `[{"domain":"d","live":3,"port":51820,"public_key":%q,"link_address":"fe80::1"}]`, keyText)
		} else {
			fmt.Fprintln(w, "d")
		}
	}))
	defer metrics.Close()
	listen, err := config.ParseListen(strings.TrimPrefix(metrics.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Config{
		Domains: map[string]config.Domain{"d": {Name: "d"}}, Gateway: config.Gateway{Name: "gw01", Address: "gw01.example.org"},
		Metrics: config.Metrics{Listen: []config.Listen{listen}}, MQTT: config.MQTT{URL: "mqtt://" + m.Address},
	}
	announcements, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: file("announce.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var logged []string
	var loadErr error
	g := Gateway{
		Config: func() (config.Config, error) {
			mu.Lock()
			defer mu.Unlock()
			return cfg, loadErr
		},
		Socket: file("local.sock"), Announcements: announcements, Ledger: file("ledger"), Known: file("gateways.json"), Numbers: file("stats.json"),
		SinceBoot: func() time.Duration { return time.Hour }, Alive: func() {},
		Log: func(p journal.Priority, text string, _ ...logging.Field) {
			mu.Lock()
			defer mu.Unlock()
			logged = append(logged, fmt.Sprint(int(p), " ", text))
		},
	}
	r, err := NewRelay(g)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- r.Run(context.Background()) }()
	other := join(t, at(m, "gw02"))
	other.subscribe("d")
	other.hears("wireguard-worker/gw01/status", "1")
	other.hears("wireguard-metrics/d/gw01/connected_peers", "3")
	other.hears("wireguard-worker/gw01/d/data", `{"ExternalAddress":"gw01.example.org","Port":51820,"PublicKey":"`+keyText+`","LinkAddress":"fe80::1"}`)
	k := key(t)
	announce.Send(file("announce.sock"), "d", k.Key)
	other.hears("wireguard/d/all", keyText)
	k.Key[0]++
	other.publish(k, "gw02")
	eventually(t, "the exchange", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) == 1 && asked[0] == "d relay "+k.Key.String()
	})
	other.publish(message.Status{Gateway: "gw02", Online: true}, "")
	eventually(t, "the other is known", func() bool {
		text, err := os.ReadFile(file("gateways.json"))
		if err != nil {
			return false
		}
		known, err := gateways.Parse(text)
		return err == nil && known["gw02"].Online && known["gw01"].Online && known["gw01"].Domains["d"].Live == 3
	})
	// A configuration that cannot be read changes nothing, another one ends it.
	mu.Lock()
	loadErr = errors.New("none")
	mu.Unlock()
	if r.Stale() {
		t.Error("stale without a configuration")
	}
	mu.Lock()
	loadErr, cfg.Domains = nil, map[string]config.Domain{"d": {Name: "d"}, "e": {Name: "e"}}
	mu.Unlock()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	other.hears("wireguard-worker/gw01/status", "0")
	other.hears("wireguard-metrics/d/gw01/connected_peers", "-1")
	if len(logged) != 1 || logged[0] != "5 connected to the broker" {
		t.Errorf("logged %q", logged)
	}
}

// What goes wrong with a broker is said, once as long as it is the same.
func TestChanged(t *testing.T) {
	var told []string
	tell := changed(func(err error) { told = append(told, err.Error()) })
	for _, text := range []string{"a", "a", "b", "b", "a"} {
		tell(errors.New(text))
	}
	if fmt.Sprint(told) != "[a b a]" {
		t.Errorf("%v", told)
	}
}
