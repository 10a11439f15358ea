package check

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

var (
	key, _    = address.ParseKey("Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA=")
	_, own    = address.RFC4291.Of(key)
	_, munich = address.FFMUC.Of(key)
	ffww01    = config.Domain{Name: "ffww01", WireGuard: "wgww01", VXLAN: "vxww01", Listen: config.Listen{Port: 10013}, MaxPeers: 100}
	goodCfg   = config.Config{Domains: map[string]config.Domain{"ffww01": ffww01}}
	goodWG    = kernel.WireGuard{Index: 2, Up: true, MTU: 1420, IPv6: true, Addresses: []netip.Addr{own}, Key: key, Port: 51820}
	goodVX    = kernel.VXLAN{Index: 3, Up: true, MTU: 1350, VNI: 4711, Port: 8472, Local: own, Lower: 2}
	goodOK    = "ok: domain ffww01: interfaces wgww01 with public key " + key.String() + ", and vxww01"
)

func where(parts ...string) config.Position {
	return config.Position{File: "/etc/wgkex/conf.d/ffww01.toml", Line: 1}
}

const at = "/etc/wgkex/conf.d/ffww01.toml:1: domain ffww01: "

// lines are findings as they are printed.
func lines(found []Finding) []string {
	var lines []string
	for _, f := range found {
		lines = append(lines, f.String())
	}
	return lines
}

// want compares the beginnings of lines.
func want(t *testing.T, got []Finding, beginnings ...string) {
	t.Helper()
	texts := lines(got)
	if !slices.EqualFunc(texts, beginnings, strings.HasPrefix) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(texts, "\n"), strings.Join(beginnings, "\n"))
	}
}

