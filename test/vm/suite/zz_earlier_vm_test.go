//go:build vm

package suite

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
)

// From each earlier version to this one, while routers come all the time. The packages
// are those of test/upgrades; make upgrades brings them.
func TestEarlierVersions(t *testing.T) {
	for _, c := range []struct {
		name string
		// thrownAway are the files of the old version that the upgrade says it throws
		// away. Others are read.
		thrownAway []string
	}{
		{"1-marks", []string{"/var/lib/wgkex/ffww01.json", "/run/wgkex/domains/ffww01.json"}},
		{"2-state", []string{"/run/wgkex/domains/ffww01.state", "/run/wgkex/domains/ffww01.counters"}},
		{"3-saved", []string{"/run/wgkex/domains/ffww01.counters"}},
		{"4-http", nil},
		{"5-relay", nil},
	} {
		t.Run(c.name, func(t *testing.T) { upgradeFrom(t, c.name, c.thrownAway) })
	}
}

func upgradeFrom(t *testing.T, name string, thrownAway []string) {
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("journalctl -b -o short-monotonic -n 300 | grep -v ' ansible\\| kernel: '")
			t.Logf("the journal says\n%s", out)
		}
	})
	configure(t, nil)
	sh(t, "%s purge wgkex", apt)
	t.Cleanup(func() { sh(t, "%s install ./wgkex.deb", apt) })
	sh(t, "%s install ./suite-files/upgrades/%s.deb", apt, name)
	has := func(file string) bool { _, err := os.Stat(file); return err == nil }
	served := has("/usr/lib/wgkex/wgkex-http")
	relays := has("suite-files/upgrades/" + name + "-relay.deb")
	if relays {
		relayed(t, "suite-files/upgrades/"+name+"-relay.deb")
	}
	files := map[string]string{
		"wgkex.toml":         fmt.Sprintf("listen = %d\nreply = \"ok\"\n", sharedPort),
		"conf.d/first.toml":  domainFile("ffww01", port1),
		"conf.d/second.toml": domainFile("ffww02", port2),
	}
	if served {
		files["conf.d/http.toml"] = fmt.Sprintf("[http]\nlisten = %d\n", httpPort)
	}
	if relays {
		files["conf.d/mqtt.toml"] = relayConfiguration("gw01", endpointAddress, "localhost")
	}
	for file, text := range files {
		if err := os.WriteFile("/etc/wgkex/"+file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, "systemctl daemon-reload; systemctl start wgkex.target; systemctl is-active wgkex.socket wgkex@ffww01.socket wgkex@ffww02.socket")

	// Routers with handshakes, and some without, as the old version keeps them.
	veterans := map[string]address.Key{
		"ffww01": registered(t, "veteran1", 71, "ffww01", port1, 51821, 101),
		"ffww02": registered(t, "veteran2", 72, "ffww02", port2, 51822, 102),
	}
	before := map[string][]address.Key{}
	for domain, key := range veterans {
		before[domain] = append(before[domain], key)
		for range 3 {
			key := newKey(t)
			before[domain] = append(before[domain], key)
			if got := send(t, sharedPort, domain+"\n"+key.String()+"\n"); got != "OK\n" {
				t.Fatalf("the old version answers %q", got)
			}
		}
		sh(t, "systemctl start wgkex-cleanup@%s.service", domain)
		sh(t, "wgkex status %s", domain)
	}
	for _, file := range thrownAway {
		if !has(file) {
			t.Errorf("the old version does not keep %s", file)
		}
	}
	savedPeers := has("/var/lib/wgkex/ffww01.peers")

	if relays {
		// What the old relay knows: keys of this gateway, and of another one.
		listen(t)
		hears(t, "/run/suite-listener", "wireguard-worker/gw01/status 1")
		key := newKey(t)
		other(t, "wireguard/ffww01/all", key.String())
		eventually(t, "a peer of the other gateway", func() bool { return hasPeers("ffww01", key) })
		before["ffww01"] = append(before["ffww01"], key)
	}

	// All of them at a time: whoever is at the domain's line when the programs are
	// replaced, is at the key's line after it.
	var under []*traffic
	ask := func(port int, domain, key string) (string, error) {
		answer, err := askSlowly(port, domain+"\n", key+"\n")
		if name == "1-marks" && errors.Is(err, syscall.ECONNRESET) {
			// Its sandbox's root directory had other links. systemd cannot make it while dpkg
			// replaces them, and the connection is cut off. A router asks again.
			answer, err = askSlowly(port, domain+"\n", key+"\n")
		}
		return answer, err
	}
	under = append(under, keepAsking(t, "port of ffww01", "ffww01", func(key string) (string, error) { return ask(port1, "ffww01", key) }, "OK\n"))
	under = append(under, keepAsking(t, "shared port", "ffww02", func(key string) (string, error) { return ask(sharedPort, "ffww02", key) }, "OK\n"))
	if served {
		under = append(under, keepAsking(t, "HTTP", "ffww01", func(key string) (answer string, err error) {
			body := fmt.Sprintf(`{"domain": "ffww01", "public_key": %q}`, key)
			head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", v1Path, len(body))
			// Busy is an answer, too: a slow machine may take more than the 5 s of an
			// exchange to start a local handler. A router asks again.
			for range 10 {
				if answer, err = askSlowly(httpPort, head, body); !strings.HasPrefix(answer, "HTTP/1.1 503 ") {
					break
				}
			}
			line, _, _ := strings.Cut(answer, "\r\n")
			return line, err
		}, "HTTP/1.1 200 OK"))
	}
	if relays {
		under = append(under, keepAsking(t, "another gateway", "ffww01", func(key string) (string, error) {
			return try("mosquitto_pub -V mqttv311 %s -q 1 -t wireguard/ffww01/all -m %s", asOther, key)
		}, ""))
	}
	// Each has had an answer of the old version first.
	for _, u := range under {
		eventually(t, u.name+" answering", func() bool { return u.answered() > 0 })
	}
	packages := "./wgkex.deb"
	if relays {
		packages += " " + newRelay
	}
	upgradeLog := sh(t, "%s install %s", apt, packages)
	for _, u := range under {
		n := u.answered()
		eventually(t, u.name+" answering after the upgrade", func() bool { return u.answered() > n+1 })
		for _, wrong := range u.end() {
			t.Errorf("%s: %s", u.name, wrong)
		}
		before[u.domain] = append(before[u.domain], u.accepted...)
	}

	for _, file := range thrownAway {
		if !strings.Contains(upgradeLog, "wgkex: "+file+" is of an earlier version and thrown away") {
			t.Errorf("nothing is said of %s:\n%s", file, upgradeLog)
		}
	}
	if n := strings.Count(upgradeLog, "thrown away"); n > 0 && thrownAway == nil {
		t.Errorf("more is thrown away:\n%s", upgradeLog)
	}
	for domain, keys := range before {
		if relays { // which takes its time for each of the other gateway
			eventually(t, "all peers of "+domain, func() bool { return hasPeers(domain, keys...) })
		}
		wantRouter(t, domain, keys...)
	}
	reach(t, "veteran1", 101)
	reach(t, "veteran2", 102)

	// What is new runs, without any command.
	units := "wgkex.target wgkex.socket wgkex@ffww01.socket wgkex@ffww02.socket wgkex-cleanup@ffww01.timer wgkex-local.socket wgkex-metrics.socket wgkex-save@ffww01.service wgkex-save@ffww02.service"
	if served {
		units += " wgkex-http.socket"
	}
	if relays {
		units += " wgkex-relay.socket wgkex-relay.service"
	}
	for unit := range strings.FieldsSeq(units) {
		if out, _ := try("systemctl is-active %s", unit); out != "active" {
			t.Errorf("%s is %s:\n%s", unit, out, upgradeLog)
		}
	}
	if out := sh(t, "systemctl list-units --no-legend --failed 'wgkex*'"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
	// A slow machine may take longer to start what wgkex-http asks than check waits.
	eventually(t, "wgkex check finding nothing wrong", func() bool {
		out, err := try("wgkex check")
		wrong := err != nil || strings.Contains(out, "FAILED") || strings.Contains(out, "wgkex apply")
		if wrong {
			t.Log(out)
		}
		return !wrong
	})
	added := newKey(t)
	sh(t, "wgkex add ffww01 %s; curl -fsS 'http://[::1]:9587/metrics' | grep -F 'wgkex_domain_up{domain=\"ffww02\"} 1'", added)
	wantRouter(t, "ffww01", added)
	if relays {
		// The new relay has read what the old one wrote, and tells of a router.
		key := newKey(t)
		if got := send(t, sharedPort, "ffww01\n"+key.String()+"\n"); got != "OK\n" {
			t.Fatalf("the new version answers %q", got)
		}
		hears(t, "/run/suite-listener", "wireguard/ffww01/all %s", key)
		if out, _ := try("journalctl -b -q -u wgkex-relay.service -g 'begun anew'"); out != "" {
			t.Errorf("the relay says %s", out)
		}
	}

	// The saved peers of the old version are read; without any, cleanup saves them first.
	tidy := func() {
		t.Helper()
		for domain := range veterans {
			for _, e := range entries(t, "wgkex-cleanup", func() { sh(t, "systemctl start wgkex-cleanup@%s.service", domain) }) {
				if e["PRIORITY"] <= "4" {
					t.Errorf("the cleanup says %v", e["MESSAGE"])
				}
			}
		}
	}
	if !savedPeers {
		tidy()
	}
	sh(t, "ip link del vx-ffww01; ip link del wg-ffww01; ./suite-files/gateway ffww01 1 %s", profiles["ffww01"])
	reach(t, "veteran1", 101)
	wantRouter(t, "ffww01", veterans["ffww01"])
	tidy()
	wantRouter(t, "ffww02", before["ffww02"]...)
	for domain := range veterans {
		consistent(t, domain)
	}
}

// registered makes a router of a gateway that answers OK, as makeRouter does.
func registered(t *testing.T, name string, number int, domain string, port, wgport, vni int) address.Key {
	t.Helper()
	key, err := address.ParseKey(sh(t, "(umask 077; wg genkey > %s.key); wg pubkey < %[1]s.key", name))
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, port, domain+"\n"+key.String()+"\n"); got != "OK\n" {
		t.Fatalf("the old version answers %q", got)
	}
	sh(t, "./suite-files/router %s %d %s 4 %d %d %d %s", name, number, domain, port, wgport, vni, profiles[domain])
	t.Cleanup(func() { _, _ = try("ip netns del %s", name) })
	reach(t, name, vni)
	return key
}

