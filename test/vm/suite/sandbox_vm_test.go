//go:build vm

package suite

import (
	"strings"
	"testing"
)

// With the probe in the handler's place, in the very same unit: what an
// attacker with code execution there cannot do.
func TestSandbox(t *testing.T) {
	const handler = "/usr/lib/wgkex/wgkex-handler"
	sh(t, `mkdir -p /home/other /run/other; for dir in /root /home/other /var/lib/wgkex /run/other; do mkdir -p $dir; echo x > $dir/secret; chmod 600 $dir/secret; done
		mv %s %[1]s.real; cp suite-files/probe %[1]s; chmod 755 %[1]s`, handler)
	report := send(t, port1, "")
	sh(t, "mv %s.real %[1]s; rm -f /home/other/secret /run/other/secret /var/lib/wgkex/secret /root/secret", handler)
	lines := strings.Split(strings.TrimSpace(report), "\n")
	if len(lines) < 60 {
		t.Errorf("only %d attempts", len(lines))
	}
	for _, line := range lines {
		name, outcome, _ := strings.Cut(line, ": ")
		if name == "allowed" {
			_, outcome, _ = strings.Cut(outcome, ": ")
			if outcome != "SUCCEEDED" {
				t.Errorf("%s", line)
			}
		} else if outcome == "SUCCEEDED" {
			t.Errorf("an attacker can %s", name)
		}
	}
	t.Log(report)
	accept(t, port1, "ffww01", newKey(t))
}
