package httpd

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/logging"

	"github.com/coreos/go-systemd/v22/journal"
)

// local is a local socket that answers each request with its first line.
func local(t *testing.T) (path string, asked func() []string) {
	path = filepath.Join(t.TempDir(), "local")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var first []string
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					mu.Lock()
					first = append(first, fmt.Sprint(n, " ", in.Text()))
					mu.Unlock()
					if in.Scan() {
						fmt.Fprintln(c, "OK fe80::1 51820 KEY")
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return path, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), first...)
	}
}

func TestNew(t *testing.T) {
	socket, asked := local(t)
	cfg := config.Config{
		Domains: map[string]config.Domain{"d": {Name: "d"}, "e": {Name: "e"}},
		HTTP: config.HTTP{
			Listen: []config.Listen{{Port: 80}}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, DefaultDomain: "e",
		},
	}
	var loadErr error
	var logged []string
	log := func(_ journal.Priority, message string, _ ...logging.Field) { logged = append(logged, message) }
	s := New(Gateway{Socket: socket, Config: func() (config.Config, error) { return cfg, loadErr }, Log: log})
	ask := func(path, body, remote, forwarded string) (int, string) {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", forwarded)
		w := httptest.NewRecorder()
		s.Handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		gateway config.Gateway
		address string
	}{{config.Gateway{}, host}, {config.Gateway{Name: "gw01"}, "gw01"}, {config.Gateway{Name: "gw01", Address: "192.0.2.1"}, "192.0.2.1"}} {
		cfg.Gateway = c.gateway
		if status, answer := ask("/api/v2/wg/key/exchange", `{"domain": "d", "public_key": "k"}`, "192.0.2.7:1", "192.0.2.8"); status != 200 || !strings.Contains(answer, `"Address":"`+c.address+`"`) {
			t.Errorf("%d %s, want %s", status, answer, c.address)
		}
	}
	for _, body := range []string{`{"domain": "d", "public_key": "k"}`, `{"public_key": "k"}`, `{"domain": "x", "public_key": "k"}`, `{"domain": "y y", "public_key": "k"}`} {
		if status, answer := ask("/api/v1/wg/key/exchange", body, "10.0.0.1:1", "192.0.2.8"); status != 200 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	// A few connections, the same one for the same domain.
	want := []string{"0 d http 192.0.2.7", "0 d http 192.0.2.7", "0 d http 192.0.2.7", "0 d http 192.0.2.8", "1 e http 192.0.2.8", "0 x http 192.0.2.8", "0 - http 192.0.2.8"}
	if got := asked(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	if !s.Trusted(netip.MustParseAddr("10.0.0.1")) || s.Trusted(netip.MustParseAddr("192.0.2.7")) {
		t.Error("others are trusted")
	}
	if s.Stale() {
		t.Error("stale from the beginning")
	}
	cfg.HTTP.Listen = append(cfg.HTTP.Listen, config.Listen{Port: 81})
	if !s.Stale() {
		t.Error("not stale with another port")
	}
	if logged != nil {
		t.Errorf("logged %q", logged)
	}
	loadErr = errors.New("none yet")
	for range 2 {
		if status, _ := ask("/api/v1/wg/key/exchange", "{}", "192.0.2.7:1", ""); status != http.StatusServiceUnavailable {
			t.Errorf("without a configuration: %d", status)
		}
	}
	if len(logged) != 1 || !strings.Contains(logged[0], "none yet") || s.Stale() || s.Trusted(netip.MustParseAddr("10.0.0.1")) {
		t.Errorf("without a configuration: logged %q", logged)
	}
}

// A local socket that is not there is waited for, and then said to be missing.
func TestNoLocalSocket(t *testing.T) {
	var logged []string
	s := New(Gateway{
		Socket: filepath.Join(t.TempDir(), "none"), Config: func() (config.Config, error) { return config.Config{}, nil },
		Log: func(_ journal.Priority, message string, _ ...logging.Field) { logged = append(logged, message) },
	})
	r := httptest.NewRequest("POST", "/api/v1/wg/key/exchange", strings.NewReader(`{"domain": "d", "public_key": "k"}`))
	w := httptest.NewRecorder()
	s.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(logged) != 1 || !strings.Contains(logged[0], "none: connect: no such file or directory") {
		t.Errorf("logged %q", logged)
	}
}
