package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/check"
	"wgkex/internal/client"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/gateways"
	"wgkex/internal/kernel"
	"wgkex/internal/outcome"
	"wgkex/internal/status"
	"wgkex/internal/systemd"
)

// bench is a gateway with a domain d, and e without interfaces.
type bench struct {
	*domaintest.Gateway
	metrics  Gateway
	units    map[string]systemd.Unit
	unitsErr error
	warned   []string
}

const files = `listen = 10012
[domains.d]
wireguard = "w"
vxlan = "v"
listen = 10013
max_peers = 10
max_pending = 5
[domains.e]
wireguard = "we"
vxlan = "ve"
[http]
listen = 8080
`

func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	host := b.Host
	host.Devices = func(wireguard, vxlan string) (kernel.Devices, error) {
		if wireguard == "we" {
			return nil, fmt.Errorf("interface %s: %w", wireguard, kernel.ErrMissing)
		}
		return b.Host.Devices(wireguard, vxlan)
	}
	b.metrics = Gateway{
		Status: status.Source{
			Host: host,
			Units: func(_ context.Context, names ...string) ([]systemd.Unit, error) {
				found := make([]systemd.Unit, len(names))
				for i, name := range names {
					found[i] = b.units[name]
				}
				return found, b.unitsErr
			},
			Warn: func(err error) { b.warned = append(b.warned, err.Error()) },
		},
		Effective:  filepath.Join(t.TempDir(), "effective.toml"),
		RelayStats: filepath.Join(t.TempDir(), "stats.json"),
		Dir:        t.TempDir(),
		Connect: func(context.Context) (check.Gateway, func(), error) {
			return nil, nil, errors.New("asking systemd: no")
		},
	}
	b.metrics.ReadEffective = func() (config.Config, error) {
		if _, err := os.Stat(b.metrics.Effective); err != nil {
			return config.Config{}, err
		}
		dir := t.TempDir()
		b.write(filepath.Join(dir, config.File), files)
		return config.Load(dir)
	}
	b.write(filepath.Join(b.metrics.Dir, config.File), files)
	b.write(b.metrics.Effective, "")
	if err := os.Chtimes(b.metrics.Effective, time.Time{}, b.Wall.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(path, text string) {
	b.T.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.T.Fatal(err)
	}
}

// print is the metrics as text.
func (b *bench) print() string {
	b.T.Helper()
	var out strings.Builder
	if err := b.metrics.Print(b.T.Context(), &out); err != nil {
		b.T.Error(err)
	}
	return out.String()
}

// has checks that the metrics have these lines and none that begins so.
func (b *bench) has(lines []string, none ...string) {
	b.T.Helper()
	got := strings.Split(b.print(), "\n")
	for _, line := range lines {
		if !slices.Contains(got, line) {
			b.T.Errorf("no %s", line)
		}
	}
	for _, beginning := range none {
		if i := slices.IndexFunc(got, func(line string) bool { return strings.HasPrefix(line, beginning) }); i >= 0 {
			b.T.Errorf("unexpected %s", got[i])
		}
	}
}

func (b *bench) count(name string, way outcome.Way, codes ...outcome.Code) {
	b.T.Helper()
	c, err := counters.Open(counters.Path(b.Host.Dir, name))
	if err != nil {
		b.T.Fatal(err)
	}
	for _, code := range codes {
		c.Count(way, code)
	}
	if err := c.Close(); err != nil {
		b.T.Error(err)
	}
}

