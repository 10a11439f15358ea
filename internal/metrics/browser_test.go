//go:build browser

package metrics

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/gateways"
	"wgkex/internal/kernel"
	"wgkex/internal/outcome"
	"wgkex/internal/version"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is for a machine that is much slower than any that was seen. Nothing waits so
// long unless it hangs.
const patience = 10 * time.Minute

var pictures = flag.String("pictures", "", "directory for the pictures in the documents")

// audit is JavaScript that looks at the page in the browser, and returns what is wrong.
//
//go:embed testdata/audit.js
var audit string

// browser starts Debian's chromium, of which each tab is a context.
func browser(t *testing.T) context.Context {
	t.Helper()
	dir, err := os.MkdirTemp("", "wgkex-browser-") // not t.TempDir(), which fails if chromium still writes there at its end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(dir), chromedp.WSURLReadTimeout(patience),
		chromedp.NoSandbox, // which root cannot have
		chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true),
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	return ctx
}

// tab is a tab of the browser, and what happened in it that must not.
type tab struct {
	t       *testing.T
	ctx     context.Context
	base    string
	mu      sync.Mutex
	trouble []string
}

// newTab opens one that is so wide, in pixels.
func newTab(t *testing.T, browser context.Context, handler http.Handler, width int64, dark bool) *tab {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx, base: server.URL + "/"}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	b.size(width, 900, 1)
	return b
}

// listen takes what happens in the tab.
func (b *tab) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.note("console: %s", e.Type)
	case *runtime.EventExceptionThrown:
		b.note("exception: %s", e.ExceptionDetails.Text)
	case *log.EventEntryAdded: // violations of the policy, too
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.note("log: %s", e.Entry.Text)
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.base) || e.Type != network.ResourceTypeDocument {
			b.note("a request for %s", e.Request.URL)
		}
	}
}

func (b *tab) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trouble = append(b.trouble, fmt.Sprintf(format, args...))
}

// run runs an action in the tab.
func run[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// call makes a call of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	return run(b, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// size sets the size of the window in pixels of CSS, of which each has so many of the
// screen.
func (b *tab) size(width, height int64, scale float64) {
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: scale, Mobile: width < 600})
}

// open opens the page for a query. It does not refresh while it is looked at.
func (b *tab) open(query string) {
	b.t.Helper()
	run(b, chromedp.Navigate(b.base+"?refresh=off&"+query))
}

// follow does what leads to another page, and waits for that.
func (b *tab) follow(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// count is how many elements there are.
func (b *tab) count(selector string) int {
	b.t.Helper()
	return run(b, chromedp.Evaluate[int](fmt.Sprintf("document.querySelectorAll(%q).length", selector)))
}

// text is that of the page.
func (b *tab) text() string {
	b.t.Helper()
	return run(b, chromedp.Evaluate[string]("document.body.innerText"))
}

// wrong is what is wrong with the page that is open: what overflows, what not everybody
// can read and use, and what the browser complains about.
func (b *tab) wrong(width int64) []string {
	b.t.Helper()
	wrong := run(b, chromedp.Evaluate[[]string](fmt.Sprintf("(%s)(%d)", audit, width)))
	wrong = append(wrong, b.nameless()...)
	b.mu.Lock()
	wrong = append(wrong, b.trouble...)
	b.trouble = nil
	b.mu.Unlock()
	return wrong
}

// nameless are things without a name in the tree that the browser makes for screen
// readers.
func (b *tab) nameless() (wrong []string) {
	b.t.Helper()
	nodes := call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
	count := map[string]int{}
	for _, n := range nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role, name := strings.Trim(string(n.Role.Value), `"`), ""
		if n.Name != nil {
			name = strings.Trim(string(n.Name.Value), `" `)
		}
		count[role]++
		switch role {
		case "link", "button", "searchbox", "textbox", "combobox", "heading", "image", "img", "navigation", "search", "table", "article", "region", "columnheader", "rowheader", "RootWebArea":
			if name == "" {
				wrong = append(wrong, "a nameless "+role)
			}
		}
	}
	for _, role := range []string{"main", "banner", "contentinfo", "RootWebArea"} {
		if count[role] != 1 {
			wrong = append(wrong, fmt.Sprintf("%d of %s", count[role], role))
		}
	}
	return wrong
}

