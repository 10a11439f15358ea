// Package page shows what is known of the gateway as one page of HTML, which needs
// nothing from elsewhere and no script.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"time"

	"wgkex/internal/check"
	"wgkex/internal/counters"
	"wgkex/internal/gateways"
	"wgkex/internal/status"
)

// Gateway is what the page shows. Whatever of it routers or others have chosen is
// escaped.
type Gateway struct {
	Name, Version string
	// Now is the wall clock, SinceBoot the clock of the histories.
	Now       time.Time
	SinceBoot time.Duration
	// Loaded is when systemd was last reloaded with a valid configuration, zero for
	// never: then there is nothing below Files.
	Loaded time.Time
	Files  Files
	// Findings are those of package check.
	Findings []check.Finding
	Overview status.Overview
	// Histories are by domain. Those that cannot be read are missing.
	Histories map[string]counters.History
	Query     Query
	// Peers has those of the domain of the Query, nil if there is none or if they
	// cannot be read, which the Overview or PeersErr says.
	Peers    *status.Domain
	PeersErr error
	// Relay is nil where there is nothing to say of other gateways.
	Relay *Relay
}

// Relay is what wgkex-relay.service tells.
type Relay struct {
	// Wanted says that the configuration has a broker.
	Wanted bool
	// SinceBoot is when this was read.
	SinceBoot time.Duration
	// Stats are its numbers, and StatsErr says why they cannot be read: fs.ErrNotExist
	// where no relay has run since the boot.
	Stats    gateways.Stats
	StatsErr error
	// Gateways are those that are known. Unread says that they cannot be read.
	Gateways []status.GatewayState
	Unread   bool
}

// Files says how the files of the configuration compare with the one that all goes by.
type Files uint8

// The states of the files.
const (
	// Unread cannot be read by who makes the page.
	Unread Files = iota
	// Current is the same.
	Current
	// Changed is valid and another one.
	Changed
	// Broken has a mistake, which the findings name.
	Broken
)

// RefreshAfter is after how long a browser loads the page anew.
const RefreshAfter = 30 * time.Second

//go:embed page.html
var pageHTML string

//go:embed style.css
var style string

// Policy is the Content-Security-Policy of the page: its own style sheet, its form, and
// nothing else.
var Policy = "default-src 'none'; style-src '" + hash(style) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

var parsed = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": number[int], "count": number[uint64], "connections": number[uint32], "percent": percent, "bytes": status.Bytes, "span": spanText,
}).Parse(pageHTML))

// Write writes the page. The error is that of w.
func (g Gateway) Write(w io.Writer) error {
	var out bytes.Buffer // a page that fails in the middle would look like a whole one
	if err := parsed.Execute(&out, g.view()); err != nil {
		return err
	}
	_, err := out.WriteTo(w)
	return err
}
