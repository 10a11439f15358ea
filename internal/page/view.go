package page

import (
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/check"
	"wgkex/internal/counters"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/status"
)

// view is what the template shows, in words and numbers of pixels.
type view struct {
	Gateway
	Style template.CSS
	// Refresh is the link that ends or begins refreshing.
	Refresh string
	Seconds int
	// Problems are the findings that are not OK, the worst first, Fine the others.
	Problems, Fine []check.Finding
	Failed         int
	// NoUnits says that systemd could not be asked.
	NoUnits bool
	States  []policy.State
	// All is the link to all domains, empty where there is one domain alone.
	All     string
	Links   []link
	Domains []domainView
	Ungiven []resultView // exchanges without a domain
	List    *listView
	// RelayText says how the relay is, RelayFine that this is as it has to be.
	RelayText string
	RelayFine bool
}

// link leads to a page, Current if that is this one.
type link struct {
	Href, Text, Note string
	Current          bool
}

type domainView struct {
	status.Summary
	Name    string
	Link    string
	Bar     []segment
	BarText string
	Gauges  []gauge
	// Counted says that the Results are known.
	Counted bool
	Results []resultView
	// Day says what the history tells: "24 h", less after a boot, empty for nothing.
	Day  string
	Runs []runView
}

// segment is the part of a bar for the peers of one state, in per cent of it.
type segment struct {
	State  policy.State
	Count  int
	At, Of float64
	Link   string
}

type gauge struct {
	Name, Setting string
	Count, Max    int
	Full          bool
}

// resultView is one result of exchanges.
type resultView struct {
	Code  outcome.Code
	Boot  uint64
	Day   uint64
	Most  uint64 // in one bar
	Bars  []bar
	Label string
}

// bar is one of those of a chart that is chartHeight high.
type bar struct{ X, Y, Height float64 }

// runView is what is said of a service.
type runView struct {
	Name, Text string
	Failed     bool
}

type listView struct {
	Domain   string
	Peers    []peerView
	Total    int
	All      int // without the search
	From, To int
	Page     int
	Pages    int
	Older    string
	Newer    string
	Clear    string
}

type peerView struct {
	*status.Peer
	Age string
	// Others are allowed IPs that the address does not tell.
	Others string
}

const (
	// parts is how many bars the chart of a day has: one for each half hour, which has
	// an entry of the history or two.
	parts       = 48
	chartHeight = 18
	barWidth    = 3
)

func (g Gateway) view() view {
	v := view{
		Gateway: g, Style: template.CSS(style), Refresh: g.Query.still(!g.Query.Still).link(), Seconds: int(RefreshAfter.Seconds()),
		NoUnits: g.Overview.Sockets == nil && !g.Loaded.IsZero(), States: status.States,
	}
	for _, f := range g.Findings {
		switch f.Level {
		case check.OK:
			v.Fine = append(v.Fine, f)
			continue
		case check.Failed:
			v.Failed++
		}
		v.Problems = append(v.Problems, f)
	}
	slices.SortStableFunc(v.Problems, func(a, b check.Finding) int { return cmp.Compare(b.Level, a.Level) })
	if len(g.Overview.Domains) > 1 {
		v.All = g.Query.of("").link()
	}
	for _, d := range g.Overview.Domains {
		name := d.Domain.Domain
		note := "unreadable"
		if d.Err == nil {
			note = number(d.Counts.Peers)
		}
		v.Links = append(v.Links, link{Href: g.Query.of(name).link(), Text: name, Note: note, Current: name == g.Query.Domain})
		if g.Query.Domain == "" || g.Query.Domain == name {
			v.Domains = append(v.Domains, g.domain(d))
		}
	}
	v.Ungiven = results(counters.Results.Total(g.Overview.ByWay), nil)
	if g.Relay != nil {
		v.RelayText, v.RelayFine = g.relay()
	}
	if g.Peers != nil {
		v.List = g.list(*g.Peers)
	}
	return v
}

