//go:build vm

package suite

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/counters"
	"wgkex/internal/outcome"
)

const (
	httpPort = 8080
	v1Path   = "/api/v1/wg/key/exchange"
	v2Path   = "/api/v2/wg/key/exchange"
	// endpointAddress is where routers reach WireGuard, on the gateway's lo.
	endpointAddress = "192.0.2.1"
)

// serveHTTP turns HTTP on, with the lines of the table http.
func serveHTTP(t testing.TB, lines string) {
	t.Helper()
	if err := os.WriteFile("/etc/wgkex/conf.d/http.toml", fmt.Appendf(nil, "[http]\n%s\n[gateway]\naddress = '%s'\n", lines, endpointAddress), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, "systemctl daemon-reload; systemctl start wgkex-local.socket wgkex-http.socket")
	t.Cleanup(func() {
		sh(t, "systemctl stop wgkex-http.socket 'wgkex-http@*.socket'; rm -f /etc/wgkex/conf.d/http.toml; systemctl daemon-reload")
	})
}

// client asks as routers do, by an address of the gateway.
func httpClient(dial func(ctx context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // its certificate is made by the test
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
}

func localClient() *http.Client {
	return httpClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("localhost:%d", httpPort))
	})
}

// post asks for an exchange and returns the status, the code of a refusal, and the
// time after which to try again.
func post(client *http.Client, url, domain, key string) (status int, code, retry string, err error) {
	body, err := json.Marshal(map[string]string{"domain": domain, "public_key": key})
	if err != nil {
		return 0, "", "", err
	}
	r, err := client.Post(url, "application/x-www-form-urlencoded", strings.NewReader(string(body)))
	if err != nil {
		return 0, "", "", err
	}
	defer r.Body.Close()
	var answer struct{ Error struct{ Code string } }
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return 0, "", "", err
	}
	return r.StatusCode, answer.Error.Code, r.Header.Get("Retry-After"), nil
}

// patiently asks again when the gateway is busy, as a router does: a slow machine may
// take more than the 5 s of an exchange to start a local handler.
func patiently(client *http.Client, url, domain, key string) (status int, code, retry string, err error) {
	for range 10 {
		status, code, retry, err = post(client, url, domain, key)
		if err != nil || status != 503 {
			break
		}
		time.Sleep(time.Second)
	}
	return status, code, retry, err
}

// askHTTP wants a status.
func askHTTP(t testing.TB, path, domain, key string, status int) (code string) {
	t.Helper()
	ask := patiently
	if status == 503 {
		ask = post
	}
	got, code, retry, err := ask(localClient(), "http://localhost"+path, domain, key)
	if err != nil || got != status || (retry != "") != (status == 503) {
		t.Errorf("%q in %q: %d %s, Retry-After %q, %v, want %d", key, domain, got, code, retry, err, status)
	}
	return code
}

