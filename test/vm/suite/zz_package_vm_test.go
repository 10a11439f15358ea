//go:build vm

package suite

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// These come last (by the file's name), since they take the package away.

// The installed package needs none of the programs that it replaces.
func TestWithoutTools(t *testing.T) {
	key, other := newKey(t), newKey(t)
	tools := "socat sudo wg wg-quick ip bridge nc"
	hide := fmt.Sprintf(`for tool in %s; do path=$(command -v $tool) && mv $path $path.hidden; done; true`, tools)
	show := `for path in /usr/bin/*.hidden /usr/sbin/*.hidden /sbin/*.hidden; do [ ! -e $path ] || mv $path ${path%.hidden}; done`
	sh(t, "%s", hide)
	if _, err := try("wg show"); err == nil {
		t.Error("wg is still there")
	}
	accept(t, port1, "ffww01", key)
	sh(t, "systemctl restart wgkex@ffww01.socket")
	accept(t, port1, "ffww01", other)
	sh(t, "%s", show)
	wantRouter(t, "ffww01", key)
	wantRouter(t, "ffww01", other)
}

// Without the WireGuard module there are no interfaces to serve.
func TestModuleAbsent(t *testing.T) {
	sh(t, `ip -o link show type vxlan | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | xargs -n 1 -r ip link del
		ip -o link show type wireguard | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | xargs -n 1 -r ip link del; modprobe -r wireguard`)
	log := entries(t, "wgkex-handler", func() { refuse(t, port1, "ffww01\n"+newKey(t).String()+"\n", "BUSY") })
	if len(log) != 1 || !strings.Contains(log[0]["MESSAGE"], "interface wg-ffww01: no such interface") {
		t.Errorf("the log says %v", log)
	}
	sh(t, "for domain in 'ffww01 1 rfc4291' 'ffww02 2 ffmuc'; do ./suite-files/gateway $domain; done")
	accept(t, port1, "ffww01", newKey(t))
}

func TestPackage(t *testing.T) {
	const deb = "/root/wgkex.deb"
	if _, err := os.Stat(deb); err != nil {
		t.Fatal(err)
	}
	apt := "DEBIAN_FRONTEND=noninteractive apt-get -y -q"
	// An upgrade goes on listening and keeps a changed configuration file.
	sh(t, "dpkg-deb -R %s new && sed -i 's/^Version: .*/Version: 99/' new/DEBIAN/control && dpkg-deb -Znone -b new new.deb", deb)
	log := sh(t, "%s install ./new.deb", apt)
	if v := sh(t, "dpkg-query -W -f '${Version}' wgkex"); v != "99" {
		t.Errorf("version %s after the upgrade:\n%s", v, log)
	}
	if out := sh(t, "systemctl is-active wgkex.socket wgkex@ffww01.socket"); out != "active\nactive" {
		t.Errorf("after the upgrade the sockets are %s", out)
	}
	accept(t, port1, "ffww01", newKey(t))
	if out := sh(t, "grep -c domains /etc/wgkex/wgkex.toml"); out == "0" {
		t.Error("the upgrade replaced the configuration")
	}

	sh(t, "%s remove wgkex", apt)
	if out, _ := try("systemctl is-active wgkex.socket wgkex@ffww01.socket"); strings.Contains(out, "\nactive") || strings.HasPrefix(out, "active") {
		t.Errorf("after the removal the sockets are %s", out)
	}
	// What is there of all that a package or a gateway makes.
	left := func() string {
		return sh(t, `shopt -s nullglob
			for path in /etc/wgkex /run/wgkex /var/lib/wgkex /usr/lib/wgkex /usr/bin/wgkex /{etc,run,usr/lib}/systemd/system/{,*/}wgkex*; do
				if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi
			done`)
	}
	sh(t, "rm -rf /run/systemd/system/wgkex* /var/lib/wgkex") // of the suite
	// Whether the target is enabled is the admin's, as the configuration is.
	if out := left(); out != "/etc/wgkex\n/etc/systemd/system/multi-user.target.wants/wgkex.target" {
		t.Errorf("the removal left\n%s", out)
	}
	sh(t, "rm /etc/wgkex/wgkex.toml") // a conffile, and changed
	sh(t, "%s purge wgkex", apt)
	if out := left(); out != "" {
		t.Errorf("the purge left\n%s", out)
	}

	// A fresh installation listens nowhere until the configuration asks for it.
	sockets := sh(t, "ss -Hlnt")
	sh(t, "%s install %s", apt, deb)
	if out := sh(t, "ss -Hlnt"); out != sockets {
		t.Errorf("the installation listens:\n%s", out)
	}
	if out := sh(t, "cat /etc/wgkex/wgkex.toml"); !strings.Contains(out, "wgkex.toml(5)") {
		t.Errorf("no configuration file to begin with: %s", out)
	}
	sh(t, "wgkex check")
	if out := sh(t, "systemctl list-units --no-legend --failed --all 'wgkex*'"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
}