func TestInterfaces(t *testing.T) {
	other := netip.MustParseAddr("fe80::1")
	anew := ": delete it and make it anew with local " + own.String() + " dev wgww01 nolearning"
	for _, c := range []struct {
		name   string
		change func(*kernel.WireGuard, *kernel.VXLAN)
		want   []string
	}{
		{"as the guide has it", func(*kernel.WireGuard, *kernel.VXLAN) {}, []string{goodOK}},
		{"another address in the routers' firmware", func(w *kernel.WireGuard, v *kernel.VXLAN) {
			w.Addresses, v.Local = []netip.Addr{other}, other
		}, []string{goodOK}},
		{"one more destination", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Remote = other }, []string{goodOK}},
		{"addresses of two profiles", func(w *kernel.WireGuard, _ *kernel.VXLAN) {
			w.Addresses = append([]netip.Addr{munich}, own)
		}, []string{goodOK}},
		{"another profile", func(w *kernel.WireGuard, v *kernel.VXLAN) {
			w.Addresses, v.Local = []netip.Addr{munich}, munich
		}, []string{
			"warning: " + at + "the address " + munich.String() + ` of wgww01 is that of the address profile "ffmuc", but the domain's profile is "rfc4291": if its routers are of the former, set addresses = "ffmuc"`,
			goodOK,
		}},

		{"no private key", func(w *kernel.WireGuard, _ *kernel.VXLAN) { w.Key = address.Key{} }, []string{
			"FAILED: " + at + "wgww01 has no private key: run wg set wgww01 private-key FILE",
		}},
		{"neither key nor address", func(w *kernel.WireGuard, v *kernel.VXLAN) { w.Key, w.Addresses = address.Key{}, nil }, []string{
			"FAILED: " + at + "wgww01 has no private key",
			"FAILED: " + at + "wgww01 has no link-local address",
			"FAILED: " + at + "the local address " + own.String() + " of vxww01 is no address of wgww01",
		}},
		{"WireGuard down", func(w *kernel.WireGuard, _ *kernel.VXLAN) { w.Up = false }, []string{
			"FAILED: " + at + "wgww01 is down: run ip link set wgww01 up",
		}},
		{"no UDP port", func(w *kernel.WireGuard, _ *kernel.VXLAN) { w.Port = 0 }, []string{
			"FAILED: " + at + "wgww01 has no UDP port: run wg set wgww01 listen-port PORT",
		}},
		{"IPv6 off", func(w *kernel.WireGuard, _ *kernel.VXLAN) { w.IPv6, w.Addresses = false, nil }, []string{
			"FAILED: " + at + "IPv6 is off on wgww01: run sysctl -w net/ipv6/conf/wgww01/disable_ipv6=0",
			"FAILED: " + at + "the local address",
		}},
		{"MTU too small for IPv6", func(w *kernel.WireGuard, v *kernel.VXLAN) { w.MTU, w.Addresses, v.MTU = 1200, nil, 1130 }, []string{
			"FAILED: " + at + "the MTU of wgww01 is 1200, which is too small for IPv6: run ip link set wgww01 mtu 1420",
			"FAILED: " + at + "the local address",
		}},
		{"no link-local address", func(w *kernel.WireGuard, _ *kernel.VXLAN) {
			w.Addresses = []netip.Addr{netip.MustParseAddr("fd00::1")}
		}, []string{
			"FAILED: " + at + "wgww01 has no link-local address: run ip address add " + own.String() + "/64 dev wgww01",
			"FAILED: " + at + "the local address",
		}},

		{"VXLAN down", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Up = false }, []string{
			"FAILED: " + at + "vxww01 is down: run ip link set vxww01 up",
		}},
		{"external", func(_ *kernel.WireGuard, v *kernel.VXLAN) {
			v.External, v.Local, v.Lower = true, netip.Addr{}, 0
		}, []string{
			"FAILED: " + at + "vxww01 is external, so that FDB entries have no effect" + anew + ", without external",
		}},
		{"no local", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Local = netip.Addr{} }, []string{
			"FAILED: " + at + "vxww01 has no local address, so that it cannot have IPv6 destinations" + anew,
		}},
		{"IPv4 local", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Local = netip.MustParseAddr("192.0.2.1") }, []string{
			"FAILED: " + at + "vxww01 is made for IPv4, but the addresses of routers are IPv6" + anew,
		}},
		{"IPv4 remote", func(_ *kernel.WireGuard, v *kernel.VXLAN) {
			v.Local, v.Remote = netip.Addr{}, netip.MustParseAddr("192.0.2.1")
		}, []string{
			"FAILED: " + at + "vxww01 is made for IPv4, but the addresses of routers are IPv6" + anew,
		}},
		{"local of another interface", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Local = other }, []string{
			"FAILED: " + at + "the local address fe80::1 of vxww01 is no address of wgww01" + anew,
		}},
		{"on no interface", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Lower = 0 }, []string{
			"FAILED: " + at + "vxww01 is not bound to wgww01" + anew,
		}},
		{"on lo", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Lower = 1 }, []string{
			"FAILED: " + at + "vxww01 is not bound to wgww01" + anew,
		}},
		{"multicast group", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Remote = netip.MustParseAddr("ff02::1") }, []string{
			"warning: " + at + "vxww01 sends to the multicast group ff02::1", goodOK,
		}},
		{"learning", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Learning = true }, []string{
			"warning: " + at + "vxww01 learns, so that routers can fill its FDB: run ip link set vxww01 type vxlan nolearning", goodOK,
		}},
		{"maxaddress", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Limit = 99 }, []string{
			"warning: " + at + "vxww01 takes 99 FDB entries, which is less than max_peers, 100" + anew + ", without maxaddress", goodOK,
		}},
		{"enough maxaddress", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.Limit = 100 }, []string{goodOK}},
		{"MTU too large", func(_ *kernel.WireGuard, v *kernel.VXLAN) { v.MTU = 1351 }, []string{
			"warning: " + at + "the MTU of vxww01 is 1351, which is more than that of wgww01 (1420) less 70, so that large frames are lost: run ip link set vxww01 mtu 1350", goodOK,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, v := goodWG, goodVX
			c.change(&w, &v)
			want(t, interfaces(ffww01, where(), w, nil, v, nil), c.want...)
		})
	}
	missing := errors.New("interface x: no such interface")
	want(t, interfaces(ffww01, where(), kernel.WireGuard{}, missing, kernel.VXLAN{}, missing),
		"FAILED: "+at+"interface x: no such interface: make the interface, or correct its name", "FAILED: "+at+"interface x")
	want(t, interfaces(ffww01, where(), goodWG, nil, kernel.VXLAN{}, missing), "FAILED: "+at+"interface x")
}

