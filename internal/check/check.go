// Package check finds out whether this gateway can serve what its configuration
// asks for. It changes nothing. The rules are functions of what was read;
// Gateway reads it.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// Level tells what a Finding means for the routers.
type Level uint8

// The levels.
const (
	// OK is as it has to be.
	OK Level = iota
	// Warning does not keep routers from being served now, but is not as the
	// guide has it.
	Warning
	// Failed keeps routers from being served, or will do so.
	Failed
)

// String begins a line of the output.
func (l Level) String() string { return [...]string{OK: "ok", Warning: "warning", Failed: "FAILED"}[l] }

// MarshalText is the level in the JSON of a Report.
func (l Level) MarshalText() ([]byte, error) { return []byte(strings.ToLower(l.String())), nil }

// Finding is what was found out about one thing and, unless it is OK, what to do
// about it.
type Finding struct {
	Level Level `json:"level"`
	// Domain and Unit are what it is about, both empty for the configuration or the
	// whole gateway.
	Domain string `json:"domain,omitempty"`
	Unit   string `json:"unit,omitempty"`
	Text   string `json:"text"`
	// Mend are the commands in Text that mend it, in their order. There are none where
	// something else has to be done.
	Mend []string `json:"mend,omitempty"`
}

// String is a line of the output.
func (f Finding) String() string { return f.Level.String() + ": " + f.Text }

// Report is all that was found. Its JSON is what wgkex check --json prints.
type Report struct {
	// Result is the worst level of the Findings.
	Result   Level     `json:"result"`
	Counts   Counts    `json:"counts"`
	Findings []Finding `json:"findings"` // never null
}

// Counts are the numbers of findings of each level.
type Counts struct {
	OK      int `json:"ok"`
	Warning int `json:"warning"`
	Failed  int `json:"failed"`
}

// findings collects them.
type findings []Finding

// command mends what the text says that it is an argument of.
type command string

// run makes a command.
func run(format string, args ...any) command { return command(fmt.Sprintf(format, args...)) }

// add adds a Finding. The arguments that are commands mend it.
func (f *findings) add(level Level, format string, args ...any) {
	found := Finding{Level: level, Text: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if c, ok := arg.(command); ok {
			found.Mend = append(found.Mend, string(c))
		}
	}
	*f = append(*f, found)
}

// of are the same findings, which are about the domain, at this place of the
// configuration.
func (f findings) of(d config.Domain, at config.Position) findings {
	for i := range f {
		f[i].Text = fmt.Sprintf("%s: domain %s: %s", at, d.Name, f[i].Text)
	}
	return f
}

// about are the same findings, which are about a domain or a unit.
func (f findings) about(domain, unit string) findings {
	for i := range f {
		f[i].Domain, f[i].Unit = domain, unit
	}
	return f
}

// worst is the highest level among them.
func (f findings) worst() Level {
	worst := OK
	for _, one := range f {
		worst = max(worst, one.Level)
	}
	return worst
}

func (f findings) counts() (n Counts) {
	for _, one := range f {
		switch one.Level {
		case OK:
			n.OK++
		case Warning:
			n.Warning++
		case Failed:
			n.Failed++
		}
	}
	return n
}

// WriteJSON writes the Report as JSON. The error is that of w.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// ErrUnseen is the error of a Gateway that cannot look at something from where it is, as
// in a sandbox. Run leaves that out. Where it is the error of Listeners, Run takes
// systemd's word for the ports, and tries no exchange.
var ErrUnseen = errors.New("it cannot be seen from here")

// Gateway reads what the kernel and systemd hold, and asks the exchange itself.
type Gateway interface {
	// WireGuard and VXLAN read an interface (kernel.InspectWireGuard,
	// kernel.InspectVXLAN).
	WireGuard(name string) (kernel.WireGuard, error)
	VXLAN(name string) (kernel.VXLAN, error)
	// Unit, Active and Listeners are those of package systemd, Owner its Owner.
	Unit(ctx context.Context, name string) (systemd.Unit, error)
	Active(ctx context.Context, patterns ...string) ([]string, error)
	Listeners() ([]systemd.Listener, error)
	Owner(inode uint64) string
	// Limits reads what the firewall of the exchange limits.
	// known is false if its rules are not ours and do not tell. The error is
	// kernel.ErrNoTable if its table is not there.
	Limits() (limits units.Limits, known bool, err error)
	// Exchange connects to a port of this gateway, names no domain, and returns
	// the answer.
	Exchange(ctx context.Context, at netip.AddrPort) (answer string, err error)
	// Metrics asks for what is served beside metrics, which costs nothing, and returns
	// the status of HTTP.
	Metrics(ctx context.Context, at netip.AddrPort) (status int, err error)
	// HTTPExchange asks over HTTP, with neither a domain nor a key, and returns the code
	// of the refusal. Network and address are those of package net.
	HTTPExchange(ctx context.Context, network, address string) (code string, err error)
}

// Where says where the configuration sets a key, as config.Locate does.
type Where func(parts ...string) config.Position

// Config looks at a valid configuration by itself.
func Config(cfg config.Config, where Where) []Finding {
	var found findings
	for _, d := range cfg.Sorted() {
		if cfg.Listen.IsZero() && d.Listen.IsZero() && !cfg.HTTP.On() {
			var one findings
			one.add(Failed, "%s: domain %s has no port, so that no router can ask for it: set domains.%[2]s.listen, or listen or http.listen for all domains",
				where("domains", d.Name), d.Name)
			found = append(found, one.about(d.Name, "")...)
		}
	}
	return found
}

