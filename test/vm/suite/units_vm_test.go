//go:build vm

package suite

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/counters"
	"wgkex/internal/outcome"
)

// The process that reads from the internet, while it waits.
func TestHandlerProcess(t *testing.T) {
	noHandlers(t)
	conn := dial(t, port1)
	defer conn.Close()
	var pid string
	eventually(t, "a handler", func() bool {
		pid, _ = try("pgrep -x wgkex-handler")
		return pid != ""
	})
	eventually(t, "the handler's sandbox", func() bool {
		out, _ := try("grep ^Seccomp: /proc/%s/status", pid)
		return strings.HasSuffix(out, "\t2")
	})
	status := sh(t, "cat /proc/%s/status", pid)
	uid := sh(t, "id -u wgkex")
	for _, want := range []string{
		"Uid:\t" + uid + "\t" + uid + "\t" + uid + "\t" + uid,
		"CapEff:\t0000000000001000", // CAP_NET_ADMIN is number 12
		"CapPrm:\t0000000000001000",
		"CapBnd:\t0000000000001000",
		"NoNewPrivs:\t1",
		"Seccomp:\t2",
	} {
		if !strings.Contains(status, want+"\n") {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	defer func() {
		// The Go runtime's last words are not lost.
		sh(t, "kill -ABRT %s", pid)
		eventually(t, "an entry about the handler's end", func() bool {
			out, _ := try("journalctl -b -p err _PID=%s", pid)
			return strings.Contains(out, "SIGABRT: abort")
		})
	}()
	if unit := sh(t, "cat /proc/%s/cgroup", pid); !strings.Contains(unit, "/wgkex.slice/wgkex@") {
		t.Errorf("the handler is in %s", unit)
	}
}

func TestSecurityScore(t *testing.T) {
	for unit, limit := range map[string]string{
		"wgkex@x.service": "1.1", "wgkex-local@x.service": "1.1", "wgkex-metrics@x.service": "1.1",
		"wgkex-cleanup@x.service": "1.1", "wgkex-restore@x.service": "1.1", "wgkex-save@x.service": "1.1",
		"wgkex-http.service": "0.9", "wgkex-http@x.service": "0.9",
	} {
		out := sh(t, "systemd-analyze security --no-pager %s | tail -1", unit)
		m := regexp.MustCompile(`: ([0-9.]+) `).FindStringSubmatch(out)
		if m == nil || len(m[1]) != 3 || m[1] > limit {
			t.Errorf("%s, want %s at most", out, limit)
		}
		t.Log(out)
	}
}

// After this boot has refused many clients, some of them in the tests before,
// nothing of them is left.
func TestRefusedLeaveNothing(t *testing.T)     { refusedLeaveNothing(t, 300) }
func TestLongRefusedLeaveNothing(t *testing.T) { refusedLeaveNothing(t, 1000) }

func refusedLeaveNothing(t *testing.T, atLeast int) {
	before := state(t)
	refused := 0
	files, err := filepath.Glob("/run/wgkex/domains/*.counters")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		results, err := counters.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		for code, n := range results.Total() {
			if code != outcome.OK {
				refused += int(n)
			}
		}
	}
	t.Logf("%d clients were refused before", refused)
	var wg sync.WaitGroup
	var more atomic.Int64
	for range 20 {
		wg.Go(func() {
			for more.Add(1) <= int64(atLeast-refused) {
				refuse(t, port1, "nowhere\n", "INVALID_DOMAIN")
			}
		})
	}
	wg.Wait()
	noHandlers(t)
	if out := sh(t, "systemctl list-units --all --no-legend --failed 'wgkex*'"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
	if out := sh(t, "systemctl is-active wgkex@ffww01.socket"); out != "active" {
		t.Errorf("the socket is %s", out)
	}
	if after := state(t); after != before {
		t.Errorf("the kernel changed from\n%s\nto\n%s", before, after)
	}
}

// A socket that the configuration does not ask for says so and does not start.
func TestSocketsThatRefuse(t *testing.T) {
	for unit, want := range map[string]string{
		"wgkex@nowhere.socket": "domain nowhere is not in the configuration: add [domains.nowhere] to /etc/wgkex/wgkex.toml",
		"wgkex@broken.socket":  "domain broken has no port of its own: set domains.broken.listen in /etc/wgkex/wgkex.toml",
	} {
		if _, err := try("systemctl start %s", unit); err == nil {
			t.Errorf("%s started", unit)
		}
		if out := sh(t, "systemctl status %s || true", unit); !strings.Contains(out, want) {
			t.Errorf("%s does not say why:\n%s", unit, out)
		}
		sh(t, "systemctl reset-failed %s", unit)
	}
}

// Why systemd cannot listen is in the journal though its own lines are not.
func TestPortTaken(t *testing.T) {
	sh(t, "systemctl stop wgkex@absent.socket")
	listener, err := net.Listen("tcp", ":10015")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := try("systemctl start wgkex@absent.socket"); err == nil {
		t.Error("the socket started")
	}
	if out := sh(t, "journalctl -b -u wgkex@absent.socket"); !strings.Contains(out, "wgkex: port 10015 is taken by another program or unit") {
		t.Errorf("the journal does not say why:\n%s", out)
	}
	listener.Close()
	lines := sh(t, "journalctl -b -u wgkex@absent.socket | wc -l")
	sh(t, "systemctl restart wgkex@absent.socket; systemctl restart wgkex@absent.socket; systemctl stop wgkex@absent.socket")
	if out := sh(t, "journalctl -b -u wgkex@absent.socket | wc -l"); out != lines {
		t.Errorf("a socket that starts has something to say:\n%s", sh(t, "journalctl -b -u wgkex@absent.socket"))
	}
}

// writeConf writes a file of the configuration, for the test alone. That it is gone
// after it is for the next daemon-reload to see, which takes seconds.
func writeConf(t *testing.T, name, text string) {
	t.Helper()
	path := "/etc/wgkex/conf.d/" + name
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

func TestConfigurationChanges(t *testing.T) {
	t.Cleanup(func() { sh(t, "systemctl daemon-reload") }) // at last, without its files
	sh(t, "./suite-files/gateway ffww03 3 rfc4291")
	t.Cleanup(func() { sh(t, "ip link del wg-ffww03; ip link del vx-ffww03 || true") })
	text := "reply = 'ok'\n[domains.ffww03]\nwireguard = 'wg-ffww03'\nvxlan = 'vx-ffww03'\nlisten = 10016\n"
	writeConf(t, "30.toml", text)
	t.Cleanup(func() { sh(t, "systemctl stop wgkex@ffww03.socket") })
	if _, err := try("systemctl start wgkex@ffww03.socket"); err == nil {
		t.Error("started with a port that systemd does not know yet")
	}
	if out := sh(t, "systemctl status wgkex@ffww03.socket || true"); !strings.Contains(out, "run systemctl daemon-reload") {
		t.Errorf("it does not say what to do:\n%s", out)
	}
	sh(t, "systemctl daemon-reload; systemctl start wgkex.target")
	if got := send(t, 10016, "ffww03\n"+newKey(t).String()+"\n"); got != "OK\n" {
		t.Errorf("got %q", got)
	}
	// A change waits for a daemon-reload, and wgkex check says so.
	writeConf(t, "30.toml", strings.ReplaceAll(text, "'ok'", "'silent'"))
	stays := func(after string) {
		t.Helper()
		if got := send(t, 10016, "ffww03\n"+newKey(t).String()+"\n"); got != "OK\n" {
			t.Errorf("after %s: got %q", after, got)
		}
	}
	stays("a change")
	// Not even a restart of the socket carries half a change out.
	writeConf(t, "35.toml", "[domains.ffww03]\nlisten = 10017\n")
	sh(t, "systemctl restart wgkex@ffww03.socket")
	stays("another port and a restart")
	sh(t, "rm /etc/wgkex/conf.d/35.toml")
	if check, err := try("wgkex check"); err == nil || !strings.Contains(check, "changed since the last daemon-reload") {
		t.Errorf("wgkex check: %v, %s", err, check)
	}
	sh(t, "systemctl daemon-reload")
	if got := send(t, 10016, "ffww03\n"+newKey(t).String()+"\n"); got != "" {
		t.Errorf("after the daemon-reload: got %q", got)
	}
	if check, _ := try("wgkex check"); strings.Contains(check, "changed since") {
		t.Errorf("wgkex check: %s", check)
	}
	writeConf(t, "30.toml", text)
	sh(t, "systemctl daemon-reload")

	// A broken file, with and without a reload, changes nothing that runs, and
	// is reported.
	writeConf(t, "40.toml", "[domains.ffww03]\nlisten = 'x'\n")
	check, err := try("wgkex check")
	if err == nil || !strings.Contains(check, "/etc/wgkex/conf.d/40.toml:2: ") {
		t.Errorf("wgkex check: %v, %s", err, check)
	}
	for _, reload := range []string{"true", "systemctl daemon-reload", "systemctl restart wgkex@ffww03.socket"} {
		sh(t, "%s", reload)
		stays(reload)
	}
	sh(t, "systemctl start wgkex-cleanup@ffww03.service; wgkex status ffww03")
	if out := sh(t, "journalctl -b -t wgkex-generator"); !strings.Contains(out, "/etc/wgkex/conf.d/40.toml:2: ") {
		t.Errorf("the generator did not report the broken file:\n%s", out)
	}
}

// A socket with an address is reached at that address alone, and the same port
// of two addresses is that of two domains.
func TestListenAddress(t *testing.T) {
	const port = 10017
	for i, name := range []string{"addr1", "addr2", "addr3"} {
		domainWithProfile(t, name, 13+i, address.RFC4291)
	}
	// One that the gateway gets later, and a link-local one.
	const later = "198.51.100.7"
	zone := sh(t, "ip -6 -o addr show dev wg-ffww01 scope link | sed 's,.*inet6 \\([^/]*\\)/.*,\\1,'")
	for name, listen := range map[string]string{
		"addr1": fmt.Sprintf("127.0.0.1:%d", port), "addr2": fmt.Sprintf("%s:%d", later, port), "addr3": fmt.Sprintf("[%s]:%d%%wg-ffww01", zone, port),
	} {
		writeConf(t, name+"-listen.toml", fmt.Sprintf("[domains.%s]\nlisten = '%s'\n", name, listen))
		t.Cleanup(func() { sh(t, "systemctl stop wgkex@%s.socket", name) })
	}
	sh(t, "systemctl daemon-reload; systemctl start wgkex.target")
	check, _ := try("wgkex check")
	for _, want := range []string{
		"ok: wgkex@addr1.socket: active on 127.0.0.1:10017\n", "FAILED: wgkex@addr2.socket: no answer at " + later + ":10017: ",
		fmt.Sprintf("ok: wgkex@addr3.socket: active on [%s]:10017%%wg-ffww01\n", zone),
	} {
		if !strings.Contains(check, want) {
			t.Errorf("wgkex check does not say %s:\n%s", want, check)
		}
	}
	// at is what somebody is answered who connects to an address.
	at := func(address, request string) string {
		t.Helper()
		conn, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Error(err)
		}
		return answer(t, conn)
	}
	sh(t, "ip addr add 198.51.100.6/32 dev lo; ip addr add %s/32 dev lo", later)
	t.Cleanup(func() { sh(t, "ip addr del 198.51.100.6/32 dev lo; ip addr del %s/32 dev lo", later) })
	for _, address := range []string{"198.51.100.6", "127.0.0.2", "::1"} {
		if got := at(address, ""); !strings.Contains(got, "connection refused") {
			t.Errorf("at %s: %q", address, got)
		}
	}
	for address, served := range map[string]string{"127.0.0.1": "addr1", later: "addr2", zone + "%wg-ffww01": "addr3"} {
		for _, name := range []string{"addr1", "addr2", "addr3"} {
			key, want := newKey(t), "ERR: INVALID_DOMAIN\n"
			if name == served {
				want = ""
			}
			if got := at(address, name+"\n"+key.String()+"\n"); got != want {
				t.Errorf("%s at %s: %q, want %q", name, address, got, want)
			}
			if name == served {
				wantRouter(t, name, key)
			}
		}
	}
	// A change of the address alone needs a daemon-reload and a restart. Before,
	// a restart listens where it did.
	writeConf(t, "addr1-listen.toml", "[domains.addr1]\nlisten = '127.0.0.3:10017'\n")
	sh(t, "systemctl restart wgkex@addr1.socket")
	if got := at("127.0.0.1", "addr1\n"+newKey(t).String()+"\n"); got != "" {
		t.Errorf("at the old address, before the daemon-reload: %q", got)
	}
	sh(t, "systemctl daemon-reload")
	if check, _ := try("wgkex check"); !strings.Contains(check, "FAILED: wgkex@addr1.socket does not listen on 127.0.0.3:10017: run wgkex apply") {
		t.Errorf("wgkex check: %s", check)
	}
	sh(t, "systemctl restart wgkex@addr1.socket")
	if got := at("127.0.0.3", "addr1\n"+newKey(t).String()+"\n"); got != "" {
		t.Errorf("at the new address: %q", got)
	}
	if got := at("127.0.0.1", ""); !strings.Contains(got, "connection refused") {
		t.Errorf("at the old address: %q", got)
	}
	writeConf(t, "addr1-listen.toml", "[domains.addr1]\nlisten = '0.0.0.0:10017'\n")
	if check, err := try("wgkex check --config-only"); err == nil || !strings.Contains(check, "/etc/wgkex/conf.d/addr2-listen.toml:2: "+later+":10017 of domain addr2 is already taken by domains.addr1.listen, 0.0.0.0:10017") {
		t.Errorf("overlapping addresses: %v, %s", err, check)
	}
}

func TestCommand(t *testing.T) {
	key := newKey(t)
	sh(t, "wgkex register localhost:%d ffww01 %s", port1, key)
	wantRouter(t, "ffww01", key)
	if out, err := try("wgkex register localhost:%d nowhere %s", port1, key); err == nil || !strings.HasPrefix(out, "ERR: INVALID_DOMAIN\n") {
		t.Errorf("register: %v, %q", err, out)
	}
	if _, err := try("wgkex register localhost:1 ffww01 %s", key); err == nil {
		t.Error("register: no error without a gateway")
	}
	for _, command := range []string{"", "apply", "check", "derive", "register", "prepare", "version", "completion"} {
		if out := sh(t, "wgkex %s --help", command); !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: %s", command, out)
		}
	}
	for _, program := range []string{"/usr/lib/wgkex/wgkex-handler", "/usr/lib/systemd/system-generators/wgkex-generator"} {
		if out := sh(t, "%s --help", program); !strings.Contains(out, "usage:") {
			t.Errorf("%s --help: %s", program, out)
		}
	}
	if got, want := sh(t, "wgkex version"), sh(t, "dpkg-query -W -f '${Version}' wgkex"); got != want {
		t.Errorf("version %s of package %s", got, want)
	}
}