func (g Gateway) domain(d status.Summary) domainView {
	name := d.Domain.Domain
	v := domainView{Summary: d, Name: name, Link: g.Query.of(name).link()}
	if d.Err == nil {
		v.Bar, v.BarText = bars(d.States, g.Query.of(name))
		v.Gauges = []gauge{
			{"peers", "max_peers", d.Counts.Peers, d.MaxPeers, d.Counts.Peers >= d.MaxPeers},
			{"pending", "max_pending", d.Counts.Pending, d.MaxPending, d.Counts.Pending >= d.MaxPending},
		}
	}
	history, known := g.Histories[name]
	var day map[outcome.Code][]uint64
	if known && d.ByWay != nil {
		var span time.Duration
		if day, span = history.Series(g.SinceBoot, d.Results, parts); span > 0 {
			v.Day = spanText(span)
		}
	}
	v.Counted, v.Results = d.ByWay != nil, results(d.Results, day)
	v.Runs = g.runs(d)
	return v
}

// bars is all peers by their state.
func bars(states map[policy.State]int, q Query) (all []segment, text string) {
	total := 0
	for _, n := range states {
		total += n
	}
	at := 0
	var words []string
	for _, state := range status.States {
		if n := states[state]; n > 0 {
			all = append(all, segment{state, n, percent(at, total), percent(n, total), q.only(state).link()})
			words = append(words, number(n)+" "+string(state))
			at += n
		}
	}
	if words == nil {
		return nil, "no peers"
	}
	return all, strings.Join(words, ", ")
}

// results has a line for each result that came since boot, and one for OK in any case.
func results(total map[outcome.Code]uint64, day map[outcome.Code][]uint64) (lines []resultView) {
	for _, code := range outcome.Codes {
		if total[code] == 0 && day[code] == nil && code != outcome.OK {
			continue
		}
		r := resultView{Code: code, Boot: total[code]}
		for _, n := range day[code] {
			r.Day += n
			r.Most = max(r.Most, n)
		}
		for i, n := range day[code] {
			if n > 0 {
				h := max(1, float64(n)/float64(r.Most)*chartHeight)
				r.Bars = append(r.Bars, bar{float64(i * (barWidth + 1)), chartHeight - h, h})
			}
		}
		if r.Label = "none"; r.Most > 0 {
			r.Label = fmt.Sprintf("%s in all, at most %s in half an hour", number(r.Day), number(r.Most))
		}
		lines = append(lines, r)
	}
	return lines
}

// runs is what is known of the services of a domain.
func (g Gateway) runs(d status.Summary) (lines []runView) {
	for _, s := range []struct {
		name string
		run  *status.Run
	}{{"last cleanup", d.Cleanup}, {"last restore", d.Restore}} {
		r := runView{Name: s.name}
		switch {
		case s.run == nil:
			r.Text = "unknown"
		case s.run.Started.IsZero():
			r.Text = "none since boot"
		default:
			r.Failed = s.run.Failed
			r.Text = g.ago(s.run.Started)
			if took := s.run.Ended.Sub(s.run.Started); took >= 0 {
				r.Text += ", took " + tookText(took)
			} else {
				r.Text += ", runs"
			}
		}
		lines = append(lines, r)
	}
	saved := "nothing"
	if d.Saved != nil {
		saved = fmt.Sprintf("%s peers, %s", number(d.Saved.Peers), g.ago(d.Saved.At))
	}
	lines = append(lines, runView{Name: "saved", Text: saved})
	if d.Restored != nil {
		lines = append(lines, runView{Name: "restored", Text: fmt.Sprintf("%s peers, %s", number(d.Restored.Peers), g.ago(d.Restored.At))})
	}
	if d.ClockStep != nil {
		lines = append(lines, runView{Name: "clock was set", Text: fmt.Sprintf("by %+.0f s, seen %s", d.ClockStep.Seconds, g.ago(d.ClockStep.At))})
	}
	return lines
}

