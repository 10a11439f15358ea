//go:build vm

package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
)

// brokerPort is that of a mosquitto with TLS, passwords and an access list.
const brokerPort = 18883

// The addresses of the two gateways of twoGateways.
const gateway1, gateway2 = "10.98.0.1", "10.98.0.2"

// brokerSetup is what mqtt.md says, for the names and the port of the test. The unit is
// masked in the image.
func brokerSetup(t *testing.T) string {
	t.Helper()
	text := script(section(t, document(t, "mqtt.md"), "A broker"), "")
	for _, change := range []struct{ old, new string }{
		{"apt-get install mosquitto openssl\n", "systemctl unmask mosquitto\nmkdir -p /etc/mosquitto/certs\n"},
		{"listener 8883", fmt.Sprintf("listener %d", brokerPort)},
		{"DNS:broker.example.org", "DNS:localhost,IP:" + gateway1},
		{"password=$(openssl rand -hex 16)", "password=secret-$gateway"},
	} {
		if !strings.Contains(text, change.old) {
			t.Fatalf("mqtt.md does not say %q", change.old)
		}
		text = strings.ReplaceAll(text, change.old, change.new)
	}
	return text
}

// newRelay is the relay's package of this version.
const newRelay = "/root/wgkex-relay_*.deb"

// relayed installs the relay from the file, which may be a pattern, and a broker. After
// the test there is nothing left of both.
func relayed(t *testing.T, deb string) {
	t.Helper()
	sh(t, "dpkg -i %s", deb)
	t.Cleanup(func() {
		sh(t, "dpkg -P wgkex-relay; systemctl mask --now mosquitto; systemctl stop suite-listener suite-worker 2>/dev/null; rm -rf /var/lib/mosquitto/* /etc/wgkex/mqtt.password /run/suite-*")
		if out, _ := try("ls -d /run/wgkex/announce.sock /run/wgkex/relay /var/lib/wgkex-relay"); strings.Count(out, "No such file") != 3 {
			t.Errorf("after the removal: %s", out)
		}
	})
	copied(t, brokerSetup(t))
	sh(t, "echo secret-gw01 > /etc/wgkex/mqtt.password; chmod 600 /etc/wgkex/mqtt.password")
	brokerListens(t)
}

func brokerListens(t *testing.T) {
	t.Helper()
	eventually(t, "the broker listens", func() bool { _, err := try("ss -Hltn sport = :%d | grep -q .", brokerPort); return err == nil })
}

// relayConfiguration is that of the gateway with this name.
func relayConfiguration(name, address, broker string) string {
	return fmt.Sprintf(`
[gateway]
name = %q
address = %q
[mqtt]
url = "mqtts://%s:%d"
username = %[1]q
password_file = "/etc/wgkex/mqtt.password"
ca_file = "/etc/mosquitto/certs/ca.pem"
[gateways]
gw02 = 1000
`, name, address, broker, brokerPort)
}

const asOther = "-h localhost -p 18883 --cafile /etc/mosquitto/certs/ca.pem -u gw02 -P secret-gw02"

// other publishes as another gateway.
func other(t *testing.T, topic, payload string, options ...string) {
	t.Helper()
	sh(t, "mosquitto_pub -V mqttv311 %s -q 1 -t %s -m '%s' %s", asOther, topic, payload, strings.Join(options, " "))
}

// listen writes all that gateways say to /run/suite-listener, in a session that lasts.
func listen(t *testing.T) {
	t.Helper()
	sh(t, `rm -f /run/suite-listener; systemd-run -q --collect --unit=suite-listener -p Restart=always -p RestartSec=1 bash -c "mosquitto_sub %s -c -i listener -q 1 -v -t 'wireguard/+/+' -t 'wireguard-worker/+/status' >> /run/suite-listener"`, asOther)
}

// hears waits until the file has the line.
func hears(t *testing.T, file, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	eventually(t, line+" in "+file, func() bool { _, err := try("grep -qxF '%s' %s", line, file); return err == nil })
}

func hasPeers(domain string, keys ...address.Key) bool {
	out, err := try("wg show wg-%s peers", domain)
	return err == nil && !slices.ContainsFunc(keys, func(k address.Key) bool { return !strings.Contains(out, k.String()) })
}