// All that a gateway may show is in the file, which promtool checks, too (Makefile).
func TestPrint(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	b.Handshake(domaintest.Key(1))
	b.Read()
	b.Pass(10 * time.Minute)
	b.SetClock(time.Hour)
	b.AddRouter(domaintest.Key(2))
	b.Handshake(domaintest.Key(2))
	b.AddRouter(domaintest.Key(3))
	b.AddStatic(domaintest.Key(4), "fd00::/64")
	b.Read()
	b.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		if err := d.NoteRestored(2, b.Boot); err != nil {
			t.Error(err)
		}
		if _, err := d.Save(); err != nil {
			t.Error(err)
		}
	})
	b.count("", outcome.TCP, outcome.InvalidDomain)
	b.count("d", outcome.TCP, outcome.OK, outcome.OK, outcome.Busy)
	b.count("d", outcome.HTTP, outcome.OK)
	b.units = map[string]systemd.Unit{
		"wgkex.socket":            {Active: "active", Accepted: 7, Refused: 2},
		"wgkex@d.socket":          {Active: "failed", Accepted: 3},
		"wgkex-http.socket":       {Active: "active", Accepted: 5},
		"wgkex-metrics.socket":    {Active: "active", Accepted: 4},
		"wgkex-local.socket":      {Load: "masked"},
		"wgkex-cleanup@d.service": {Active: "inactive", Started: b.Wall.Add(-5 * time.Minute), Ended: b.Wall.Add(-5*time.Minute + 1500*time.Millisecond)},
		"wgkex-cleanup@e.service": {Active: "failed", Started: b.Wall.Add(-time.Minute), Ended: b.Wall.Add(-time.Minute)},
		"wgkex-restore@d.service": {Active: "inactive", Started: b.Wall.Add(-time.Hour), Ended: b.Wall.Add(-time.Hour + 2*time.Second)},
		"wgkex-restore@e.service": {Active: "activating", Started: b.Wall.Add(-time.Minute)},
	}
	b.write(b.metrics.RelayStats, string(gateways.Stats{
		At: b.Boot, Connected: true, Received: map[gateways.Result]uint64{"OK": 12, gateways.ResultOwn: 3}, Sent: 4,
		Waiting: 2, Oldest: b.Wall.Add(-7 * time.Second), Unsent: 1,
	}.Text()))
	const file = "testdata/metrics.prom"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	got := strings.ReplaceAll(b.print(), runtime.Version(), "go")
	if got != string(want) {
		path := filepath.Join(os.TempDir(), "metrics.prom")
		b.write(path, got)
		t.Errorf("%s differs from what is printed, which is in %s", file, path)
	}
	if b.warned != nil {
		t.Errorf("warned %q", b.warned)
	}
	for _, m := range All {
		if !strings.Contains(got, "\n"+m.Name) {
			t.Errorf("the test does not show %s", m.Name)
		}
	}
}

// A reading of the last 15 seconds counts, and what happened since. Then there is
// another one.
func TestReadings(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	b.Read()
	b.Dumps = 0
	b.Pass(status.OverviewAge - time.Second)
	b.AddRouter(domaintest.Key(2)) // not by wgkex
	b.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		if err := b.Add(d, domaintest.Key(3)); err != nil {
			t.Error(err)
		}
	})
	b.has([]string{`wgkex_peers{domain="d",state="pending"} 2`})
	if b.Dumps != 0 {
		t.Errorf("%d dumps", b.Dumps)
	}
	b.Pass(time.Second)
	for range 3 {
		b.has([]string{`wgkex_peers{domain="d",state="pending"} 3`})
	}
	if b.Dumps != 1 {
		t.Errorf("%d dumps", b.Dumps)
	}
}

// What is known without the peers of a domain is shown all the same.
func TestUnreadable(t *testing.T) {
	b := newBench(t)
	b.unitsErr = errors.New("no systemd")
	b.count("e", outcome.TCP, outcome.Busy)
	b.has([]string{
		`wgkex_domain_up{domain="d"} 1`, `wgkex_domain_up{domain="e"} 0`,
		`wgkex_exchanges_total{domain="e",result="BUSY",way="tcp"} 1`, `wgkex_peers_limit{domain="e",of="peers"} 10000`,
	}, `wgkex_peers{domain="e"`, "wgkex_peers_counted{domain=\"e\"", "wgkex_socket_", "wgkex_cleanup_", "wgkex_restore_")
	b.write(counters.Path(b.Host.Dir, "d"), "of another kind")
	b.has(nil, `wgkex_exchanges_total{domain="d"`)
	if len(b.warned) != 1 {
		t.Errorf("warned %q", b.warned)
	}
}