func TestConfig(t *testing.T) {
	want(t, Config(goodCfg, where))
	without := config.Config{Domains: map[string]config.Domain{"ffww01": {Name: "ffww01"}}}
	want(t, Config(without, where), "FAILED: "+at[:len(at)-2]+" has no port, so that no router can ask for it: set domains.ffww01.listen, or listen")
	without.Listen.Port = 10012
	want(t, Config(without, where))
}

// fake is a gateway in order.
type fake struct {
	units     map[string]systemd.Unit
	listeners []systemd.Listener
	active    []string
	firewall  *units.Limits // nil without a table
	answer    string
	answerErr error
	tried     []netip.AddrPort
	status    int      // the answer of the metrics
	code      string   // the answer over HTTP
	asked     []string // where over HTTP
	// unseen is that it looks from a sandbox, noUnits that it cannot ask systemd either.
	unseen, noUnits bool
}

const (
	socketName = "wgkex@ffww01.socket"
	timerName  = "wgkex-cleanup@ffww01.timer"
)

func newFake() *fake {
	return &fake{
		units: map[string]systemd.Unit{
			units.Target:      {Active: "active", File: "enabled"},
			socketName:        {Active: "active", Listen: []string{"[::]:10013"}, MaxConnections: 256},
			timerName:         {Active: "active"},
			units.LocalSocket: {Active: "active"},
			units.Firewall:    {Active: "inactive", File: "disabled"},
		},
		listeners: []systemd.Listener{{Addr: netip.MustParseAddrPort("[::]:10013"), Inode: 7, Systemd: true}},
		active:    []string{socketName, timerName, units.LocalSocket},
		answer:    "ERR: NO_DOMAIN\n",
	}
}

func (f *fake) WireGuard(string) (kernel.WireGuard, error) { return goodWG, nil }
func (f *fake) VXLAN(string) (kernel.VXLAN, error)         { return goodVX, nil }

func (f *fake) Listeners() ([]systemd.Listener, error) {
	if f.unseen {
		return nil, ErrUnseen
	}
	return f.listeners, nil
}

func (f *fake) Active(context.Context, ...string) ([]string, error) {
	if f.noUnits {
		return nil, ErrUnseen
	}
	return f.active, nil
}

func (f *fake) Unit(_ context.Context, name string) (systemd.Unit, error) {
	if f.noUnits {
		return systemd.Unit{}, ErrUnseen
	}
	u := f.units[name]
	u.Name = name
	return u, nil
}

func (f *fake) Owner(inode uint64) string {
	if inode == 8 {
		return "nginx (process 812)"
	}
	return ""
}

func (f *fake) Limits() (units.Limits, bool, error) {
	if f.firewall == nil {
		return units.Limits{}, false, kernel.ErrNoTable
	}
	return *f.firewall, true, nil
}

func (f *fake) Exchange(_ context.Context, at netip.AddrPort) (string, error) {
	f.tried = append(f.tried, at)
	return f.answer, f.answerErr
}

func (f *fake) Metrics(_ context.Context, at netip.AddrPort) (int, error) {
	f.asked = append(f.asked, at.String())
	return f.status, f.answerErr
}

func (f *fake) HTTPExchange(_ context.Context, network, address string) (string, error) {
	f.asked = append(f.asked, network+" "+address)
	return f.code, f.answerErr
}

