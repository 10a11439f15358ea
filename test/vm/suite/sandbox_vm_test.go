//go:build vm

package suite

import (
	"strconv"
	"strings"
	"testing"
)

// With the probe in the place of the handler and of cleanup, in the very same
// units: what an attacker with code execution there cannot do.
func TestSandbox(t *testing.T) {
	for program, report := range map[string]func() string{
		"wgkex-handler": func() string { return send(t, port1, "") },
		"wgkex-cleanup": func() string {
			sh(t, "systemctl start wgkex-cleanup@ffww01.service")
			return sh(t, "cat /run/wgkex/domains/.probe-report; rm /run/wgkex/domains/.probe-report")
		},
	} {
		sh(t, `mkdir -p /home/other /run/other; for dir in /root /home/other /var/lib/wgkex /run/other; do mkdir -p $dir; echo x > $dir/secret; chmod 600 $dir/secret; done
			cd /usr/lib/wgkex; mv %s real; cp ~/suite-files/probe %[1]s; chmod 755 %[1]s`, program)
		other := map[string]string{"wgkex-handler": "wgkex-cleanup", "wgkex-cleanup": "wgkex"}[program]
		sh(t, `setpriv --reuid %s --regid wgkex --clear-groups sleep 1000 > /dev/null 2>&1 & echo $! > /run/wgkex/domains/.probe-pid
			chgrp wgkex /run/wgkex/domains/.probe-pid; chmod 640 /run/wgkex/domains/.probe-pid`, other)
		lines := strings.Split(strings.TrimSpace(report()), "\n")
		sh(t, "kill $(cat /run/wgkex/domains/.probe-pid); rm /run/wgkex/domains/.probe-pid")
		sh(t, "mv /usr/lib/wgkex/real /usr/lib/wgkex/%s; rm -f /home/other/secret /run/other/secret /var/lib/wgkex/secret /root/secret", program)
		if len(lines) < 60 {
			t.Errorf("%s: only %d attempts", program, len(lines))
		}
		for _, line := range lines {
			name, outcome, _ := strings.Cut(line, ": ")
			if name == "allowed" {
				_, outcome, _ = strings.Cut(outcome, ": ")
				if outcome != "SUCCEEDED" {
					t.Errorf("%s: %s", program, line)
				}
			} else if outcome == "SUCCEEDED" {
				t.Errorf("in the place of %s an attacker can %s", program, name)
			}
		}
		t.Logf("%s:\n%s", program, strings.Join(lines, "\n"))
	}
	accept(t, port1, "ffww01", newKey(t))
	cleanup(t, "ffww01", "")
}

// What is mounted for a handler is what its sandbox costs: where the root
// directory's links are not followed, there are more mounts. Its memory is what
// MaxConnections= and the slice's MemoryMax= go by.
func TestWaitingHandler(t *testing.T) {
	noHandlers(t)
	conn := dial(t, port1)
	defer conn.Close()
	var mounts, memory string
	eventually(t, "a handler", func() bool {
		var err error
		mounts, err = try("cat /proc/$(pgrep -x wgkex-handler)/mountinfo")
		if err == nil {
			memory, err = try("cat /sys/fs/cgroup$(cut -d: -f3- /proc/$(pgrep -x wgkex-handler)/cgroup)/memory.current")
		}
		return err == nil
	})
	for line := range strings.Lines(mounts) {
		at := strings.Fields(line)[4] // proc_pid_mountinfo(5)
		if at != "/" && at != "/run" && at != "/var/tmp" && !strings.HasPrefix(at, "/run/") {
			t.Errorf("mounted at %s", at)
		}
	}
	bytes, err := strconv.Atoi(memory)
	if err != nil || bytes > 2<<20 { // 256 of them in 512 MiB
		t.Errorf("it takes %s bytes, %v", memory, err)
	}
}
