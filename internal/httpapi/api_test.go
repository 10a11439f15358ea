package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

// gateway is what routers can connect to.
var gateway = protocol.Gateway{Addr: netip.MustParseAddr("fe80::1"), Port: 51820, Key: "KEY"}

// bench is an API that says what it asks for.
type bench struct {
	API
	asked  []protocol.Request
	answer protocol.Answer
	err    error
	failed []error
}

func newBench() *bench {
	b := &bench{answer: protocol.Answer{Code: outcome.OK, Gateway: &gateway}}
	b.API = API{
		Exchange: func(_ context.Context, r protocol.Request) (protocol.Answer, error) {
			b.asked = append(b.asked, r)
			return b.answer, b.err
		},
		Settings: func() (Settings, error) {
			return Settings{DefaultDomain: "default", Address: "gw01.example.org"}, nil
		},
		Failed: func(err error) { b.failed = append(b.failed, err) },
	}
	return b
}

func (b *bench) do(method, target, body string) *http.Response {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL.Path, r.RemoteAddr = target, "192.0.2.7:4000"
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

func TestRequests(t *testing.T) {
	const ok = `{"Message":"OK"}` + "\n"
	const endpoint = `{"Endpoint":{"Address":"gw01.example.org","Port":"51820","AllowedIPs":["fe80::1"],"PublicKey":"KEY"}}` + "\n"
	refused := func(code, message string) string {
		return fmt.Sprintf(`{"error":{"message":%q,"code":%q}}`+"\n", message, code)
	}
	notJSON := `{"error":{"message":"the body is not JSON such as {\"domain\": \"NAME\", \"public_key\": \"KEY\"}","code":"BAD_REQUEST"}}` + "\n"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		answer                   string
		asked                    string // domain and key
	}{
		{"v1", "POST", pathV1, `{"domain": "d", "public_key": "k"}`, 200, ok, "d k"},
		{"v2", "POST", pathV2, `{"domain": "d", "public_key": "k"}`, 200, endpoint, "d k"},
		{"Aachen's", "POST", pathKey, `{"node_name": "n", "public_key": "k"}`, 200, ok, "default k"},
		{"Aachen's with a domain", "POST", pathKey, `{"domain": "d", "public_key": "k"}`, 200, ok, "default k"},
		{"no domain", "POST", pathV1, `{"public_key": "k"}`, 200, ok, "default k"},
		{"no key", "POST", pathV1, `{"domain": "d"}`, 200, ok, "d "},
		{"more members", "POST", pathV1, `{"domain":"d","public_key":"k","x":[{}]}`, 200, ok, "d k"},
		{"what a stranger thinks of", "POST", pathV1, `{"domain":"d\ne","public_key":"\u0000"}`, 200, ok, "d\ne \x00"},
		{"two slashes", "POST", "//api//v1/wg/key/exchange/", `{"domain": "d", "public_key": "k"}`, 200, ok, "d k"},
		{"dots", "POST", "/x/../api/v1/wg/key/exchange", `{"domain": "d", "public_key": "k"}`, 200, ok, "d k"},
		{"alive", "GET", "/", "", 200, Alive, ""},
		{"alive, with a body", "GET", "/", "x", 200, Alive, ""},
		{"alive, the headers", "HEAD", "/", "", 200, Alive, ""}, // net/http leaves the body out

		{"nothing", "POST", pathV1, "", 400, notJSON, ""},
		{"a form", "POST", pathV1, "domain=d&public_key=k", 400, notJSON, ""},
		{"a string", "POST", pathV1, `"d"`, 400, notJSON, ""},
		{"a number for a domain", "POST", pathV1, `{"domain": 1, "public_key": "k"}`, 400, notJSON, ""},
		{"two values", "POST", pathV1, `{"domain": "d", "public_key": "k"}{}`, 400, notJSON, ""},
		{"half", "POST", pathV1, `{"domain": "d", "public_key": "k"`, 400, notJSON, ""},
		{"the longest", "POST", pathV1, `{"domain":"d","public_key":"k"}` + strings.Repeat(" ", MaxBody-31), 200, ok, "d k"},
		{"too long", "POST", pathV1, `{"domain":"d","public_key":"k"}` + strings.Repeat(" ", MaxBody-30), 413, refused("TOO_LARGE", "the body is longer than 4096 bytes"), ""},
		{"another path", "POST", "/api/v3/wg/key/exchange", "{}", 404, refused("NOT_FOUND", "there is nothing at this path"), ""},
		{"a path in it", "GET", pathV1 + "/x", "", 404, refused("NOT_FOUND", "there is nothing at this path"), ""},
		{"another case", "POST", "/API/v1/wg/key/exchange", "{}", 404, refused("NOT_FOUND", "there is nothing at this path"), ""},
		{"asking with GET", "GET", pathV1, "", 405, refused("METHOD_NOT_ALLOWED", "this method is not for this path"), ""},
		{"asking with PUT", "PUT", pathV2, "{}", 405, refused("METHOD_NOT_ALLOWED", "this method is not for this path"), ""},
		{"posting to the root", "POST", "/", "{}", 405, refused("METHOD_NOT_ALLOWED", "this method is not for this path"), ""},
		{"no path", "CONNECT", "", "", 404, refused("NOT_FOUND", "there is nothing at this path"), ""},
		{"all", "OPTIONS", "*", "", 404, refused("NOT_FOUND", "there is nothing at this path"), ""},
	} {
		b := newBench()
		r := b.do(c.method, c.path, c.body)
		if got := text(t, r); r.StatusCode != c.status || got != c.answer {
			t.Errorf("%s: %d %s, want %d %s", c.name, r.StatusCode, got, c.status, c.answer)
		}
		asked := ""
		for _, r := range b.asked {
			asked += r.Domain + " " + r.Key
			if r.Way != outcome.HTTP || r.Remote != netip.MustParseAddr("192.0.2.7") {
				t.Errorf("%s: asked as %s of %s", c.name, r.Way, r.Remote)
			}
		}
		if asked != c.asked {
			t.Errorf("%s: asked for %q, want %q", c.name, asked, c.asked)
		}
		if closes := r.Header.Get("Connection") == "close"; closes != (c.status != 200) {
			t.Errorf("%s: closes %v", c.name, closes)
		}
		if r.Header.Get("Cache-Control") != "no-store" || c.status == 405 && r.Header.Get("Allow") == "" {
			t.Errorf("%s: headers %v", c.name, r.Header)
		}
	}
}

