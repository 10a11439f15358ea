package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// model is systemd with the generator, as far as they matter here: what the
// files say applies at a daemon-reload, which closes the port of a socket that
// is given another one.
type model struct {
	files config.Config
	// read is what the last daemon-reload has read.
	read     config.Config
	active   map[string]bool
	masked   map[string]bool
	wants    []string // of the target, beside the generator's
	changed  bool     // unit files have changed since
	open     map[string]uint16
	foreign  []uint16      // ports that others listen on
	firewall *units.Limits // in its table, nil without one
	calls    []string
}

func (m *model) Unit(_ context.Context, name string) (systemd.Unit, error) {
	u := systemd.Unit{Name: name, Load: "loaded", Active: "inactive", NeedReload: m.changed}
	if m.masked[name] {
		u.Load = "masked"
	}
	if m.active[name] {
		u.Active = "active"
	}
	if name == units.Target {
		u.Wants = slices.Clone(m.wants)
		for _, d := range m.read.Sorted() {
			u.Wants = append(u.Wants, units.TimerName(d.Name))
		}
		if len(m.read.Domains) > 0 {
			u.Wants = append(u.Wants, units.LocalSocket)
		}
		if m.read.Relays() {
			u.Wants = append(u.Wants, units.Relay)
		}
	}
	for _, s := range units.Sockets(m.read) {
		if name == units.Target {
			u.Wants = append(u.Wants, s.Starter())
		} else if s.Unit == name {
			u.Listen = s.Shown()
		}
	}
	return u, nil
}

func (m *model) Active(_ context.Context, patterns ...string) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.active)) {
		if m.active[name] && slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok }) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m *model) Listeners() ([]systemd.Listener, error) {
	var list []systemd.Listener
	for name, port := range m.open {
		addr := netip.IPv6Unspecified()
		if strings.HasPrefix(name, "wgkex-http@") {
			addr = netip.MustParseAddr("fe80::1")
		}
		list = append(list, systemd.Listener{Addr: netip.AddrPortFrom(addr, port), Systemd: true})
	}
	for _, port := range m.foreign {
		list = append(list, systemd.Listener{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)})
	}
	return list, nil
}

func (m *model) Limits() (units.Limits, bool, error) {
	if m.firewall == nil {
		return units.Limits{}, false, kernel.ErrNoTable
	}
	return *m.firewall, true, nil
}

func (m *model) DaemonReload(context.Context) error {
	m.calls = append(m.calls, "daemon-reload")
	m.read, m.changed = m.files, false
	for name, port := range m.open {
		if m.port(name) != port {
			delete(m.open, name)
		}
	}
	return nil
}

// port is that of a socket, 0 if it has none.
func (m *model) port(name string) uint16 {
	for _, s := range units.Sockets(m.read) {
		if s.Unit == name {
			return s.Listen[0].Port
		}
	}
	return 0
}

func (m *model) Start(_ context.Context, name string) error {
	m.calls = append(m.calls, "start "+name)
	port := m.port(name)
	if m.masked[name] || strings.HasSuffix(name, ".socket") && name != units.LocalSocket && (port == 0 || slices.Contains(m.foreign, port) || slices.Contains(slices.Collect(maps.Values(m.open)), port)) {
		return errors.New("failed")
	}
	m.active[name] = true
	if port != 0 {
		m.open[name] = port
	}
	if name == units.Firewall {
		m.firewall = limits(m.read)
	}
	return nil
}

func (m *model) Stop(_ context.Context, name string) error {
	m.calls = append(m.calls, "stop "+name)
	delete(m.active, name)
	delete(m.open, name)
	return nil
}

func (m *model) Restart(ctx context.Context, name string) error {
	calls := append(m.calls, "restart "+name)
	defer func() { m.calls = calls }()
	if err := m.Stop(ctx, name); err != nil {
		return err
	}
	return m.Start(ctx, name)
}

func (m *model) Reload(_ context.Context, name string) error {
	m.calls = append(m.calls, "reload "+name)
	m.firewall = limits(m.read)
	return nil
}

