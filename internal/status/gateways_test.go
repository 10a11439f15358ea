package status

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"wgkex/internal/domain/domaintest"
	"wgkex/internal/gateways"
	"wgkex/internal/message"
)

func TestPrintGateways(t *testing.T) {
	const now = time.Hour
	endpoint := &message.Endpoint{Host: "2001:db8::2", Port: 51820, Key: domaintest.Key(1), Link: netip.MustParseAddr("fe80::2")}
	known := gateways.Known{
		"gw02": {Online: true, Heard: now - 5*time.Second, Domains: map[string]gateways.Domain{
			"e": {Live: 7, Counted: now - gateways.SilentFor, Endpoint: endpoint},
			"d": {Live: 120, Counted: now - 5*time.Second, Endpoint: endpoint},
		}},
		"gw01":                {Online: true, Heard: now, Domains: map[string]gateways.Domain{"d": {Live: 0, Counted: now}}},
		"gw03.in.example.org": {Heard: now - 90*time.Minute/2, Domains: map[string]gateways.Domain{"d": {Live: -1, Counted: now - time.Minute}}},
		"gw04":                {Heard: now},
	}
	want := `
GATEWAY              STATE     WEIGHT  HEARD      DOMAIN  LIVE         ENDPOINT
gw01 (this)          on line   30      0s ago     d       0            -
gw02                 on line   10      5s ago     d       120          [2001:db8::2]:51820
                                                  e       7, 3m0s ago  [2001:db8::2]:51820
gw03.in.example.org  off line  10      45m0s ago  d       -            -
gw04                 off line  10      0s ago     -       -            -
`
	var out strings.Builder
	err := PrintGateways(&out, Gateways(known, "gw01", func(name string) int {
		if name == "gw01" {
			return 30
		}
		return 10
	}, now))
	if got := "\n" + out.String(); err != nil || got != want {
		t.Errorf("%v, got%swant%s", err, got, want)
	}
}
