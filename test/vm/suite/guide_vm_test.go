//go:build vm

package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// document is an installed document of Markdown, such as operating.md.
func document(t *testing.T, name string) string {
	t.Helper()
	return sh(t, "zcat -f /usr/share/doc/wgkex/%s*", name)
}

// section is what stands under a heading, without the headings below it.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	var under strings.Builder
	found, code := false, false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		level := strings.TrimLeft(line, "#")
		if !code && level != line && strings.HasPrefix(level, " ") {
			if found {
				break
			}
			found = strings.TrimSpace(level) == heading
		} else if found {
			under.WriteString(line)
		}
	}
	if !found {
		t.Fatalf("no section %q", heading)
	}
	return under.String()
}

// script is the blocks of a section as one who copies them in order runs them: a
// block with a file's name above it is that file, in the directory files if its
// name has none.
func script(section, files string) string {
	// In Go's syntax, a backquote is \x60.
	block := regexp.MustCompile("(?ms)(?:^\x60([^\x60\n]+)\x60[^\n]*:\n\n)?^\x60\x60\x60([a-z]*)\n(.*?)^\x60\x60\x60$")
	var script strings.Builder
	for _, m := range block.FindAllStringSubmatch(section, -1) {
		file, kind, text := m[1], m[2], m[3]
		switch {
		case file != "":
			if !filepath.IsAbs(file) {
				file = filepath.Join(files, file)
			}
			fmt.Fprintf(&script, "mkdir -p '%s'; cat > '%s' <<'END OF FILE'\n%sEND OF FILE\n", filepath.Dir(file), file, text)
		case kind == "sh":
			script.WriteString(text)
		}
	}
	return script.String()
}

