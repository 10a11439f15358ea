package cmd

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"wgkex/internal/cleanup"
	"wgkex/internal/client"
	"wgkex/internal/policy"
	"wgkex/internal/prepare"
	"wgkex/internal/protocol"
	"wgkex/internal/restore"
	"wgkex/internal/saved"
	"wgkex/internal/serve"
	"wgkex/internal/status"
)

// What the documents say in numbers is what the code has. The first group of the
// pattern is a number in the document, which is to be in the source as well: a
// value of Go, or the first group of the other pattern in another file. What
// units set is tested in the VM where it is not here.
func TestNumbersInDocuments(t *testing.T) {
	const handler, cleanupPage, admin, firewall = "docs/wgkex-handler.8.scd", "docs/wgkex-cleanup.8.scd", "docs/wgkex.8.scd", "docs/wgkex-firewall.service.8.scd"
	const restorePage, localPage = "docs/wgkex-restore.8.scd", "docs/wgkex-local.8.scd"
	for _, c := range []struct {
		document, pattern string
		value             any
		source, inSource  string
	}{
		{"docs/protocol.md", `Each line has (\d+) seconds`, protocol.LineTimeout.Seconds(), "", ""},
		{"docs/protocol.md", `A line has (\d+) bytes at most`, protocol.MaxLine, "", ""},
		{"docs/protocol.md", `waits up to (\d+) seconds for the others`, serve.LockTimeout.Seconds(), "", ""},
		{"docs/protocol.md", `Give up after (\d+)`, client.Timeout.Seconds(), "", ""},
		{"docs/protocol.md", `sleep (\d+); kill`, client.Timeout.Seconds(), "", ""},
		{"docs/protocol.md", `(?s)last handshake is\s+under (\d+) seconds`, policy.LiveFor.Seconds(), "", ""},
		{"docs/protocol.md", `-ge (\d+)`, policy.LiveFor.Seconds(), "", ""},
		{"docs/protocol.md", `no handshake (\d+) minutes after`, policy.PendingFor.Minutes(), "", ""},
		{handler, `last handshake is under (\d+) seconds`, policy.LiveFor.Seconds(), "", ""},
		{handler, `longest, if that is (\d+) minutes`, policy.PendingFor.Minutes(), "", ""},
		{handler, `domain for (\d+) seconds`, nil, "internal/exchange/exchange.go", `fullFor = (\d+) \* time.Second`},
		{handler, `more than (\d+) exchanges in`, nil, "internal/counters/counters.go", `logBurst\s+= (\d+)`},
		{handler, `exchanges in (\d+) seconds`, nil, "internal/counters/counters.go", `logWindow = (\d+) \* time.Second`},
		{"docs/operating.md", `More than (\d+) exchanges in`, nil, "internal/counters/counters.go", `logBurst\s+= (\d+)`},
		{admin, `less than (\d+) minutes ago: the tunnel`, policy.LiveFor.Minutes(), "", ""},
		{admin, `Waits (\d+) seconds at most`, client.Timeout.Seconds(), "", ""},
		{admin, `hold for more than (\d+) seconds`, status.DomainTimeout.Seconds(), "", ""},
		{admin, `more than (\d+) seconds, is no failure`, prepare.DomainTimeout.Seconds(), "", ""},
		{cleanupPage, `finds the mark (\d+) minutes old`, cleanup.MarkAge.Minutes(), "", ""},
		{cleanupPage, `(?s)--mark-age.*?Defaults to (\d+)m`, cleanup.MarkAge.Minutes(), "", ""},
		{cleanupPage, `for (\d+) minutes\.`, nil, "cmd/wgkex-cleanup/run.go", `lockTimeout = (\d+) \* time.Minute`},
		{firewall, `gives them (\d+) seconds for each of two lines`, protocol.LineTimeout.Seconds(), "", ""},
		{firewall, `may wait (\d+) seconds more`, serve.LockTimeout.Seconds(), "", ""},
		{firewall, `(?s)an IPv4 address\n:\s+(\d+)`, nil, "units/wgkex.nft", `address4 .* burst (\d+) packets`},
		{firewall, `(?s)an IPv6 /64\n:\s+(\d+)`, nil, "units/wgkex.nft", `network64 .* burst (\d+) packets`},
		{firewall, `(?s)an IPv6 /48\n:\s+(\d+)`, nil, "units/wgkex.nft", `network48 .* burst (\d+) packets`},
		{firewall, `remembers (\d+) sources`, nil, "units/wgkex.nft", `size (\d+)`},
		{"docs/wgkex-restore.8.scd", `(\d+) seconds after it has restored`, restore.SettleFor.Seconds(), "", ""},
		{"docs/wgkex.socket.8.scd", `lock up to (\d+)\.`, serve.LockTimeout.Seconds(), "", ""},
		{"SECURITY.md", `handshake in the last (\d+) seconds`, policy.LiveFor.Seconds(), "", ""},
		{restorePage, `not longer than\s+(\d+) minutes`, restore.WaitFor.Minutes(), "", ""},
		{restorePage, `not ready after (\d+) minutes, the service`, restore.WaitFor.Minutes(), "", ""},
		{restorePage, `(?s)not ready\s+after (\d+) minutes\. What could not`, restore.WaitFor.Minutes(), "", ""},
		{restorePage, `_stale_after_ plus (\d+) minutes`, policy.PendingFor.Minutes(), "", ""},
		{restorePage, `registered more than (\d+) minutes ago`, (2 * policy.PendingFor).Minutes(), "", ""},
		{restorePage, `(?s)was saved, it gets\s+(\d+)\s+minutes`, policy.PendingFor.Minutes(), "", ""},
		{restorePage, `after each (\d+) peers`, nil, "internal/restore/restore.go", `batchSize = (\d+)`},
		{restorePage, `There are (\d+) of them at most in\s+one restore`, nil, "internal/restore/report.go", `maxRefusals = (\d+)`},
		{restorePage, `larger than (\d+) MiB`, saved.MaxSize >> 20, "", ""},
		{restorePage, `waits (\d+) seconds at most for others`, nil, "cmd/wgkex-restore/run.go", `saveTimeout = (\d+) \* time.Second`},
		{restorePage, `held\s+the\s+domain\s+for\s+(\d+)\s+minutes`, nil, "cmd/wgkex-restore/run.go", `restoreTimeout = (\d+) \* time.Minute`},
		{restorePage, `(?s)_MemoryMax=_.*?Defaults to (\w+)`, nil, "units/wgkex-restore@.service", `MemoryMax=(\w+)`},
		{restorePage, `(?s)_MemoryMax=_.*?Defaults to (\w+)`, nil, "units/wgkex-save@.service", `MemoryMax=(\w+)`},
		{restorePage, `(?s)_TimeoutStopSec=_.*?Defaults to (\d+)`, nil, "units/wgkex-save@.service", `TimeoutStopSec=(\d+)`},
		{localPage, `a public key have (\d+) bytes at most`, protocol.MaxLine, "", ""},
		{localPage, `has to be there after (\d+) seconds`, protocol.LineTimeout.Seconds(), "", ""},
		{localPage, `take one within (\d+) seconds`, protocol.LineTimeout.Seconds(), "", ""},
		{localPage, `carried out together, (\d+) of them`, nil, "internal/serve/local.go", `maxBatch = (\d+)`},
		{localPage, `carried out together, (\d+) of them`, nil, "internal/kernel/wireguard.go", `peersPerMessage = (\d+)`},
		{localPage, `hold it for more than (\d+) seconds`, serve.LockTimeout.Seconds(), "", ""},
		{localPage, `serves (\d+) exchanges at most`, nil, "internal/serve/local.go", `maxExchanges = (\d+)`},
		{localPage, `for (\d+) minutes at most`, nil, "internal/serve/local.go", `maxAge\s+= (\d+) \* time.Minute`},
		{localPage, `more than (\d+) exchanges in`, nil, "internal/counters/counters.go", `logBurst\s+= (\d+)`},
		{localPage, `(?s)exchanges in (\d+)\s+seconds`, nil, "internal/counters/counters.go", `logWindow = (\d+) \* time.Second`},
		{localPage, `(?s)_MaxConnections=_.*?Defaults to (\d+)`, nil, "units/wgkex-local.socket", `MaxConnections=(\d+)`},
		{localPage, `(?s)_RuntimeMaxSec=_.*?Defaults to (\d+)`, nil, "units/wgkex-local@.service", `RuntimeMaxSec=(\d+)`},
		{localPage, `(?s)_MemoryMax=_.*?Defaults to (\w+)`, nil, "units/wgkex-local@.service", `MemoryMax=(\w+)`},
		{localPage, `with mode (\d+)`, nil, "units/wgkex-local.socket", `SocketMode=(\d+)`},
		{handler, `handshake that the kernel knows. For (\d+) minutes`, policy.PendingFor.Minutes(), "", ""},
		{admin, `was restored less than (\d+) minutes ago`, policy.PendingFor.Minutes(), "", ""},
		{admin, `anew for each (\d+) peers`, nil, "internal/restore/restore.go", `batchSize = (\d+)`},
		{cleanupPage, `restored peer is not stale for (\d+) minutes`, policy.PendingFor.Minutes(), "", ""},
		{"docs/wgkex.toml.5.scd", `(?s)restored peer is one of these for (\d+)\s+minutes`, policy.PendingFor.Minutes(), "", ""},
		{"docs/operating.md", "(?s)more than `stale_after` plus (\\d+) minutes old", policy.PendingFor.Minutes(), "", ""},
		{"docs/operating.md", `next handshake, but for (\d+) minutes at most`, policy.PendingFor.Minutes(), "", ""},
		{"docs/operating.md", `(?s)so every\s+(\d+) minutes, and when`, nil, "units/wgkex-cleanup@.timer", `OnUnitActiveSec=(\d+)min`},
		{"docs/architecture.md", `have arrived together, (\d+) at most`, nil, "internal/serve/local.go", `maxBatch = (\d+)`},
		{"docs/architecture.md", `For each (\d+) peers it opens`, nil, "internal/restore/restore.go", `batchSize = (\d+)`},
		{"SECURITY.md", `restored ones not for (\d+) minutes`, policy.PendingFor.Minutes(), "", ""},
		{"SECURITY.md", `pending, for (\d+) minutes after their registration`, (2 * policy.PendingFor).Minutes(), "", ""},
		{"SECURITY.md", `lock is free after (\d+) exchanges`, nil, "internal/serve/local.go", `maxBatch = (\d+)`},
		{"SECURITY.md", `half a request has (\d+) s`, protocol.LineTimeout.Seconds(), "", ""},
		{"SECURITY.md", `processes \| (\d+) connections`, nil, "units/wgkex-local.socket", `MaxConnections=(\d+)`},
		{"SECURITY.md", `connections, (\d+) MiB for each`, nil, "units/wgkex-local@.service", `MemoryMax=(\d+)M`},
	} {
		number := submatch(t, c.document, c.pattern)
		want := fmt.Sprint(c.value)
		if c.source != "" {
			want = submatch(t, c.source, c.inSource)
		}
		if number != want {
			t.Errorf("%s says %q where the code has %s: %s", c.document, number, want, c.pattern)
		}
	}
}

// submatch is what the pattern's group matches in a file of the project.
func submatch(t *testing.T, file, pattern string) string {
	t.Helper()
	text, err := os.ReadFile("../" + file)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		t.Errorf("%s has nothing like %s", file, pattern)
		return ""
	}
	return string(m[1])
}
