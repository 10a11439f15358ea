//go:build vm

package suite

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"wgkex/internal/address"
)

// brokerPort is that of a mosquitto with TLS, passwords and an access list.
const brokerPort = 18883

// The configuration of mosquitto is that of docs/mqtt.md.
const brokerSetup = `
mkdir -p /etc/mosquitto/suite; cd /etc/mosquitto/suite
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=suite-ca -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout broker.key -out broker.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost' > san
openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out broker.pem 2>/dev/null
printf 'gw01:secret1\ngw02:secret2\n' > passwords
mosquitto_passwd -U passwords
cat > acl <<END
pattern readwrite wireguard/+/+
pattern read wireguard-worker/#
pattern read wireguard-metrics/#
pattern write wireguard-worker/%%u/#
pattern write wireguard-metrics/+/%%u/connected_peers
END
cat > mosquitto.conf <<END
listener %[1]d
cafile /etc/mosquitto/suite/ca.pem
certfile /etc/mosquitto/suite/broker.pem
keyfile /etc/mosquitto/suite/broker.key
allow_anonymous false
password_file /etc/mosquitto/suite/passwords
acl_file /etc/mosquitto/suite/acl
persistence true
persistence_location /var/lib/mosquitto/
max_queued_messages 100000
END
chown -R mosquitto /etc/mosquitto/suite
printf 'secret1\n' > /etc/wgkex/mqtt.password; chmod 600 /etc/wgkex/mqtt.password
`

// startBroker runs mosquitto, as a unit, so that it ends with the test.
func startBroker(t *testing.T) {
	t.Helper()
	sh(t, "systemd-run -q --unit=suite-broker -p User=mosquitto mosquitto -c /etc/mosquitto/suite/mosquitto.conf")
	eventually(t, "the broker listens", func() bool { _, err := try("ss -Hltn sport = :%d | grep -q .", brokerPort); return err == nil })
}

const asOther = "-h localhost -p 18883 --cafile /etc/mosquitto/suite/ca.pem -u gw02 -P secret2"

// other publishes as another gateway, which has Munich's worker: MQTT 3.1.1.
func other(t *testing.T, topic, payload string, options ...string) {
	t.Helper()
	sh(t, "mosquitto_pub -V mqttv311 %s -q 1 -t %s -m '%s' %s", asOther, topic, payload, strings.Join(options, " "))
}

func hasPeer(domain string, key address.Key) bool {
	_, err := try("wg show wg-%s allowed-ips | grep -qF '%s'", domain, key)
	return err == nil
}

// hears listens as another gateway with a session that lasts.
func hears(t *testing.T, key address.Key) {
	t.Helper()
	eventually(t, "the other gateway hears a key", func() bool {
		_, err := try("grep -qF 'wireguard/ffww01/all %s' /run/suite-heard", key)
		return err == nil
	})
}

