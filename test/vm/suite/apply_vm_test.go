//go:build vm

package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configure puts these files, by their names, in the place of the whole
// configuration, and brings the shared one back after the test.
func configure(t *testing.T, files map[string]string) {
	t.Helper()
	sh(t, "test -e /etc/wgkex.shared || cp -a /etc/wgkex /etc/wgkex.shared")
	write := func() {
		sh(t, "find /etc/wgkex -type f -delete")
		for name, text := range files {
			if err := os.WriteFile(filepath.Join("/etc/wgkex", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		sh(t, "rm -r /etc/wgkex; mv /etc/wgkex.shared /etc/wgkex")
		_, _ = try("wgkex apply") // the shared configuration has domains that fail
		sh(t, "systemctl stop wgkex@absent.socket 'wgkex-cleanup@*.timer'")
	})
	write()
}

// domainFile is the configuration of one of the two domains that work.
func domainFile(name string, port int) string {
	return fmt.Sprintf("[domains.%s]\nwireguard = \"wg-%[1]s\"\nvxlan = \"vx-%[1]s\"\nlisten = %d\naddresses = %q\n", name, port, profiles[name])
}

// apply runs wgkex apply and returns the lines that tell of changes.
func apply(t *testing.T, wantOK bool) (changes, all string) {
	t.Helper()
	all, err := try("wgkex apply")
	if (err == nil) != wantOK {
		t.Errorf("wgkex apply: %v\n%s", err, all)
	}
	var done []string
	for line := range strings.Lines(all) {
		if strings.HasPrefix(line, "done: ") || strings.HasPrefix(line, "unchanged: ") {
			done = append(done, strings.TrimSpace(line))
		}
	}
	return strings.Join(done, "\n"), all
}

// reloads counts the daemon-reloads so far.
func reloads(t *testing.T) string {
	t.Helper()
	return sh(t, "journalctl --sync; journalctl -b -o cat _PID=1 | grep -c '^Reloading' || true")
}

// What the configuration does not ask for is not there, what it asks for serves,
// and a second run of the same has nothing to do.
func TestApply(t *testing.T)     { applyChanges(t, false) }
func TestLongApply(t *testing.T) { applyChanges(t, true) }

func applyChanges(t *testing.T, all bool) {
	configure(t, map[string]string{
		"conf.d/a.toml": domainFile("ffww01", port1),
		"conf.d/b.toml": domainFile("ffww02", port2),
	})
	closed := func(port int) {
		t.Helper()
		if out := sh(t, "ss -Hltn sport = :%d", port); out != "" {
			t.Errorf("port %d is open: %s", port, out)
		}
	}
	serves := func(port int, domain string) {
		t.Helper()
		accept(t, port, domain, newKey(t))
		unit := "wgkex-cleanup@" + domain + ".timer"
		if out, _ := try("systemctl is-active %s", unit); out != "active" {
			t.Errorf("%s is %s", unit, out)
		}
	}
	settled := func() {
		t.Helper()
		before := reloads(t)
		if done, all := apply(t, true); done != "unchanged: systemd runs what the configuration asks for" {
			t.Errorf("the second run:\n%s", all)
		}
		if after := reloads(t); after != before {
			t.Errorf("a run with nothing to do made a daemon-reload: %s, %s", before, after)
		}
	}
	change := func(name, text string) {
		t.Helper()
		if err := os.WriteFile("/etc/wgkex/conf.d/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// The first time, from sockets of another configuration.
	sh(t, "systemctl stop 'wgkex@*.socket' 'wgkex-cleanup@*.timer'")
	dry := sh(t, "wgkex apply --dry-run")
	for _, want := range []string{
		"would: daemon-reload (the configuration has changed)",
		"would: stop wgkex.socket (not in the configuration)",
		"would: start wgkex@ffww01.socket (inactive)",
		"would: start wgkex-cleanup@ffww02.timer (inactive)",
	} {
		if !strings.Contains(dry, want+"\n") && !strings.HasSuffix(dry, want) {
			t.Errorf("no %q in\n%s", want, dry)
		}
	}
	closed(port1)
	if done, _ := apply(t, true); done != strings.TrimSpace(strings.ReplaceAll(dry[strings.Index(dry, "would"):], "would:", "done:")) {
		t.Errorf("done\n%s\nafter a dry run with\n%s", done, dry)
	}
	closed(sharedPort)
	serves(port1, "ffww01")
	serves(port2, "ffww02")
	settled()

	// A run that ended after the daemon-reload, as when ssh broke off: systemd
	// has closed the old port and not opened the new one. And ports that change
	// round.
	change("a.toml", domainFile("ffww01", 10023))
	sh(t, "systemctl daemon-reload")
	if done, all := apply(t, true); done != "done: restart wgkex@ffww01.socket (does not listen on [::]:10023)" {
		t.Errorf("after a run that broke off:\n%s", all)
	}
	closed(port1)
	serves(10023, "ffww01")
	if !all {
		return
	}
	change("a.toml", domainFile("ffww01", port2))
	change("b.toml", domainFile("ffww02", 10023))
	apply(t, true)
	serves(port2, "ffww01")
	serves(10023, "ffww02")
	settled()

	// A mistake: nothing is touched, however often, and the run that repairs it
	// carries out what the first one was about.
	change("a.toml", "[domains.ffww01]\nwireguard = \"wg-ffww01\"\nvxlan = \"vx-ffww01\"\nlisten = 10033\nlisten = 10034\n")
	before := reloads(t)
	for range 2 {
		done, all := apply(t, false)
		if done != "" || !strings.Contains(all, "FAILED: /etc/wgkex/conf.d/a.toml:") || !strings.Contains(all, "nothing was changed") {
			t.Errorf("a broken configuration:\n%s", all)
		}
	}
	if after := reloads(t); after != before {
		t.Errorf("a broken configuration made a daemon-reload")
	}
	serves(port2, "ffww01")
	change("a.toml", domainFile("ffww01", 10033))
	apply(t, true)
	serves(10033, "ffww01")

	// A domain that is taken out, whose port another gets.
	sh(t, "rm /etc/wgkex/conf.d/b.toml")
	change("a.toml", domainFile("ffww01", 10023))
	if done, all := apply(t, true); !strings.Contains(done, "done: stop wgkex@ffww02.socket (not in the configuration)\n") {
		t.Errorf("a domain taken out:\n%s", all)
	}
	serves(10023, "ffww01")
	if out, _ := try("systemctl is-active wgkex@ffww02.socket wgkex-cleanup@ffww02.timer"); out != "inactive\ninactive" {
		t.Errorf("the units of the domain that was taken out are %s", out)
	}
	settled()

	// The port of another program.
	sh(t, "systemd-run --unit foreign nc -lk 10043")
	t.Cleanup(func() { _, _ = try("systemctl stop foreign") })
	eventually(t, "nc", func() bool { return sh(t, "ss -Hltn sport = :10043") != "" })
	change("a.toml", domainFile("ffww01", 10043))
	change("b.toml", domainFile("ffww02", port2))
	if _, all := apply(t, false); !strings.Contains(all, "FAILED: wgkex@ffww01.socket is failed, since port 10043 is taken by nc (process ") {
		t.Errorf("a port of another program:\n%s", all)
	}
	serves(port2, "ffww02")
	sh(t, "systemctl stop foreign")
	apply(t, true)
	serves(10043, "ffww01")
}

// Without a D-Bus daemon.
func TestApplyWithoutDBus(t *testing.T) {
	configure(t, map[string]string{"conf.d/a.toml": domainFile("ffww01", port1)})
	sh(t, "systemctl stop dbus.socket dbus.service; rm -f /run/dbus/system_bus_socket")
	t.Cleanup(func() { sh(t, "systemctl start dbus.socket") })
	apply(t, true)
	accept(t, port1, "ffww01", newKey(t))
}