// Run looks at everything but the configuration by itself, and reports each
// Finding as soon as it is made.
func Run(ctx context.Context, g Gateway, cfg config.Config, where Where, report func(Finding)) {
	for _, d := range cfg.Sorted() {
		w, wErr := g.WireGuard(d.WireGuard)
		v, vErr := g.VXLAN(d.VXLAN)
		reportAll(report, interfaces(d, where("domains", d.Name), w, wErr, v, vErr).about(d.Name, ""))
	}
	listeners, err := g.Listeners()
	unseen := errors.Is(err, ErrUnseen)
	if err != nil && !unseen {
		report(Finding{Level: Failed, Text: fmt.Sprintf("ports: %v", err)})
		return
	}
	wanted := map[string]bool{}
	// ask asks about a unit, which is for one domain or for none.
	ask := func(domain, unit string, rule func(systemd.Unit) findings) {
		u, err := g.Unit(ctx, unit)
		if errors.Is(err, ErrUnseen) {
			return
		}
		if err != nil {
			report(Finding{Level: Failed, Domain: domain, Unit: unit, Text: err.Error()})
			return
		}
		reportAll(report, rule(u).about(domain, unit))
	}
	if len(cfg.Domains) > 0 {
		wanted[units.LocalSocket] = true
		ask("", units.LocalSocket, local)
	}
	if cfg.Relays() {
		wanted[units.Relay], wanted[units.RelaySocket] = true, true
		ask("", units.Relay, relay)
	}
	ask("", units.Target, target)
	for _, s := range units.Sockets(cfg) {
		wanted[s.Unit] = true
		if s.Device != "" {
			if device, err := g.Unit(ctx, s.DeviceUnit()); err == nil && device.Active != "active" {
				reportAll(report, noInterface(s).about(s.Domain, s.Unit))
				continue
			}
		}
		ask(s.Domain, s.Unit, func(u systemd.Unit) findings {
			if unseen {
				listeners = said(u)
			}
			if found := socket(s, u, listeners, g.Owner); found.worst() > OK {
				if s.Metrics {
					return found.warnings()
				}
				return found
			}
			at, ok := tryAt(u)
			switch {
			case s.Metrics && ok:
				status, err := g.Metrics(ctx, at)
				return metrics(s, at, status, err)
			case unseen, !ok && s.Path == "":
				return findings{{Level: OK, Text: fmt.Sprintf("%s: active on %s", s.Unit, s.Where())}}
			case s.HTTP && ok:
				code, err := g.HTTPExchange(ctx, "tcp", at.String())
				return httpAnswer(s, at.String(), code, err)
			case s.Path != "":
				code, err := g.HTTPExchange(ctx, "unix", s.Path)
				return httpAnswer(s, s.Path, code, err)
			}
			got, err := g.Exchange(ctx, at)
			return answer(s, u, at, got, err)
		})
	}
	for _, d := range cfg.Sorted() {
		wanted[units.TimerName(d.Name)] = true
		ask(d.Name, units.TimerName(d.Name), func(u systemd.Unit) findings { return timer(d, u) })
		ask(d.Name, units.CleanupName(d.Name), func(u systemd.Unit) findings { return cleanup(d, u) })
		ask(d.Name, units.RestoreName(d.Name), func(u systemd.Unit) findings { return restore(d, u) })
	}
	active, err := g.Active(ctx, units.Patterns...)
	if err != nil && !errors.Is(err, ErrUnseen) {
		report(Finding{Level: Failed, Text: err.Error()})
	}
	for _, name := range active {
		if !wanted[name] {
			var found findings
			found.add(Failed, "%s is active but not in the configuration: run %s", name, apply)
			reportAll(report, found.about("", name))
		}
	}
	ask("", units.Firewall, func(u systemd.Unit) findings {
		if !firewallWanted(u) {
			return nil
		}
		limits, known, err := g.Limits()
		return firewall(u, limits, known, err, units.LimitsOf(cfg))
	})
}

func reportAll(report func(Finding), found findings) {
	for _, f := range found {
		report(f)
	}
}

// said is where systemd says that it listens for a socket.
func said(u systemd.Unit) (listeners []systemd.Listener) {
	for _, address := range u.Listen {
		if at, err := systemd.ParseListen(address); err == nil && u.Active == "active" {
			at = netip.AddrPortFrom(at.Addr().WithZone(""), at.Port())
			listeners = append(listeners, systemd.Listener{Addr: at, Systemd: true})
		}
	}
	return listeners
}

// tryAt is where the gateway itself reaches an active socket. It is not ok when
// it cannot, since the socket takes connections from one interface alone.
func tryAt(u systemd.Unit) (at netip.AddrPort, ok bool) {
	for _, address := range u.Listen {
		at, err := systemd.ParseListen(address)
		if err != nil || u.BindToDevice != "" {
			continue
		}
		switch at.Addr() {
		case netip.IPv6Unspecified():
			at = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
		case netip.IPv4Unspecified():
			at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
		}
		return at, true
	}
	return netip.AddrPort{}, false
}
