package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/httpapi"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

// bench is a running server whose exchanges are all accepted, once wait lets them.
type bench struct {
	t    testing.TB
	tcp  string
	unix string
	wait func()
	stop context.CancelFunc
	done chan error

	mu    sync.Mutex
	asked []protocol.Request
}

func newBench(t testing.TB, change func(*Server)) *bench {
	b := &bench{t: t, wait: func() {}, done: make(chan error, 1), unix: filepath.Join(t.TempDir(), "s")}
	api := &httpapi.API{
		Exchange: func(ctx context.Context, r protocol.Request) (protocol.Answer, error) {
			defer Busy(ctx)()
			b.mu.Lock()
			b.asked = append(b.asked, r)
			b.mu.Unlock()
			b.wait()
			return protocol.Answer{Code: outcome.OK, Gateway: &protocol.Gateway{Addr: netip.MustParseAddr("fe80::1"), Port: 1, Key: "K"}}, ctx.Err()
		},
		Settings: func() (httpapi.Settings, error) { return httpapi.Settings{Address: "gw"}, nil },
		Failed:   func(err error) { t.Error(err) },
	}
	s := &Server{Handler: api, Trusted: func(netip.Addr) bool { return false }, Idle: time.Minute}
	if change != nil {
		change(s)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", b.unix)
	if err != nil {
		t.Fatal(err)
	}
	b.tcp = tcp.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() { b.done <- s.Run(ctx, []net.Listener{tcp, unix}) }()
	t.Cleanup(func() {
		stop()
		if err := <-b.done; err != nil {
			t.Error(err)
		}
		b.done <- nil
	})
	return b
}

func (b *bench) dial(network string) net.Conn {
	b.t.Helper()
	address := b.tcp
	if network == "unix" {
		address = b.unix
	}
	c, err := net.Dial(network, address)
	if err != nil {
		b.t.Fatal(err)
	}
	// For when something hangs; the server's own times are shorter.
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// say sends bytes and returns the statuses of all answers until the server closes,
// and whether it closed by itself, without the client's end.
func (b *bench) say(c net.Conn, text string) (statuses []int, closed bool) {
	b.t.Helper()
	defer c.Close()
	go func() { _, _ = io.WriteString(c, text) }() // it may not want all
	answers := bufio.NewReader(c)
	for {
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			b.t.Error(err)
		}
		statuses = append(statuses, r.StatusCode)
		if r.StatusCode >= 200 && !r.Close && answers.Buffered() == 0 {
			// Another answer may be under way.
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := answers.Peek(1); err != nil {
				return statuses, errors.Is(err, io.EOF)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		}
	}
}

func post(path, body string, headers ...string) string {
	text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n", path, len(body))
	for _, h := range headers {
		text += h + "\r\n"
	}
	return text + "\r\n" + body
}

const (
	v1   = "/api/v1/wg/key/exchange"
	body = `{"domain": "d", "public_key": "k"}`
)

var length = strconv.Itoa(len(body))

// What clients send that is not as it should be is refused or read as RFC 9112 says,
// and no more than one exchange is made of it.
func TestShapes(t *testing.T) {
	b := newBench(t, nil)
	head := "POST " + v1 + " HTTP/1.1\r\nHost: gw\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(body), body)
	next := post(v1, body)
	for _, c := range []struct {
		name, text string
		statuses   []int
		closes     bool
		asked      int
	}{
		{"HTTP/1.1", post(v1, body), []int{200}, false, 1},
		{"HTTP/1.0", "POST " + v1 + " HTTP/1.0\r\nContent-Length: " + length + "\r\n\r\n" + body, []int{200}, true, 1},
		{"HTTP/1.0, kept", "POST " + v1 + " HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: " + length + "\r\n\r\n" + body + next, []int{200, 200}, false, 2},
		{"as uclient-fetch", post(v1, body, "User-Agent: gluon/2023.2 (tp-link-archer-c7) OpenWrt/23.05", "Content-Type: application/x-www-form-urlencoded", "X-Gluon-Version: 1", "X-A: b"), []int{200}, false, 1},
		{"to be closed", post(v1, body, "Connection: close") + next, []int{200}, true, 1},
		{"pipelined", next + next + next, []int{200, 200, 200}, false, 3},
		{"absolute form", post("http://gw"+v1, body), []int{200}, false, 1},
		{"absolute form of another host", post("http://other:1"+v1, body), []int{200}, false, 1},
		{"percent", post("/api/v1/wg/key/%65xchange", body), []int{200}, false, 1},
		{"a query", post(v1+"?x=1", body), []int{200}, false, 1},
		{"100-continue", post(v1, body, "Expect: 100-continue"), []int{100, 200}, false, 1},
		{"another expectation", post(v1, body, "Expect: more") + next, []int{417}, true, 0},

		{"lengths that differ", head + "Content-Length: " + length + "\r\nContent-Length: 1\r\n\r\n" + body + next, []int{400}, true, 0},
		{"lengths in a list", head + "Content-Length: " + length + ", " + length + "\r\n\r\n" + body + next, []int{400}, true, 0},
		{"the same length twice", post(v1, body, "Content-Length: "+length), []int{200}, false, 1},
		{"a length with a sign", head + "Content-Length: +" + length + "\r\n\r\n" + body + next, []int{400}, true, 0},
		{"a negative length", head + "Content-Length: -1\r\n\r\n" + body + next, []int{400}, true, 0},
		{"a huge length", head + "Content-Length: 99999999999999999999\r\n\r\n" + body + next, []int{400}, true, 0},
		{"a length that is not a number", head + "Content-Length: 0x10\r\n\r\n" + body + next, []int{400}, true, 0},
		{"chunked", head + "Transfer-Encoding: chunked\r\n\r\n" + chunked + "\r\n" + next, []int{200}, true, 1},
		{"chunked with a length", head + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + "\r\n" + next, []int{200}, true, 1},
		{"chunked with trailers", head + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n" + chunked + "X: y\r\n\r\n" + next, []int{200}, true, 1},
		{"chunked twice", head + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunked + "\r\n" + next, []int{501}, true, 0},
		{"another coding", head + "Transfer-Encoding: gzip\r\n\r\n" + chunked + "\r\n" + next, []int{501}, true, 0},
		{"chunked in another spelling", head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked + "\r\n" + next, []int{501}, true, 0},
		{"chunked, HTTP/1.0", "POST " + v1 + " HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + "\r\n" + next, []int{400}, true, 0},
		{"a bad chunk", head + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + body + "\r\n0\r\n\r\n" + next, []int{400}, true, 0},
		{"a chunk with a bare LF", head + "Transfer-Encoding: chunked\r\n\r\n" + strings.ReplaceAll(chunked, "\r\n", "\n") + "\r\n" + next, []int{400}, true, 0},
		{"a space before the colon", head + "Content-Length : " + length + "\r\n\r\n" + body + next, []int{400}, true, 0},
		{"no name", head + ": x\r\n\r\n" + next, []int{400}, true, 0},
		{"no colon", head + "x\r\n\r\n" + next, []int{400}, true, 0},
		{"a header that goes on", head + "X: a\r\n b\r\nContent-Length: " + length + "\r\n\r\n" + body, []int{200}, false, 1},
		{"a header that begins so", "POST " + v1 + " HTTP/1.1\r\n Host: gw\r\n\r\n" + next, []int{400}, true, 0},
		{"bare LF", strings.ReplaceAll(next, "\r\n", "\n"), []int{200}, false, 1},
		{"bare CR", head + "X: a\rContent-Length: 1\r\n\r\n" + next, []int{400}, true, 0},
		{"NUL in a header", head + "X: a\x00b\r\n\r\n" + next, []int{400}, true, 0},
		{"NUL in the path", post("/api\x00", body) + next, []int{400}, true, 0},
		{"NUL in the body", post(v1, body+"\x00") + next, []int{400}, true, 0},
		{"no host", "POST " + v1 + " HTTP/1.1\r\nContent-Length: " + length + "\r\n\r\n" + body + next, []int{400}, true, 0},
		{"two hosts", head + "Host: other\r\nContent-Length: " + length + "\r\n\r\n" + body + next, []int{400}, true, 0},
		{"CONNECT", "CONNECT gw:443 HTTP/1.1\r\nHost: gw:443\r\n\r\n" + next, []int{404}, true, 0},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n" + next, []int{404}, true, 0},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + next, []int{505}, true, 0},
		{"an upgrade to HTTP/2", post(v1, body, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), []int{200}, false, 1},
		{"HTTP/0.9", "GET /\r\n\r\n", []int{400}, true, 0},
		{"HTTP/1.2", strings.Replace(next, "1.1", "1.2", 1), []int{200}, false, 1},
		{"HTTP/3", strings.Replace(next, "1.1", "3.0", 1), []int{505}, true, 0},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400}, true, 0},
		{"garbage", "\xff\xfe\r\n\r\n", []int{400}, true, 0},
		{"long headers", head + "X: " + strings.Repeat("x", 9<<10) + "\r\n\r\n" + next, []int{431}, true, 0},
		{"headers that fit", post(v1, body, "X: "+strings.Repeat("x", 7<<10)), []int{200}, false, 1},
		{"a long body", post(v1, strings.Repeat(" ", 5000)) + next, []int{413}, true, 0},
		{"another path with a body", post("/x", body) + next, []int{404}, true, 0},
		{"alive", "GET / HTTP/1.1\r\nHost: gw\r\n\r\n", []int{200}, false, 0},
	} {
		b.mu.Lock()
		b.asked = nil
		b.mu.Unlock()
		statuses, closed := b.say(b.dial("tcp"), c.text)
		b.mu.Lock()
		if !slices.Equal(statuses, c.statuses) || closed != c.closes || len(b.asked) != c.asked {
			t.Errorf("%s: answered %v, closed %v, %d exchanges, want %v, %v, %d", c.name, statuses, closed, len(b.asked), c.statuses, c.closes, c.asked)
		}
		for _, r := range b.asked {
			if r.Domain != "d" || r.Key != "k" {
				t.Errorf("%s: asked for %+v", c.name, r)
			}
		}
		b.mu.Unlock()
	}
}

// A connection makes so many requests, one of a proxy more.
func TestRequestsOfAConnection(t *testing.T) {
	b := newBench(t, nil)
	many := strings.Repeat(post(v1, body), maxRequests+5)
	if statuses, closed := b.say(b.dial("tcp"), many); len(statuses) != maxRequests || !closed {
		t.Errorf("%d requests, closed %v", len(statuses), closed)
	}
	if statuses, closed := b.say(b.dial("unix"), many); len(statuses) != maxRequests+5 || closed {
		t.Errorf("%d requests of a proxy, closed %v", len(statuses), closed)
	}
}

// silent waits until the server has closed the connection without an answer.
func silentEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if text, err := io.ReadAll(c); len(text) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v", text, err)
	}
}