func TestRelay(t *testing.T) {
	sh(t, "dpkg -i /root/wgkex-relay_*.deb")
	t.Cleanup(func() {
		sh(t, "rm -f /etc/wgkex/conf.d/mqtt.toml; wgkex apply; dpkg -P wgkex-relay; systemctl stop suite-broker suite-other 2>/dev/null; rm -rf /etc/mosquitto/suite /etc/wgkex/mqtt.password")
		if out, _ := try("ls -d /run/wgkex/announce.sock /run/wgkex/relay /var/lib/wgkex-relay"); !strings.Contains(out, "announce.sock': No such") || !strings.Contains(out, "relay': No such") {
			t.Errorf("after the removal: %s", out)
		}
	})
	sh(t, brokerSetup, brokerPort)
	startBroker(t)
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	if err := os.WriteFile("/etc/wgkex/conf.d/mqtt.toml", fmt.Appendf(nil, `
[mqtt]
url = "mqtts://localhost:%d"
username = "gw01"
password_file = "/etc/wgkex/mqtt.password"
ca_file = "/etc/mosquitto/suite/ca.pem"
[gateways]
gw02 = 1000
`, brokerPort), 0o644); err != nil {
		t.Fatal(err)
	}
	// Names of hosts and gateways are the same here.
	sh(t, `sed -i '/^\[gateway\]/a name = "gw01"' /etc/wgkex/conf.d/http.toml`)
	t.Log(sh(t, "wgkex apply"))
	sh(t, `systemd-run -q --unit=suite-other bash -c "mosquitto_sub %s -c -i gw02 -q 1 -v -t 'wireguard/+/+' -t 'wireguard-worker/+/status' > /run/suite-heard"`, asOther)
	eventually(t, "the gateway is on line", func() bool {
		_, err := try("grep -q 'wireguard-worker/gw01/status 1' /run/suite-heard")
		return err == nil
	})
	if out := sh(t, "systemctl show -P ActiveState -P NRestarts wgkex-relay.service"); out != "active\n0" {
		t.Errorf("the relay is %s", out)
	}
	if out := sh(t, "wgkex check || true"); !strings.Contains(out, "wgkex-relay.service: active") {
		t.Errorf("check says %s", out)
	}

	// One key, all gateways: by TCP and by HTTP here, and from there.
	key, byHTTP, theirs := newKey(t), newKey(t), newKey(t)
	accept(t, port1, "ffww01", key)
	askHTTP(t, v1Path, "ffww01", byHTTP.String(), 200)
	hears(t, key)
	hears(t, byHTTP)
	other(t, "wireguard/ffww01/all", theirs.String())
	eventually(t, "their key is a peer", func() bool { return hasPeer("ffww01", theirs) })
	wantRouter(t, "ffww01", key, byHTTP, theirs)
	if out := sh(t, "cat /run/suite-heard"); strings.Count(out, theirs.String()) > 1 {
		t.Errorf("their key comes back:\n%s", out)
	}

	// Routers are sent to the other gateway, which has fewer.
	endpointKey := newKey(t)
	other(t, "wireguard-worker/gw02/ffww01/data", fmt.Sprintf(`{"ExternalAddress": "gw02.example.org", "Port": 40000, "PublicKey": "%s", "LinkAddress": "fe80::2"}`, endpointKey), "-r")
	other(t, "wireguard-worker/gw02/status", "1", "-r")
	router := newKey(t)
	eventually(t, "v2 names the other gateway", func() bool {
		other(t, "wireguard-metrics/ffww01/gw02/connected_peers", "0", "-r")
		out, err := try(`curl -sS -d '{"domain": "ffww01", "public_key": "%s"}' http://localhost:%d%s`, newKey(t), httpPort, v2Path)
		return err == nil && strings.Contains(out, `"Address":"gw02.example.org","Port":"40000","AllowedIPs":["fe80::2"],"PublicKey":"`+endpointKey.String()+`"`)
	})
	askHTTP(t, v2Path, "ffww01", router.String(), 200)

	// A relay that is killed, and a broker that is away.
	sh(t, "kill -KILL $(systemctl show -P MainPID wgkex-relay.service)")
	later := newKey(t)
	other(t, "wireguard/ffww01/all", later.String())
	eventually(t, "a key of the time without a relay is a peer", func() bool { return hasPeer("ffww01", later) })
	sh(t, "systemctl stop suite-broker")
	away := newKey(t)
	accept(t, port1, "ffww01", away)
	startBroker(t)
	hears(t, away)

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
	sh(t, "rm /etc/wgkex/conf.d/mqtt.toml; wgkex apply")
	if out, _ := try("systemctl is-active wgkex-relay.service wgkex-relay.socket"); out != "inactive\ninactive" {
		t.Errorf("without a broker: %s", out)
	}
	accept(t, port1, "ffww01", newKey(t))
	if out := sh(t, "cat /run/suite-heard"); !strings.HasSuffix(strings.TrimSpace(out), "wireguard-worker/gw01/status 0") {
		t.Errorf("the end:\n%s", out)
	}
}