func limits(c config.Config) *units.Limits {
	l := units.LimitsOf(c)
	return &l
}

func domains(ports map[string]uint16) config.Config {
	c := config.Config{Domains: map[string]config.Domain{}}
	for name, port := range ports {
		c.Domains[name] = config.Domain{Name: name, Listen: config.Listen{Port: port}}
	}
	return c
}

// run applies what the files say and returns what was reported.
func run(t *testing.T, m *model, dry bool) (done, failed []string) {
	t.Helper()
	m.calls = nil
	same := reflect.DeepEqual(m.files, m.read)
	if err := (Apply{
		Gateway: m, Config: m.files, Current: same, DryRun: dry,
		Done:   func(change string) { done = append(done, change) },
		Failed: func(err error) { failed = append(failed, err.Error()) },
	}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return done, failed
}

// newModel is a gateway on which everything runs as this configuration has it.
func newModel(c config.Config) *model {
	m := &model{files: c, read: c, active: map[string]bool{units.Target: true}, masked: map[string]bool{}, open: map[string]uint16{}}
	for _, s := range units.Sockets(c) {
		m.active[s.Unit], m.open[s.Unit] = true, s.Listen[0].Port
	}
	for name := range c.Domains {
		m.active[units.TimerName(name)] = true
		m.active[units.LocalSocket] = true
	}
	return m
}

func TestApply(t *testing.T) {
	one := domains(map[string]uint16{"a": 10013})
	two := domains(map[string]uint16{"a": 10013, "b": 10014})
	for _, c := range []struct {
		name   string
		model  *model
		change func(*model)
		done   []string
		failed []string
	}{
		{
			"nothing to do", newModel(two),
			func(*model) {}, nil, nil,
		}, {
			"first configuration", newModel(config.Config{}),
			func(m *model) { m.files = one; m.files.Listen.Port = 10012 },
			[]string{
				"daemon-reload (the configuration has changed)",
				"start wgkex-local.socket (inactive)",
				"start wgkex-cleanup@a.timer (inactive)",
				"start wgkex.socket (inactive)",
				"start wgkex@a.socket (inactive)",
			},
			nil,
		}, {
			"a broker", newModel(one),
			func(m *model) { m.files.MQTT.URL = "mqtt://b:1883" },
			[]string{"daemon-reload (the configuration has changed)", "start wgkex-relay.service (inactive)"},
			nil,
		}, {
			"no broker any more", newModel(one),
			func(m *model) { m.active[units.Relay] = true },
			[]string{"stop wgkex-relay.service (not in the configuration)"},
			nil,
		}, {
			"no broker any more, and the relay has ended by itself", newModel(one),
			func(m *model) { m.active[units.RelaySocket] = true },
			[]string{"stop wgkex-relay.socket (not in the configuration)"},
			nil,
		}, {
			"a domain that is gone, whose peers are saved at a stop", newModel(one),
			func(m *model) { m.active[units.SaveName("a")], m.active[units.SaveName("b")] = true, true },
			[]string{"stop wgkex-save@b.service (not in the configuration)"},
			nil,
		}, {
			"a relay that runs", newModel(one),
			func(m *model) {
				m.files.MQTT.URL = "mqtt://b:1883"
				m.read = m.files
				m.active[units.Relay], m.active[units.RelaySocket] = true, true
			},
			nil, nil,
		}, {
			"another port", newModel(two),
			func(m *model) { m.files = domains(map[string]uint16{"a": 10015, "b": 10014}) },
			[]string{"daemon-reload (the configuration has changed)", "restart wgkex@a.socket (does not listen on [::]:10015)"},
			nil,
		}, {
			"ports changed round", newModel(two),
			func(m *model) { m.files = domains(map[string]uint16{"a": 10014, "b": 10013}) },
			[]string{
				"daemon-reload (the configuration has changed)",
				"restart wgkex@a.socket (does not listen on [::]:10014)",
				"restart wgkex@b.socket (does not listen on [::]:10013)",
			},
			nil,
		}, {
			// What makes the port free comes first.
			"a domain removed, its port given to another", newModel(two),
			func(m *model) { m.files = domains(map[string]uint16{"c": 10013, "b": 10014}) },
			[]string{
				"daemon-reload (the configuration has changed)",
				"stop wgkex-cleanup@a.timer (not in the configuration)",
				"stop wgkex@a.socket (not in the configuration)",
				"start wgkex-cleanup@c.timer (inactive)",
				"start wgkex@c.socket (inactive)",
			},
			nil,
		}, {
			"a run that ended after the daemon-reload", newModel(two),
			func(m *model) {
				m.files = domains(map[string]uint16{"a": 10015})
				_ = m.DaemonReload(t.Context())
			},
			[]string{
				"stop wgkex-cleanup@b.timer (not in the configuration)",
				"stop wgkex@b.socket (not in the configuration)",
				"restart wgkex@a.socket (does not listen on [::]:10015)",
			},
			nil,
		}, {
			"stopped by hand", newModel(one),
			func(m *model) { clear(m.active); clear(m.open) },
			[]string{"start wgkex-local.socket (inactive)", "start wgkex-cleanup@a.timer (inactive)", "start wgkex@a.socket (inactive)", "start wgkex.target (inactive)"},
			nil,
		}, {
			"masked", newModel(one),
			func(m *model) {
				for _, name := range []string{"wgkex-local.socket", "wgkex-cleanup@a.timer", "wgkex@a.socket", "wgkex.target"} {
					m.masked[name] = true
				}
				clear(m.active)
				clear(m.open)
			}, nil, nil,
		}, {
			"a drop-in of the admin's", newModel(one),
			func(m *model) { m.changed = true },
			[]string{"daemon-reload (unit files have changed)"},
			nil,
		}, {
			"a port that another program has", newModel(config.Config{}),
			func(m *model) { m.files = two; m.foreign = []uint16{10013} },
			[]string{
				"daemon-reload (the configuration has changed)",
				"start wgkex-local.socket (inactive)",
				"start wgkex-cleanup@a.timer (inactive)",
				"start wgkex-cleanup@b.timer (inactive)",
				"start wgkex@b.socket (inactive)",
			},
			[]string{"start wgkex@a.socket (inactive): failed"},
		}, {
			"the firewall enabled, before the ports are open", newModel(config.Config{}),
			func(m *model) { m.files = one; m.wants = []string{units.Firewall} },
			[]string{
				"daemon-reload (the configuration has changed)",
				"start wgkex-local.socket (inactive)",
				"start wgkex-cleanup@a.timer (inactive)",
				"start wgkex-firewall.service (inactive)",
				"start wgkex@a.socket (inactive)",
			},
			nil,
		}, {
			"the firewall with a new port", newModel(one),
			func(m *model) { m.active[units.Firewall] = true; m.firewall = limits(one); m.files = two },
			[]string{
				"daemon-reload (the configuration has changed)",
				"reload wgkex-firewall.service (limits the ports [10013], not the ports [10013 10014])",
				"start wgkex-cleanup@b.timer (inactive)",
				"start wgkex@b.socket (inactive)",
			},
			nil,
		}, {
			"the firewall's table flushed", newModel(one),
			func(m *model) { m.active[units.Firewall] = true },
			[]string{"reload wgkex-firewall.service (its nftables table is gone)"},
			nil,
		}, {
			"the firewall off", newModel(one),
			func(m *model) { m.masked[units.Firewall] = true }, nil, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change(c.model)
			before := fmt.Sprint(c.model.active, c.model.open, c.model.read, c.model.firewall)
			would, _ := run(t, c.model, true)
			if len(c.model.calls) > 0 {
				t.Errorf("the dry run did %q", c.model.calls)
			}
			if after := fmt.Sprint(c.model.active, c.model.open, c.model.read, c.model.firewall); after != before {
				t.Errorf("the dry run changed %s to %s", before, after)
			}
			done, failed := run(t, c.model, false)
			if !slices.Equal(done, c.done) || !slices.Equal(failed, c.failed) {
				t.Errorf("done %q, failed %q\nwant %q, %q", done, failed, c.done, c.failed)
			}
			// The dry run cannot know what will fail.
			for _, change := range done {
				if !slices.Contains(would, change) {
					t.Errorf("the dry run did not tell of %q but of %q", change, would)
				}
			}
			if len(would) != len(done)+len(failed) {
				t.Errorf("the dry run told of %q", would)
			}
			again, failedAgain := run(t, c.model, false)
			if len(again) > 0 || len(failedAgain) != len(failed) {
				t.Errorf("the second run did %q, failed %q", again, failedAgain)
			}
		})
	}
}