// Whoever does nothing goes when there are too many, first of those who have most.
// Whoever is being served stays.
func TestTooMany(t *testing.T) {
	release := make(chan struct{})
	b := newBench(t, nil)
	b.wait = func() { <-release }
	busy := b.dial("tcp")
	if _, err := io.WriteString(busy, post(v1, body)); err != nil {
		t.Fatal(err)
	}
	for asked := 0; asked == 0; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		asked = len(b.asked)
		b.mu.Unlock()
	}
	var waiting []net.Conn
	for range maxOfSource - 1 {
		waiting = append(waiting, b.dial("tcp"))
	}
	// All of one source: the oldest that waits goes.
	last := b.dial("tcp")
	silentEnd(t, waiting[0])
	close(release)
	if r, err := http.ReadResponse(bufio.NewReader(busy), nil); err != nil || r.StatusCode != 200 {
		t.Errorf("who was served: %v, %v", r, err)
	}
	if statuses, _ := b.say(last, post(v1, body)); !slices.Equal(statuses, []int{200}) {
		t.Errorf("who came last: %v", statuses)
	}
	if statuses, _ := b.say(waiting[1], post(v1, body)); !slices.Equal(statuses, []int{200}) {
		t.Errorf("who came second: %v", statuses)
	}
}

// fakeConn is a connection of a client with an address.
type fakeConn struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (f *fakeConn) RemoteAddr() net.Addr { return f.addr }
func (f *fakeConn) Close() error         { f.closed = true; return nil }

