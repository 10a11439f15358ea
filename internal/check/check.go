// Package check finds out whether this gateway can serve what its configuration
// asks for. It changes nothing. The rules are functions of what was read;
// Gateway reads it.
package check

import (
	"context"
	"fmt"
	"net/netip"

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

// Finding is what was found out about one thing and, unless it is OK, what to do
// about it.
type Finding struct {
	Level Level
	Text  string
}

// String is a line of the output.
func (f Finding) String() string { return f.Level.String() + ": " + f.Text }

// findings collects them.
type findings []Finding

func (f *findings) add(level Level, format string, args ...any) {
	*f = append(*f, Finding{level, fmt.Sprintf(format, args...)})
}

// worst is the highest level among them.
func (f findings) worst() Level {
	worst := OK
	for _, one := range f {
		worst = max(worst, one.Level)
	}
	return worst
}

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
			found.add(Failed, "%s: domain %s has no port, so that no router can ask for it: set domains.%[2]s.listen, or listen or http.listen for all domains",
				where("domains", d.Name), d.Name)
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
		reportAll(report, interfaces(d, where("domains", d.Name), w, wErr, v, vErr))
	}
	listeners, err := g.Listeners()
	if err != nil {
		report(Finding{Failed, fmt.Sprintf("ports: %v", err)})
		return
	}
	wanted := map[string]bool{}
	ask := func(unit string, rule func(systemd.Unit) findings) {
		u, err := g.Unit(ctx, unit)
		if err != nil {
			report(Finding{Failed, err.Error()})
			return
		}
		reportAll(report, rule(u))
	}
	if len(cfg.Domains) > 0 {
		wanted[units.LocalSocket] = true
		ask(units.LocalSocket, local)
	}
	ask(units.Target, target)
	for _, s := range units.Sockets(cfg) {
		wanted[s.Unit] = true
		if s.Device != "" {
			if device, err := g.Unit(ctx, s.DeviceUnit()); err == nil && device.Active != "active" {
				reportAll(report, noInterface(s))
				continue
			}
		}
		ask(s.Unit, func(u systemd.Unit) findings {
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
			case s.HTTP && ok:
				code, err := g.HTTPExchange(ctx, "tcp", at.String())
				return httpAnswer(s, at.String(), code, err)
			case s.Path != "":
				code, err := g.HTTPExchange(ctx, "unix", s.Path)
				return httpAnswer(s, s.Path, code, err)
			case !ok:
				return findings{{OK, fmt.Sprintf("%s: active on %s", s.Unit, s.Where())}}
			}
			got, err := g.Exchange(ctx, at)
			return answer(s, u, at, got, err)
		})
	}
	for _, d := range cfg.Sorted() {
		wanted[units.TimerName(d.Name)] = true
		ask(units.TimerName(d.Name), func(u systemd.Unit) findings { return timer(d, u) })
		ask(units.CleanupName(d.Name), func(u systemd.Unit) findings { return cleanup(d, u) })
		ask(units.RestoreName(d.Name), func(u systemd.Unit) findings { return restore(d, u) })
	}
	active, err := g.Active(ctx, units.Patterns...)
	if err != nil {
		report(Finding{Failed, err.Error()})
	}
	for _, name := range active {
		if !wanted[name] {
			report(Finding{Failed, fmt.Sprintf("%s is active but not in the configuration: %s", name, apply)})
		}
	}
	ask(units.Firewall, func(u systemd.Unit) findings {
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
