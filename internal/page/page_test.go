package page

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
	"wgkex/internal/status"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// gateway has one domain with three peers.
func gateway(q Query) Gateway {
	ago := func(d time.Duration) *time.Time { return new(now.Add(-d)) }
	d := status.Domain{Domain: "d", Peers: []status.Peer{
		{Key: address.Key{1}, State: policy.StatePending},
		{Key: address.Key{2}, Address: "fe80::2", State: policy.StateLive, LastHandshake: ago(time.Minute), Endpoint: "192.0.2.1:7"},
		{Key: address.Key{3}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}, State: policy.StateStatic, LastHandshake: ago(time.Second)},
	}}
	return Gateway{Name: "g", Now: now, Loaded: now, Query: q, Peers: &d, Overview: status.Overview{Domains: []status.Summary{{Domain: d}}}}
}

func (g Gateway) text(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	if err := g.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The browser takes the style sheet that is in the page, and no other.
func TestPolicy(t *testing.T) {
	_, rest, _ := strings.Cut(gateway(Query{Page: 1}).text(t), "<style>")
	sheet, _, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(sheet))
	if want := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"; !found || !strings.Contains(Policy, want) {
		t.Errorf("%s has no %s", Policy, want)
	}
}

// What anybody sends ends as text of the page or as an error, and links of the page lead
// to the same query again.
func FuzzQuery(f *testing.F) {
	f.Add("domain=d&q=abc&page=2&state=live&refresh=off")
	f.Add("q=<script>alert(1)</script>&domain=%00")
	f.Add("q=\"'><svg/onload=x>")
	f.Fuzz(func(t *testing.T, text string) {
		values, _ := url.ParseQuery(text)
		q, err := ParseQuery(values, []string{"d"})
		if err != nil {
			return
		}
		again, err := url.ParseQuery(strings.TrimPrefix(q.link(), "?"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseQuery(again, []string{"d"}); err != nil || got != q {
			t.Errorf("%q leads to %+v, %v, not to %+v", q.link(), got, err, q)
		}
		body := gateway(q).text(t)
		_, body, _ = strings.Cut(body, "</style>")
		plain := gateway(Query{Domain: "d", Page: 1, Still: q.Still, State: q.State}).text(t)
		for _, tag := range []string{"<script", "<img", "<svg/", "javascript:", "style="} {
			if strings.Contains(body, tag) {
				t.Errorf("%q puts %s into\n%s", text, tag, body)
			}
		}
		if strings.Count(body, "<input") != strings.Count(plain, "<input") {
			t.Errorf("%q changes the page:\n%s", text, body)
		}
	})
}

func TestChoose(t *testing.T) {
	peers := gateway(Query{}).Peers.Peers
	for query, want := range map[string][]byte{
		"": {3, 2, 1}, "state=live": {2}, "q=fd00::7": {3}, "q=fd00:0::/64": nil, "q=fd00::/64": {3}, "q=FE80:0::2": {2}, "q=192.0.2.1:7": {2}, "q=ag": {2}, "page=7": {3, 2, 1},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParseQuery(values, []string{"d"})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		chosen, total, page, pages := q.choose(peers)
		for _, p := range chosen {
			got = append(got, p.Key[0])
		}
		if string(got) != string(want) || total != len(want) || page != 1 || pages != 1 {
			t.Errorf("%q: %v, %d in all, page %d of %d, want %v", query, got, total, page, pages, want)
		}
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 20000: "20,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 24 * time.Hour: "24 h", 49 * time.Hour: "2 d"} {
		if got := spanText(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
	for _, c := range []struct {
		n, all int
		want   float64
	}{{0, 0, 0}, {1, 3, 33.33}, {3, 3, 100}, {7, 3, 100}} {
		if got := percent(c.n, c.all); got != c.want {
			t.Errorf("%d of %d are %v %%, want %v", c.n, c.all, got, c.want)
		}
	}
}
