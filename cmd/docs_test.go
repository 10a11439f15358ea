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
	"wgkex/internal/serve"
	"wgkex/internal/status"
)

// What the documents say in numbers is what the code has. The first group of the
// pattern is a number in the document, which is to be in the source as well: a
// value of Go, or the first group of the other pattern in another file. What
// units set is tested in the VM.
func TestNumbersInDocuments(t *testing.T) {
	const handler, cleanupPage, admin, firewall = "docs/wgkex-handler.8.scd", "docs/wgkex-cleanup.8.scd", "docs/wgkex.8.scd", "docs/wgkex-firewall.service.8.scd"
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
		{"docs/wgkex.socket.8.scd", `lock up to (\d+)\.`, serve.LockTimeout.Seconds(), "", ""},
		{"SECURITY.md", `handshake in the last (\d+) seconds`, policy.LiveFor.Seconds(), "", ""},
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
