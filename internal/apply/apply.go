// Package apply makes systemd run what the configuration asks for: it lets
// systemd read it, and starts, restarts and stops units where they differ from
// it. What is as it has to be is not touched.
package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// Gateway is what apply needs to know and to change, as in packages systemd and
// check.
type Gateway interface {
	Unit(ctx context.Context, name string) (systemd.Unit, error)
	Active(ctx context.Context, patterns ...string) ([]string, error)
	Listeners() ([]systemd.Listener, error)
	Limits() (limits units.Limits, known bool, err error)

	DaemonReload(ctx context.Context) error
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	Restart(ctx context.Context, name string) error
	Reload(ctx context.Context, name string) error
}

// Apply is one run.
type Apply struct {
	Gateway Gateway
	// Config is the configuration as it is in the files. Current says that it is
	// that of the last daemon-reload, too.
	Config  config.Config
	Current bool
	// DryRun changes nothing.
	DryRun bool
	// Done is told of each change that was made or, in a dry run, would be made,
	// Failed of each that could not be made.
	Done   func(change string)
	Failed func(error)
}

// step is one change.
type step struct {
	// what is the change in the words of systemctl(1), why the reason.
	what, why string
	do        func(context.Context) error
}

// Run makes all changes that are needed. One that fails does not keep the others
// from being made. The error is one that kept Run from finding out what to do.
func (a Apply) Run(ctx context.Context) error {
	s, err := a.look(ctx)
	if err != nil {
		return err
	}
	// A service goes on to listen where its socket did, and nobody else can.
	for _, u := range s.sockets {
		if u.want.HTTP && slices.ContainsFunc(u.Listen, func(place string) bool { return !slices.Contains(u.want.Shown(), place) }) {
			a.take(ctx, step{"stop " + u.want.Service(), "its socket listened elsewhere", func(ctx context.Context) error {
				return a.Gateway.Stop(ctx, u.want.Service())
			}})
		}
	}
	if why := s.reloadFor(a); why != "" {
		a.take(ctx, step{"daemon-reload", why, a.Gateway.DaemonReload})
		// What was read is no longer true. In a dry run it is all that there is.
		if s, err = a.look(ctx); err != nil {
			return err
		}
	}
	for _, next := range a.plan(s) {
		a.take(ctx, next)
	}
	return nil
}

func (a Apply) take(ctx context.Context, s step) {
	if !a.DryRun {
		if err := s.do(ctx); err != nil {
			a.Failed(fmt.Errorf("%s (%s): %w", s.what, s.why, err))
			return
		}
	}
	a.Done(fmt.Sprintf("%s (%s)", s.what, s.why))
}

// state is what systemd and the kernel hold.
type state struct {
	target systemd.Unit
	// sockets and others are what is wanted: sockets and timers by the
	// configuration, the firewall and others by the target.
	sockets []socket
	others  []systemd.Unit
	// active are the sockets and timers that run, wanted or not, and what starts with others.
	active    []string
	listeners []systemd.Listener
	firewall  systemd.Unit
}

// socket is a socket as the configuration and as systemd has it.
type socket struct {
	want units.Socket
	systemd.Unit
	// absent says that the interface is not there that it is bound to.
	absent bool
}

func (a Apply) look(ctx context.Context) (s state, err error) {
	if s.target, err = a.Gateway.Unit(ctx, units.Target); err != nil {
		return s, err
	}
	if s.firewall, err = a.Gateway.Unit(ctx, units.Firewall); err != nil {
		return s, err
	}
	var names []string // of others
	if len(a.Config.Domains) > 0 {
		names = append(names, units.LocalSocket)
	}
	if a.Config.Relays() {
		names = append(names, units.Relay)
	}
	for _, d := range a.Config.Sorted() {
		names = append(names, units.TimerName(d.Name))
	}
	for _, want := range units.Sockets(a.Config) {
		u, err := a.Gateway.Unit(ctx, want.Unit)
		if err != nil {
			return s, err
		}
		wanted := socket{want: want, Unit: u}
		if want.Device != "" {
			device, err := a.Gateway.Unit(ctx, want.DeviceUnit())
			if err != nil {
				return s, err
			}
			wanted.absent = device.Active != "active"
		}
		s.sockets = append(s.sockets, wanted)
	}
	for _, name := range s.target.Wants {
		// The generator's wants of sockets, timers and the relay follow the configuration,
		// those of the last daemon-reload maybe not this one. What starts a socket and
		// ends is not what has to be active.
		if !strings.HasSuffix(name, ".socket") && !strings.HasSuffix(name, ".timer") && !units.IsStarter(name) && name != units.Relay {
			names = append(names, name)
		}
	}
	for _, name := range names {
		u, err := a.Gateway.Unit(ctx, name)
		if err != nil {
			return s, err
		}
		s.others = append(s.others, u)
	}
	if s.active, err = a.Gateway.Active(ctx, append(slices.Clone(units.Patterns), units.SaveName("*"))...); err != nil {
		return s, err
	}
	s.listeners, err = a.Gateway.Listeners()
	return s, err
}