func TestConfig(t *testing.T) {
	const valid, current, loaded = "wgkex_config_valid", "wgkex_config_current", "wgkex_config_loaded_timestamp_seconds"
	for _, c := range []struct {
		name   string
		change func(*bench)
		lines  []string
		none   []string
	}{
		{"as loaded", func(*bench) {}, []string{valid + " 1", current + " 1", loaded + " 1.7953452e+09"}, nil},
		{"changed", func(b *bench) { b.write(filepath.Join(b.metrics.Dir, config.File), files+"[gateway]\nname='g'\n") }, []string{valid + " 1", current + " 0"}, nil},
		{"broken", func(b *bench) { b.write(filepath.Join(b.metrics.Dir, config.File), "x = 1") }, []string{valid + " 0", current + " 0", `wgkex_domain_up{domain="d"} 1`}, nil},
		{"never loaded", func(b *bench) { _ = os.Remove(b.metrics.Effective) }, []string{valid + " 1", current + " 0"}, []string{loaded, "wgkex_domain_up", "wgkex_exchanges"}},
		{"a link elsewhere", func(b *bench) {
			if err := errors.Join(os.Mkdir(filepath.Join(b.metrics.Dir, "conf.d"), 0o755), os.Symlink("/nowhere", filepath.Join(b.metrics.Dir, "conf.d/x.toml"))); err != nil {
				b.T.Fatal(err)
			}
		}, []string{`wgkex_domain_up{domain="d"} 1`}, []string{valid, current}},
		{"no directory", func(b *bench) { b.metrics.Dir += "/none" }, nil, []string{valid, current}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			c.change(b)
			b.has(c.lines, c.none...)
		})
	}
}

func TestHandler(t *testing.T) {
	const text, open, plain = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0", "text/plain; charset=utf-8"
	for _, c := range []struct {
		method, path, accept string
		code                 int
		kind, has            string
	}{
		{"GET", "/metrics", "", 200, text, "\nwgkex_domain_up{domain=\"d\"} 1\n"},
		{"GET", "/metrics", "application/openmetrics-text; version=1.0.0", 200, open, "\n# EOF\n"},
		{"GET", "/metrics?x=y", "", 200, text, "\n# TYPE wgkex_exchanges_total counter\n"},
		{"HEAD", "/metrics", "", 200, text, ""},
		{"GET", "/status.json", "", 200, "application/json", `"domain": "d"`},
		{"GET", "/", "", 200, "text/html; charset=utf-8", "asking systemd: no (it needs root)"},
		{"HEAD", "/", "", 200, "text/html; charset=utf-8", ""},
		{"GET", "/nosuch", "", 404, plain, "404"},
		{"GET", "/metrics/", "", 404, plain, "404"},
		{"POST", "/metrics", "", 405, plain, "only GET"},
		{"OPTIONS", "/", "", 405, plain, "only GET"},
	} {
		b := newBench(t)
		request := httptest.NewRequest(c.method, c.path, nil)
		request.Header.Set("Accept", c.accept)
		answer := httptest.NewRecorder()
		b.metrics.Handler().ServeHTTP(answer, request)
		if kind := answer.Header().Get("Content-Type"); answer.Code != c.code || !strings.HasPrefix(kind, c.kind) || !strings.Contains(answer.Body.String(), c.has) {
			t.Errorf("%s %s: %d %s\n%s", c.method, c.path, answer.Code, kind, answer.Body)
		}
		if answer.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be stored", c.method, c.path)
		}
	}
}

// The status is what wgkex status --json prints, without the domains that cannot be
// read.
func TestStatus(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	cfg, err := b.metrics.ReadEffective()
	if err != nil {
		t.Fatal(err)
	}
	all, _ := b.metrics.Status.Collect(t.Context(), cfg, cfg.Sorted())
	var want strings.Builder
	if err := all.WriteJSON(&want); err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/status.json", nil))
	if got := answer.Body.String(); got != want.String() || !json.Valid([]byte(got)) || len(b.warned) != 1 {
		t.Errorf("got\n%s\nwant\n%s\nwarned %q", got, want.String(), b.warned)
	}
	if err := os.Remove(b.metrics.Effective); err != nil {
		t.Fatal(err)
	}
	answer = httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/status.json", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("without a configuration: %d", answer.Code)
	}
}

