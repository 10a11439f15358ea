package metrics

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"

	"wgkex/internal/check"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/page"
	"wgkex/internal/status"
	"wgkex/internal/version"
)

// servePage serves the page. HEAD reads nothing.
func (g Gateway) servePage(w http.ResponseWriter, r *http.Request) {
	cfg, err := g.ReadEffective()
	g.ReadEffective = func() (config.Config, error) { return cfg, err } // all of the page goes by the same
	loaded := err == nil
	query, queryErr := page.ParseQuery(r.URL.Query(), cfg.Names())
	if queryErr != nil {
		code := http.StatusBadRequest
		if errors.Is(queryErr, page.ErrNoDomain) {
			code = http.StatusNotFound
		}
		http.Error(w, queryErr.Error(), code)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", page.Policy)
	h.Set("Referrer-Policy", "no-referrer")
	if !query.Still {
		h.Set("Refresh", strconv.Itoa(int(page.RefreshAfter.Seconds())))
	}
	if !loaded {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.Method == http.MethodHead {
		return
	}
	_ = g.page(r.Context(), cfg, loaded, query).Write(w) // a client that is gone needs no answer
}

// page reads what is on the page, by the configuration that all goes by if there is one.
func (g Gateway) page(ctx context.Context, cfg config.Config, loaded bool, query page.Query) page.Gateway {
	shown := page.Gateway{
		Name: cfg.Gateway.Name, Version: version.Version, Query: query,
		Now: g.Status.Host.Now(), SinceBoot: g.Status.Host.SinceBoot(), Histories: map[string]counters.History{},
	}
	if shown.Name == "" {
		shown.Name, _ = os.Hostname() // without a name the page is still of use
	}
	g.check(ctx, cfg, loaded, &shown)
	if !loaded {
		return shown
	}
	if info, err := os.Stat(g.Effective); err == nil {
		shown.Loaded = info.ModTime()
	}
	// The peers come first: the Overview then counts what this reading has found.
	if d, ok := cfg.Domains[query.Domain]; ok {
		if found, err := g.Status.Domain(ctx, d); err != nil {
			shown.PeersErr = err
		} else {
			shown.Peers = &found
		}
	}
	shown.Overview = g.Status.Overview(ctx, cfg)
	shown.Relay = g.relay(cfg)
	for _, d := range cfg.Sorted() {
		history, err := g.Status.History(d.Name)
		if err != nil {
			g.Status.Warn(err)
			continue
		}
		shown.Histories[d.Name] = history
	}
	return shown
}

// relay reads what there is to say of other gateways, nil for nothing.
func (g Gateway) relay(cfg config.Config) *page.Relay {
	shown := page.Relay{Wanted: cfg.Relays()}
	known, err := status.ReadGateways(g.Gateways)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.Status.Warn(err)
		shown.Unread = true
	}
	if !shown.Wanted && len(known) == 0 {
		return nil
	}
	own, err := cfg.Gateway.OwnName()
	if err != nil {
		g.Status.Warn(err)
	}
	if shown.Stats, shown.StatsErr = status.ReadRelayStats(g.RelayStats); shown.StatsErr != nil && !errors.Is(shown.StatsErr, fs.ErrNotExist) {
		g.Status.Warn(shown.StatsErr)
	}
	shown.SinceBoot = g.Status.Host.SinceBoot()
	shown.Gateways = status.Gateways(known, own, cfg.Weight, shown.SinceBoot)
	return &shown
}

// check finds out what wgkex check would, as far as it can be seen from here. Where the
// files cannot be read, the configuration is the one that all goes by.
func (g Gateway) check(ctx context.Context, cfg config.Config, loaded bool, shown *page.Gateway) {
	ctx, cancel := context.WithTimeout(ctx, status.OverviewTimeout)
	defer cancel()
	c := check.Checker{Out: io.Discard, Dir: g.Dir, Effective: g.ReadEffective, Connect: g.Connect, Config: cfg}
	defer func() {
		shown.Findings = c.Report().Findings
		for i := range shown.Findings {
			text := &shown.Findings[i].Text
			*text = strings.ReplaceAll(*text, g.Dir, config.Dir) // its name outside of the sandbox
		}
	}()
	if readable(g.Dir) {
		if !c.CheckConfig() {
			shown.Files = page.Broken
			return
		}
		shown.Files = page.Changed
		if c.Current() {
			shown.Files = page.Current
		}
	}
	if c.Config.Domains != nil || loaded {
		c.CheckGateway(ctx)
	}
}
