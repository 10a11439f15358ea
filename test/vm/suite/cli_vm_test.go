//go:build vm

package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// output runs a command and returns its standard output and its exit status.
func output(t *testing.T, command string) (string, int) {
	t.Helper()
	out, err := exec.Command("bash", "-c", command).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// Monitoring reads what wgkex check finds, with the commands that mend it, and the
// guide's plugin makes a plugin's status of it.
func TestCheckForMonitoring(t *testing.T) {
	inOrder(t)
	// It runs as root here, so that sudo has nothing to do.
	sh(t, "printf '#!/bin/sh\\nshift\\nexec \"$@\"\\n' > /usr/local/bin/sudo; chmod +x /usr/local/bin/sudo")
	t.Cleanup(func() { sh(t, "rm /usr/local/bin/sudo") })
	copied(t, script(section(t, document(t, "operating.md"), "Icinga and Nagios"), "."))
	for _, c := range []struct {
		name, spoil, result   string
		status, plugin        int
		domain, unit, summary string
		mend                  []string
	}{
		{"in order", "true", "ok", 0, 0, "", "", "WGKEX OK: 0 failed, 0 warnings", nil},
		{
			"warning", "systemctl mask --now wgkex-cleanup@order.timer", "warning", 0, 1, "order", "wgkex-cleanup@order.timer",
			"WGKEX WARNING: 0 failed, 1 warnings",
			[]string{"systemctl unmask wgkex-cleanup@order.timer", "wgkex apply"},
		},
		{"interface", "ip link set vx-order down", "failed", 1, 2, "order", "", "WGKEX CRITICAL: 1 failed, 0 warnings", []string{"ip link set vx-order up"}},
		{"socket", "systemctl stop wgkex@order.socket", "failed", 1, 2, "order", "wgkex@order.socket", "WGKEX CRITICAL: 1 failed, 0 warnings", []string{"wgkex apply"}},
		{"configuration", "echo 'lisen = 1' > /etc/wgkex/conf.d/broken.toml", "failed", 1, 2, "", "", "WGKEX CRITICAL: 1 failed, 0 warnings", nil},
	} {
		sh(t, "%s", c.spoil)
		out, status := output(t, "wgkex check --json")
		var report struct {
			Result   string
			Findings []struct {
				Level, Domain, Unit, Text string
				Mend                      []string
			}
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%s: %v in\n%s", c.name, err, out)
		}
		if report.Result != c.result || status != c.status {
			t.Errorf("%s: %s with status %d, want %s with %d", c.name, report.Result, status, c.result, c.status)
		}
		for _, f := range report.Findings {
			if f.Level != "ok" && (f.Level != c.result || f.Domain != c.domain || f.Unit != c.unit || !slices.Equal(f.Mend, c.mend)) {
				t.Errorf("%s: found %+v, want %+v", c.name, f, c)
			}
		}
		out, status = output(t, "/bin/sh /usr/local/lib/nagios/plugins/check_wgkex")
		if first, _, _ := strings.Cut(out, "\n"); first != c.summary || status != c.plugin {
			t.Errorf("%s: the plugin has status %d, want %d, and says\n%s", c.name, status, c.plugin, out)
		}
		for _, command := range c.mend {
			sh(t, "%s", command)
		}
	}
	sh(t, "rm /etc/wgkex/conf.d/broken.toml; printf '#!/bin/sh\\necho no password >&2\\nexit 1\\n' > /usr/local/bin/sudo")
	if out, status := output(t, "/bin/sh /usr/local/lib/nagios/plugins/check_wgkex"); status != 3 || !strings.HasPrefix(out, "WGKEX UNKNOWN: no answer: ") {
		t.Errorf("without sudo the plugin has status %d and says\n%s", status, out)
	}
	if out, status := output(t, "wgkex check --nosuch"); status != 2 || out != "" {
		t.Errorf("wrong usage has status %d and says\n%s", status, out)
	}
	quiet(t)
}

// Peers are chosen by their state and sorted, in the table and in JSON.
func TestStatusChooses(t *testing.T) {
	var keys []string
	for range 3 {
		key := newKey(t)
		accept(t, port1, "ffww01", key)
		keys = append(keys, key.String())
	}
	static := newKey(t).String()
	sh(t, "wg set wg-ffww01 peer %s allowed-ips fd00:97::/64", static)
	t.Cleanup(func() { sh(t, "wg set wg-ffww01 peer %s remove; wgkex status ffww01", static) })
	table := sh(t, "wgkex status --domain ffww01 --state pending --sort key")
	rows := found(table, `(?m)^([A-Za-z0-9+/]{43}=) pending `)
	if len(rows) < 3 || strings.Contains(table, static) || !regexp.MustCompile(`(?m)^peers: .*\d static`).MatchString(table) {
		t.Errorf("got\n%s", table)
	}
	// found sorts them.
	if at := regexp.MustCompile(`(?m)^[A-Za-z0-9+/]{43}=`).FindAllString(table, -1); !slices.Equal(at, rows) {
		t.Errorf("not the pending peers by their keys:\n%s", table)
	}
	for _, key := range keys {
		if !slices.Contains(rows, key) {
			t.Errorf("no %s in\n%s", key, table)
		}
	}
	if out := sh(t, "wgkex status ffww01 --state pending --sort key --json | jq -r '.domains[].peers[].public_key'"); out != strings.Join(rows, "\n") {
		t.Errorf("JSON has\n%s\nwant\n%s", out, strings.Join(rows, "\n"))
	}
	if out, status := output(t, "wgkex status ffww02 ffww01"); status != 0 || !regexp.MustCompile(`(?s)^DOMAIN +PEERS .*\nall 2 domains .*\nffww01 .*\nffww02 .*\ndomain ffww01 on .*\ndomain ffww02 on `).MatchString(out) {
		t.Errorf("status %d, two domains are\n%s", status, out)
	}
	if out, err := try("wgkex status nosuch; test $? = 2"); err != nil || !strings.Contains(out, "must be one of absent, broken, ffww01, ffww02") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A watch draws again and again. Ctrl-C ends it well, and gives the terminal back.
func TestStatusWatch(t *testing.T) {
	file := "watch.typescript"
	cmd := exec.Command("script", "-qefc", "stty -g; trap : INT; wgkex status ffww01 --watch; echo status=$?; stty -g", file)
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drawn := func() []byte {
		out, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return out
	}
	eventually(t, "three drawings", func() bool { return bytes.Count(drawn(), []byte("\x1b[Hwgkex status at ")) >= 3 })
	fmt.Fprint(keys, "\x03")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	out := string(drawn())
	m := regexp.MustCompile(`(?s)([0-9a-f:]+)\r\n\x1b\[\?1049h\x1b\[\?25l(.*)\x1b\[\?25h\x1b\[\?1049l(?:\^C)?status=0\r\n([0-9a-f:]+)\r\n`).FindStringSubmatch(out)
	if m == nil || m[1] != m[3] || strings.Contains(m[2], "\x1b[?") || !strings.Contains(m[2], "domain ffww01 on ") {
		t.Errorf("%q in\n%q", m, out)
	}
}