// copied runs a script as one who copies it, but for stopping at the first
// command that fails.
func copied(t *testing.T, script string) string {
	t.Helper()
	if err := os.WriteFile("copied", []byte("set -ex -o pipefail\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return sh(t, "ln -sf wgkex.deb wgkex_copied.deb; bash copied")
}

// alone takes the suite's own VXLAN interfaces down, as on a gateway that has only
// what a document makes: those of one UDP port share a socket, and theirs wants
// checksums.
func alone(t *testing.T) {
	t.Helper()
	configure(t, nil)
	sh(t, "ip link set vx-ffww01 down; ip link set vx-ffww02 down")
	t.Cleanup(func() { sh(t, "ip link set vx-ffww01 up; ip link set vx-ffww02 up") })
}

// From nothing to a ping through the tunnel, with what the guide says, block by
// block, for each of its ways to make the interfaces.
func TestGuideLeadsToAPing(t *testing.T) {
	guideLeadsToAPing(t, []way{{"With ifupdown", "ifdown vxww01 wgww01; rm /etc/network/interfaces.d/wgww01"}})
}

func TestLongGuideLeadsToAPing(t *testing.T) {
	guideLeadsToAPing(t, []way{
		{"With systemd-networkd", "systemctl disable --now systemd-networkd systemd-networkd.socket; rm /etc/systemd/network/*ww01*; ip link del vxww01; ip link del wgww01"},
		{"With wg-quick", "systemctl disable --now wg-quick@wgww01; rm /etc/wireguard/wgww01.conf"},
		{"With plain ip commands", "ip link del vxww01; ip link del wgww01"},
	})
}

// way is a section of the guide that makes the interfaces, and what undoes it.
type way struct{ heading, undo string }

func guideLeadsToAPing(t *testing.T, ways []way) {
	alone(t)
	guide := document(t, "operating.md")
	for _, way := range ways {
		t.Run(way.heading, func(t *testing.T) {
			t.Cleanup(func() { sh(t, "%s; ! ip link show wgww01; ! ip link show vxww01", way.undo) })
			var all string
			for _, heading := range []string{"Installing", "The gateway's key and address", way.heading, "Adding a domain", "Trying it"} {
				all += script(section(t, guide, heading), "")
			}
			out := copied(t, all)
			for _, want := range []string{"\nok: domain ffww01: interfaces wgww01", "\nok: wgkex@ffww01.socket: active on port 10013\n", "\nOK\n", " bytes from fd00::1: ", " live "} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for _, never := range []string{"\nFAILED: ", "\nwarning: "} {
				if strings.Contains(out, never) {
					t.Errorf("%q in\n%s", never, out)
				}
			}
			if out := sh(t, "wg show wgww01 peers; bridge fdb show dev vxww01 | grep fe80 || true"); out != "" {
				t.Errorf("left of the trial:\n%s", out)
			}
		})
	}
}

// The same with the first steps in README.md, on the guide's interfaces.
func TestReadmeLeadsToAPing(t *testing.T) {
	alone(t)
	guide, readme := document(t, "operating.md"), document(t, "README.md")
	t.Cleanup(func() { sh(t, "ip link del vxww01; ip link del wgww01") })
	out := copied(t, script(section(t, guide, "The gateway's key and address"), "")+
		script(section(t, guide, "With plain ip commands"), "")+
		script(section(t, readme, "Install"), "")+
		script(section(t, guide, "Trying it"), ""))
	if !strings.Contains(out, " bytes from fd00::1: ") || strings.Contains(out, "\nwarning: ") {
		t.Errorf("no ping, or a warning, in\n%s", out)
	}
}

// playbook runs a play of the role with the variables, in YAML, and returns what
// ansible-playbook says.
func playbook(t *testing.T, wantOK bool, options string, variables ...string) string {
	t.Helper()
	play := "- hosts: gateways\n  gather_facts: false\n  become: true\n  roles:\n    - role: wgkex\n      vars:\n        wgkex_package: /root/wgkex.deb\n"
	for _, v := range variables {
		play += "        " + v + "\n"
	}
	if err := os.WriteFile("play.yml", []byte(play), 0o644); err != nil {
		t.Fatal(err)
	}
	return runPlaybook(t, wantOK, options+" play.yml")
}

func runPlaybook(t *testing.T, wantOK bool, arguments string) string {
	t.Helper()
	// It takes an emulated VM long to copy each module, and to look for a Python.
	sh(t, "printf '[gateways]\nlocalhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n' > inventory")
	out, err := try("ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1 ANSIBLE_ROLES_PATH=suite-files/roles ansible-playbook -i inventory %s", arguments)
	if (err == nil) != wantOK {
		t.Fatalf("ansible: %v\n%s", err, out)
	}
	t.Log(strings.TrimSpace(out[strings.LastIndex(out, "\n")+1:]))
	return out
}

// The role from nothing, then each change and each way to fail: a run that failed is
// completed by the next one, and nothing changes where there is nothing to do.
func TestLongAnsibleRole(t *testing.T) {
	configure(t, nil)
	sh(t, "%s purge wgkex", apt)
	t.Cleanup(func() { sh(t, "rm -f /usr/local/sbin/wgkex; %s install ./wgkex.deb", apt) })
	domains := func(list ...string) string { return "wgkex_domains: [" + strings.Join(list, ", ") + "]" }
	one := "{name: ffww01, wireguard: wg-ffww01, vxlan: vx-ffww01, listen: 10013}"
	two := "{name: ffww02, wireguard: wg-ffww02, vxlan: vx-ffww02, listen: '{{ 10000 + 14 }}', addresses: ffmuc}"
	moved := strings.Replace(one, "10013", "10023", 1)
	const file = "/etc/wgkex/conf.d/ansible.toml"
	unchanged := func(what, out string) {
		t.Helper()
		if !strings.Contains(out, " changed=0 ") {
			t.Errorf("%s changed something:\n%s", what, out)
		}
	}

	playbook(t, true, "--check", domains(one, two))
	if out, err := try("command -v wgkex"); err == nil {
		t.Errorf("check mode has installed %s", out)
	}
	all := []string{
		domains(one, two), "wgkex_listen: 10012", "wgkex_reply: ok", "wgkex_prohibited_keys: [QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU=]",
		fmt.Sprintf("wgkex_http: {listen: [%d], default_domain: ffww01}", httpPort), "wgkex_metrics: {enabled: '{{ 1 > 2 }}'}", "wgkex_gateway: {address: gw01.example.org}", "wgkex_firewall: true",
	}
	playbook(t, true, "", all...)
	for _, port := range []int{sharedPort, port1} {
		if got := send(t, port, "ffww01\n"+newKey(t).String()+"\n"); got != "OK\n" {
			t.Errorf("port %d answers %q", port, got)
		}
	}
	refuse(t, port2, "ffww02\nQeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU=\n", "PROHIBITED_WGKEY")
	sh(t, "curl -fsS http://localhost:%d/; systemctl is-active wgkex-firewall; ! systemctl is-active wgkex-metrics.socket", httpPort)
	unchanged("the same again", playbook(t, true, "", all...))

	// A broken variable, by its name, its kind, and by what only wgkex knows.
	before := sh(t, "stat -c '%%Y %%i' %s", file)
	for _, broken := range []string{
		strings.Replace(moved, "wireguard", "wireguarrd", 1),
		strings.Replace(moved, "}", ", max_peers: many}", 1),
		strings.Replace(moved, "10023", "10014", 1), // which ffww02 has
	} {
		unchanged(broken, playbook(t, false, "", domains(broken, two)))
	}
	if after := sh(t, "stat -c '%%Y %%i' %s", file); after != before {
		t.Errorf("a mistake has changed %s", file)
	}

	// Check mode tells of a change and makes none.
	if out := playbook(t, true, "--check --diff", domains(moved)); !strings.Contains(out, "+listen = 10023") {
		t.Errorf("check mode does not tell of the port:\n%s", out)
	}
	if after := sh(t, "stat -c '%%Y %%i' %s", file); after != before {
		t.Errorf("check mode has changed %s", file)
	}

	// A port changes, and a domain and more are taken out, in a run that fails when the
	// file is there and nothing is applied. The next one has all of it to do.
	sh(t, `printf '#!/bin/sh\n[ "$1" != apply ] || exit 1\nexec /usr/bin/wgkex "$@"\n' > /usr/local/sbin/wgkex; chmod +x /usr/local/sbin/wgkex`)
	playbook(t, false, "", domains(moved))
	sh(t, "ss -Hltn sport = :%d | grep LISTEN; rm /usr/local/sbin/wgkex", port1)
	playbook(t, true, "", domains(moved))
	accept(t, 10023, "ffww01", newKey(t))
	if out := sh(t, "ss -Hltn sport = :%d or sport = :%d or sport = :%d or sport = :%d; systemctl list-units --no-legend 'wgkex*ffww02*.socket' 'wgkex*ffww02*.timer' 'wgkex-save@ffww02.service'; systemctl is-enabled wgkex-firewall | grep -v disabled || true; nft list tables | grep wgkex || true", port1, port2, sharedPort, httpPort); out != "" {
		t.Errorf("left of what was taken out:\n%s", out)
	}
}

// The role installs the relay where there is a broker, gives it the password, and stops it
// when the broker is taken out.
func TestLongAnsibleMQTT(t *testing.T) {
	configure(t, nil)
	sh(t, "systemd-run -q --unit=suite-broker mosquitto -p %d", brokerPort)
	t.Cleanup(func() {
		_, _ = try("dpkg -P wgkex-relay; systemctl stop suite-broker; rm -f /etc/wgkex/mqtt.password")
	})
	eventually(t, "the broker listening", func() bool { return sh(t, "ss -Hltn sport = :%d", brokerPort) != "" })
	variables := func(password string) []string {
		return []string{
			"wgkex_domains: [{name: ffww01, wireguard: wg-ffww01, vxlan: vx-ffww01, listen: 10013}]", "wgkex_gateway: {name: gw01}",
			fmt.Sprintf("wgkex_mqtt: {url: 'mqtt://localhost:%d', username: gw01}", brokerPort), "wgkex_mqtt_password: " + password,
			"wgkex_gateways: {gw01: '{{ 3 * 10 }}', gw.02: 10}", "wgkex_relay_package: '{{ lookup(\"fileglob\", \"/root/wgkex-relay_*.deb\") }}'",
		}
	}
	heard := func() {
		t.Helper()
		eventually(t, "the relay telling the broker of its gateway", func() bool {
			out, _ := try("mosquitto_sub -p %d -C 1 -W 20 -t wireguard-worker/gw01/status", brokerPort)
			return out == "1"
		})
	}
	playbook(t, true, "", variables("first")...)
	heard()
	if got := sh(t, "stat -c '%%a %%U' /etc/wgkex/mqtt.password; cat /etc/wgkex/mqtt.password"); got != "600 root\nfirst" {
		t.Errorf("the password's file is %q", got)
	}
	if out := playbook(t, true, "", variables("first")...); !strings.Contains(out, " changed=0 ") {
		t.Errorf("the same again changed something:\n%s", out)
	}
	pid := func() string { return sh(t, "systemctl show -P MainPID wgkex-relay.service") }
	before := pid()
	playbook(t, true, "", variables("second")...)
	if now := pid(); now == before || now == "0" {
		t.Errorf("with another password the relay is process %s, before %s", now, before)
	}
	heard()
	playbook(t, true, "", variables("second")[:1]...)
	if out, _ := try("systemctl is-active wgkex-relay.service"); out != "inactive" {
		t.Errorf("without a broker the relay is %s", out)
	}
}

// The role takes the place of the classic scripts, of which this has a stand-in with the
// names and places of theirs. A tunnel stays up, and refused keys stay refused.
func TestLongAnsibleReplacesClassic(t *testing.T) {
	configure(t, nil)
	sh(t, "%s purge wgkex; mkdir -p /etc/wgkex", apt)
	t.Cleanup(func() { sh(t, "%s install ./wgkex.deb", apt) })
	refused := newKey(t)
	write := func(path, text, mode string) {
		sh(t, "cat > %s <<'END OF FILE'\n%s\nEND OF FILE\nchmod %s %[1]s", path, text, mode)
	}
	write("/etc/wgkex/disallowed_keys", "\n"+refused.String()+"\nno key", "644")
	write("/usr/local/bin/wgkex_server.sh", "#!/bin/sh\nexec socat TCP-LISTEN:10013,fork,reuseaddr EXEC:'sudo /usr/local/bin/wgkex_handler.sh'", "755")
	write("/usr/local/bin/wgkex_handler.sh", "#!/bin/sh\nexec /root/suite-files/classic ffww01 wg-ffww01 vx-ffww01", "755")
	write("/usr/local/bin/wgkex_cleanup.sh", "#!/bin/sh", "755")
	write("/etc/sudoers.d/wgkex", `wgkex ALL = (root) NOPASSWD: /usr/local/bin/wgkex_handler.sh ""`, "440")
	write("/etc/systemd/system/wgkex-worker.service", "[Service]\nUser=wgkex\nExecStart=/usr/local/bin/wgkex_server.sh\n[Install]\nWantedBy=multi-user.target", "644")
	write("/etc/systemd/system/wgkex-cleanup@.service", "[Service]\nType=oneshot\nExecStart=/usr/local/bin/wgkex_cleanup.sh %i", "644")
	write("/etc/systemd/system/wgkex-cleanup@.timer", "[Timer]\nOnActiveSec=10d\n[Install]\nWantedBy=timers.target", "644")
	sh(t, "id wgkex || useradd --system wgkex; install -d -o wgkex /var/lib/wgkex; systemctl daemon-reload; systemctl enable --now wgkex-worker.service wgkex-cleanup@ffww01.timer")
	t.Cleanup(func() {
		_, _ = try("systemctl disable --now wgkex-worker.service; rm /etc/systemd/system/wgkex-{worker,cleanup@}.*")
	})
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("systemctl status --no-pager -l wgkex-worker.service; ss -Htanp '( sport = :10013 )'; ls -l /usr/local/bin /etc/systemd/system; journalctl -b --no-pager -n 60")
			t.Log(out)
		}
	})
	eventually(t, "the scripts listening", func() bool { return sh(t, "ss -Hltn sport = :10013") != "" })
	key := makeRouter(t, "veteran", 60, "ffww01", 4, port1, 51821, 101)
	sh(t, "ip netns exec veteran ping -6 -q -c 30 -i 0.1 -s 1000 fd00:101::1")
	received := func() int {
		n, err := strconv.Atoi(sh(t, "wg show wg-ffww01 transfer | grep -F %s | cut -f2", key))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := received()

	variables := []string{"wgkex_domains: [{name: ffww01, wireguard: wg-ffww01, vxlan: vx-ffww01, listen: 10013}]", "wgkex_replace_classic: true"}
	// A key that wgkex does not take: the scripts go on.
	const zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	sh(t, "echo %s >> /etc/wgkex/disallowed_keys", zero)
	if out := playbook(t, false, "", variables...); !strings.Contains(out, "disallowed_keys.toml") {
		t.Errorf("with a key that is none:\n%s", out)
	}
	sh(t, "ss -Hltn sport = :10013 | grep LISTEN; pgrep socat; ls /etc/wgkex/disallowed_keys; sed -i /%s/d /etc/wgkex/disallowed_keys", zero)
	playbook(t, true, "", variables...)
	// A peer that was removed and added again would have begun to count anew.
	reach(t, "veteran", 101)
	if after := received(); after < before {
		t.Errorf("the peer had received %d bytes, and now %d", before, after)
	}
	wantRouter(t, "ffww01", key)
	accept(t, port1, "ffww01", newKey(t))
	refuse(t, port1, "ffww01\n"+refused.String()+"\n", "PROHIBITED_WGKEY")
	if out := sh(t, "ls -d /usr/local/bin/wgkex_* /etc/sudoers.d/wgkex /etc/systemd/system/wgkex* /etc/systemd/system/*/wgkex* /etc/wgkex/disallowed_keys 2>/dev/null | grep -v '/multi-user.target.wants/wgkex.target$' || true; pgrep -l socat || true"); out != "" {
		t.Errorf("left of the scripts:\n%s", out)
	}
	sh(t, "systemctl is-active wgkex-cleanup@ffww01.timer; systemctl start wgkex-cleanup@ffww01.service")
	// From now on a file with such a name is the admin's.
	sh(t, "echo '# nothing' > /etc/sudoers.d/wgkex")
	t.Cleanup(func() { sh(t, "rm /etc/sudoers.d/wgkex") })
	if out := playbook(t, true, "", variables...); !strings.Contains(out, " changed=0 ") {
		t.Errorf("the same again changed something:\n%s", out)
	}
	wantRouter(t, "ffww01", key)
}

