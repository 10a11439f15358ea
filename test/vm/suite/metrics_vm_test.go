//go:build vm

package suite

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"

	"golang.org/x/sys/unix"
)

const metricsURL = "http://[::1]:9587"

// serveMetrics starts the metrics where they are by default.
func serveMetrics(t testing.TB) {
	t.Helper()
	sh(t, "systemctl start wgkex-metrics.socket")
	t.Cleanup(func() { sh(t, "systemctl stop wgkex-metrics.socket") })
}

// get asks for a page of the gateway.
func get(t testing.TB, path string, header http.Header) (body string, answer http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, metricsURL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name := range header {
		r.Header.Set(name, header.Get(name))
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	all, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v, %s, %s", path, err, a.Status, all)
	}
	return string(all), a.Header
}

// series is what stands before the values, in sorted order.
func series(text string) (list []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			list = append(list, line[:strings.LastIndexByte(line, ' ')])
		}
	}
	slices.Sort(list)
	return list
}

// value wants a series, and returns what it is.
func value(t testing.TB, text, name string) (v float64) {
	t.Helper()
	_, rest, found := strings.Cut("\n"+text, "\n"+name+" ")
	if _, err := fmt.Sscan(rest, &v); !found || err != nil {
		t.Fatalf("no %s in\n%s", name, text)
	}
	return v
}