// Each refusal has its status, and none is an acceptance.
func TestRefusals(t *testing.T) {
	status := map[outcome.Code]int{
		outcome.NoDomain: 400, outcome.InvalidDomain: 400, outcome.NoKey: 400, outcome.InvalidKey: 400,
		outcome.ProhibitedKey: 403, outcome.AddressConflict: 409, outcome.Busy: 503, outcome.Internal: 500,
	}
	for _, code := range outcome.Codes[1:] {
		b := newBench()
		b.answer = protocol.Answer{Code: code}
		r := b.do("POST", pathV2, `{"domain": "d", "public_key": "k"}`)
		got := text(t, r)
		if r.StatusCode != status[code] || !strings.Contains(got, `"code":"`+string(code)+`"`) || strings.Contains(got, `"message":""`) {
			t.Errorf("%s: %d %s", code, r.StatusCode, got)
		}
		if retry := r.Header.Get("Retry-After"); (retry == "60") != (code == outcome.Busy) || r.Header.Get("Connection") != "" {
			t.Errorf("%s: headers %v", code, r.Header)
		}
	}
}

// What is not known is BUSY, and said to whom it may concern.
func TestUnanswered(t *testing.T) {
	const body = `{"domain": "d", "public_key": "k"}`
	trouble := errors.New("trouble")
	busy := func(what string, b *bench, path string, failed int) {
		t.Helper()
		r := b.do("POST", path, body)
		if got := text(t, r); r.StatusCode != 503 || !strings.Contains(got, `"BUSY"`) || r.Header.Get("Retry-After") == "" || len(b.failed) != failed {
			t.Errorf("%s: %d %s, %v", what, r.StatusCode, got, b.failed)
		}
	}
	b := newBench()
	b.err = trouble
	busy("no answer", b, pathV1, 1)
	b = newBench()
	b.Settings = func() (Settings, error) { return Settings{}, trouble }
	busy("no configuration", b, pathV1, 1)
	for what, g := range map[string]*protocol.Gateway{
		"no gateway": nil,
		"no port":    {Addr: gateway.Addr, Key: "KEY"},
		"no address": {Port: 1, Key: "KEY"},
	} {
		b = newBench()
		b.answer.Gateway = g
		busy(what, b, pathV2, 0)
		if r := b.do("POST", pathV1, body); r.StatusCode != 200 {
			t.Errorf("%s: v1 is %d", what, r.StatusCode)
		}
	}
}

// A client has so many exchanges at a time, and others are served beside it.
func TestAsking(t *testing.T) {
	b := newBench()
	started, release := make(chan struct{}), make(chan struct{})
	b.Exchange = func(context.Context, protocol.Request) (protocol.Answer, error) {
		started <- struct{}{}
		<-release
		return b.answer, nil
	}
	ask := func(remote string) int {
		r := httptest.NewRequest("POST", pathV1, strings.NewReader(`{"domain": "d", "public_key": "k"}`))
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		return w.Code
	}
	done := make(chan int)
	for i := range maxAsking {
		go func() { done <- ask(fmt.Sprintf("[2001:db8::%x]:4000", i)) }()
		<-started
	}
	if status := ask("[2001:db8::ffff]:4000"); status != 503 {
		t.Errorf("one more: %d", status)
	}
	go func() { done <- ask("[2001:db8:0:1::1]:4000") }()
	<-started
	close(release)
	for range maxAsking + 1 {
		if status := <-done; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if len(b.asking) != 0 {
		t.Errorf("left are %v", b.asking)
	}
	go func() { <-started }()
	if status := ask("[2001:db8::ffff]:4000"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}