// What routers and admins have at hand can ask.
func TestHTTPClients(t *testing.T) {
	const domain = "ffhttp"
	domainWithProfile(t, domain, 40, address.FFMUC)
	serveHTTP(t, fmt.Sprintf("listen = %d\ndefault_domain = '%s'", httpPort, domain))
	const ok = `{"Message":"OK"}`
	linkLocal := sh(t, "ip -6 addr show wg-%s | sed -n 's,.*inet6 \\(fe80[^/]*\\)/.*,\\1,p'", domain)
	endpoint := fmt.Sprintf(`{"Endpoint":{"Address":"%s","Port":"%s","AllowedIPs":["%s"],"PublicKey":"%s"}}`,
		endpointAddress, sh(t, "wg show wg-%s listen-port", domain), linkLocal, sh(t, "wg show wg-%s public-key", domain))
	base := fmt.Sprintf("http://127.0.0.1:%d", httpPort)
	both := `{"domain": "` + domain + `", "public_key": "KEY"}`
	raw := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gw\r\nUser-Agent: gluon/2023.2.3 (tp-link-archer-c7-v2) OpenWrt/23.05\r\nContent-Type: application/x-www-form-urlencoded\r\nX-Gluon-Version: 1\r\nX-Model: x\r\nContent-Length: LENGTH\r\n\r\n%s", v1Path, both)
	askHTTP(t, v1Path, domain, newKey(t).String(), 200) // starts what has to be started
	for name, c := range map[string]struct{ command, want string }{
		"BusyBox wget, v1": {fmt.Sprintf("busybox wget -q -O- --post-data '%s' %s%s", both, base, v1Path), ok},
		"BusyBox wget, v2": {fmt.Sprintf("busybox wget -q -O- --post-data '%s' --header 'X-Gluon-Version: 1' %s%s", both, base, v2Path), endpoint},
		"Aachen's":         {fmt.Sprintf(`busybox wget -q -O- --post-data '{"node_name": "n", "public_key": "KEY"}' %s/api/add_key`, base), ok},
		"no domain":        {fmt.Sprintf(`curl -sS -d '{"public_key": "KEY"}' %s%s`, base, v1Path), ok},
		"curl":             {fmt.Sprintf("curl -sS -d '%s' %s%s", both, base, v1Path), ok},
		"curl, HTTP/1.0":   {fmt.Sprintf("curl -sS --http1.0 -d '%s' %s%s", both, base, v2Path), endpoint},
		"curl, JSON, IPv6": {fmt.Sprintf("curl -sS -H 'Content-Type: application/json' -d '%s' 'http://[::1]:%d%s'", both, httpPort, v1Path), ok},
		"curl, kept":       {fmt.Sprintf("curl -sSv -d '%s' %s%s %s%s 2>&1 | grep -c Re-using", both, base, v1Path, base, v1Path), "1"},
		"curl, chunked":    {fmt.Sprintf("curl -sS -H 'Transfer-Encoding: chunked' -d '%s' %s%s", both, base, v1Path), ok},
		"as uclient-fetch": {fmt.Sprintf("printf '%%s' '%s' | busybox nc -w 20 127.0.0.1 %d | tail -n 1", raw, httpPort), ok},
		"pipelined":        {fmt.Sprintf("printf '%%s' '%s%s' | busybox nc -w 20 127.0.0.1 %d | grep -c OK.*}", raw, raw, httpPort), "2"},
	} {
		key := newKey(t)
		command := strings.ReplaceAll(strings.ReplaceAll(c.command, "LENGTH", strconv.Itoa(len(both)-len("KEY")+len(key.String()))), "KEY", key.String())
		if out, err := try("%s", command); err != nil || out != c.want {
			t.Errorf("%s: %v, %q, want %q", name, err, out, c.want)
			continue
		}
		wantRouter(t, domain, key)
	}
	if out := sh(t, "busybox wget -q -O- %s/", base); !strings.Contains(out, "alive") {
		t.Errorf("GET / answers %q", out)
	}
}

// A router goes by the answer of v2 alone to a working tunnel, and asks over the
// tunnel, while a stranger floods the public port, whether the gateway is alive.
func TestHTTPTunnel(t *testing.T) {
	sh(t, "ip addr add %s/32 dev lo", endpointAddress)
	t.Cleanup(func() { sh(t, "ip addr del %s/32 dev lo", endpointAddress) })
	for i, profile := range []address.Profile{address.FFMUC, address.Gluon} {
		domain, router, number := fmt.Sprint("fftun", i), fmt.Sprint("tun", i), 41+i
		domainWithProfile(t, domain, number, profile)
		gateway := linkLocal(t, "ip -6 addr show dev wg-"+domain)
		serveHTTP(t, fmt.Sprintf("listen = [%d, '[%s%%wg-%s]:80']", httpPort, gateway, domain))
		sh(t, "systemctl start wgkex-http@wg-%s.socket; systemctl start wgkex-firewall", domain)
		askHTTP(t, v1Path, domain, newKey(t).String(), 200) // starts what has to be started
		out := sh(t, "./suite-files/http-router %s %d %s %s %d %d %s", router, 100+i, domain, endpointAddress, httpPort, 100+number, profile)
		t.Cleanup(func() { _, _ = try("ip netns del %s", router) })
		fields := strings.Split(out, "\t")
		key, err := address.ParseKey(fields[0])
		if err != nil || len(fields) != 4 || fields[3] != gateway {
			t.Fatalf("%q: %v, want %s", out, err, gateway)
		}
		wantRouter(t, domain, key)
		reach(t, router, 100+number)
		ctx, stop := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		for range 20 {
			flood.Go(func() {
				for ctx.Err() == nil {
					if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort), time.Second); err == nil {
						_, _ = io.WriteString(c, "POST ")
						time.Sleep(50 * time.Millisecond)
						c.Close()
					}
				}
			})
		}
		for range 3 {
			sh(t, "ip netns exec %s timeout 60 busybox wget -q -O- 'http://[%s%%wg0]/'", router, fields[3])
		}
		stop()
		flood.Wait()
		sh(t, "systemctl stop wgkex-firewall")
	}
}

