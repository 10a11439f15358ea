//go:build vm

package suite

import (
	"slices"
	"strings"
	"testing"
)

// Debian's nftables.service, with Debian's own nftables.conf, removes all tables
// whenever it starts, stops or reloads. The limits of the exchange are there
// again after each of these, if they run, and are not if they do not.
func TestFirewallSurvivesNftables(t *testing.T)     { firewallSurvives(t, false) }
func TestLongFirewallSurvivesNftables(t *testing.T) { firewallSurvives(t, true) }

// firewallSurvives tries all commands, or most.
func firewallSurvives(t *testing.T, all bool) {
	sh(t, "dpkg --verify nftables && systemctl start wgkex-firewall")
	t.Cleanup(func() { sh(t, "systemctl stop wgkex-firewall nftables") })
	const own, nft = "wgkex-firewall", "nftables"
	for i, c := range []struct {
		// Commands of systemctl, one right after the other.
		commands string
		running  bool // wgkex-firewall afterwards
	}{
		{"start " + nft, true},
		{"start " + nft, true}, // once more
		{"reload " + nft, true},
		{"restart " + nft, true},
		{"stop " + nft, true},
		{"restart " + own, true},
		{"start " + nft + "; stop " + nft, true},
		{"start " + nft + "; reload " + nft + "; reload " + nft, true},
		{"reload " + nft + "; restart " + nft, true},
		{"restart " + nft + "; reload " + nft + "; stop " + nft, true},
		{"stop " + nft + "; start " + nft, true},
		{"reload " + own + "; reload " + nft, true},
		{"reload " + nft + "; stop " + own, false},
		{"reload " + nft, false},
		{"restart " + nft + "; stop " + nft + "; start " + nft, false},
		{"start " + own + "; restart " + nft, true},
		{"reload --no-block " + own + "; stop " + own, false},
		{"restart --no-block " + nft + "; restart " + own, true},
	} {
		// The others need what those before have left.
		if !all && slices.Contains([]int{1, 3, 6, 9}, i) {
			continue
		}
		sh(t, "set -e; systemctl %s", strings.ReplaceAll(c.commands, "; ", "; systemctl "))
		want := "inactive"
		if c.running {
			want = "active"
		}
		// What follows has its own time.
		eventually(t, own+" "+want+" after "+c.commands, func() bool {
			jobs, _ := try("systemctl list-jobs --no-legend")
			return jobs == ""
		})
		got, _ := try("systemctl is-active %s", own)
		_, err := try("nft list set inet wgkex ports | grep -w %d", port1)
		if got != want || (err == nil) != c.running {
			t.Errorf("after %s: %s, the table is there: %v", c.commands, got, err == nil)
		}
	}
}