// A gateway in each state, and what its pages show.
func TestBrowser(t *testing.T) {
	const hostile = `"><script src="http://192.0.2.1/x.js"></script><img src=http://192.0.2.1/x onerror=alert(1)>`
	long := strings.Repeat("a-very.long_", 5)
	chromium := browser(t)
	for _, c := range []struct {
		name   string
		make   func(t *testing.T) *life
		query  string
		peers  int // that are shown
		counts map[string]int
		texts  []string
	}{
		{"no peers", func(t *testing.T) *life { return newLife(t, 1000, "ffww01") }, "", 0, map[string]int{".card": 1, ".bar": 1}, []string{"There are no peers.", "Nothing is wrong"}},
		{"three peers", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01")
			l.peers("ffww01", 3, time.Second, time.Minute)
			l.exchanges("ffww01", map[outcome.Code]int{outcome.OK: 2})
			return l
		}, "", 3, map[string]int{".card": 1, ".results tbody tr": 1}, []string{"1 to 3 of 3 peers", "3 live"}},
		{"long names", func(t *testing.T) *life {
			l := newLife(t, 1<<30, long, long+"2")
			l.peers(long, 2, time.Second, time.Minute)
			for i := range 30 {
				l.static(long, fmt.Sprintf("2001:db8:1111:2222:3333:4444:5555:%x/128", i), "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff/128")
			}
			l.exchanges(long, map[outcome.Code]int{outcome.OK: 1, outcome.AddressConflict: 90, outcome.ProhibitedKey: 3, outcome.Internal: 4, outcome.Busy: 5, outcome.InvalidKey: 6})
			l.failed["wgkex@"+long+".socket"] = true
			return l
		}, "domain=" + long, 32, map[string]int{".card": 1}, []string{long}},
		{"hostile", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01", "ffww02")
			l.peers("ffww01", 1, time.Second, time.Minute)
			devices := l.Status.Host.Devices
			l.Status.Host.Devices = func(wireguard, vxlan string) (kernel.Devices, error) {
				if wireguard == "wgww02" {
					return nil, fmt.Errorf("interface %s: %w", hostile, kernel.ErrMissing)
				}
				return devices(wireguard, vxlan)
			}
			l.write("[" + hostile + "]\n")
			return l
		}, "domain=ffww02&q=" + url.QueryEscape(hostile[:60]), 0, map[string]int{"script": 0, "img": 0}, []string{hostile}},
		{"20,000 peers", func(t *testing.T) *life {
			l := newLife(t, 20000, "ffww01", "ffww02")
			l.peers("ffww01", 19000, time.Second, time.Minute)
			l.peers("ffww01", 1000, 0, 0)
			return l
		}, "domain=ffww01&page=190", 100, map[string]int{".card": 1, ".full": 2, ".pages a": 2}, []string{"18,901 to 19,000 of 20,000 peers", "page 190 of 200"}},
		{"a broken configuration", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01")
			l.write("lisen = 1\nreply = 2\n")
			return l
		}, "", 0, map[string]int{".FAILED": 2}, []string{"2 checks failed", "unknown key lisen"}},
		{"a missing interface", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01", "missing")
			l.peers("ffww01", 3, time.Second, time.Minute)
			return l
		}, "", 0, map[string]int{".card": 2, ".card .FAILED": 1, ".bar": 1}, []string{"interface wgww02: no such interface", "3 live"}},
		{"an evening", evening, "", 0, map[string]int{".card": 4, ".card .bar": 4, ".domains a": 5, ".sockets tbody tr": 8}, []string{"ffww04", "1 check failed"}},
		{"an evening, one domain", evening, "domain=ffww02&state=restored", 36, map[string]int{".card": 1}, []string{"1 to 36 of 36 peers that match"}},
		{"no other gateways", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01")
			l.broker()
			return l
		}, "", 0, map[string]int{".gateways": 0, ".warning": 1}, []string{"Gateways", "has not run since the boot", "No gateway is known yet."}},
		{"three gateways", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01", "ffww02")
			l.broker()
			l.relay(l.connected(0), community(l, "ffww01", "ffww02", "gw1", "gw2.example.org", "gw3.example.org"))
			return l
		}, "", 0, map[string]int{".gateways tbody tr": 3, ".gateways li": 6, ".warning": 0}, []string{"is connected to the broker", "gw3.example.org (this)", "off line", "ffww01 10,000"}},
		{"64 gateways", func(t *testing.T) *life {
			l := newLife(t, 1000, "ffww01")
			l.broker()
			var names []string
			for i := range 64 {
				names = append(names, fmt.Sprintf("%064d", i))
			}
			l.relay(l.connected(time.Hour), community(l, strings.Repeat("W", 64), "ffww01", names...))
			return l
		}, "", 0, map[string]int{".gateways tbody tr": 64, ".gateways li": 128, ".warning": 1}, []string{"has written nothing for 60 min", fmt.Sprintf("%064d", 63), strings.Repeat("W", 64)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.make(t)
			for _, width := range []int64{390, 1280} {
				for _, dark := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d, dark %v", width, dark), func(t *testing.T) {
						b := newTab(t, chromium, l.Handler(), width, dark)
						b.open(c.query)
						for _, wrong := range b.wrong(width) {
							t.Error(wrong)
						}
						if n := b.count(".peers tbody tr"); n != c.peers {
							t.Errorf("%d peers, want %d", n, c.peers)
						}
						for selector, want := range c.counts {
							if n := b.count(selector); n != want {
								t.Errorf("%d of %s, want %d", n, selector, want)
							}
						}
						text := b.text()
						for _, want := range c.texts {
							if !strings.Contains(text, want) {
								t.Errorf("no %q in\n%s", want, text)
							}
						}
					})
				}
			}
		})
	}
}