// A scrape says what wgkex metrics and wgkex status say, in the forms that Prometheus
// asks for, and gets in nobody's way.
func TestMetrics(t *testing.T) {
	const name = "ffmet"
	cleanupDomain(t, name, 41)
	serveMetrics(t)
	keys := addPeers(t, name, 3)
	cleanup(t, name, "")
	accepted := fmt.Sprintf(`wgkex_exchanges_total{domain="%s",result="OK",way="tcp"}`, name)
	first, _ := get(t, "/metrics", nil)
	if n := value(t, first, accepted); n != 0 {
		t.Errorf("%v exchanges before the first", n)
	}

	// The state is now that of another user, and exchanges go on.
	key := newKey(t)
	for range 2 {
		accept(t, sharedPort, name, key)
	}
	accept(t, sharedPort, name, keys[0])
	text, header := get(t, "/metrics", nil)
	for line, want := range map[string]float64{
		accepted: 3,
		fmt.Sprintf(`wgkex_domain_up{domain="%s"}`, name):                  1,
		`wgkex_domain_up{domain="absent"}`:                                 0,
		fmt.Sprintf(`wgkex_peers{domain="%s",state="pending"}`, name):      4,
		fmt.Sprintf(`wgkex_peers_counted{domain="%s",of="pending"}`, name): 4,
		fmt.Sprintf(`wgkex_saved_peers{domain="%s"}`, name):                3,
		fmt.Sprintf(`wgkex_cleanup_failed{domain="%s"}`, name):             0,
		`wgkex_socket_active{unit="wgkex.socket"}`:                         1,
		`wgkex_config_valid`:   1,
		`wgkex_config_current`: 1,
	} {
		if got := value(t, text, line); got != want {
			t.Errorf("%s is %v, want %v", line, got, want)
		}
	}
	if kind := header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") || header.Get("Cache-Control") != "no-store" {
		t.Errorf("the header is %v", header)
	}
	if printed := sh(t, "wgkex metrics"); !slices.Equal(series(printed), series(text)) {
		t.Errorf("wgkex metrics has other series:\n%s\nthan\n%s", printed, text)
	}
	open, header := get(t, "/metrics", http.Header{"Accept": {"application/openmetrics-text; version=1.0.0"}})
	if !strings.HasSuffix(open, "\n# EOF\n") || !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("OpenMetrics is %s\n%s", header.Get("Content-Type"), open)
	}

	var over struct{ Domains []status }
	answer, header := get(t, "/status.json", nil)
	if err := json.Unmarshal([]byte(answer), &over); err != nil || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %v, %s", err, header, answer)
	}
	printed, _ := readStatus(t, name)
	i := slices.IndexFunc(over.Domains, func(s status) bool { return s.Domain == name })
	if i < 0 || !slices.Equal(over.Domains[i].Peers, printed.Peers) || len(printed.Peers) != 4 {
		t.Errorf("over HTTP the status is %s, else %v", answer, printed)
	}

	cfg, err := config.LoadEffective()
	if err != nil {
		t.Fatal(err)
	}
	read := func() (at time.Duration) {
		if err := domain.System.Locked(t.Context(), cfg.Domains[name], time.Minute, func(d *domain.Domain) error {
			s, err := d.State()
			if err == nil {
				at = s.Reading.Ended
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return at
	}
	eventually(t, "several scrapes at a time taking one reading", func() bool {
		// On a machine that needs more than 15 seconds for them there are two.
		get(t, "/metrics", nil)
		before := read()
		var scrapes sync.WaitGroup
		for range 3 {
			scrapes.Go(func() { _, _ = try("curl -sfg '%s/metrics' -o /dev/null", metricsURL) })
		}
		scrapes.Wait()
		return read() == before
	})

	// Something holds the lock: the other domains are there.
	lock, err := os.OpenFile("/run/wgkex/domains/"+name+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	text, _ = get(t, "/metrics", nil)
	lock.Close()
	for line, want := range map[string]float64{
		fmt.Sprintf(`wgkex_domain_up{domain="%s"}`, name): 0, `wgkex_domain_up{domain="ffww01"}`: 1,
		fmt.Sprintf(`wgkex_peers_limit{domain="%s",of="peers"}`, name): 10000, accepted: 3,
	} {
		if got := value(t, text, line); got != want {
			t.Errorf("with the lock held %s is %v, want %v", line, got, want)
		}
	}
	if strings.Contains(text, fmt.Sprintf(`wgkex_peers{domain="%s"`, name)) {
		t.Errorf("peers of a domain whose lock is held:\n%s", text)
	}

	// Where everybody could read it, wgkex check says so.
	writeConf(t, "metrics.toml", "[metrics]\nlisten = 9587\n")
	sh(t, "systemctl daemon-reload")
	if out, _ := try("wgkex check"); !regexp.MustCompile(`(?m)^warning: .*wgkex-metrics\.socket.*`).MatchString(out) {
		t.Errorf("no warning that the metrics are for everybody:\n%s", out)
	}
}

// comparison is one of PromQL, which drops series where it is false, and keeps all
// with bool.
var comparison = regexp.MustCompile(` (==|!=|<=|>=|<|>) `)

// Debian's Prometheus scrapes the gateway, knows the rules, and finds something by
// each expression of rules and dashboard.
func TestMetricsPrometheus(t *testing.T) {
	const name = "ffprom"
	cleanupDomain(t, name, 42)
	relayTo(t, "localhost")
	serveMetrics(t)
	keys := addPeers(t, name, 3)
	cleanup(t, name, "")
	accept(t, sharedPort, name, newKey(t))
	sh(t, "wg set wg-%s peer %s remove; wgkex restore %[1]s", name, keys[0])

	eventually(t, "the numbers of the relay", func() bool { _, err := os.Stat("/run/wgkex/relay/stats.json"); return err == nil })

	text := section(t, document(t, "operating.md"), "Prometheus")
	config := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(text)[1]
	dir := t.TempDir()
	sh(t, "cp /usr/share/wgkex/prometheus/wgkex.rules.yml %s; chmod 755 %[1]s", dir)
	config = "global:\n  scrape_interval: 10s\n  scrape_timeout: 10s\n  evaluation_interval: 5s\n" + strings.ReplaceAll(config, "/etc/prometheus", dir)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	prometheus := exec.Command("prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address=127.0.0.1:9090")
	prometheus.Stdout, prometheus.Stderr = log, log
	if err := prometheus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = prometheus.Process.Kill() // Wait tells
		_ = prometheus.Wait()
		if t.Failed() {
			t.Log(sh(t, "tail -n 40 %s/log", dir))
		}
	})

	ask := func(path string, query url.Values, into any) error {
		r, err := http.Get("http://127.0.0.1:9090/api/v1/" + path + "?" + query.Encode())
		if err != nil {
			return err
		}
		defer r.Body.Close()
		return json.NewDecoder(r.Body).Decode(&struct{ Data any }{into})
	}
	results := func(expr string) int {
		var data struct{ Result []json.RawMessage }
		if err := ask("query", url.Values{"query": {expr}}, &data); err != nil {
			return 0
		}
		return len(data.Result)
	}
	// Two scrapes, for what increases. A slow one has nothing of systemd.
	for _, name := range []string{"wgkex_build_info", "wgkex_socket_connections_accepted_total", "wgkex_relay_sent_total"} {
		eventually(t, "Prometheus having scraped "+name+" twice", func() bool {
			return results("count_over_time("+name+"[1h]) > 1") > 0
		})
	}

	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError string }
		}
	}
	eventually(t, "Prometheus knowing the rules", func() bool {
		return ask("rules", nil, &rules) == nil && len(rules.Groups) == 1 &&
			!slices.ContainsFunc(rules.Groups[0].Rules, func(r struct{ Name, Query, Health, LastError string }) bool { return r.Health == "unknown" })
	})
	exprs := map[string]string{}
	for _, r := range rules.Groups[0].Rules {
		exprs[r.Name] = r.Query
		if r.Health != "ok" {
			t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	var dashboard any
	raw, err := os.ReadFile("/usr/share/wgkex/grafana/wgkex.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	expressions(dashboard, exprs)
	if len(exprs) < 30 {
		t.Errorf("only %d expressions", len(exprs))
	}
	for from, expr := range exprs {
		expr = strings.NewReplacer("$instance", ".*", "$domain", ".*").Replace(comparison.ReplaceAllString(expr, " $1 bool "))
		// What says when the clock was set is missing where it was not.
		if n := results(expr); n == 0 && !strings.Contains(expr, "clock_step") {
			t.Errorf("nothing by %s: %s", from, expr)
		}
	}
}

// expressions collects those of a dashboard: the strings under the key expr.
func expressions(in any, to map[string]string) {
	switch in := in.(type) {
	case map[string]any:
		for key, value := range in {
			if expr, ok := value.(string); ok && key == "expr" {
				to["the dashboard's "+expr] = expr
			}
			expressions(value, to)
		}
	case []any:
		for _, value := range in {
			expressions(value, to)
		}
	}
}

// With many peers, each page fits into the memory that it may take.
func TestMetricsOfManyPeers(t *testing.T)     { metricsOfManyPeers(t, 2000, "2,000") }
func TestLongMetricsOfManyPeers(t *testing.T) { metricsOfManyPeers(t, 20000, "20,000") }

// metricsOfManyPeers has so many peers. The limits are those of 20,000.
func metricsOfManyPeers(t *testing.T, peers int, shown string) {
	const name = "ffmany"
	cleanupDomain(t, name, 43)
	// The kernel waits for each peer of an interface that goes, minutes in all. So it
	// stays by another name.
	t.Cleanup(func() {
		sh(t, "ip link set wg-%s down; ip link set wg-%[1]s name wg-left; ip link add wg-%[1]s type bridge", name)
	})
	// What the service took is known as long as something else is in its slice.
	const dropIn = "/run/systemd/system/wgkex-metrics@.service.d"
	sh(t, "mkdir -p %s; printf '[Service]\nSlice=measured.slice\n' > %[1]s/test.conf; systemctl daemon-reload", dropIn)
	t.Cleanup(func() { sh(t, "rm -r %s; systemctl stop measured.slice; systemctl daemon-reload", dropIn) })
	serveMetrics(t)
	addPeers(t, name, peers)
	for path, limit := range map[string]int{"/metrics": 48 << 20, "/status.json": 100 << 20, "/?domain=" + name: 64 << 20} {
		sh(t, "rm -f /run/wgkex/domains/%s.state; systemctl stop measured.slice; systemd-run -q --slice=measured.slice sleep infinity", name)
		text, _ := get(t, path, nil)
		switch path {
		case "/metrics":
			if n := value(t, text, fmt.Sprintf(`wgkex_peers{domain="%s",state="pending"}`, name)); n != float64(peers) {
				t.Errorf("%v pending peers", n)
			}
		case "/status.json":
			if n := strings.Count(text, `"public_key"`); n < peers {
				t.Errorf("%d public keys", n)
			}
		default:
			if n := strings.Count(text, `<code class="key">`); n != 100 || !strings.Contains(text, "1 to 100 of "+shown+" peers") {
				t.Errorf("%d peers on the page", n)
			}
		}
		bytes, err := strconv.Atoi(sh(t, "cat /sys/fs/cgroup/measured.slice/memory.peak"))
		if err != nil || bytes > limit {
			t.Errorf("%s takes %d bytes, more than %d: %v", path, bytes, limit, err)
		}
		t.Logf("%s takes %.1f MiB", path, float64(bytes)/(1<<20))
	}
}