// The guide's play, on the guide's interfaces.
func TestLongGuideAnsible(t *testing.T) {
	alone(t)
	guide := document(t, "operating.md")
	t.Cleanup(func() { sh(t, "ip link del vxww01; ip link del wgww01") })
	copied(t, script(section(t, guide, "The gateway's key and address"), "")+
		script(section(t, guide, "With plain ip commands"), "")+
		script(section(t, guide, "With Ansible"), "."))
	runPlaybook(t, true, "gateways.yml")
	accept(t, 10013, "ffww01", newKey(t))
}

// The guide's units for the textfile collector: they say which domains cannot be read,
// and write for others to read.
func TestGuideMetrics(t *testing.T) {
	_, text, _ := strings.Cut(section(t, document(t, "operating.md"), "Prometheus"), "textfile collector")
	sh(t, "mkdir -p /var/lib/prometheus/node-exporter")
	t.Cleanup(func() {
		sh(t, "systemctl disable --now wgkex-textfile.timer; systemctl stop wgkex-textfile.service; systemctl reset-failed wgkex-textfile.service; rm -r /var/lib/prometheus /etc/systemd/system/wgkex-textfile.*; systemctl daemon-reload")
	})
	copied(t, script(text, ""))
	sh(t, "systemctl start wgkex-textfile.service")
	const file = "/var/lib/prometheus/node-exporter/wgkex.prom"
	if mode := sh(t, "stat -c %%a %s", file); mode != "644" {
		t.Errorf("the metrics have mode %s", mode)
	}
	got := sh(t, "cat %s", file)
	// The shared configuration has domains that cannot be read.
	for _, want := range []string{`wgkex_domain_up{domain="absent"} 0`, `wgkex_domain_up{domain="ffww01"} 1`, `wgkex_peers{domain="ffww01",state="live"} `, `wgkex_peers_limit{domain="ffww02",of="pending"} 1000`, `wgkex_socket_active{unit="wgkex.socket"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
