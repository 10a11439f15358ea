package cmd

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/cleanup"
	"wgkex/internal/client"
	"wgkex/internal/config"
	"wgkex/internal/gateways"
	"wgkex/internal/httpapi"
	"wgkex/internal/message"
	"wgkex/internal/outcome"
	"wgkex/internal/page"
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
	const relayPage = "docs/wgkex-relay.8.scd"
	const clients, httpPage, guide = "docs/http.md", "docs/wgkex-http.8.scd", "docs/operating.md"
	const metricsPage, metricsUnit, metricsHTTP = "docs/wgkex-metrics.8.scd", "units/wgkex-metrics@.service", "internal/metrics/http.go"
	const preinst = "packaging/debian/wgkex.preinst"
	const httpd, httpdNew, httpapiFile = "internal/httpd/httpd.go", "internal/httpd/new.go", "internal/httpapi/api.go"
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
		{"docs/http.md", `(?s)said their number in the last (\d+) minutes`, gateways.SilentFor.Minutes(), "", ""},
		{"docs/http.md", `gets the same gateway for (\d+) minutes`, gateways.StickFor.Minutes(), "", ""},
		{relayPage, `left out after (\d+) minutes`, nil, "internal/relay/inbox.go", `patience = (\d+) \* time.Minute`},
		{relayPage, `keeps messages for (\d+) hours`, nil, "internal/mqtt/mqtt.go", `sessionExpiry = (\d+) \* 60`},
		{relayPage, `(?s)a message\n:\s+(\d+)`, message.MaxPayload, "", ""},
		{relayPage, `(?s)gateways\n:\s+(\d+),`, nil, "internal/gateways/gateways.go", `maxGateways = (\d+)`},
		{relayPage, `with (\d+) domains each`, nil, "internal/gateways/gateways.go", `maxDomains\s+= (\d+)`},
		{relayPage, `with mode (\d+)`, nil, "units/relay/wgkex-relay.socket", `SocketMode=(\d+)`},
		{"docs/mqtt.md", `payloads of more than (\d+) bytes`, message.MaxPayload, "", ""},
		{"docs/mqtt.md", `handshake in the last (\d+) seconds`, policy.LiveFor.Seconds(), "", ""},
		{localPage, `a public key have (\d+) bytes at most`, protocol.MaxLine, "", ""},
		{httpPage, `keeps up to (\d+) connections`, nil, "internal/client/links.go", `maxLinks = (\d+)`},
		{httpPage, `(?s)lines of a request\n:\s+(\d+)`, nil, "internal/httpd/httpd.go", `maxLines = (\d+)`},
		{"docs/http.md", `lines of a request \| (\d+)`, nil, "internal/httpd/httpd.go", `maxLines = (\d+)`},
		{"SECURITY.md", `a request has (\d+) lines at most`, nil, "internal/httpd/httpd.go", `maxLines = (\d+)`},
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
		// net/http adds to what it is given, which the comment says.
		{clients, `headers \| (\d+) KiB`, nil, httpd, `takes for (\d+) KiB`},
		{clients, `(?s)headers, time to arrive \| (\d+) seconds`, nil, httpd, `headerTimeout = (\d+) \* time.Second`},
		{clients, `body \| (\d+) KiB`, httpapi.MaxBody >> 10, "", ""},
		{clients, `body, time to arrive \| (\d+) seconds`, nil, httpapiFile, `bodyTimeout = (\d+) \* time.Second`},
		{clients, `an exchange \| (\d+) seconds`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{clients, `took more than (\d+) seconds`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{clients, `without a request \| (\d+) seconds`, nil, httpd, `keepAlive\s+= (\d+) \* time.Second`},
		{clients, `on one connection \| (\d+)`, nil, httpd, `maxRequests = (\d+)`},
		{clients, `connections of all clients \| (\d+)`, nil, httpd, `maxConnections = (\d+)`},
		{clients, `on requests\. (\d+) connections`, nil, httpd, `maxConnections = (\d+)`},
		{clients, `connections of one client \| (\d+)`, nil, httpd, `maxOfSource\s+= (\d+)`},
		{clients, `client under way \| (\d+)`, nil, httpapiFile, `maxAsking = (\d+)`},
		{clients, `More than (\d+) exchanges of this client`, nil, httpapiFile, `maxAsking = (\d+)`},
		{clients, `Retry-After: (\d+)`, nil, httpapiFile, `retryAfter = (\d+)`},
		{httpPage, `headers\n:  (\d+) KiB`, nil, httpd, `takes for (\d+) KiB`},
		{httpPage, `headers\n:  \d+ KiB, within (\d+) seconds`, nil, httpd, `headerTimeout = (\d+) \* time.Second`},
		{httpPage, `body\n:  (\d+) KiB`, httpapi.MaxBody >> 10, "", ""},
		{httpPage, `body\n:  \d+ KiB, within (\d+) seconds`, nil, httpapiFile, `bodyTimeout = (\d+) \* time.Second`},
		{httpPage, `an exchange\n:  (\d+) seconds`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{httpPage, `not answered within (\d+) seconds`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{httpPage, `without a request\n:  (\d+) seconds`, nil, httpd, `keepAlive\s+= (\d+) \* time.Second`},
		{httpPage, `on one connection\n:  (\d+)`, nil, httpd, `maxRequests = (\d+)`},
		{httpPage, `may make (\d+) times`, nil, httpd, `maxRequests = (\d+)`},
		{httpPage, `\|  connections\n:  (\d+)`, nil, httpd, `maxConnections = (\d+)`},
		{httpPage, `another (\d+) connections`, nil, httpd, `maxConnections = (\d+)`},
		{httpPage, `connections of one client\n:  (\d+)`, nil, httpd, `maxOfSource\s+= (\d+)`},
		{httpPage, `client under way\n:  (\d+)`, nil, httpapiFile, `maxAsking = (\d+)`},
		{httpPage, `closes one after (\d+) seconds without`, nil, httpdNew, `linkIdle\s+= (\d+) \* time.Second`},
		{httpPage, `(?s)connection for (\d+) minutes\. The socket`, nil, httpdNew, `idle = (\d+) \* time.Minute`},
		{httpPage, `no connection for (\d+) minutes\.\n\n1`, nil, httpdNew, `idle = (\d+) \* time.Minute`},
		{httpPage, `(?s)under way end for (\d+)\s+seconds`, nil, httpd, `endTimeout = (\d+) \* time.Second`},
		{httpPage, `every (\d+) seconds\s+at most`, nil, httpdNew, `failureEvery = (\d+) \* time.Second`},
		{httpPage, `(?s)_MemoryMax=_.*?Defaults to (\w+)`, nil, "units/20-http.conf", `MemoryMax=(\w+)`},
		{httpPage, `(?s)_TasksMax=_.*?Defaults to (\d+)`, nil, "units/20-http.conf", `TasksMax=(\d+)`},
		{httpPage, `(?s)_LogLevelMax=_.*?Defaults to (\w+)`, nil, "units/20-http.conf", `LogLevelMax=(\w+)`},
		{httpPage, `group \*([\w-]+)\*,\nwith mode`, nil, "units/wgkex-http.socket", `SocketGroup=([\w-]+)`},
		{httpPage, `(?s)with mode (\d+)\. Debian`, nil, "units/wgkex-http.socket", `SocketMode=(\d+)`},
		{httpPage, `Default to ([\w-]+) and`, nil, "units/wgkex-http.socket", `SocketGroup=([\w-]+)`},
		{httpPage, `Default to [\w-]+ and (\d+)`, nil, "units/wgkex-http.socket", `SocketMode=(\d+)`},
		{firewall, `(?s)an address in a tunnel\n:\s+(\d+)`, nil, "units/wgkex.nft", `address6 .* burst (\d+) packets`},
		{firewall, `HTTP takes (\d+) requests`, nil, httpd, `maxRequests = (\d+)`},
		{"docs/wgkex.toml.5.scd", `(\d+) characters at most\. Who`, nil, "internal/config/merge.go", `maxSocket = (\d+)`},
		{guide, `Over HTTP, (\d+) connections`, nil, httpd, `maxConnections = (\d+)`},
		{guide, `at a time, (\d+) of them at most from one client`, nil, httpd, `maxOfSource\s+= (\d+)`},
		{guide, `One client has (\d+) exchanges`, nil, httpapiFile, `maxAsking = (\d+)`},
		{guide, `closes a connection after (\d+) seconds`, nil, httpd, `keepAlive\s+= (\d+) \* time.Second`},
		{guide, `an exchange takes (\d+) seconds at most`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{guide, `client_max_body_size (\d+)k`, httpapi.MaxBody >> 10, "", ""},
		{"docs/architecture.md", `until the request's (\d+) seconds`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{preinst, `"\$file" 12 (\d+);`, nil, "internal/domain/layout.go", `stateVersion = (\d+)`},
		{preinst, `"\$file" 8 (\d+);`, nil, "internal/counters/counters.go", `version: (\d+), size`},
		{"SECURITY.md", `(\d+) KiB of headers`, nil, httpd, `takes for (\d+) KiB`},
		{"SECURITY.md", `(\d+) KiB of body`, httpapi.MaxBody >> 10, "", ""},
		{"SECURITY.md", `KiB of body, (\d+) s for each`, nil, httpd, `headerTimeout = (\d+) \* time.Second`},
		{"SECURITY.md", `for each; (\d+) s without a request`, nil, httpd, `keepAlive\s+= (\d+) \* time.Second`},
		{"SECURITY.md", `to HTTP \| (\d+) at a time`, nil, httpd, `maxConnections = (\d+)`},
		{"SECURITY.md", `at a time, (\d+) from one client`, nil, httpd, `maxOfSource\s+= (\d+)`},
		{"SECURITY.md", `has most; (\d+) requests a connection`, nil, httpd, `maxRequests = (\d+)`},
		{"SECURITY.md", `(\d+) of one client are under way`, nil, httpapiFile, `maxAsking = (\d+)`},
		{"SECURITY.md", `under way, each for (\d+) s`, nil, httpapiFile, `exchangeTimeout = (\d+) \* time.Second`},
		{"SECURITY.md", `by HTTP \| (\d+) MiB for each service`, nil, "units/20-http.conf", `MemoryMax=(\d+)M`},
		{"SECURITY.md", `with (\d+) exchanges under way each`, nil, httpapiFile, `maxAsking = (\d+)`},
		{"SECURITY.md", `hold its\s+(\d+)\s+connections`, nil, httpd, `maxConnections = (\d+)`},
		{metricsPage, `(?s)younger than (\d+) seconds, it\s+counts`, status.OverviewAge.Seconds(), "", ""},
		{metricsPage, `(?s)others hold for more than (\d+)\s+seconds`, status.OverviewTimeout.Seconds(), "", ""},
		{metricsPage, `itself anew each (\d+) seconds`, page.RefreshAfter.Seconds(), "", ""},
		{metricsPage, `(?s)handshake\s+first, (\d+) at a time`, page.PageSize, "", ""},
		{metricsPage, `(\d+) bytes at most`, nil, "internal/page/query.go", `maxSearch = (\d+)`},
		{metricsPage, `(\d+) bytes at most`, nil, "internal/page/page.html", `maxlength="(\d+)"`},
		{metricsPage, `headers\n:  (\d+) KiB`, nil, metricsHTTP, `takes for (\d+) KiB`},
		{metricsPage, `headers\n:  \d+ KiB, within (\d+) seconds`, nil, metricsHTTP, `headerTimeout = (\d+) \* time.Second`},
		{metricsPage, `a request\n:  (\d+) seconds`, nil, metricsHTTP, `answerTimeout = (\d+) \* time.Second`},
		{metricsPage, `(?s)_MaxConnections=_.*?Defaults to (\d+)`, nil, "units/wgkex-metrics.socket", `MaxConnections=(\d+)`},
		{metricsPage, `(?s)_RuntimeMaxSec=_.*?Defaults to (\d+)`, nil, metricsUnit, `RuntimeMaxSec=(\d+)`},
		{metricsPage, `(?s)_MemoryMax=_.*?Defaults to (\w+)`, nil, metricsUnit, `MemoryMax=(\w+)`},
		{metricsPage, `_metrics.listen_\s+says, see \*wgkex.toml\*\(5\), by default on (\S+)\.`, config.DefaultMetrics, "", ""},
		{"docs/wgkex.toml.5.scd", `Defaults to\s+"(\[::1\]:\d+)"`, config.DefaultMetrics, "", ""},
		{admin, `(?s)It is drawn each\s+(\d+)\s+seconds`, status.WatchEvery.Seconds(), "", ""},
		{admin, `draws it again each (\d+) seconds`, status.WatchEvery.Seconds(), "", ""},
		{"cmd/wgkex/status.go", `draw it each (\d+) seconds`, status.WatchEvery.Seconds(), "", ""},
		{admin, `(?s)again only\s+when (\d+) times`, nil, "internal/status/watch.go", `watchShare = (\d+)`},
		{admin, `(?s)has passed, or (\d+) seconds`, status.OverviewAge.Seconds(), "", ""},
		{admin, `were read less than (\d+) seconds ago`, status.OverviewAge.Seconds(), "", ""},
		{admin, `(?s)others hold for more than (\d+) seconds, is a metric`, status.OverviewTimeout.Seconds(), "", ""},
		{"docs/metrics.md", `younger than (\d+) seconds`, status.OverviewAge.Seconds(), "", ""},
		{"docs/metrics.md", `hold for more than (\d+) seconds`, status.OverviewTimeout.Seconds(), "", ""},
		{"docs/architecture.md", `reading of the peers that is younger than (\d+) seconds`, status.OverviewAge.Seconds(), "", ""},
		{guide, `does\s+so once in (\d+) seconds`, status.OverviewAge.Seconds(), "", ""},
		{"SECURITY.md", `as often\s+as (\d+) processes can`, nil, "units/wgkex-metrics.socket", `MaxConnections=(\d+)`},
		{"SECURITY.md", `take all (\d+) connections of the local socket`, nil, "units/wgkex-local.socket", `MaxConnections=(\d+)`},
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

// Each code is answered with the status in the table for those who write clients,
// whose codes are all that there are.
func TestHTTPStatusesInDocuments(t *testing.T) {
	text, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range outcome.Codes[1:] {
		api := &httpapi.API{
			Exchange: func(context.Context, protocol.Request) (protocol.Answer, error) {
				return protocol.Answer{Code: code}, nil
			},
			Settings: func() (httpapi.Settings, error) { return httpapi.Settings{}, nil },
		}
		answer := httptest.NewRecorder()
		api.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/api/v1/wg/key/exchange", strings.NewReader("{}")))
		if row := fmt.Sprintf("\n| %d | `%s` |", answer.Code, code); !strings.Contains(string(text), row) {
			t.Errorf("docs/http.md has no row %s", row)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| \\d+ \\| `([A-Z_]+)`").FindAllStringSubmatch(string(text), -1) {
		if code := outcome.Code(m[1]); !slices.Contains(outcome.Codes, code) {
			submatch(t, "internal/httpapi/api.go", `"(`+m[1]+`)"`)
		}
	}
}

// The picture of the layers is that of TestLayers.
func TestLayersInDocuments(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var picture strings.Builder
	for _, packages := range layers {
		var names []string
		for _, p := range packages {
			names = append(names, strings.TrimPrefix(p, "internal/"))
		}
		picture.WriteString(strings.Join(names, "  ") + "\n")
	}
	if want := "```\n" + picture.String() + "```\n"; !strings.Contains(string(text), want) {
		t.Errorf("docs/architecture.md does not have the layers\n%s", want)
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

// The two changelogs have the same versions, of the same days, with the same lines.
func TestChangelogs(t *testing.T) {
	// entries are a changelog's versions, each followed by its day and its lines.
	entries := func(file, entry, line, day string) (all []string) {
		pattern := regexp.MustCompile(entry)
		for _, m := range pattern.FindAllStringSubmatch(read(t, "../"+file), -1) {
			group := func(name string) string { return m[pattern.SubexpIndex(name)] }
			date, err := time.Parse(day, group("day"))
			if err != nil {
				t.Errorf("%s: version %s: %v", file, group("version"), err)
			}
			all = append(all, group("version"), date.Format(time.DateOnly))
			for _, l := range regexp.MustCompile(line).FindAllStringSubmatch(group("lines"), -1) {
				all = append(all, strings.Join(strings.Fields(l[1]), " "))
			}
		}
		return all
	}
	debian := entries("packaging/debian/changelog", `(?m)^wgkex \((?P<version>.*)\) .*\n(?P<lines>(?:\n|  .*\n)*) -- .*  (?P<day>.*)$`, `(?m)^  \* (.*(?:\n    .*)*)`, time.RFC1123Z)
	markdown := entries("CHANGELOG.md", `(?m)^## \[(?P<version>.*)\] - (?P<day>.*)\n(?P<lines>(?:\n|### .*\n|[- ] .*\n)*)`, `(?m)^- (.*(?:\n  .*)*)`, time.DateOnly)
	if !slices.Equal(markdown, debian) || len(debian) < 3 {
		t.Errorf("CHANGELOG.md has\n%q\npackaging/debian/changelog\n%q", markdown, debian)
	}
	if headings, parsed := strings.Count(read(t, "../CHANGELOG.md"), "\n## "), strings.Count(read(t, "../packaging/debian/changelog"), "\n -- "); headings != parsed {
		t.Errorf("%d versions in CHANGELOG.md, %d in packaging/debian/changelog", headings, parsed)
	}
}

// A link in a document leads to a file, and a heading in it if it names one. The index
// has all documents.
func TestLinksInDocuments(t *testing.T) {
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	index := read(t, "../docs/index.md")
	for _, document := range documents {
		if name := filepath.Base(document); name != "index.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/index.md does not lead to %s", name)
		}
	}
	anchor := func(heading string) string {
		kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading), "")
		return strings.ReplaceAll(kept, " ", "-")
	}
	links := 0
	for _, document := range append(documents, "../README.md", "../SECURITY.md", "../CONTRIBUTING.md", "../CHANGELOG.md") {
		for _, m := range regexp.MustCompile(`\]\(([^):\s]*)\)`).FindAllStringSubmatch(read(t, document), -1) {
			links++
			path, heading, named := strings.Cut(m[1], "#")
			file := document
			if path != "" {
				file = filepath.Join(filepath.Dir(document), path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s leads to %s: %v", document, m[1], err)
				continue
			}
			if !named {
				continue
			}
			var anchors []string
			for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, file), -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			if !slices.Contains(anchors, heading) {
				t.Errorf("%s leads to %s, which has no such heading", document, m[1])
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links", links)
	}
}

// The variables of the Ansible role are the keys of the configuration, as its page has
// them.
func TestAnsibleVariables(t *testing.T) {
	page, _, _ := strings.Cut(read(t, "../docs/wgkex.toml.5.scd"), "\n# CHANGES\n")
	want := map[string][]string{}
	variable := ""
	for line := range strings.Lines(page) {
		if m := regexp.MustCompile(`^(?:The|Each domain is a) table _\[(\w+)[].]`).FindStringSubmatch(line); m != nil {
			variable = "wgkex_" + m[1]
			want[variable] = nil
			if m[1] == "domains" {
				want[variable] = []string{"name"}
			}
		} else if regexp.MustCompile(`(?m)^_\w+_(, _\w+_)*$`).MatchString(line) {
			for _, m := range regexp.MustCompile(`_(\w+)_`).FindAllStringSubmatch(line, -1) {
				switch {
				case variable == "":
					want["wgkex_"+m[1]] = nil
				case m[1] != "GATEWAY": // any name
					want[variable] = append(want[variable], m[1])
				}
			}
		}
	}
	got := map[string][]string{}
	for line := range strings.Lines(read(t, "../packaging/ansible/roles/wgkex/meta/argument_specs.yml")) {
		if m := regexp.MustCompile(`(?m)^      (\w+):$`).FindStringSubmatch(line); m != nil {
			variable = m[1]
			got[variable] = nil
		} else if m := regexp.MustCompile(`(?m)^          (\w+):$`).FindStringSubmatch(line); m != nil {
			got[variable] = append(got[variable], m[1])
		}
	}
	for variable, keys := range want {
		if _, there := got[variable]; !there || !slices.Equal(got[variable], keys) {
			t.Errorf("the role's %s has the keys %q, wgkex.toml(5) %q", variable, got[variable], keys)
		}
	}
	if len(want) != 9 || len(want["wgkex_domains"]) < 5 {
		t.Errorf("wgkex.toml(5) is not read right: %q", want)
	}
}