func TestPool(t *testing.T) {
	idle := make(chan struct{}, 1)
	p := newPool(func(a netip.Addr) bool { return a.String() == "10.0.0.1" })
	p.whenIdle(time.Hour, func() { idle <- struct{}{} })
	client := func(addr string) (*fakeConn, *connection) {
		f := &fakeConn{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 1))}
		if addr == "::" {
			f.addr = &net.UnixAddr{}
		}
		return f, p.add(f)
	}
	// A flood of one /64 takes its share, another flood the rest.
	var flood []*fakeConn
	for i := range 1000 {
		f, _ := client(fmt.Sprintf("2001:db8::%x", i))
		flood = append(flood, f)
	}
	count := func() (open int) {
		for _, f := range flood {
			if !f.closed {
				open++
			}
		}
		return open
	}
	if got := count(); got != maxOfSource {
		t.Errorf("one source has %d connections", got)
	}
	for i := range 1000 {
		f, _ := client(fmt.Sprintf("2001:db9:0:%x::1", i))
		flood = append(flood, f)
	}
	if got := count(); got != maxConnections || p.total[false] != maxConnections {
		t.Errorf("all have %d connections", got)
	}
	honest, c := client("192.0.2.7")
	if c == nil || honest.closed || count() != maxConnections-1 {
		t.Error("a newcomer is not taken")
	}
	// It goes in its turn, but not while it is served.
	p.setBusy(c, true)
	for i := range 1000 {
		client(fmt.Sprintf("2001:dba:0:%x::1", i))
	}
	if honest.closed {
		t.Error("who is served was closed")
	}
	p.setBusy(c, false)
	for i := range 1000 {
		client(fmt.Sprintf("2001:dbb:0:%x::1", i))
	}
	if !honest.closed {
		t.Error("who does nothing stays")
	}
	// Proxies have as many of their own, in all.
	for i := range maxConnections + 1 {
		addr := "10.0.0.1"
		if i%2 == 0 {
			addr = "::"
		}
		if _, c := client(addr); c == nil {
			t.Errorf("connection %d of a proxy is not taken", i)
		}
	}
	if p.total[true] != maxConnections || p.total[false] != maxConnections {
		t.Errorf("there are %v", p.total)
	}
	// Where all are served, nobody goes.
	for _, connections := range p.sources {
		for c := range connections {
			c.busy = true
		}
	}
	if _, c := client("192.0.2.7"); c != nil {
		t.Error("there was no room")
	}
	for _, connections := range p.sources {
		for c := range connections {
			for range 2 {
				_ = c.Close()
			}
		}
	}
	if p.total[true] != 0 || p.total[false] != 0 || len(p.sources) != 0 {
		t.Errorf("left are %v in %v", p.total, p.sources)
	}
}