// What cannot be found out is an error, and nothing is done.
func TestApplyBlind(t *testing.T) {
	m := newModel(config.Config{})
	m.files = domains(map[string]uint16{"a": 10013})
	err := Apply{Gateway: blind{m}, Config: m.files, Done: func(c string) { t.Errorf("did %s", c) }, Failed: func(err error) { t.Error(err) }}.Run(t.Context())
	if err == nil || len(m.calls) > 0 {
		t.Errorf("%v, did %q", err, m.calls)
	}
}

type blind struct{ *model }

func (blind) Listeners() ([]systemd.Listener, error) { return nil, errors.New("no access") }

// The metrics socket follows the configuration as others do.
func TestApplyMetrics(t *testing.T) {
	before := domains(map[string]uint16{"a": 10013})
	m := newModel(before)
	m.files = domains(map[string]uint16{"a": 10013})
	for _, c := range []struct {
		listen []config.Listen
		want   string
	}{
		{[]config.Listen{config.DefaultMetrics}, "start wgkex-metrics.socket (inactive)"},
		{[]config.Listen{{Port: 9588}}, "restart wgkex-metrics.socket (does not listen on [::]:9588)"},
		{nil, "stop wgkex-metrics.socket (not in the configuration)"},
	} {
		m.files.Metrics.Listen = c.listen
		done, failed := run(t, m, false)
		if want := []string{"daemon-reload (the configuration has changed)", c.want}; !slices.Equal(done, want) || failed != nil {
			t.Errorf("done %q, failed %q, want %q", done, failed, want)
		}
	}
}