// HTTP is tried where the gateway reaches it.
func TestHTTP(t *testing.T) {
	listen := func(s string) config.Listen {
		l, err := config.ParseListen(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	active := systemd.Unit{Active: "active", Listen: []string{"[::]:8080", "/run/h"}}
	for _, c := range []struct {
		name   string
		http   config.HTTP
		change func(*fake)
		asked  []string
		want   string
	}{
		{"a port", config.HTTP{Listen: []config.Listen{{Port: 8080}}}, func(*fake) {}, []string{"tcp [::1]:8080"}, "ok: wgkex-http.socket: active on port 8080"},
		{"a UNIX socket", config.HTTP{Socket: "/run/h"}, func(f *fake) {
			f.units["wgkex-http.socket"] = systemd.Unit{Active: "active", Listen: []string{"/run/h"}}
		}, []string{"unix /run/h"}, "ok: wgkex-http.socket: active on /run/h"},
		{"both", config.HTTP{Listen: []config.Listen{{Port: 8080}}, Socket: "/run/h"}, func(f *fake) { f.code = "NO_WGKEY" }, []string{"tcp [::1]:8080"}, "ok: wgkex-http.socket: active on port 8080 and /run/h"},
		{"a port that is not open", config.HTTP{Listen: []config.Listen{{Port: 8080}}}, func(f *fake) { f.listeners = f.listeners[:1] }, nil, "FAILED: wgkex-http.socket does not listen on [::]:8080: run wgkex apply"},
		{"one place more", config.HTTP{Listen: []config.Listen{{Port: 8080}, {Port: 8081}}}, func(*fake) {}, nil, "FAILED: wgkex-http.socket listens elsewhere than on port 8080 and port 8081: run wgkex apply"},
		{"no answer", config.HTTP{Listen: []config.Listen{{Port: 8080}}}, func(f *fake) { f.answerErr = errors.New("EOF") }, []string{"tcp [::1]:8080"}, "FAILED: wgkex-http.socket: no answer at [::1]:8080: EOF: look at"},
		{"no exchange", config.HTTP{Listen: []config.Listen{{Port: 8080}}}, func(f *fake) { f.code = "BUSY" }, []string{"tcp [::1]:8080"}, "FAILED: wgkex-http.socket answers, but cannot ask for exchanges: see journalctl -u wgkex-http.service"},
		{"another answer", config.HTTP{Listen: []config.Listen{{Port: 8080}}}, func(f *fake) { f.code = "" }, []string{"tcp [::1]:8080"}, `FAILED: wgkex-http.socket answers "": see journalctl -u wgkex-http.service`},
		{"an interface", config.HTTP{Listen: []config.Listen{listen("[fe80::1%w]:80")}}, func(f *fake) {
			f.units["sys-subsystem-net-devices-w.device"] = systemd.Unit{Active: "active"}
			f.units["wgkex-http@w.socket"] = systemd.Unit{Active: "active", Listen: []string{"[fe80::1]:80"}, BindToDevice: "w"}
			f.listeners = append(f.listeners, systemd.Listener{Addr: netip.MustParseAddrPort("[fe80::1]:80"), Systemd: true})
		}, nil, "ok: wgkex-http@w.socket: active on [fe80::1]:80%w"},
		{"no interface", config.HTTP{Listen: []config.Listen{listen("[fe80::1%w]:80")}}, func(*fake) {}, nil, "FAILED: wgkex-http@w.socket: there is no interface w: make it, or correct http.listen"},
	} {
		f := newFake()
		f.units["wgkex-http.socket"], f.code = active, "NO_DOMAIN"
		f.listeners = append(f.listeners, systemd.Listener{Addr: netip.MustParseAddrPort("[::]:8080"), Systemd: true})
		c.change(f)
		cfg := config.Config{Domains: map[string]config.Domain{"ffww01": ffww01}, HTTP: c.http}
		var got []string
		Run(t.Context(), f, cfg, where, func(one Finding) {
			if strings.Contains(one.Text, "wgkex-http") {
				got = append(got, one.String())
			}
		})
		if len(got) != 1 || !strings.HasPrefix(got[0], c.want) || !slices.Equal(f.asked, c.asked) {
			t.Errorf("%s: got %q, asked %q, want %q", c.name, got, f.asked, c.want)
		}
	}
}

// Metrics are asked for, and who else may is said. Without them routers are served
// all the same.
func TestMetrics(t *testing.T) {
	const open = "warning: wgkex-metrics.socket: whoever reaches %s can read the keys and addresses of all routers: set metrics.listen"
	loopback := netip.MustParseAddrPort("[::1]:9587")
	for _, c := range []struct {
		name   string
		listen []string
		change func(*fake)
		want   []string
	}{
		{"the gateway alone", []string{"[::1]:9587"}, func(*fake) {}, []string{"ok: wgkex-metrics.socket: active on [::1]:9587"}},
		{"a network of one's own", []string{"[::1]:9587", "10.0.0.1:9587", "[fd00::1]:9587"}, func(*fake) {}, []string{"ok: wgkex-metrics.socket: active on [::1]:9587 and 10.0.0.1:9587 and [fd00::1]:9587"}},
		{"the internet", []string{"[::1]:9587", "192.0.2.1:9587"}, func(*fake) {}, []string{strings.Replace(open, "%s", "192.0.2.1:9587", 1), "ok: wgkex-metrics.socket: active on [::1]:9587 and 192.0.2.1:9587"}},
		{"everywhere", []string{"[::]:9587"}, func(*fake) {}, []string{strings.Replace(open, "%s", "port 9587", 1), "ok: wgkex-metrics.socket: active on port 9587"}},
		{"no answer", []string{"[::1]:9587"}, func(f *fake) { f.answerErr = errors.New("EOF") }, []string{"warning: wgkex-metrics.socket: no answer at [::1]:9587: EOF: see"}},
		{"another answer", []string{"[::1]:9587"}, func(f *fake) { f.status = 503 }, []string{"warning: wgkex-metrics.socket answers with status 503: see"}},
		{"a port that is taken", []string{"[::1]:9587"}, func(f *fake) {
			u := f.units[units.MetricsSocket]
			u.Active = "failed"
			f.units[units.MetricsSocket] = u
		}, []string{"warning: wgkex-metrics.socket is failed, since port 9587 is taken by"}},
		{"masked", []string{"[::1]:9587"}, func(f *fake) { f.units[units.MetricsSocket] = systemd.Unit{Load: "masked"} }, []string{"warning: wgkex-metrics.socket is masked"}},
	} {
		f := newFake()
		f.status = 200
		cfg := config.Config{Domains: map[string]config.Domain{"ffww01": ffww01}}
		for _, text := range c.listen {
			l, err := config.ParseListen(text)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Metrics.Listen = append(cfg.Metrics.Listen, l)
			f.listeners = append(f.listeners, systemd.Listener{Addr: netip.MustParseAddrPort(text), Systemd: true})
		}
		f.units[units.MetricsSocket] = systemd.Unit{Active: "active", Listen: c.listen}
		c.change(f)
		var got []Finding
		Run(t.Context(), f, cfg, where, func(one Finding) {
			if strings.Contains(one.Text, "wgkex-metrics") {
				got = append(got, one)
			}
		})
		t.Run(c.name, func(t *testing.T) { want(t, got, c.want...) })
		if asked := []string{loopback.String()}; f.asked != nil && !slices.Equal(f.asked, asked) {
			t.Errorf("%s: asked %q", c.name, f.asked)
		}
	}
}

// limits are those of one port.
func limits(port uint16) *units.Limits {
	return &units.Limits{Ports: []uint16{port}, TunnelPorts: []uint16{0}, Interfaces: []string{"lo"}}
}

func TestUnits(t *testing.T) {
	const okSocket, okTimer = "ok: wgkex@ffww01.socket: active on port 10013", "ok: wgkex-cleanup@ffww01.timer: active"
	set := func(f *fake, name string, change func(*systemd.Unit)) {
		u := f.units[name]
		change(&u)
		f.units[name] = u
	}
	foreign := func(inode uint64) []systemd.Listener {
		return []systemd.Listener{{Addr: netip.MustParseAddrPort("127.0.0.1:10013"), Inode: inode}}
	}
	for _, c := range []struct {
		name   string
		change func(*fake)
		want   []string
	}{
		{"in order", func(*fake) {}, []string{okSocket, okTimer}},
		{"target disabled", func(f *fake) {
			set(f, units.Target, func(u *systemd.Unit) { u.File = "disabled" })
		}, []string{"warning: wgkex.target is disabled, so that nothing listens after a boot: run systemctl enable wgkex.target", okSocket, okTimer}},
		{"target masked", func(f *fake) {
			set(f, units.Target, func(u *systemd.Unit) { u.Load = "masked" })
		}, []string{"FAILED: wgkex.target is masked: run systemctl unmask wgkex.target", okSocket, okTimer}},

		{"socket stopped", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { u.Active = "inactive" })
			f.listeners = nil
		}, []string{"FAILED: wgkex@ffww01.socket is inactive: run wgkex apply; if that does not help, see systemctl status wgkex@ffww01.socket", okTimer}},
		{"socket masked", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { *u = systemd.Unit{Load: "masked", Active: "inactive"} })
		}, []string{"FAILED: wgkex@ffww01.socket is masked: run systemctl unmask wgkex@ffww01.socket, then wgkex apply", okTimer}},
		{"another port", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { u.Listen = []string{"[::]:10014"} })
		}, []string{"FAILED: wgkex@ffww01.socket listens elsewhere than on port 10013: run wgkex apply", okTimer}},
		{"not restarted after another port", func(f *fake) { f.listeners = nil }, []string{
			"FAILED: wgkex@ffww01.socket does not listen on [::]:10013: run wgkex apply", okTimer,
		}},
		{"not restarted, and another program is there", func(f *fake) { f.listeners = foreign(8) }, []string{
			"FAILED: wgkex@ffww01.socket does not listen on [::]:10013: run wgkex apply", okTimer,
		}},
		{"a port that another program has", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { u.Active = "failed" })
			f.listeners = foreign(8)
		}, []string{
			"FAILED: wgkex@ffww01.socket is failed, since port 10013 is taken by nginx (process 812) (ss -ltnp 'sport = :10013'): end that program, or choose another port", okTimer,
		}},
		{"a port that nobody known has", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { u.Active = "failed" })
			f.listeners = foreign(9)
		}, []string{"FAILED: wgkex@ffww01.socket is failed, since port 10013 is taken by another program (ss -ltnp", okTimer}},
		{"a port that another socket unit has", func(f *fake) {
			set(f, socketName, func(u *systemd.Unit) { u.Active = "failed" })
		}, []string{"FAILED: wgkex@ffww01.socket is failed, since port 10013 is taken by another socket unit (systemctl list-sockets | grep :10013)", okTimer}},

		{"silence", func(f *fake) { f.answer = "" }, []string{
			"FAILED: wgkex@ffww01.socket accepts connections, but wgkex@.service does not start for them, which routers take for an acceptance: see journalctl -u 'wgkex@*'", okTimer,
		}},
		{"silence of a socket that is full", func(f *fake) {
			f.answer = ""
			set(f, socketName, func(u *systemd.Unit) { u.Connections = 256 })
		}, []string{"warning: wgkex@ffww01.socket: all of its 256 connections are taken", okTimer}},
		{"no answer", func(f *fake) { f.answer, f.answerErr = "", errors.New("i/o timeout") }, []string{
			"FAILED: wgkex@ffww01.socket: no answer at [::1]:10013: i/o timeout", okTimer,
		}},
		{"a failing handler", func(f *fake) { f.answer = "ERR: INTERNAL\n" }, []string{
			`FAILED: wgkex@ffww01.socket answers "ERR: INTERNAL\n": see journalctl -t wgkex-handler`, okTimer,
		}},

		{"timer stopped", func(f *fake) {
			set(f, timerName, func(u *systemd.Unit) { u.Active = "inactive" })
		}, []string{okSocket, "FAILED: wgkex-cleanup@ffww01.timer is inactive, so that stale peers of domain ffww01 are not removed: run wgkex apply"}},
		{"timer masked", func(f *fake) {
			set(f, timerName, func(u *systemd.Unit) { *u = systemd.Unit{Load: "masked", Active: "inactive"} })
		}, []string{okSocket, "warning: wgkex-cleanup@ffww01.timer is masked, so that stale peers of domain ffww01 are not removed: run systemctl unmask wgkex-cleanup@ffww01.timer, then wgkex apply"}},
		{"cleanup failed", func(f *fake) {
			set(f, units.CleanupName("ffww01"), func(u *systemd.Unit) { u.Active = "failed" })
		}, []string{okSocket, okTimer, "FAILED: the last cleanup of domain ffww01 failed: see journalctl -u wgkex-cleanup@ffww01.service"}},
		{"restore failed", func(f *fake) {
			f.units[units.RestoreName("ffww01")] = systemd.Unit{Active: "failed"}
		}, []string{okSocket, okTimer, "FAILED: the last restore of domain ffww01 failed: see journalctl -u wgkex-restore@ffww01.service, then run wgkex restore ffww01"}},
		{"local socket stopped", func(f *fake) {
			set(f, units.LocalSocket, func(u *systemd.Unit) { u.Active = "inactive" })
		}, []string{"FAILED: wgkex-local.socket is inactive, so that programs of the gateway and wgkex add cannot ask for exchanges: run wgkex apply", okSocket, okTimer}},
		{"local socket masked", func(f *fake) {
			set(f, units.LocalSocket, func(u *systemd.Unit) { *u = systemd.Unit{Load: "masked", Active: "inactive", File: "masked"} })
		}, []string{"warning: wgkex-local.socket is masked, so that programs of the gateway and wgkex add cannot ask for exchanges: run systemctl unmask wgkex-local.socket, then wgkex apply", okSocket, okTimer}},
		{"what the configuration does not know", func(f *fake) { f.active = append(f.active, "wgkex.socket", "wgkex-cleanup@old.timer") }, []string{
			okSocket, okTimer,
			"FAILED: wgkex.socket is active but not in the configuration: run wgkex apply",
			"FAILED: wgkex-cleanup@old.timer is active but not in the configuration: run wgkex apply",
		}},

		{"firewall masked", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { *u = systemd.Unit{Load: "masked", Active: "inactive", File: "masked"} })
		}, []string{okSocket, okTimer}},
		{"firewall active", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { u.Active = "active" })
			f.firewall = limits(10013)
		}, []string{okSocket, okTimer, "ok: wgkex-firewall.service: active"}},
		{"firewall enabled and failed", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { u.Active, u.File = "failed", "enabled" })
		}, []string{okSocket, okTimer, "FAILED: wgkex-firewall.service is enabled and failed: run wgkex apply; if that does not help, see systemctl status wgkex-firewall.service"}},
		{"firewall's table flushed", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { u.Active = "active" })
		}, []string{okSocket, okTimer, "FAILED: wgkex-firewall.service is active, but somebody has removed its nftables table: run wgkex apply"}},
		{"firewall without an interface", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { u.Active = "active" })
			f.firewall = limits(10013)
			f.firewall.TunnelPorts, f.firewall.Interfaces = []uint16{80}, []string{"w"}
		}, []string{okSocket, okTimer, "FAILED: wgkex-firewall.service limits the ports [10013], in tunnels [80] of [w], not the ports [10013]: run wgkex apply"}},
		{"firewall with another port", func(f *fake) {
			set(f, units.Firewall, func(u *systemd.Unit) { u.Active = "active" })
			f.firewall = limits(10012)
		}, []string{okSocket, okTimer, "FAILED: wgkex-firewall.service limits the ports [10012], not the ports [10013]: run wgkex apply"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			c.change(f)
			var got []Finding
			Run(t.Context(), f, goodCfg, where, func(one Finding) { got = append(got, one) })
			wanted := append([]string{goodOK, "ok: wgkex-local.socket: active"}, c.want...)
			if strings.Contains(c.want[0], units.LocalSocket) {
				wanted = append([]string{goodOK}, c.want...)
			}
			want(t, got, wanted...)
		})
	}
}