// list is the peers that are asked for.
func (g Gateway) list(d status.Domain) *listView {
	chosen, total, page, pages := g.Query.choose(d.Peers)
	first := (page - 1) * PageSize
	v := &listView{
		Domain: d.Domain, Total: total, All: len(d.Peers), From: min(first+1, total), To: first + len(chosen), Page: page, Pages: pages,
	}
	if page > 1 {
		v.Newer = g.Query.at(page - 1).link()
	}
	if page < pages {
		v.Older = g.Query.at(page + 1).link()
	}
	if g.Query.Search != "" || g.Query.State != "" {
		v.Clear = g.Query.of(d.Domain).link()
	}
	for _, p := range chosen {
		row := peerView{Peer: p, Age: p.Age(g.Now)}
		if p.Address == "" {
			var prefixes []string
			for _, prefix := range p.AllowedIPs[:min(len(p.AllowedIPs), maxPrefixes)] {
				prefixes = append(prefixes, prefix.String())
			}
			if n := len(p.AllowedIPs) - maxPrefixes; n > 0 {
				prefixes = append(prefixes, fmt.Sprintf("and %d more", n))
			}
			row.Others = strings.Join(prefixes, ", ")
		}
		v.Peers = append(v.Peers, row)
	}
	return v
}

// maxPrefixes is how many allowed IPs of a static peer are shown.
const maxPrefixes = 8

// relay says how the relay is, and whether that is as it has to be.
func (g Gateway) relay() (text string, fine bool) {
	const unit = "wgkex-relay.service"
	switch r := g.Relay; {
	case !r.Wanted:
		return unit + " has ended, since the configuration has no broker. This is what it knew.", true
	case errors.Is(r.StatsErr, fs.ErrNotExist):
		return unit + " has not run since the boot.", false
	case r.StatsErr != nil:
		return "The numbers of " + unit + " cannot be read.", false
	case !r.Stats.Current(r.SinceBoot):
		return fmt.Sprintf("%s has written nothing for %s. What is known is as old.", unit, spanText(r.SinceBoot-r.Stats.At)), false
	case !r.Stats.Connected:
		return unit + " is not connected to the broker.", false
	}
	return unit + " is connected to the broker.", true
}

// Date is the time in full, by UTC: the sandbox knows no time zone.
func (g Gateway) Date() string { return g.Now.UTC().Format("2006-01-02 15:04:05 UTC") }

// LoadedText is when the configuration was loaded.
func (g Gateway) LoadedText() string { return g.ago(g.Loaded) }

// FilesText says how the files of the configuration are.
func (g Gateway) FilesText() string {
	return [...]string{
		Unread: "loaded; its files cannot be read from here", Current: "valid", Changed: "valid, but not loaded yet: run wgkex apply",
		Broken: "the files have a mistake; the one before is in use",
	}[g.Files]
}

// ago is a time by its age and in full.
func (g Gateway) ago(t time.Time) string {
	age := g.Now.Sub(t)
	if age < 0 {
		return "at " + dateText(t)
	}
	return spanText(age) + " ago (" + dateText(t) + ")"
}

func dateText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// spanText is a time in its largest unit of which it has two.
func spanText(d time.Duration) string {
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}} {
		if d >= 2*unit.is {
			return strconv.FormatInt(int64(d/unit.is), 10) + " " + unit.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + " s"
}

func tookText(d time.Duration) string {
	if d < 100*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return spanText(d)
}

// number is a count with commas, as people read it.
func number[T int | uint32 | uint64](n T) string {
	text := strconv.FormatUint(uint64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// percent is a part of all, at most 100.
func percent(n, all int) float64 {
	if all <= 0 {
		return 0
	}
	return min(100, float64(int(float64(n)/float64(all)*10000))/100)
}