// All refusals of the TCP way, with their statuses, and none of them changes the
// kernel. They are counted as HTTP's.
func TestHTTPRefusals(t *testing.T) {
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	const prohibited = "QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU="
	good := newKey(t).String()
	static, conflict := newKey(t), newKey(t)
	sh(t, "wg set wg-ffww01 peer %s allowed-ips fd00:5::/64,%s/128; rm -f /run/wgkex/domains/ffww01.state", static, derived("ffww01", conflict))
	t.Cleanup(func() { sh(t, "wg set wg-ffww01 peer %s remove; rm -f /run/wgkex/domains/ffww01.state", static) })
	long := strings.Repeat("x", 65)
	marker := "MARK$(touch /tmp/pwned);`touch /tmp/pwned`|&'\"\n\x1b[2J"
	read := func(domain string) map[outcome.Code]uint64 {
		r, err := counters.Read(counters.Path("/run/wgkex/domains", domain))
		if err != nil {
			t.Fatal(err)
		}
		return r[outcome.HTTP]
	}
	askHTTP(t, v1Path, "nowhere", good, 400) // starts what has to be started
	counted := map[string]map[outcome.Code]uint64{}
	for _, domain := range []string{"", "ffww01", "broken", "absent"} {
		counted[domain] = read(domain)
	}
	before := state(t)
	refused := 0
	log := entries(t, "wgkex-local", func() {
		for _, c := range []struct {
			domain, key string
			status      int
			code        outcome.Code
			countedFor  string
		}{
			{"", good, 400, "NO_DOMAIN", ""},
			{"nowhere", good, 400, "INVALID_DOMAIN", ""},
			{"FFWW01", good, 400, "INVALID_DOMAIN", ""},
			{"ffww01 ", good, 400, "INVALID_DOMAIN", ""},
			{"ffww01\n" + good, good, 400, "INVALID_DOMAIN", ""},
			{"ffww01 http 192.0.2.99", good, 400, "INVALID_DOMAIN", ""},
			{long, good, 400, "INVALID_DOMAIN", ""},
			{"../../etc/passwd", good, 400, "INVALID_DOMAIN", ""},
			{marker, good, 400, "INVALID_DOMAIN", ""},
			{"ffww01", "", 400, "NO_WGKEY", "ffww01"},
			{"ffww01", long, 400, "INVALID_WGKEY", "ffww01"},
			{"ffww01", good[:43], 400, "INVALID_WGKEY", "ffww01"},
			{"ffww01", good + "\nffww01", 400, "INVALID_WGKEY", "ffww01"},
			{"ffww01", marker, 400, "INVALID_WGKEY", "ffww01"},
			{"ffww01", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 400, "INVALID_WGKEY", "ffww01"},
			{"ffww01", prohibited, 403, "PROHIBITED_WGKEY", "ffww01"},
			{"ffww01", sh(t, "wg show wg-ffww01 public-key"), 403, "PROHIBITED_WGKEY", "ffww01"},
			{"ffww01", static.String(), 403, "PROHIBITED_WGKEY", "ffww01"},
			{"ffww01", conflict.String(), 409, "ADDRESS_CONFLICT", "ffww01"},
			{"broken", good, 503, "BUSY", "broken"},
			{"absent", good, 503, "BUSY", "absent"},
		} {
			if got := askHTTP(t, v2Path, c.domain, c.key, c.status); got != string(c.code) {
				t.Errorf("%.100q in %.100q: %s, want %s", c.key, c.domain, got, c.code)
			}
			refused++
			counted[c.countedFor] = mapWith(counted[c.countedFor], c.code)
		}
		// What is no request at all asks nobody.
		for _, command := range []string{"-d x", "-X PUT -d '{}'", "-d \"$(head -c 5000 /dev/zero | tr '\\0' ' ')\""} {
			sh(t, "curl -sS -o /dev/null %s http://127.0.0.1:%d%s", command, httpPort, v1Path)
		}
	})
	if after := state(t); after != before {
		t.Errorf("the kernel was changed from\n%s\nto\n%s", before, after)
	}
	for domain, want := range counted {
		got := read(domain)
		for code := range want {
			if got[code] != want[code] {
				t.Errorf("domain %q: counted %v, want %v", domain, got, want)
			}
		}
	}
	if len(log) != refused {
		t.Errorf("%d log entries for %d refusals: %v", len(log), refused, log)
	}
	for _, e := range log {
		if e["WGKEX_RESULT"] == "" || e["WGKEX_WAY"] != "http" || !slices.Contains([]string{"127.0.0.1", "::1"}, e["WGKEX_REMOTE"]) {
			t.Errorf("a log entry without fields: %v", e)
		}
		if strings.Contains(fmt.Sprint(e), "MARK") {
			t.Errorf("client bytes in the log: %v", e)
		}
	}
	if _, err := os.Stat("/tmp/pwned"); err == nil {
		t.Error("a shell got the client's bytes")
	}
}