// The relay is looked at where there is a broker. It is in a package of its own.
func TestRelay(t *testing.T) {
	cfg := goodCfg
	cfg.MQTT.URL = "mqtt://b:1883"
	for _, c := range []struct {
		unit systemd.Unit
		want string
	}{
		{systemd.Unit{Load: "loaded", Active: "active"}, "ok: wgkex-relay.service: active"},
		{systemd.Unit{Load: "loaded", Active: "failed"}, "warning: wgkex-relay.service is failed, so that other gateways hear of no keys: run wgkex apply; if that does not help, see journalctl -u wgkex-relay.service"},
		{systemd.Unit{Load: "masked", Active: "inactive"}, "warning: wgkex-relay.service is masked, so that other gateways hear of no keys: run systemctl unmask wgkex-relay.service, then wgkex apply"},
		{systemd.Unit{Load: "not-found", Active: "inactive"}, "warning: wgkex-relay.service is not there, so that other gateways hear of no keys: install the package wgkex-relay"},
	} {
		f := newFake()
		f.units[units.Relay] = c.unit
		f.active = append(f.active, units.Relay)
		var got []Finding
		Run(t.Context(), f, cfg, where, func(one Finding) { got = append(got, one) })
		want(t, got, goodOK, "ok: wgkex-local.socket: active", c.want, "ok: wgkex@ffww01.socket: active on port 10013", "ok: wgkex-cleanup@ffww01.timer: active")
		// Without a broker it has no business.
		got = nil
		Run(t.Context(), f, goodCfg, where, func(one Finding) { got = append(got, one) })
		if last := got[len(got)-1]; !strings.Contains(last.Text, "wgkex-relay.service is active but not in the configuration") {
			t.Errorf("%+v", got)
		}
	}
}