// The numbers of a relay that has ended are not those of one that is connected, and what
// is not its file is no number.
func TestRelayNumbers(t *testing.T) {
	b := newBench(t)
	b.has(nil, "wgkex_relay_")
	if b.warned != nil {
		t.Errorf("warned %q", b.warned)
	}
	stats := gateways.Stats{At: b.Boot, Connected: true, Waiting: 2}
	b.write(b.metrics.RelayStats, string(stats.Text()))
	b.has([]string{"wgkex_relay_connected 1", "wgkex_relay_waiting 2", `wgkex_relay_received_total{result="OK"} 0`}, "wgkex_relay_waiting_since")
	b.Pass(time.Minute)
	b.has([]string{"wgkex_relay_connected 0", "wgkex_relay_waiting 2"})
	stats.At, stats.Connected = b.Boot, false
	b.write(b.metrics.RelayStats, string(stats.Text()))
	b.has([]string{"wgkex_relay_connected 0"})
	b.warned = nil
	b.write(b.metrics.RelayStats, "{}")
	b.has(nil, "wgkex_relay_")
	if len(b.warned) == 0 || !strings.Contains(b.warned[0], "a relay's numbers") {
		t.Errorf("warned %q", b.warned)
	}
}

// The relay gets what other gateways are told, of the domains that can be read.
func TestRelay(t *testing.T) {
	b := newBench(t)
	for n := range 3 {
		b.AddRouter(domaintest.Key(n))
	}
	b.Handshake(domaintest.Key(1))
	b.AddStatic(domaintest.Key(7), "fd00::/64")
	b.OwnAddrs = []netip.Addr{netip.MustParseAddr("fe80::1")}
	b.Pass(status.OverviewAge)
	server := httptest.NewServer(b.metrics.Handler())
	defer server.Close()
	asking := client.Metrics{At: netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))}
	end, err := b.Devices.Gateway()
	if err != nil {
		t.Fatal(err)
	}
	own, err := asking.Own(t.Context())
	if want := []gateways.Own{{Domain: "d", Live: 1, Port: end.Port, Key: end.Key, Link: end.Addr}}; err != nil || !slices.Equal(own, want) {
		t.Errorf("%+v, %v, want %+v", own, err, want)
	}
	peers, err := asking.Peers(t.Context())
	if len(peers) != 1 || len(peers["d"]) != 3 || err != nil {
		t.Errorf("%v, %v", peers, err)
	}
	for n := range 3 {
		if !slices.Contains(peers["d"], domaintest.Key(n)) {
			t.Errorf("%d is missing", n)
		}
	}
	if len(b.warned) != 2 || !strings.Contains(b.warned[0], "domain e: interface we") {
		t.Errorf("warned %q", b.warned)
	}
	if err := os.Remove(b.metrics.Effective); err != nil {
		t.Fatal(err)
	}
	if _, err := asking.Own(t.Context()); err == nil {
		t.Error("there is no configuration")
	}
}

// serve serves a connection, and returns its other end.
func serve(t *testing.T, ctx context.Context) (conn net.Conn, served <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, taken, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "answer to ", r.URL.Path) }))
	}()
	return conn, done
}

// One request is served, then there is no connection and no server any more.
func TestServe(t *testing.T) {
	for _, c := range []struct {
		name, request, want string
		beginning           string
	}{
		{"a request", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "answer to /x", "HTTP/1.1 200"},
		{"one after it", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n", "answer to /x", "HTTP/1.1 200"},
		{"no HTTP", "ffww01\nkey\n\n\n", "", "HTTP/1.1 400"},
		{"long headers", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", "", "HTTP/1.1 431"},
	} {
		conn, served := serve(t, t.Context())
		if _, err := io.WriteString(conn, c.request); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(4 * time.Second))
		got, _ := io.ReadAll(conn)
		if !strings.HasPrefix(string(got), c.beginning) || !strings.HasSuffix(string(got), c.want) {
			t.Errorf("%s: got %q", c.name, got)
		}
		if err := <-served; err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A client that sends nothing is not waited for without end, nor at a shutdown.
func TestServeNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, served := serve(t, ctx)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	conn, served := serve(t, t.Context())
	_ = conn.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
