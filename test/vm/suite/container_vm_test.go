//go:build vm

package suite

import (
	"fmt"
	"strings"
	"testing"
)

// boot boots a container with what is installed and configured here, and returns
// a function that runs a command in it. The container has these options of
// systemd-nspawn and of the kernel's command line. The VM's own agent would wait there
// for devices of the VM. Status 133 is that of a container that reboots.
func boot(t *testing.T, nspawn, kernel string) (in func(format string, args ...any) (string, error)) {
	t.Helper()
	sh(t, `mkdir -p /run/container && mount -t tmpfs container /run/container && cd /run/container && mkdir upper work root
		mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work container root
		systemd-run -u container -p DevicePolicy=auto -p RestartForceExitStatus=133 systemd-nspawn --directory=/run/container/root --machine=container --boot --keep-unit \
			--register=no --private-network %s systemd.mask=vm-agent.service %s`, nspawn, kernel)
	t.Cleanup(func() { sh(t, "systemctl stop container; umount /run/container/root /run/container") })
	in = func(format string, args ...any) (string, error) {
		// Its first process is a child of systemd-nspawn, which has others before. It is
		// another one after a reboot.
		leader, err := try("pgrep -P $(systemctl show -P MainPID container) | head -1")
		if err != nil || leader == "" {
			return "", fmt.Errorf("the container has no process: %w", err)
		}
		return try("nsenter -t %s -a bash -c '%s'", leader, strings.ReplaceAll(fmt.Sprintf(format, args...), "'", `'\''`))
	}
	hasBooted(t, in)
	return in
}

// hasBooted waits until the container is up.
func hasBooted(t *testing.T, in func(format string, args ...any) (string, error)) {
	t.Helper()
	eventually(t, "the container", func() bool {
		state, _ := in("test -e /run/systemd/container && systemctl is-system-running")
		return state == "running" || state == "degraded"
	})
}

// In a container there is no kernel's log to write to: what is wrong with the
// configuration is in the journal all the same, at boot and at a daemon-reload.
func TestContainerReportsBrokenConfiguration(t *testing.T) {
	configure(t, map[string]string{"wgkex.toml": "listen = 'x'\n"})
	in := boot(t, "", "")
	if out, err := in("systemctl status wgkex"); err == nil || !strings.Contains(out, "FAILED: /etc/wgkex/wgkex.toml:1: ") {
		t.Errorf("systemctl status wgkex: %v\n%s", err, out)
	}
	if out, err := in("systemctl daemon-reload; journalctl -o cat -t wgkex-generator"); err != nil || !strings.Contains(out, "/etc/wgkex/wgkex.toml:1: ") {
		t.Errorf("after a daemon-reload: %v\n%s", err, out)
	}
}

// Where there is no journal, exchanges are served all the same.
func TestContainerWithoutJournal(t *testing.T) {
	configure(t, map[string]string{"wgkex.toml": "[domains.container]\nwireguard = \"wg-container\"\nvxlan = \"vx-container\"\nlisten = 10019\n"})
	in := boot(t, "", "systemd.mask=systemd-journald.service systemd.mask=systemd-journald.socket systemd.mask=systemd-journald-dev-log.socket systemd.mask=systemd-journald-audit.socket")
	if out, err := in("test ! -e /run/systemd/journal/socket && cd /root && ./suite-files/gateway container 7 rfc4291 && wgkex apply"); err != nil {
		t.Fatal(err, out)
	}
	key := newKey(t)
	if out, err := in("wgkex register localhost:10019 container %s; wg show wg-container peers", key); err != nil || out != "OK\n"+key.String() {
		t.Errorf("%v, %q", err, out)
	}
	// What a container calls the time since boot is the machine's.
	if out, err := in("cat /run/wgkex/booted"); err != nil || len(out) < len("1000000000") || out == sh(t, "cat /run/wgkex/booted") {
		t.Errorf("the container has booted at %q, %v", out, err)
	}
	// No unit tells of interfaces here: their peers come back by hand, or when the
	// timer starts, as at a boot.
	for _, command := range []string{"wgkex restore", "systemctl restart wgkex-cleanup@container.timer"} {
		if out, err := in("wgkex save && ip link del vx-container && ip link del wg-container && cd /root && ./suite-files/gateway container 7 rfc4291 && %s", command); err != nil {
			t.Fatal(err, out)
		}
		eventually(t, "the peer after "+command, func() bool {
			out, _ := in("wg show wg-container peers")
			return out == key.String()
		})
	}
}