// The gateway reaches a socket at the address that it listens on, and not at all
// if that is on an interface alone.
func TestWhereTheExchangeIsTried(t *testing.T) {
	for _, c := range []struct{ listen, device, want string }{
		{"[::]:10013", "", "[::1]:10013"},
		{"0.0.0.0:10013", "", "127.0.0.1:10013"},
		{"192.0.2.1:10013", "", "192.0.2.1:10013"},
		{"[fe80::1]:10013%eth0", "", "[fe80::1%eth0]:10013"},
		{"[::]:10013", "eth0", ""},
	} {
		listen, err := config.ParseListen(c.listen)
		if err != nil {
			t.Fatal(err)
		}
		domain := ffww01
		domain.Listen = listen
		cfg := config.Config{Domains: map[string]config.Domain{"ffww01": domain}}
		f := newFake()
		f.units[socketName] = systemd.Unit{Active: "active", Listen: []string{c.listen}, BindToDevice: c.device}
		f.listeners[0].Addr = netip.MustParseAddrPort(strings.TrimSuffix(c.listen, "%eth0"))
		Run(t.Context(), f, cfg, where, func(Finding) {})
		var tried string
		for _, at := range f.tried {
			tried += at.String()
		}
		if tried != c.want {
			t.Errorf("%s on %q: tried %q, want %q", c.listen, c.device, tried, c.want)
		}
	}
}