func mapWith(counts map[outcome.Code]uint64, code outcome.Code) map[outcome.Code]uint64 {
	if counts == nil {
		counts = map[outcome.Code]uint64{}
	}
	counts[code]++
	return counts
}

// Debian's nginx in front, as the guide has it: TLS, few connections behind it, and
// the addresses of its clients in the journal.
func TestHTTPBehindNginx(t *testing.T)     { httpBehindNginx(t, 200) }
func TestLongHTTPBehindNginx(t *testing.T) { httpBehindNginx(t, 500) }

func httpBehindNginx(t *testing.T, registrations int) {
	const domain, parallel = "ffnginx", 20
	domainWithProfile(t, domain, 43, address.FFMUC)
	serveHTTP(t, "socket = '/run/wgkex/http.sock'")
	guide := script(section(t, document(t, "operating.md"), "nginx"), ".")
	guide = strings.NewReplacer("192.0.2.1:", "127.0.0.1:", "[2001:db8::1]:", "[::1]:",
		"/etc/letsencrypt/live/gw01.example.org/fullchain.pem", "/root/tls.crt",
		"/etc/letsencrypt/live/gw01.example.org/privkey.pem", "/root/tls.key").Replace(guide)
	sh(t, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gw -keyout tls.key -out tls.crt 2> /dev/null; systemctl unmask nginx")
	t.Cleanup(func() { sh(t, "systemctl stop nginx; systemctl mask nginx; rm -f /etc/nginx/sites-enabled/wgkex") })
	if err := os.WriteFile("nginx.sh", []byte("set -e\n"+guide), 0o700); err != nil {
		t.Fatal(err)
	}
	sh(t, "bash nginx.sh")
	started := func() int {
		n, err := strconv.Atoi(sh(t, "systemctl show -P NAccepted wgkex-local.socket"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := started()
	keys := make([]address.Key, registrations)
	var next atomic.Int64
	log := entries(t, "wgkex-local", func() {
		var wg sync.WaitGroup
		for range parallel {
			wg.Go(func() {
				// Each of its own, as routers are, with a connection for each request.
				for i := int(next.Add(1)) - 1; i < registrations; i = int(next.Add(1)) - 1 {
					keys[i] = newKey(t)
					from := netip.AddrFrom4([4]byte{127, 1, byte(i / 250), byte(1 + i%250)})
					client := httpClient(func(ctx context.Context) (net.Conn, error) {
						dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
						return dialer.DialContext(ctx, "tcp", "127.0.0.1:443")
					})
					status, code, _, err := patiently(client, "https://gw01.example.org"+v1Path, domain, keys[i].String())
					if err != nil || status != 200 {
						t.Errorf("router %d: %d %s, %v", i, status, code, err)
					}
				}
			})
		}
		wg.Wait()
	})
	if n := missing(t, domain, keys); n > 0 {
		t.Errorf("%d of %d routers are missing", n, registrations)
	}
	if n := started() - before; n == 0 || n > 5 {
		t.Errorf("%d local handlers were started", n)
	}
	byKey := map[string]string{}
	for _, e := range log {
		byKey[e["WGKEX_PUBLIC_KEY"]] = e["WGKEX_REMOTE"]
	}
	wrong := 0
	for i, key := range keys {
		// Above 300 entries in 10 seconds they are left out.
		if remote, logged := byKey[key.String()]; logged && remote != fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250) {
			wrong++
		}
	}
	if wrong > 0 || len(byKey) < registrations/2 {
		t.Errorf("%d of %d addresses in the journal are wrong", wrong, len(byKey))
	}
	// Without TLS, too, and what a client says of itself does not count.
	log = entries(t, "wgkex-local", func() {
		sh(t, `curl -sS -H 'X-Forwarded-For: 198.18.9.9' -H 'Forwarded: for=198.18.9.9' -d '{"domain": "%s", "public_key": "%s"}' http://127.0.0.1%s`, domain, newKey(t), v1Path)
	})
	if len(log) != 1 || log[0]["WGKEX_REMOTE"] != "127.0.0.1" {
		t.Errorf("a forged address: %v", log)
	}
}

// When nobody answers at the local socket, routers hear so within seconds, and are
// served as soon as somebody does.
func TestHTTPLocalSocket(t *testing.T) {
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	key := newKey(t)
	askHTTP(t, v1Path, "ffww01", key.String(), 200)
	wantRouter(t, "ffww01", key)
	// Stopped by a signal: what was asked of it is not answered OK.
	sh(t, "pkill -STOP -x wgkex-local")
	key = newKey(t)
	if code := askHTTP(t, v1Path, "ffww01", key.String(), 503); code != "BUSY" {
		t.Errorf("silent: %s", code)
	}
	sh(t, "pkill -CONT -x wgkex-local; true")
	eventually(t, "an exchange after silence", func() bool {
		status, _, _, err := post(localClient(), "http://localhost"+v1Path, "ffww01", key.String())
		return err == nil && status == 200
	})
	wantRouter(t, "ffww01", key)
	// Killed between two exchanges, and while many are under way.
	ctx, stop := context.WithCancel(t.Context())
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		for ; ctx.Err() == nil; time.Sleep(time.Second) {
			_, _ = try("pkill -KILL -x wgkex-local")
		}
	}()
	keys := make([]address.Key, 100)
	var wg sync.WaitGroup
	for part := range slices.Chunk(keys, 10) {
		wg.Go(func() {
			for i := range part {
				part[i] = newKey(t)
				status, code, _, err := post(localClient(), "http://localhost"+v1Path, "ffww01", part[i].String())
				if err != nil || status != 200 && status != 503 {
					t.Errorf("%d %s, %v", status, code, err)
				}
				if status != 200 {
					part[i] = address.Key{}
				}
			}
		})
	}
	wg.Wait()
	stop()
	<-killed
	keys = slices.DeleteFunc(keys, address.Key.IsZero)
	t.Logf("%d of 100 were served while all handlers were killed", len(keys))
	if len(keys) == 0 {
		t.Error("nobody was served")
	}
	wantRouter(t, "ffww01", keys...)
	// Gone.
	sh(t, "systemctl stop wgkex-local.socket 'wgkex-local@*.service'")
	log := entries(t, "wgkex-http", func() {
		for range 2 {
			askHTTP(t, v2Path, "ffww01", newKey(t).String(), 503)
		}
	})
	if len(log) == 0 || log[0]["_TRANSPORT"] != "journal" || log[0]["PRIORITY"] != "3" || !strings.Contains(log[0]["MESSAGE"], "local.sock") {
		t.Errorf("the journal says %v", log)
	}
	sh(t, "systemctl start wgkex-local.socket")
	askHTTP(t, v2Path, "ffww01", newKey(t).String(), 200)
	sh(t, "systemctl reset-failed 'wgkex-local@*.service' 2> /dev/null; true")
}

// A service that is started anew, or ends, loses nobody who comes meanwhile.
func TestHTTPRestart(t *testing.T) {
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	askHTTP(t, v1Path, "ffww01", newKey(t).String(), 200)
	ctx, stop := context.WithCancel(t.Context())
	var served, failed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				r, err := localClient().Get("http://localhost/")
				if err != nil {
					t.Error(err)
					failed.Add(1)
					return
				}
				r.Body.Close()
				served.Add(1)
			}
		})
	}
	for range 5 {
		sh(t, "systemctl restart wgkex-http.service; sleep 0.5; pkill -TERM -x wgkex-http; sleep 0.5")
	}
	stop()
	wg.Wait()
	t.Logf("%d requests, %d failed", served.Load(), failed.Load())
	if served.Load() == 0 {
		t.Error("nobody was served")
	}
}

