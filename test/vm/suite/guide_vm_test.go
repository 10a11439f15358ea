//go:build vm

package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// The guide's Ansible role: a run that failed is healed by the next one that has
// nothing to fail at, and fails again until then.
func TestLongGuideAnsibleRole(t *testing.T) {
	configure(t, nil)
	sh(t, "rm -rf ansible")
	copied(t, script(section(t, document(t, "operating.md"), "With Ansible"), "ansible/roles/wgkex"))
	play := func(wantOK bool, template string, domains ...string) {
		t.Helper()
		text := "- hosts: localhost\n  gather_facts: false\n  roles: [wgkex]\n  vars:\n    domains:\n"
		for _, d := range domains {
			text += "      - {" + d + "}\n"
		}
		if err := os.WriteFile("ansible/play.yml", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if template != "" {
			sh(t, "cd ansible/roles/wgkex/templates; sed -i '%s' domain.toml.j2", template)
		}
		out, err := try("cd ansible; ANSIBLE_NOCOLOR=1 ansible-playbook -c local -i localhost, play.yml")
		if (err == nil) != wantOK {
			t.Errorf("ansible: %v\n%s", err, out)
		}
	}
	one := "name: ffww01, wireguard: wg-ffww01, vxlan: vx-ffww01, port: 10013, addresses: rfc4291"
	two := "name: ffww02, wireguard: wg-ffww02, vxlan: vx-ffww02, port: 10014, addresses: ffmuc"
	moved := strings.Replace(one, "10013", "10023", 1)

	play(true, "", one, two)
	accept(t, port1, "ffww01", newKey(t))
	accept(t, port2, "ffww02", newKey(t))
	if sh(t, "head -1 /etc/wgkex/conf.d/ffww01.toml") != `[domains."ffww01"]` {
		t.Errorf("what is deployed does not begin with the domain")
	}
	// A port changes, and a domain is taken out of the list, in a run that ends
	// at a mistake. The same again fails, too; what runs goes on.
	play(false, "s/^wireguard/wireguarrd/", moved)
	play(false, "", moved)
	accept(t, port1, "ffww01", newKey(t))
	// The run that repairs it does all that the first one was about.
	play(true, "s/^wireguarrd/wireguard/", moved)
	accept(t, 10023, "ffww01", newKey(t))
	if out := sh(t, "ls /etc/wgkex/conf.d; ss -Hltn sport = :%d", port2); out != "ffww01.toml" {
		t.Errorf("left of the domain: %s", out)
	}
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