// It ends when there is nothing to do, and not while there is.
func TestIdle(t *testing.T) {
	b := newBench(t, func(s *Server) { s.Idle = 50 * time.Millisecond })
	c := b.dial("tcp")
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		if _, err := io.WriteString(c, post(v1, body)); err != nil {
			t.Fatal(err)
		}
		if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != 200 {
			t.Fatal(r, err)
		}
	}
	select {
	case err := <-b.done:
		t.Fatalf("it has ended: %v", err)
	default:
	}
	c.Close()
	if err := <-b.done; err != nil {
		t.Error(err)
	}
	b.done <- nil
	if c, err := net.Dial("tcp", b.tcp); err == nil {
		c.Close()
		t.Error("it takes connections after its end")
	}
}

// When its sockets are not the right ones any more it serves whom it has taken, and
// ends.
func TestStale(t *testing.T) {
	stale := make(chan struct{})
	b := newBench(t, func(s *Server) {
		s.Stale = func() bool {
			select {
			case <-stale:
				return true
			default:
				return false
			}
		}
	})
	for range 2 {
		if statuses, _ := b.say(b.dial("tcp"), post(v1, body)); !slices.Equal(statuses, []int{200}) {
			t.Errorf("answered %v", statuses)
		}
	}
	close(stale)
	if statuses, _ := b.say(b.dial("tcp"), post(v1, body)); !slices.Equal(statuses, []int{200}) {
		t.Errorf("answered %v", statuses)
	}
	if err := <-b.done; err != nil {
		t.Error(err)
	}
	b.done <- nil
}

// What is under way when it is to end is answered.
func TestEnd(t *testing.T) {
	release := make(chan struct{})
	b := newBench(t, nil)
	b.wait = func() { <-release }
	c := b.dial("tcp")
	if _, err := io.WriteString(c, post(v1, body)); err != nil {
		t.Fatal(err)
	}
	for asked := 0; asked == 0; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		asked = len(b.asked)
		b.mu.Unlock()
	}
	b.stop()
	for {
		if c, err := net.Dial("tcp", b.tcp); err != nil {
			break // no new ones
		} else {
			c.Close()
		}
	}
	close(release)
	answers := bufio.NewReader(c)
	if r, err := http.ReadResponse(answers, nil); err != nil || r.StatusCode != 200 {
		t.Errorf("%v, %v", r, err)
	} else if rest, err := io.ReadAll(answers); err != nil || len(string(rest)) != len(`{"Message":"OK"}`)+1 {
		t.Errorf("after the answer: %q, %v", rest, err)
	}
}

// A client that closes its half of the connection is answered.
func TestHalfClosed(t *testing.T) {
	b := newBench(t, nil)
	b.wait = func() { time.Sleep(100 * time.Millisecond) }
	c := b.dial("tcp")
	if _, err := io.WriteString(c, post(v1, body)+post(v1, body)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); err != nil || strings.Count(string(text), "200 OK") != 2 {
		t.Errorf("%q, %v", text, err)
	}
}