// The socket of an interface comes with it, goes with it and comes back, whatever else
// there is on the port, and stays away when the admin has stopped all.
func TestHTTPInterface(t *testing.T) {
	const domain, number = "ffcome", 44
	domainWithProfile(t, domain, number, address.FFMUC)
	serveHTTP(t, fmt.Sprintf("listen = ['127.0.0.1:80', '[fe80::1%%wg-%s]:80', '[fe80::2%%wg-late]:80']", domain))
	sh(t, "systemctl start wgkex.target")
	answers := func(device, addr string) bool {
		out, err := try("curl -s -m 5 'http://[%s%%25%s]/'", addr, device)
		return err == nil && strings.Contains(out, "alive")
	}
	sh(t, "ip addr add fe80::1/64 dev wg-%s nodad", domain)
	eventually(t, "the first", func() bool { return answers("wg-"+domain, "fe80::1") })
	for what, change := range map[string]string{
		"made anew":          fmt.Sprintf("ip link del wg-%s; ./suite-files/gateway %[1]s %d ffmuc", domain, number),
		"made anew at once":  fmt.Sprintf("for i in 1 2 3; do ip link del wg-%s; ./suite-files/gateway %[1]s %d ffmuc; done", domain, number),
		"the service is up":  fmt.Sprintf("curl -s -m 5 'http://[fe80::1%%25wg-%s]/'; ip link del wg-%[1]s; ./suite-files/gateway %[1]s %d ffmuc", domain, number),
		"the target is anew": "systemctl restart wgkex.target",
	} {
		sh(t, "%s", change)
		sh(t, "ip addr add fe80::1/64 dev wg-%s nodad 2> /dev/null || true", domain)
		eventually(t, what, func() bool { return answers("wg-"+domain, "fe80::1") })
	}
	if out := sh(t, "curl -s http://127.0.0.1/"); !strings.Contains(out, "alive") {
		t.Errorf("beside it: %q", out)
	}
	if out, err := try("systemctl is-active wgkex-http@wg-late.socket"); err == nil {
		t.Errorf("without its interface the socket is %s", out)
	}
	sh(t, "ip link add wg-late type wireguard; ip link set wg-late up; ip addr add fe80::2/64 dev wg-late nodad")
	t.Cleanup(func() { _, _ = try("ip link del wg-late") })
	eventually(t, "the late one", func() bool { return answers("wg-late", "fe80::2") })
	if out := sh(t, "systemctl --failed --no-legend list-units 'wgkex*'"); out != "" {
		t.Errorf("failed are %s", out)
	}
	sh(t, "systemctl stop wgkex.target; ip link del wg-late; ip link add wg-late type wireguard")
	time.Sleep(2 * time.Second)
	if out, err := try("systemctl is-active wgkex-http@wg-late.socket"); err == nil {
		t.Errorf("after a stop the socket is %s", out)
	}
	sh(t, "systemctl start wgkex.target; systemctl stop 'wgkex-cleanup@*.timer'")
	eventually(t, "it after a start", func() bool { out, _ := try("systemctl is-active wgkex-http@wg-late.socket"); return out == "active" })
}