// Who cannot see the ports takes systemd's word for them, and tries nothing.
func TestUnseen(t *testing.T) {
	cfg := goodCfg
	cfg.HTTP = config.HTTP{Listen: []config.Listen{{Port: 8080}}}
	cfg.Metrics = config.Metrics{Listen: []config.Listen{{Port: 9587}}}
	f := newFake()
	f.unseen, f.status = true, 200
	f.units["wgkex-http.socket"] = systemd.Unit{Active: "failed", Listen: []string{"[::]:8080"}}
	f.units[units.MetricsSocket] = systemd.Unit{Active: "active", Listen: []string{"[::]:9587"}}
	f.active = append(f.active, "wgkex@old.socket")
	look := func() (found []Finding) {
		Run(t.Context(), f, cfg, where, func(f Finding) { found = append(found, f) })
		return found
	}
	want(t, look(), goodOK, "ok: wgkex-local.socket: active", "ok: "+socketName+": active on port 10013",
		"FAILED: wgkex-http.socket is failed: run wgkex apply", "warning: wgkex-metrics.socket: whoever reaches port 9587", "ok: wgkex-metrics.socket",
		"ok: "+timerName, "FAILED: wgkex@old.socket is active but not in the configuration")
	f.noUnits = true
	want(t, look(), goodOK)
	if f.tried != nil || len(f.asked) != 1 { // the metrics, from where they are served
		t.Errorf("tried %v, %v", f.tried, f.asked)
	}
}