// So is a request that is on its way on a kept connection.
func TestEndOfKept(t *testing.T) {
	for what, first := range map[string]int{"half a head": 20, "a head": len(post(v1, "")), "all": len(post(v1, body)), "nothing": 0} {
		b := newBench(t, nil)
		c := b.dial("unix")
		answers := bufio.NewReader(c)
		answered := func() error {
			r, err := http.ReadResponse(answers, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
			}
			return err
		}
		text := post(v1, body)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if err := answered(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, text[:first]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // what was sent is read
		b.stop()
		time.Sleep(50 * time.Millisecond)
		var writeErr error
		if first < len(text) {
			_, writeErr = io.WriteString(c, text[first:])
		}
		if err := errors.Join(writeErr, answered()); (err == nil) != (first > 0) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A request of many lines takes much memory.
func TestLines(t *testing.T) {
	b := newBench(t, nil)
	c := b.dial("tcp")
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: gw\r\n"+strings.Repeat("a:\n", 1000)+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); strings.Contains(string(text), "200 OK") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answered %q, %v", text, err)
	}
	headers := make([]string, 10)
	for i := range headers {
		headers[i] = fmt.Sprintf("X-%d: y", i)
	}
	if statuses, _ := b.say(b.dial("tcp"), strings.Repeat(post(v1, body, headers...), 15)); len(statuses) != 15 {
		t.Errorf("many requests of some lines: %v", statuses)
	}
}

// What goes wrong in the server itself is not kept from its admin.
func TestTrouble(t *testing.T) {
	var mu sync.Mutex
	var told []string
	b := newBench(t, func(s *Server) {
		s.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("trouble") })
		s.Troubled = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err.Error())
		}
	})
	if statuses, _ := b.say(b.dial("unix"), post(v1, body)); len(statuses) > 0 {
		t.Errorf("answered %v", statuses)
	}
	if statuses, _ := b.say(b.dial("unix"), "x\r\n\r\n"); !slices.Equal(statuses, []int{400}) {
		t.Errorf("answered %v", statuses)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 1 || !strings.Contains(told[0], "panic serving") || !strings.Contains(told[0], "trouble") || strings.Contains(told[0], "\n") {
		t.Errorf("told %q", told)
	}
}

// Headers and bodies that drip are not waited for, nor thrown away as they come.
func TestSlow(t *testing.T) {
	b := newBench(t, nil)
	var wg sync.WaitGroup
	for _, c := range []struct {
		name, first string
		status      string // the beginning of the answer
	}{
		{"headers", "POST " + v1 + " HTTP/1.1\r\nHost: gw\r\nX: ", ""},
		{"body", strings.TrimSuffix(post(v1, strings.Repeat(" ", 1000)), strings.Repeat(" ", 1000)), "HTTP/1.1 408 "},
		{"body of another path", strings.TrimSuffix(post("/x", strings.Repeat(" ", 1000)), strings.Repeat(" ", 1000)), "HTTP/1.1 404 "},
		{"body that is too long", post(v1, strings.Repeat(" ", 8000))[:6000], "HTTP/1.1 413 "},
		{"nothing", "", ""},
	} {
		wg.Go(func() {
			conn := b.dial("tcp")
			if _, err := io.WriteString(conn, c.first); err != nil {
				t.Error(err)
			}
			ended := make(chan struct{})
			defer close(ended)
			go func() {
				for c.first != "" {
					select {
					case <-ended:
						return
					case <-time.After(time.Second):
						_, _ = io.WriteString(conn, " ") // until it is closed
					}
				}
			}()
			text, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(string(text), c.status) || (c.status == "") != (len(text) == 0) {
				t.Errorf("%s: %q, %v", c.name, text, err)
			}
		})
	}
	wg.Wait()
	if len(b.asked) > 0 {
		t.Errorf("asked for %v", b.asked)
	}
}

// Whatever comes, an exchange is asked for only with what a line can carry, and every
// answer is one.
func FuzzServer(f *testing.F) {
	f.Add([]byte(post(v1, body)))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST /api/add_key HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte(post("/api/v2/wg/key/exchange", `{"domain":"d\nd","public_key":"`+strings.Repeat("k", 70)+`"}`)))
	b := newBench(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := net.Dial("unix", b.unix)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, _ = c.Write(data)
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		answers := bufio.NewReader(c)
		for {
			if _, err := answers.Peek(1); err != nil {
				break
			}
			r, err := http.ReadResponse(answers, nil)
			if err != nil {
				break // one to HEAD has no body
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if r.StatusCode == http.StatusOK && r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%q: %v", data, r)
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, r := range b.asked {
			if lines := r.Lines(); strings.Count(lines, "\n") != 2 || len(lines) > 260 {
				t.Errorf("%q asks %q", data, lines)
			}
		}
		b.asked = nil
	})
}