// askSlowly sends a request in two parts, the second one a second after the first, and
// returns the answer. It is an error if that was longer, so that the gateway may have
// given up.
func askSlowly(port int, first, second string) (answer string, err error) {
	conn, err := (&net.Dialer{FallbackDelay: -1}).Dial("tcp", fmt.Sprintf("localhost:%d", port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, first); err != nil {
		return "", err
	}
	sent := time.Now()
	time.Sleep(time.Second)
	_, err = io.WriteString(conn, second)
	if time.Since(sent) > 4*time.Second {
		return "", errLate
	}
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

// errLate is the error of a client that a slow machine has kept from sending in time.
var errLate = errors.New("too late")

// traffic is routers that come one after the other.
type traffic struct {
	name, domain string
	accepted     []address.Key

	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	n     int // answers
	wrong []string
}

// keepAsking has routers with new keys ask until the end. Each has to get the answer.
func keepAsking(t *testing.T, name, domain string, ask func(key string) (answer string, err error), want string) *traffic {
	tr := &traffic{name: name, domain: domain, stop: make(chan struct{})}
	tr.done.Go(func() {
		for {
			select {
			case <-tr.stop:
				return
			default:
			}
			key := newKey(t)
			answer, err := ask(key.String())
			if errors.Is(err, errLate) {
				continue
			}
			tr.mu.Lock()
			tr.n++
			if err != nil || answer != want {
				tr.wrong = append(tr.wrong, fmt.Sprintf("answer %d is %q, %v", tr.n, answer, err))
			} else {
				tr.accepted = append(tr.accepted, key)
			}
			tr.mu.Unlock()
		}
	})
	t.Cleanup(func() { tr.end() })
	return tr
}

// answered is how many routers got an answer so far, be it a wrong one.
func (tr *traffic) answered() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.n
}

// end waits for the last router and returns what was wrong.
func (tr *traffic) end() []string {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.done.Wait()
	return tr.wrong
}