// HTTP's sockets are as others, but the one of an interface waits for it.
func TestApplyHTTP(t *testing.T) {
	const device, bound = "sys-subsystem-net-devices-w.device", "wgkex-http@w.socket"
	before := domains(map[string]uint16{"a": 10013})
	m := newModel(before)
	m.files = domains(map[string]uint16{"a": 10013})
	m.files.HTTP = config.HTTP{Listen: []config.Listen{{Port: 8080}, {Addr: netip.MustParseAddr("fe80::1%w"), Port: 80}}}
	done, failed := run(t, m, false)
	if want := []string{"daemon-reload (the configuration has changed)", "start wgkex-http.socket (inactive)"}; !slices.Equal(done, want) || failed != nil {
		t.Errorf("done %q, failed %q, want %q", done, failed, want)
	}
	m.active[device] = true
	if done, failed = run(t, m, false); !slices.Equal(done, []string{"start " + bound + " (inactive)"}) || failed != nil {
		t.Errorf("with the interface: done %q, failed %q", done, failed)
	}
	m.files.HTTP.Listen = []config.Listen{{Port: 8081}, m.files.HTTP.Listen[1]}
	done, failed = run(t, m, false)
	if want := []string{"stop wgkex-http.service (its socket listened elsewhere)", "daemon-reload (the configuration has changed)", "restart wgkex-http.socket (does not listen on [::]:8081)"}; !slices.Equal(done, want) || failed != nil {
		t.Errorf("with another place: done %q, failed %q, want %q", done, failed, want)
	}
	m.files = before
	done, failed = run(t, m, false)
	if want := []string{"daemon-reload (the configuration has changed)", "stop wgkex-http.socket (not in the configuration)", "stop " + bound + " (not in the configuration)"}; !slices.Equal(done, want) || failed != nil {
		t.Errorf("without HTTP: done %q, failed %q", done, failed)
	}
}
