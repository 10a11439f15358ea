package metrics

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/gateways"
	"wgkex/internal/page"
)

// open is the answer to GET of a query, which has to be a page.
func (l *life) open(query string) (body string, header http.Header) {
	l.t.Helper()
	answer := httptest.NewRecorder()
	l.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/"+query, nil))
	if answer.Code != http.StatusOK || !strings.HasSuffix(answer.Body.String(), "</html>\n") {
		l.t.Fatalf("%s: %d\n%s", query, answer.Code, answer.Body)
	}
	return answer.Body.String(), answer.Header()
}

func hasAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			_, body, _ := strings.Cut(text, "</style>")
			t.Errorf("no %s in\n%s", part, body)
		}
	}
}

func hasNone(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("there is %s", part)
		}
	}
}

// All domains are on the page, and the peers of the one that is asked for.
func TestPage(t *testing.T) {
	l := evening(t)
	body, header := l.open("")
	hasAll(t, body, "<h1>gw3.example.org</h1>", "1 check failed", "the last cleanup of domain ffww03 failed", "vxww02 learns",
		"ffww01", "ffww02", "ffww03", "ffww04", "<span>803 live</span>", "<b>876</b> of 1,000 peers", "<b>197</b> of 200 pending", "36 restored", "INVALID_DOMAIN",
		"Configuration: valid.", "Last 24 h", "876 peers, 7 s ago")
	hasNone(t, body, "Peers of", "<script", "style=", "http://", "https://")
	for name, want := range map[string]string{
		"Content-Security-Policy": page.Policy, "Cache-Control": "no-store", "Refresh": "30", "Referrer-Policy": "no-referrer", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	body, header = l.open("?domain=ffww01&page=2&refresh=off")
	hasAll(t, body, "Peers of ffww01", "101 to 200 of 877 peers, the newest handshake first", "page 2 of 9", `href="?domain=ffww01&amp;page=3&amp;refresh=off" rel="next"`)
	hasNone(t, body, `id="domain-ffww02"`)
	if n := strings.Count(body, `<code class="key">`); n != page.PageSize {
		t.Errorf("%d peers", n)
	}
	if header.Get("Refresh") != "" {
		t.Error("it refreshes")
	}
	if len(l.warned) != 0 {
		t.Errorf("warned %q", l.warned)
	}
}

// HEAD reads nothing: wgkex check asks so whether anything answers.
func TestPageHead(t *testing.T) {
	l := newLife(t, 1000, "d")
	l.peers("d", 3, time.Second, time.Minute)
	dumps := l.devices["wgww01"].Dumps
	answer := httptest.NewRecorder()
	l.Handler().ServeHTTP(answer, httptest.NewRequest("HEAD", "/", nil))
	if answer.Code != http.StatusOK || answer.Body.Len() > 0 || l.devices["wgww01"].Dumps != dumps {
		t.Errorf("%d, %d bytes, %d dumps", answer.Code, answer.Body.Len(), l.devices["wgww01"].Dumps-dumps)
	}
}

// The page of a domain reads its peers once, and those of others only where the last
// reading is old.
func TestPageReadings(t *testing.T) {
	l := newLife(t, 1000, "a", "b")
	l.open("")
	a, b := l.devices["wgww01"], l.devices["wgww02"]
	a.Dumps, b.Dumps = 0, 0
	l.open("")
	if a.Dumps+b.Dumps != 0 {
		t.Errorf("%d and %d dumps", a.Dumps, b.Dumps)
	}
	l.open("?domain=a")
	if a.Dumps != 1 || b.Dumps != 0 {
		t.Errorf("%d and %d dumps", a.Dumps, b.Dumps)
	}
}

func TestPageQueries(t *testing.T) {
	l := newLife(t, 1000, "d")
	keys := l.peers("d", 150, time.Second, time.Minute)
	pending := l.peers("d", 1, 0, 0)[0]
	l.static("d", "fd00:1::/64", "192.0.2.0/24")
	_, addr := l.domain("d").Addresses.Of(keys[7])
	key := keys[7].String()
	for _, c := range []struct {
		query string
		has   []string
	}{
		{"", []string{"Peers of d", "1 to 100 of 152 peers, the newest"}},
		{"?page=99", []string{"101 to 152 of 152 peers", "page 2 of 2"}},
		{"?domain=d&q=" + url.QueryEscape(key), []string{"1 to 1 of 1 peers that match, of 152 in all", key}},
		{"?q=" + url.QueryEscape(strings.ToUpper(key[3:12])), []string{"1 to 1 of 1", key}},
		{"?q=" + addr.String(), []string{"1 to 1 of 1", addr.String()}},
		{"?q=" + addr.StringExpanded(), []string{"1 to 1 of 1", addr.String()}},
		{"?q=fd00:1::77", []string{"1 to 1 of 1", "fd00:1::/64"}},
		{"?q=2001:db8::53", []string{"1 to 1 of 1", "[2001:db8::53]:51820"}},
		{"?state=pending", []string{"1 to 1 of 1", pending.String()[:10], `data-name="handshake">-</td>`}},
		{"?state=stale", []string{"No peer matches."}},
		{"?q=%22%3E%3Cscript%3E", []string{"No peer matches.", "&#34;&gt;&lt;script&gt;"}},
	} {
		body, _ := l.open(c.query)
		hasAll(t, strings.ReplaceAll(body, "&#43;", "+"), c.has...)
		hasNone(t, body, "<script")
	}
	for query, code := range map[string]int{
		"?domain=e": 404, "?domain=%3Cb%3E": 404, "?page=0": 400, "?page=x": 400, "?page=99999999999999999999": 400, "?state=x": 400, "?q=" + strings.Repeat("x", 65): 400,
	} {
		answer := httptest.NewRecorder()
		l.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/"+query, nil))
		if answer.Code != code || !strings.HasPrefix(answer.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d, want %d", query, answer.Code, code)
		}
	}
}

// What is wrong is said in its place, and the rest is shown.
func TestPageTroubles(t *testing.T) {
	l := newLife(t, 1000, "d", "missing")
	l.peers("d", 3, time.Second, time.Minute)
	l.noUnits = true
	body, _ := l.open("")
	hasAll(t, body, "interface wgww02: no such interface", "<b>3</b> of 1,000 peers", "since systemd cannot be asked over D-Bus", "Exchanges",
		"What came over the last day is not known yet")
	body, _ = l.open("?domain=missing")
	hasAll(t, body, `<h2 id="peers">Peers</h2><p class="finding FAILED"><b>unreadable</b> interface wgww02: no such interface`)

	l.write("lisen = 1\n")
	body, _ = l.open("")
	hasAll(t, body, "1 check failed", config.Dir+"/wgkex.toml:1: unknown key lisen", "the files have a mistake; the one before is in use", "<b>3</b> of 1,000 peers")
	hasNone(t, body, l.dir)
	l.write("listen = 1\n")
	body, _ = l.open("")
	hasAll(t, body, "changed since the last daemon-reload", "not loaded yet: run wgkex apply")

	for _, path := range []string{counters.HistoryPath(l.base.Host.Dir, "d"), counters.Path(l.base.Host.Dir, "d")} {
		l.warned = nil
		if err := os.WriteFile(path, []byte("<b>hostile"), 0o644); err != nil {
			t.Fatal(err)
		}
		body, _ = l.open("")
		if len(l.warned) == 0 || strings.Contains(body, "hostile") {
			t.Errorf("%s: warned %q", path, l.warned)
		}
	}
	hasAll(t, body, "The counters cannot be read.", "<b>3</b> of 1,000 peers")
}

// What is known of other gateways is there as wgkex gateways has it, and what makes it
// doubtful.
func TestPageGateways(t *testing.T) {
	const heading = `<h2 id="gateways">Gateways</h2>`
	three := func(l *life) gateways.Known {
		now := l.base.Boot
		return gateways.Known{
			"gw3.example.org": {Online: true, Heard: now, Domains: map[string]gateways.Domain{"d": {Live: 1234, Counted: now}}},
			"gw2": {Online: true, Heard: now - 30*time.Second, Domains: map[string]gateways.Domain{
				"d": {Live: 0, Counted: now - 30*time.Second}, "e": {Live: 7, Counted: now - gateways.SilentFor}, "f": {Live: -1},
			}},
			"gw1": {Heard: now - 3*time.Hour},
		}
	}
	rows := []string{
		">gw1</th>\n", "<b>off line</b>", "3 h ago", `<span class="muted">unknown</span>`,
		">gw2</th>\n", ">on line<", `data-name="weight">1<`, "30 s ago", "<li>d <b>0</b></li>", `<span class="muted">e 7, 3 min ago</span>`, `<span class="muted">f unknown</span>`,
		">gw3.example.org <b>(this)</b></th>", `data-name="weight">3,000<`, "<li>d <b>1,234</b></li>",
	}
	const (
		never       = "<b>warning</b> wgkex-relay.service has not run since the boot."
		unreadable  = "<b>warning</b> What is known of the gateways cannot be read."
		isConnected = "<p>wgkex-relay.service is connected to the broker.</p>"
	)
	for name, c := range map[string]struct {
		broker bool
		make   func(l *life)
		query  string
		has    []string
		hasNot []string
		warned int
	}{
		"no broker":        {false, func(*life) {}, "", nil, []string{heading}, 0},
		"nobody was heard": {false, func(l *life) { l.relay(l.connected(0), gateways.Known{}) }, "", nil, []string{heading}, 0},
		"no broker any more": {
			false, func(l *life) { l.relay(l.connected(time.Hour), three(l)) }, "",
			[]string{heading, "<p>wgkex-relay.service has ended, since the configuration has no broker. This is what it knew.</p>", ">gw2</th>", `data-name="weight">1<`},
			[]string{">warning<"},
			0,
		},
		"no relay yet":   {true, func(*life) {}, "", []string{heading, never, "No gateway is known yet."}, []string{"<tbody role"}, 0},
		"a new relay":    {true, func(l *life) { l.relay(l.connected(0), gateways.Known{}) }, "", []string{heading, isConnected, "No gateway is known yet."}, []string{"<table class=\"gateways"}, 0},
		"three gateways": {true, func(l *life) { l.relay(l.connected(59*time.Second), three(l)) }, "", append(rows, heading, isConnected), []string{">warning<", "No gateway is known"}, 0},
		"no broker answers": {
			true, func(l *life) { l.relay(gateways.Stats{At: l.base.Boot}, three(l)) }, "",
			append(rows, "<b>warning</b> wgkex-relay.service is not connected to the broker."),
			[]string{isConnected},
			0,
		},
		"a relay that has ended": {
			true, func(l *life) { l.relay(l.connected(5*time.Minute), three(l)) }, "",
			append(rows, "<b>warning</b> wgkex-relay.service has written nothing for 5 min. What is known is as old."),
			[]string{isConnected},
			0,
		},
		"just ended": {true, func(l *life) { l.relay(l.connected(time.Minute), three(l)) }, "", []string{"has written nothing for 60 s"}, []string{isConnected}, 0},
		"foreign numbers": {true, func(l *life) {
			l.relay(l.connected(0), three(l))
			l.put(l.RelayStats, "{}")
		}, "", append(rows, "<b>warning</b> The numbers of wgkex-relay.service cannot be read."), []string{isConnected, never}, 1},
		"foreign gateways": {true, func(l *life) {
			l.relay(l.connected(0), three(l))
			l.put(l.Gateways, `{"version":1,"gateways":{"<script>":{"online":true,"heard_ns":0}}}`)
		}, "", []string{heading, isConnected, unreadable}, []string{"<script", "No gateway is known", "<table class=\"gateways"}, 1},
		"foreign gateways, no broker": {false, func(l *life) { l.put(l.Gateways, "hostile") }, "", nil, []string{heading, "hostile"}, 1},
		"a domain":                    {true, func(l *life) { l.relay(l.connected(0), three(l)) }, "?domain=d", nil, []string{heading, "gw2"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t, 1000, "d", "e")
			if c.broker {
				l.broker()
			}
			c.make(l)
			body, _ := l.open(c.query)
			hasAll(t, body, c.has...)
			hasNone(t, body, c.hasNot...)
			if len(l.warned) != c.warned {
				t.Errorf("warned %q", l.warned)
			}
		})
	}
	l := newLife(t, 1000, "d") // alone, it is the one that is asked for
	l.broker()
	l.relay(l.connected(0), three(l))
	body, _ := l.open("?domain=d")
	hasAll(t, body, append(rows, heading)...)
}

// Before the first valid configuration there is a page that says so.
func TestPageUnconfigured(t *testing.T) {
	b := newBench(t)
	if err := os.Remove(b.metrics.Effective); err != nil {
		t.Fatal(err)
	}
	b.write(b.metrics.Dir+"/"+config.File, "x = 1\n")
	answer := httptest.NewRecorder()
	b.metrics.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", answer.Code)
	}
	hasAll(t, answer.Body.String(), "there was no valid one since the boot", "unknown key x")
	hasNone(t, answer.Body.String(), "Domains")
}
