//go:build vm

package suite

import (
	"html"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

// An admin opens the page, sees what wgkex check says, and finds a router.
func TestPage(t *testing.T) {
	const name = "ffpage"
	cleanupDomain(t, name, 44)
	serveMetrics(t)
	firewall(t)
	addPeers(t, name, 120)
	key := newKey(t)
	accept(t, sharedPort, name, key)
	refuse(t, sharedPort, name+"\nnone\n", "INVALID_WGKEY")
	cleanup(t, name, "")

	body, header := get(t, "/", nil)
	for name, want := range map[string]string{"Cache-Control": "no-store", "Refresh": "30", "Content-Type": "text/html; charset=utf-8", "Referrer-Policy": "no-referrer"} {
		if got := header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if policy := header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("the policy is %q", policy)
	}
	wants := func(body string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(body, part) {
				t.Errorf("no %s in\n%s", part, body)
			}
		}
	}
	wants(body, "<h1>"+sh(t, "uname -n")+"</h1>", `id="domain-`+name+`"`, "<b>121</b> of ", "<b>unreadable</b> interface wg-absent: no such interface",
		`<th scope="row">wgkex.socket</th><td>active</td>`, `<th scope="row">INVALID_WGKEY</th><td class="n">1</td>`, "121 peers, ", "took ")

	// wgkex check says the same, and more.
	out, _ := try("wgkex check")
	checks, _, _ := strings.Cut(body, `<h2 id="domains">`)
	found := regexp.MustCompile(`<p class="finding \w+"><b>(\w+)</b> (.*)</p>`).FindAllStringSubmatch(checks, -1)
	if len(found) == 0 {
		t.Errorf("nothing found in\n%s", checks)
	}
	fine := regexp.MustCompile(`<li>(.*?)</li>`).FindAllStringSubmatch(checks, -1)
	if len(fine) < 3 || !strings.Contains(checks, "<li>wgkex-firewall.service: active</li>") {
		t.Errorf("hardly anything is in order in\n%s", checks)
	}
	for _, f := range found {
		if line := f[1] + ": " + html.UnescapeString(f[2]); !strings.Contains(out+"\n", line+"\n") {
			t.Errorf("the page says %q, and wgkex check\n%s", line, out)
		}
	}
	for _, f := range fine {
		if line := "ok: " + html.UnescapeString(f[1]); !strings.Contains(out+"\n", line+"\n") {
			t.Errorf("the page says %q, and wgkex check\n%s", line, out)
		}
	}

	// The peers of the domain, and the search.
	body, _ = get(t, "/?domain="+name+"&page=2", nil)
	wants(body, "Peers of "+name, "101 to 121 of 121 peers", "page 2 of 2")
	body, _ = get(t, "/?domain="+name+"&q="+url.QueryEscape(key.String()[:20]), nil)
	wants(html.UnescapeString(body), "1 to 1 of 1 peers that match, of 121 in all", key.String(), derived(name, key).String(), "pending")
	body, _ = get(t, "/?domain="+name+"&q="+url.QueryEscape(derived(name, key).StringExpanded()), nil)
	wants(html.UnescapeString(body), "1 to 1 of 1 peers that match", key.String())
	body, _ = get(t, "/?domain=absent", nil)
	wants(body, `<h2 id="peers">Peers</h2><p class="finding FAILED"><b>unreadable</b>`)
	for query, code := range map[string]string{"?domain=nowhere": "404", "?page=x": "400"} {
		if got := sh(t, "curl -sg -o /dev/null -w '%%{http_code}' '%s/%s'", metricsURL, query); got != code {
			t.Errorf("%s: %s, want %s", query, got, code)
		}
	}

	// What the cleanup has kept of the counters counts, and what others put in its place
	// does not.
	path := "/run/wgkex/domains/" + name + ".history"
	text := sh(t, "cat %s", path)
	if !regexp.MustCompile(`^wgkex-history 1\n\d+ OK 1 INVALID_WGKEY 1$`).MatchString(text) {
		t.Errorf("the history is %q", text)
	}
	if mode := sh(t, "stat -c '%%U %%G %%a' %s", path); mode != "wgkex-cleanup wgkex 640" {
		t.Errorf("%s is %s", path, mode)
	}
	if err := os.WriteFile(path, []byte("<script>"), 0o644); err != nil {
		t.Fatal(err)
	}
	body, _ = get(t, "/", nil)
	wants(body, "<b>121</b> of ", "is not known yet: the next cleanup begins to keep it")
	if strings.Contains(body, "<script>") {
		t.Error("the page has what others wrote")
	}
	cleanup(t, name, "")
	if again := sh(t, "head -n 1 %s", path); again != "wgkex-history 1" {
		t.Errorf("after another cleanup it is %q", again)
	}
}