// reloadFor is why systemd has to read the units anew, empty if it need not.
func (s state) reloadFor(a Apply) string {
	switch {
	case !a.Current:
		return "the configuration has changed"
	case slices.ContainsFunc(append(s.all(), s.target, s.firewall), func(u systemd.Unit) bool { return u.NeedReload }):
		return "unit files have changed"
	}
	for _, u := range s.sockets {
		if !slices.Contains(s.target.Wants, u.want.Starter()) {
			return "systemd does not know of " + u.Name
		}
	}
	for _, u := range s.others {
		if !slices.Contains(s.target.Wants, u.Name) {
			return "systemd does not know of " + u.Name
		}
	}
	for _, u := range s.sockets {
		if !u.want.In(u.Listen) {
			return "systemd does not know the port of " + u.Name
		}
	}
	return ""
}

// all is every unit that is wanted.
func (s state) all() []systemd.Unit {
	var all []systemd.Unit
	for _, u := range s.sockets {
		all = append(all, u.Unit)
	}
	return append(all, s.others...)
}

// wanted is the names of all.
func (s state) wanted() []string {
	var names []string
	for _, u := range s.all() {
		names = append(names, u.Name)
	}
	return names
}

// plan is what to do, in this order: what stops makes ports free for what
// starts, and the firewall is there before the ports are open.
func (a Apply) plan(s state) []step {
	var steps []step
	add := func(verb, unit, why string, do func(context.Context, string) error) {
		steps = append(steps, step{verb + " " + unit, why, func(ctx context.Context) error { return do(ctx, unit) }})
	}
	wanted := append(s.wanted(), companions(a.Config)...)
	for _, name := range s.active {
		if !slices.Contains(wanted, name) {
			add("stop", name, "not in the configuration", a.Gateway.Stop)
		}
	}
	if s.firewall.Active == "active" {
		if why := a.firewallReload(); why != "" {
			add("reload", units.Firewall, why, a.Gateway.Reload)
		}
	}
	for _, u := range s.others {
		// One that was masked is not wanted, whatever the target says.
		if u.Active != "active" && !u.Masked() {
			add("start", u.Name, u.Active, a.Gateway.Start)
		}
	}
	var bound []socket
	for _, u := range s.sockets {
		switch closed := a.closed(u, s.listeners); {
		case u.Masked(), u.absent: // it starts with its interface
		case u.Active != "active" && u.want.Device != "":
			bound = append(bound, u)
		case u.Active != "active":
			add("start", u.Name, u.Active, a.Gateway.Start)
		case len(closed) > 0:
			add("restart", u.Name, "does not listen on "+strings.Join(closed, " and "), a.Gateway.Restart)
		}
	}
	if s.target.Active != "active" && !s.target.Masked() {
		add("start", units.Target, s.target.Active, a.Gateway.Start)
	}
	for _, u := range bound {
		add("start", u.Name, u.Active, func(ctx context.Context, name string) error {
			// The target may be starting this, which stops the socket first.
			_ = a.Gateway.Start(ctx, u.want.Starter())
			return a.Gateway.Start(ctx, name)
		})
	}
	return steps
}

// companions are units that start with others. They may run, and need not.
func companions(c config.Config) []string {
	var names []string
	for _, d := range c.Sorted() {
		names = append(names, units.SaveName(d.Name)) // with its restore
	}
	if c.Relays() {
		names = append(names, units.RelaySocket)
	}
	return names
}

// closed is where an active socket does not listen though it should. In a dry
// run systemd may not know its port yet.
func (a Apply) closed(u socket, listeners []systemd.Listener) []string {
	if a.DryRun && !u.want.In(u.Listen) {
		return slices.DeleteFunc(u.want.Shown(), func(place string) bool { return slices.Contains(u.Listen, place) })
	}
	return u.Closed(listeners)
}

// firewallReload is why the firewall has to be loaded again.
func (a Apply) firewallReload() string {
	limits, known, err := a.Gateway.Limits()
	switch want := units.LimitsOf(a.Config); {
	case errors.Is(err, kernel.ErrNoTable):
		return "its nftables table is gone"
	case err == nil && known && !limits.Equal(want):
		return fmt.Sprintf("limits the %s, not the %s", limits, want)
	}
	return ""
}