// withoutGateway takes the table gateway out of what serveHTTP has written, since
// relayConfiguration has it.
func withoutGateway(t *testing.T) {
	t.Helper()
	sh(t, `sed -i '/^\[gateway\]/,$ d' /etc/wgkex/conf.d/http.toml`)
}

// A gateway beside one with Munich's worker.
func TestRelay(t *testing.T) {
	relayed(t, newRelay)
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	withoutGateway(t)
	writeConf(t, "mqtt.toml", relayConfiguration("gw01", endpointAddress, "localhost"))
	t.Cleanup(func() { _, _ = try("rm -f /etc/wgkex/conf.d/mqtt.toml; wgkex apply") })
	_, _ = try("wgkex apply") // the shared configuration has domains that fail
	listen(t)
	hears(t, "/run/suite-listener", "wireguard-worker/gw01/status 1")
	if out := sh(t, "systemctl show -P ActiveState -P NRestarts wgkex-relay.service"); out != "0\nactive" && out != "active\n0" {
		t.Errorf("the relay is %s", out)
	}
	if out := sh(t, "wgkex check || true"); !strings.Contains(out, "wgkex-relay.service: active") {
		t.Errorf("check says %s", out)
	}

	endpointKey := newKey(t)
	startWorker := func() {
		sh(t, `systemd-run -q --collect --unit=suite-worker -p StandardOutput=append:/run/suite-worker -p Restart=always -p RestartSec=1 /root/suite-files/worker gw02 secret-gw02 %d /etc/mosquitto/certs/ca.pem ffww01 '%s'`,
			brokerPort, fmt.Sprintf(`{"ExternalAddress": "gw02.example.org", "Port": 40000, "PublicKey": "%s", "LinkAddress": "fe80::2"}`, endpointKey))
		hears(t, "/run/suite-listener", "wireguard-worker/gw02/status 1")
	}
	startWorker()

	// One key, all gateways: by TCP and by HTTP here, and from there.
	key, byHTTP, byCommand, theirs := newKey(t), newKey(t), newKey(t), newKey(t)
	accept(t, port1, "ffww01", key)
	askHTTP(t, v1Path, "ffww01", byHTTP.String(), 200)
	sh(t, "wgkex add ffww01 %s", byCommand)
	for _, k := range []address.Key{key, byHTTP, byCommand} {
		hears(t, "/run/suite-listener", "wireguard/ffww01/all %s", k)
		hears(t, "/run/suite-worker", "wireguard/ffww01/all %s", k)
	}
	other(t, "wireguard/ffww01/all", theirs.String())
	eventually(t, "their key is a peer", func() bool { return hasPeers("ffww01", theirs) })
	wantRouter(t, "ffww01", key, byHTTP, theirs)

	// What is no key, or of no domain here, changes nothing.
	before := sh(t, "wg show all peers")
	for _, c := range []struct{ topic, payload string }{
		{"wireguard/ffww01/all", "no key"},
		{"wireguard/ffww01/all", newKey(t).String() + "\n"},
		{"wireguard/ffww01/all", ""},
		{"wireguard/nosuch/all", newKey(t).String()},
		{"wireguard-worker/gw02/ffww01/data", `{"ExternalAddress": "a b", "Port": 40000}`},
		{"wireguard-metrics/ffww01/gw02/connected_peers", "-7"},
	} {
		other(t, c.topic, c.payload)
	}
	sh(t, "head -c 262144 /dev/zero | tr '\\0' x > large; mosquitto_pub %s -q 1 -t wireguard/ffww01/all -f large; rm large", asOther)
	last := newKey(t)
	other(t, "wireguard/ffww01/all", last.String())
	eventually(t, "the key after what is none", func() bool { return hasPeers("ffww01", last) })
	if after := sh(t, "wg show all peers | grep -vF '%s'", last); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}

	// Routers are sent to the other gateway, which has fewer for its weight, for as long as
	// it is on line.
	askV2 := func() string {
		out, err := try(`curl -sS -d '{"domain": "ffww01", "public_key": "%s"}' http://localhost:%d%s`, newKey(t), httpPort, v2Path)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	eventually(t, "v2 names the other gateway", func() bool {
		return strings.Contains(askV2(), `"Address":"gw02.example.org","Port":"40000","AllowedIPs":["fe80::2"],"PublicKey":"`+endpointKey.String()+`"`)
	})
	t.Log(sh(t, "wgkex gateways"))
	page := func() string { return sh(t, "curl -sfg '%s/'", metricsURL) }
	for _, want := range []string{"wgkex-relay.service is connected to the broker.", ">gw01 <b>(this)</b></th>\n<td role=\"cell\">on line</td>", ">gw02</th>\n<td role=\"cell\">on line</td>"} {
		if got := page(); !strings.Contains(got, want) {
			t.Errorf("the page has no %q:\n%s", want, got)
		}
	}
	sh(t, "systemctl kill -s KILL suite-worker; systemctl stop suite-worker")
	hears(t, "/run/suite-listener", "wireguard-worker/gw02/status 0")
	eventually(t, "v2 names this gateway", func() bool { return strings.Contains(askV2(), endpointAddress) })
	eventually(t, "the page has no other gateway on line", func() bool {
		return strings.Contains(page(), ">gw02</th>\n<td role=\"cell\"><b>off line</b></td>")
	})

	// A relay that is killed, and a broker that is away.
	sh(t, "kill -KILL $(systemctl show -P MainPID wgkex-relay.service)")
	later := newKey(t)
	other(t, "wireguard/ffww01/all", later.String())
	eventually(t, "a key of the time without a relay is a peer", func() bool { return hasPeers("ffww01", later) })
	sh(t, "systemctl stop mosquitto")
	away := newKey(t)
	accept(t, port1, "ffww01", away)
	sh(t, "systemctl start mosquitto")
	brokerListens(t)
	hears(t, "/run/suite-listener", "wireguard/ffww01/all %s", away)
	if n := sh(t, "grep -cF '%s' /run/suite-listener", theirs); n != "1" {
		t.Errorf("their key was said %s times", n)
	}

	// Who may do what.
	status := sh(t, "cat /proc/$(systemctl show -P MainPID wgkex-relay.service)/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	score := sh(t, "systemd-analyze security --no-pager wgkex-relay.service | tail -1")
	if m := regexp.MustCompile(`: ([0-9.]+) `).FindStringSubmatch(score); m == nil || len(m[1]) != 3 || m[1] > "1.2" {
		t.Error(score)
	}
	if memory, err := strconv.Atoi(sh(t, "systemctl show -P MemoryCurrent wgkex-relay.service")); err != nil || memory > 24<<20 {
		t.Errorf("it takes %d bytes, %v", memory, err)
	}
	t.Log(sh(t, "journalctl -b -u wgkex-relay.service --no-pager -o cat; cat /run/wgkex/relay/gateways.json; wc /var/lib/wgkex-relay/ledger; stat -c '%%A %%U %%G %%n' /run/wgkex/announce.sock /run/wgkex/relay/*"))
	if out, _ := try("journalctl -b -p err -t wgkex-relay --no-pager -o cat"); out != "" && !strings.Contains(out, "No entries") {
		t.Errorf("errors: %s", out)
	}

	// A broker that is not wanted any more.
	_, _ = try("rm /etc/wgkex/conf.d/mqtt.toml; wgkex apply")
	if out, _ := try("systemctl is-active wgkex-relay.service wgkex-relay.socket"); out != "inactive\ninactive" {
		t.Errorf("without a broker: %q", out)
	}
	accept(t, port1, "ffww01", newKey(t))
	hears(t, "/run/suite-listener", "wireguard-worker/gw01/status 0")
}

// Two gateways, of which the second is a container: what registers at one is a peer of
// both, whatever is away meanwhile.
func TestLongTwoGateways(t *testing.T)     { twoGateways(t, 20, 0) }
func TestLongTwoGatewaysMany(t *testing.T) { twoGateways(t, 500, time.Minute) }

// twoGateways has so many registrations while the broker is away for so long.
func twoGateways(t *testing.T, registrations int, away time.Duration) {
	const domain, port, number1, number2 = "pair", 10020, 61, 62
	relayed(t, newRelay)
	sh(t, "rm -f wg-%s.key; ./suite-files/gateway %[1]s %d rfc4291", domain, number1)
	profiles[domain] = address.RFC4291
	t.Cleanup(func() {
		delete(profiles, domain)
		_, _ = try("ip link del vx-%s; ip link del wg-%[1]s", domain)
	})
	files := map[string]string{
		"conf.d/pair.toml": fmt.Sprintf("[domains.%s]\nwireguard = \"wg-%[1]s\"\nvxlan = \"vx-%[1]s\"\nlisten = %d\nmax_pending = 5000\n[http]\nlisten = %d\n", domain, port, httpPort),
		"conf.d/mqtt.toml": relayConfiguration("gw01", gateway1, gateway1),
		"mqtt.password":    "secret-gw01\n",
	}
	configure(t, files)
	t.Cleanup(func() { _, _ = try("rm -f /etc/wgkex/conf.d/mqtt.toml; wgkex apply") })
	sh(t, "chmod 600 /etc/wgkex/mqtt.password")
	in := boot(t, "--network-veth-extra=gw2:uplink", "systemd.mask=mosquitto.service")
	uplink := func() {
		sh(t, "ip addr replace %s/24 dev gw2; ip link set gw2 up; sysctl -qw net.ipv4.ip_forward=1", gateway1)
	}
	uplink()
	second := func(format string, args ...any) string {
		t.Helper()
		out, err := in(format, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	second(`cat > /root/interfaces <<'END'
#!/bin/sh
ip addr add %s/24 dev uplink; ip link set uplink up; ip route add default via %s
cd /root; ./suite-files/gateway %s %d rfc4291
END
chmod +x /root/interfaces; rm -f /root/wg-%[3]s.key
cat > /etc/systemd/system/suite-interfaces.service <<'END'
[Unit]
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/root/interfaces
[Install]
WantedBy=multi-user.target
END
sed -i 's/gw01/gw02/; s/%[2]s.$/%[1]s\"/' /etc/wgkex/conf.d/mqtt.toml; echo secret-gw02 > /etc/wgkex/mqtt.password
systemctl daemon-reload; systemctl enable --now suite-interfaces; wgkex apply`, gateway2, gateway1, domain, number2)
	apply(t, true)
	there := func(keys ...address.Key) bool {
		out, err := in("wg show wg-%s peers", domain)
		return err == nil && !slices.ContainsFunc(keys, func(k address.Key) bool { return !strings.Contains(out, k.String()) })
	}
	both := func(what string, keys ...address.Key) {
		t.Helper()
		begun := time.Now()
		eventually(t, what+", at the first gateway", func() bool { return hasPeers(domain, keys...) })
		eventually(t, what+", at the second gateway", func() bool { return there(keys...) })
		t.Logf("%s: at both after %s", what, time.Since(begun).Round(time.Millisecond))
	}
	t.Cleanup(func() {
		if t.Failed() {
			const state = "wgkex gateways; cat /run/wgkex/relay/stats.json; cut -d ' ' -f 1 /var/lib/wgkex-relay/ledger | sort | uniq -c; journalctl -b --no-pager -n 60 -o short-monotonic -u wgkex-relay.service"
			out, _ := try(state)
			t.Logf("the first gateway:\n%s", out)
			out, _ = in(state)
			t.Logf("the second gateway:\n%s", out)
			t.Log(in("systemctl status --no-pager -n 0 wgkex-save@%[1]s wgkex-restore@%[1]s; ls -l /var/lib/wgkex; journalctl --no-pager -u wgkex-save@%[1]s -u wgkex-restore@%[1]s", domain))
			out, _ = try("journalctl -b --no-pager -n 60 -o short-monotonic -u mosquitto.service; tail -n 60 /var/log/mosquitto/mosquitto.log")
			t.Logf("the broker:\n%s", out)
		}
	})
	known := func() {
		t.Helper()
		for name, list := range map[string]func() (string, error){
			"first": func() (string, error) { return try("wgkex gateways") }, "second": func() (string, error) { return in("wgkex gateways") },
		} {
			eventually(t, "the "+name+" gateway knows both", func() bool {
				out, err := list()
				return err == nil && strings.Count(out, "on line") == 2 && strings.Count(out, domain) == 2
			})
		}
	}
	known()
	t.Log(sh(t, "wgkex gateways"))
	listen(t)
	// Nobody connects with most keys, and a slow machine takes longer than they are kept.
	sh(t, "systemctl stop wgkex-cleanup@%s.timer", domain)
	second("systemctl stop wgkex-cleanup@%s.timer", domain)

	// A router that registers at the first gateway has a tunnel to both, the one after the
	// other.
	router := makeRouter(t, "pair1", 120, domain, 4, port, 51820+number1, 100+number1)
	both("a key by TCP at the first", router)
	private := sh(t, "cat pair1.key")
	second("cd /root; echo %s > pair1.key; ./suite-files/router pair1 120 %s 4 %d %d %d rfc4291", private, domain, port, 51820+number2, 100+number2)
	eventually(t, "the router's tunnel to the second gateway", func() bool {
		_, err := in("ip netns exec pair1 ping -6 -c 1 -W 5 fd00:%d::1", 100+number2)
		return err == nil
	})
	byHTTP := newKey(t)
	second(`curl -sSf -d '{"domain": "%s", "public_key": "%s"}' http://localhost:%d%s`, domain, byHTTP, httpPort, v1Path)
	both("a key by HTTP at the second", byHTTP)
	wantRouter(t, domain, router, byHTTP)

	// The broker is away while routers register at both.
	keys := []address.Key{router, byHTTP}
	register := func(n int) {
		t.Helper()
		for i := range n {
			keys = append(keys, newKey(t))
			key := keys[len(keys)-1]
			if i%2 == 0 {
				accept(t, port, domain, key)
			} else {
				second("wgkex register localhost:%d %s %s", port, domain, key)
			}
		}
	}
	sh(t, "systemctl kill -s KILL mosquitto; systemctl stop mosquitto")
	back := time.After(away)
	register(registrations)
	<-back
	sh(t, "systemctl start mosquitto")
	brokerListens(t)
	both("what came while the broker was away", keys...)

	// Relays are killed again and again.
	for range 5 {
		register(2)
		sh(t, "kill -KILL $(systemctl show -P MainPID wgkex-relay.service)")
		register(2)
		second("systemctl kill -s KILL wgkex-relay.service")
	}
	both("what came while relays were killed", keys...)

	// The second gateway boots anew. It has what it saved, and the keys of the meantime. A
	// restore leaves out who has not connected for half an hour, so those of before do
	// not count.
	old := len(keys)
	register(10)
	saved := append(keys[old:], router)
	both("what comes before the reboot", saved...)
	before := second("cat /proc/sys/kernel/random/boot_id; wg show wg-%s peers | wc -l", domain)
	second("systemctl reboot --no-block")
	meantime := newKey(t)
	accept(t, port, domain, meantime)
	eventually(t, "the second gateway is gone", func() bool { _, err := in("wg show wg-%s", domain); return err != nil })
	hasBooted(t, in)
	uplink()
	second("systemctl restart suite-interfaces || true") // its uplink may have been late
	t.Logf("before the reboot %s, after %s", before, second("wg show wg-%s peers | wc -l", domain))
	both("after the reboot", append(saved, meantime)...)
	known()
	if out := second("journalctl -b --no-pager -o cat -t wgkex-relay -p warning"); out != "" {
		t.Log(out)
	}

	// Nothing is said without end: each of ten kills and a lost broker is a reason to say
	// a key once more, and the gateways are two.
	for line := range strings.Lines(sh(t, "grep ^wireguard/ /run/suite-listener | sort | uniq -c | sort -rn | head -3")) {
		fields := strings.Fields(line)
		if n, err := strconv.Atoi(fields[0]); err != nil || n > 24 {
			t.Errorf("said too often: %s", line)
		}
		t.Log(line)
	}
	if out := sh(t, "systemctl start wgkex-cleanup@%s.timer; wgkex check", domain); strings.Contains(out, "FAILED") {
		t.Error(out)
	}
}
