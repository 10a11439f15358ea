//go:build vm

package suite

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

const apt = "DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Options::=--force-confold"

// unitStates is how all units of wgkex are, but the exchanges and cleanups under
// way.
func unitStates(t *testing.T) string {
	t.Helper()
	return sh(t, `for unit in wgkex.target wgkex.service wgkex@order.socket wgkex-cleanup@order.timer wgkex@ffww01.socket wgkex-cleanup@ffww01.timer wgkex-firewall.service wgkex-http.socket; do
		echo $unit $(systemctl show -P ActiveState -P UnitFileState $unit); done; ss -Hltn | awk '{ print $4 }' | sort; systemctl list-units --no-legend --failed`)
}

// An upgrade, and the same version once more, leave everything as the admin has
// it: what runs, what was stopped, disabled or masked. One of the commands for
// each state, and each of them for one.
func TestUpgradeLeavesUnitsAsTheyWere(t *testing.T) { upgradeLeavesUnits(t, false) }

// Each of the commands for each state.
func TestLongUpgradeLeavesUnitsAsTheyWere(t *testing.T) { upgradeLeavesUnits(t, true) }

func upgradeLeavesUnits(t *testing.T, each bool) {
	inOrder(t)
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	sh(t, "cat > /etc/wgkex/conf.d/a.toml <<'END'\n%sEND", domainFile("ffww01", port1))
	apply(t, true)
	t.Cleanup(func() {
		sh(t, "systemctl unmask wgkex-cleanup@ffww01.timer; systemctl disable --now wgkex-firewall; systemctl enable --now wgkex.target; rm -f new.deb; rm -rf new")
	})
	sh(t, "rm -rf new new.deb; dpkg-deb -R wgkex.deb new && sed -i 's/^Version: .*/Version: 98/' new/DEBIAN/control && dpkg-deb -Znone -b new new.deb")
	commands := []string{"install ./new.deb", "install --allow-downgrades ./wgkex.deb", "install --reinstall ./wgkex.deb"}
	for i, c := range []struct{ name, change string }{
		{"all of it runs, and the firewall", "systemctl enable --now wgkex-firewall"},
		{"stopped, masked and disabled", "systemctl stop wgkex@order.socket wgkex-cleanup@order.timer wgkex-firewall; systemctl mask --now wgkex-cleanup@ffww01.timer; systemctl disable wgkex.target"},
		{"stopped altogether", "systemctl stop wgkex.target"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sh(t, "%s", c.change)
			before := unitStates(t)
			// What is resident is that of the new package.
			http := func() string {
				if out, err := try("curl -s http://localhost:%d/ && systemctl show -P MainPID wgkex-http.service", httpPort); err == nil {
					return out
				}
				return "" // stopped
			}
			served := http()
			for _, command := range commands {
				if !each && command != commands[i] {
					continue
				}
				log := sh(t, "%s %s", apt, command)
				if after := unitStates(t); after != before {
					t.Errorf("%s changed\n%s\nto\n%s\n%s", command, before, after, log)
				}
				if now := http(); (now == "") != (served == "") || served != "" && now == served {
					t.Errorf("%s: HTTP says %q, before %q", command, now, served)
				}
			}
		})
	}
}

// A removal ends what is under way before its files are gone, and leaves no unit
// behind. An installation starts what is configured.
func TestRemovalStopsEverything(t *testing.T) {
	inOrder(t)
	serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
	sh(t, "systemctl start wgkex-cleanup@order.service; systemctl start wgkex-firewall")
	for _, command := range []string{"remove wgkex", "purge wgkex"} {
		t.Run(command, func(t *testing.T) {
			conn, err := net.Dial("tcp", "localhost:10019")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			kept, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", httpPort))
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Close()
			eventually(t, "a handler", func() bool { _, err := try("pgrep -x wgkex-handler"); return err == nil })
			log := entries(t, "wgkex-handler", func() { sh(t, "%s %s", apt, command) })
			for _, e := range log {
				if e["PRIORITY"] <= "4" {
					t.Errorf("a handler says %v", e)
				}
			}
			// That the target is enabled stays until the purge, as is Debian's way.
			if out := sh(t, "systemctl list-units --all --no-legend '*wgkex*' | grep -v 'wgkex.target not-found' || true; pgrep -l wgkex || true; nft list tables | grep wgkex || true"); out != "" {
				t.Errorf("left behind:\n%s", out)
			}
			if strings.HasPrefix(command, "purge") {
				sh(t, "%s install ./wgkex.deb", apt)
			} else {
				sh(t, "test -e /etc/wgkex/conf.d/order.toml")
				// Another package is configured before.
				sh(t, "dpkg --unpack wgkex.deb && systemctl daemon-reload && dpkg --configure wgkex")
			}
			sh(t, "wgkex check")
		})
	}
}

// systemd finds nothing wrong with the units, and what they name as their
// documentation is there.
func TestUnitsVerify(t *testing.T) {
	// Its pages are looked for below: the VM has no man.
	if out, err := try(`cd /lib/systemd/system; systemd-analyze verify --man=no $(ls wgkex*.{service,socket,timer,target,slice} | sed 's/@\./@x./')`); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	pages := sh(t, `sed -n 's/^Documentation=//p' /lib/systemd/system/wgkex*.{service,socket,timer,target,slice} | tr ' ' '\n' | sort -u`)
	for page := range strings.FieldsSeq(pages + " man:wgkex-firewall(8) man:wgkex(8) man:wgkex.toml(5) man:wgkex.service(8)") {
		name, section, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(page, "man:"), ")"), "(")
		sh(t, "test -s /usr/share/man/man%s/%s.%[1]s.gz", section, name)
	}
	if out, _ := try("systemctl status wgkex"); !strings.Contains(out, "Active: active (exited)") {
		t.Errorf("systemctl status wgkex:\n%s", out)
	}
}