// hostileHTTP is what strangers do with a connection beside the TCP way's.
var hostileHTTP = map[string]func(net.Conn){
	"idle": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
	"slow headers": func(c net.Conn) {
		for _, err := io.WriteString(c, "POST "+v1Path+" HTTP/1.1\r\nX: "); err == nil; time.Sleep(time.Second) {
			_, err = io.WriteString(c, "x")
		}
	},
	"slow body": func(c net.Conn) {
		for _, err := io.WriteString(c, "POST "+v1Path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"); err == nil; time.Sleep(time.Second) {
			_, err = io.WriteString(c, " ")
		}
	},
	"garbage": func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("\xff\x00", 500)) },
	"many requests": func(c net.Conn) {
		go func() { _, _ = io.Copy(io.Discard, c) }()
		for range 20 {
			_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 38\r\n\r\n%s", v1Path, `{"domain": "nowhere","public_key":"k"}`)
		}
	},
	"not reading": func(c net.Conn) {
		for range 1000 {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				break
			}
		}
		time.Sleep(5 * time.Second)
	},
	"long headers": func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 100000)) },
	"leaving":      func(net.Conn) {},
}

func TestHTTPFlood(t *testing.T)     { httpFlood(t, 1500, 30) }
func TestLongHTTPFlood(t *testing.T) { httpFlood(t, 10000, 200) }