// community is gateways of these names in two domains. What was heard of each of them is
// older and more.
func community(l *life, one, two string, names ...string) gateways.Known {
	known := gateways.Known{}
	for i, name := range names {
		counted := l.base.Boot - time.Duration(i)*time.Minute
		known[name] = gateways.Gateway{Online: i%3 != 1, Heard: counted, Domains: map[string]gateways.Domain{
			one: {Live: 10_000 * i, Counted: counted}, two: {Live: i - 1, Counted: counted},
		}}
	}
	return known
}

// A page with everything that the other tests look for is found out.
func TestBrowserFinds(t *testing.T) {
	b := newTab(t, browser(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "script-src 'none'")
		_, _ = io.WriteString(w, `<!DOCTYPE html><meta name="viewport" content="width=device-width"><body style="background:#fff">
<h1>a</h1><h3>b</h3><h1>c</h1><p style="color:#999">faint</p><p id="x">x</p><p id="x">x</p><input><table><tr><th>x</th></tr></table>
<svg></svg><a href="x"></a><img src="http://127.0.0.1:1/x"><script>x</script><div style="width:500px">wide</div><div style="width:9px;overflow:hidden">cutcutcut</div>
<section aria-labelledby="none">s</section><button></button>`)
	}), 390, false)
	b.open("")
	wrong := strings.Join(b.wrong(390), "\n")
	for _, want := range []string{
		"pixels wide", "div is from", "div is cut", "p has a contrast of 2.8", "no language", "no title", "h3 after a heading of level 1", "2 headings of level 1", "input has no label",
		"th has no scope", "table has no caption", "svg says nothing", "a leads nowhere", "two of #x", "section has the label of nothing", "button is too small", "script has a style or is a script",
		"a nameless link", "a nameless button", "a nameless textbox", "0 of main", "0 of banner", "a request for http://127.0.0.1:1/x", "Content Security Policy",
	} {
		if !strings.Contains(wrong, want) {
			t.Errorf("nobody says %q:\n%s", want, wrong)
		}
	}
}

// An admin goes from all domains to one, searches a peer there and finds it.
func TestBrowserSearch(t *testing.T) {
	l := newLife(t, 1000, "ffww01", "ffww02")
	l.peers("ffww01", 250, time.Second, time.Minute)
	key := l.peers("ffww01", 1, 0, 0)[0]
	b := newTab(t, browser(t), l.Handler(), 1280, false)
	b.open("")
	b.follow(chromedp.Click(chromedp.CSS(`.card h3 a[href*="ffww01"]`)))
	if n := b.count(".peers tbody tr"); n != 100 {
		t.Fatalf("%d peers", n)
	}
	b.follow(chromedp.Click(chromedp.CSS(`a[rel="next"]`)))
	b.follow(chromedp.Click(chromedp.CSS(`a[rel="next"]`)))
	if text := b.text(); !strings.Contains(text, "201 to 251 of 251") || !strings.Contains(text, key.String()) {
		t.Errorf("the last page is\n%s", text)
	}
	b.follow(chromedp.SendKeys(chromedp.CSS("#q"), key.String()[5:30]), chromedp.Click(chromedp.CSS("button")))
	if text := b.text(); !strings.Contains(text, "1 to 1 of 1 peers that match, of 251 in all") || !strings.Contains(text, key.String()) {
		t.Errorf("found\n%s", text)
	}
	for _, wrong := range b.wrong(1280) {
		t.Error(wrong)
	}
	if n := b.count(`header a[href*="refresh=off"]`); n != 0 {
		t.Error("refreshing has begun again")
	}
}

// The pictures in the documents show the gateway as it is now. They are made anew with
// make pictures.
func TestPictures(t *testing.T) {
	dir := *pictures
	if dir == "" {
		dir = t.TempDir()
	}
	defer func(before string) { version.Version = before }(version.Version)
	version.Version = "2.0" // whatever it is now
	chromium := browser(t)
	for _, c := range []struct {
		file   string
		width  int64
		height int64
		scale  float64
		query  string
	}{
		{"page.png", 1280, 960, 1, ""},
		{"page-phone.png", 390, 700, 1.5, "domain=ffww01#peers"},
	} {
		b := newTab(t, chromium, evening(t).Handler(), c.width, false)
		b.size(c.width, c.height, c.scale)
		run(b, chromedp.Navigate(b.base+"?"+c.query))
		png := run(b, chromedp.CaptureScreenshot())
		if len(png) < 10<<10 || len(png) > 200<<10 {
			t.Errorf("%s has %d bytes", c.file, len(png))
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), png, 0o644); err != nil {
			t.Error(err)
		}
	}
}