// httpFlood has so many hostile connections of all kinds, and so many routers among
// them. There is no firewall: wgkex-http itself has to bear it.
func httpFlood(t *testing.T, flood, routers int) {
	const domain = "fffloods"
	domainWithProfile(t, domain, 45, address.FFMUC)
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	internet := makeNetwork(t, "internet", 1, strings.Fields(honestPrefixes)...)
	attackers := makeNetwork(t, "attackers", 2, "2001:db8:a::/48", "198.18.2.0/24")
	for _, n := range []*network{internet, attackers} {
		n.gateway4, n.gateway6 = netip.AddrPortFrom(n.gateway4.Addr(), httpPort), netip.AddrPortFrom(n.gateway6.Addr(), httpPort)
	}
	var kinds []string
	for kind := range hostileHTTP {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	keys := make([]address.Key, routers)
	for i := range keys {
		keys[i] = newKey(t)
	}
	start := time.Now()
	var next, in, again atomic.Int64
	var wg, hostile sync.WaitGroup
	for range min(80, flood/50) { // fewer where the machine is slow
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < flood; i = int(next.Add(1)) - 1 {
				if i%(flood/routers) == 0 {
					n := i / (flood / routers)
					wg.Go(func() {
						client := httpClient(func(context.Context) (net.Conn, error) { return internet.dial(honest(n), 5*time.Minute) })
						status, code, _, err := post(client, "http://gw"+v1Path, domain, keys[n].String())
						// As a router does, each minute: a slow machine has not enough for all of
						// it, and who waits for long goes for others.
						for tries := 1; (err != nil || status == 503) && tries < 10; tries++ {
							again.Add(1)
							time.Sleep(5 * time.Second)
							status, code, _, err = post(client, "http://gw"+v1Path, domain, keys[n].String())
						}
						if err != nil || status != 200 {
							t.Errorf("router %d from %s: %d %s, %v", n, honest(n), status, code, err)
						}
					})
				}
				from := within(netip.MustParsePrefix(fmt.Sprintf("2001:db8:a:%x::/64", i%500)))
				if i%5 == 0 {
					from = netip.AddrFrom4([4]byte{198, 18, 2, byte(1 + i/5%3)})
				}
				c, err := attackers.dial(from, 5*time.Second)
				if err != nil {
					continue
				}
				in.Add(1)
				hostile.Go(func() {
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(time.Minute))
					hostileHTTP[kinds[i%len(kinds)]](c)
				})
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d hostile connections got in, in %.0f s; of %d routers %d tries had to be repeated", in.Load(), flood, time.Since(start).Seconds(), routers, again.Load())
	hostile.Wait()
	peak := sh(t, "cat /sys/fs/cgroup/system.slice/wgkex-http.service/memory.peak")
	limit := sh(t, "systemctl show -P MemoryMax wgkex-http.service")
	t.Logf("all was over after %.0f s; wgkex-http took %s bytes of %s at most", time.Since(start).Seconds(), peak, limit)
	if p, err := strconv.Atoi(peak); err != nil || p >= 64<<20 {
		t.Errorf("it took %s bytes", peak)
	}
	if out := sh(t, "systemctl show -P NRestarts wgkex-http.service; journalctl -q -b -o cat -t wgkex-http --since '%s' | grep -v 'deadline exceeded' || true", start.Format(time.DateTime)); out != "0" {
		t.Errorf("started again, or in trouble: %s", out)
	}
	if n := missing(t, domain, keys); n > 0 {
		t.Errorf("%d of %d routers are missing", n, routers)
	}
	eventually(t, "connections gone", func() bool {
		return sh(t, "ss -Htn state connected exclude time-wait sport = :%d", httpPort) == ""
	})
}
