package metrics

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/check"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/gateways"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/statefile"
	"wgkex/internal/status"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// life is a gateway with several domains on which much happens, the same each time.
type life struct {
	t *testing.T
	Gateway
	base    *domaintest.Gateway
	random  *rand.Rand
	devices map[string]*kerneltest.Devices
	dir     string // of the configuration
	// noUnits says that systemd cannot be asked, warned is what was.
	noUnits bool
	warned  []string
	failed  map[string]bool // units
	learns  string          // VXLAN interface
}

// newLife makes one with these domains, which have no peers, and so many at most. Those without interfaces
// have a name that begins with "missing".
func newLife(t *testing.T, maxPeers int, names ...string) *life {
	l := &life{t: t, base: domaintest.New(t), random: rand.New(rand.NewPCG(1, 2)), devices: map[string]*kerneltest.Devices{}, dir: t.TempDir(), failed: map[string]bool{}}
	l.base.Boot = 9 * 24 * time.Hour
	text := "listen = 10012\n[gateway]\nname = \"gw3.example.org\"\n[http]\nlisten = 80\n"
	for i, name := range names {
		text += fmt.Sprintf("[domains.%q]\nwireguard = \"wgww%02d\"\nvxlan = \"vxww%02[2]d\"\nlisten = %d\nmax_peers = %d\nmax_pending = 200\n", name, i+1, 10013+i, maxPeers)
		if !strings.HasPrefix(name, "missing") {
			l.devices[fmt.Sprintf("wgww%02d", i+1)] = &kerneltest.Devices{Number: kernel.Index{WireGuard: 7 + 2*i, VXLAN: 8 + 2*i}, Key: domaintest.Key(1<<20 + i)}
		}
	}
	l.write(text)
	cfg, err := config.Load(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	host := l.base.Host
	host.Devices = func(wireguard, _ string) (kernel.Devices, error) {
		if d := l.devices[wireguard]; d != nil {
			return d, nil
		}
		return nil, fmt.Errorf("interface %s: %w", wireguard, kernel.ErrMissing)
	}
	l.Gateway = Gateway{
		Status: status.Source{Host: host, Units: l.units, Warn: func(err error) { l.warned = append(l.warned, err.Error()) }},
		// This file is only looked at for its time.
		RelayStats: filepath.Join(t.TempDir(), "stats.json"), Gateways: filepath.Join(t.TempDir(), "gateways.json"),
		Effective: filepath.Join(t.TempDir(), "effective.toml"), ReadEffective: func() (config.Config, error) { return cfg, nil }, Dir: l.dir,
		Connect: func(context.Context) (check.Gateway, func(), error) { return seen{l}, func() {}, nil },
	}
	// What had a handshake since a reading is known to the second.
	for _, d := range cfg.Sorted() {
		if l.devices[d.WireGuard] != nil {
			l.use(d.Name, func(*domain.Domain) error { return nil })
		}
	}
	l.base.Pass(2 * time.Hour)
	err = errors.Join(os.WriteFile(l.Effective, nil, 0o644), os.Chtimes(l.Effective, time.Time{}, l.base.Wall.Add(-50*time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *life) write(text string) {
	l.t.Helper()
	if err := statefile.Write(filepath.Join(l.dir, config.File), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// broker configures one, and the weight of this gateway.
func (l *life) broker() {
	l.t.Helper()
	before, err := os.ReadFile(filepath.Join(l.dir, config.File))
	if err != nil {
		l.t.Fatal(err)
	}
	l.write(string(before) + "[mqtt]\nurl = \"mqtts://broker.example.org\"\n[gateways]\n\"gw3.example.org\" = 3000\n")
	cfg, err := config.Load(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	l.ReadEffective = func() (config.Config, error) { return cfg, nil }
}

// relay has one write what it knows.
func (l *life) relay(stats gateways.Stats, known gateways.Known) {
	l.t.Helper()
	err := errors.Join(statefile.Write(l.RelayStats, stats.Text(), 0o644), statefile.Write(l.Gateways, known.Text(), 0o644))
	if err != nil {
		l.t.Fatal(err)
	}
}

// put writes what others could.
func (l *life) put(path, text string) {
	l.t.Helper()
	if err := statefile.Write(path, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// connected is the numbers of a relay that was connected to the broker a while ago.
func (l *life) connected(ago time.Duration) gateways.Stats {
	return gateways.Stats{At: l.base.Boot - ago, Connected: true}
}

func (l *life) domain(name string) config.Domain {
	l.t.Helper()
	cfg, err := l.ReadEffective()
	d, ok := cfg.Domains[name]
	if err != nil || !ok {
		l.t.Fatalf("no domain %s: %v", name, err)
	}
	return d
}

// key is one of many, as random as those of routers.
func (l *life) key() (k address.Key) {
	for i := 0; i < len(k); i += 8 {
		binary.LittleEndian.PutUint64(k[i:], l.random.Uint64())
	}
	return k
}

// peers adds managed peers whose last handshake was between two ages, never for 0.
func (l *life) peers(name string, n int, from, to time.Duration) (keys []address.Key) {
	d := l.domain(name)
	g := *l.base
	g.Devices, g.Config = l.devices[d.WireGuard], d
	for range n {
		k := l.key()
		g.AddRouter(k)
		p := &g.Devices.PeerList[len(g.Devices.PeerList)-1]
		if to > 0 {
			age := from + time.Duration(l.random.Int64N(int64(to-from)))
			p.LastHandshake = l.base.Wall.Add(-age.Truncate(time.Second))
			p.Received, p.Sent = l.random.Int64N(1<<36), l.random.Int64N(1<<38)
			host := netip.AddrFrom4([4]byte{198, 51, 100, byte(l.random.Uint32())})
			if l.random.IntN(3) > 0 {
				host = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 4: byte(l.random.Uint32()), 5: byte(l.random.Uint32()), 15: 1, 12: byte(l.random.Uint32())})
			}
			p.Endpoint = netip.AddrPortFrom(host, uint16(1024+l.random.IntN(60000)))
		}
		keys = append(keys, k)
	}
	return keys
}

// static adds a peer of the admin's.
func (l *life) static(name string, prefixes ...string) {
	d := l.devices[l.domain(name).WireGuard]
	p := policy.Peer{Key: l.key(), LastHandshake: l.base.Wall.Add(-time.Minute), Received: 1 << 40, Sent: 1 << 39, Endpoint: netip.MustParseAddrPort("[2001:db8::53]:51820")}
	for _, prefix := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(prefix))
	}
	d.PeerList = append(d.PeerList, p)
}

// use calls do with the domain open and read.
func (l *life) use(name string, do func(*domain.Domain) error) {
	l.t.Helper()
	err := l.Status.Host.Locked(l.t.Context(), l.domain(name), time.Minute, func(d *domain.Domain) error {
		if _, err := d.Refresh(nil); err != nil {
			return err
		}
		if _, err := d.State(); err != nil {
			return err
		}
		return do(d)
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// restore adds peers that a restore put back.
func (l *life) restore(name string, n int) {
	l.t.Helper()
	l.use(name, func(d *domain.Domain) error {
		var records []policy.Record
		for range n {
			records = append(records, policy.RestoredRecord(policy.Saved{Key: l.key(), Silent: 10 * time.Minute}, l.base.Boot))
		}
		if err := d.Promise(records...); err != nil {
			return err
		}
		for _, err := range d.Add(records...) {
			if err != nil {
				return err
			}
		}
		return d.NoteRestored(n, l.base.Boot)
	})
}

// exchanges counts what came over a day, by the wave of people's evenings.
func (l *life) exchanges(name string, each map[outcome.Code]int) {
	l.t.Helper()
	c, err := counters.Open(counters.Path(l.Status.Host.Dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	total := map[outcome.Code]uint64{}
	count := func(code outcome.Code, n int) {
		for range n {
			c.Count([]outcome.Way{outcome.TCP, outcome.HTTP}[l.random.IntN(2)], code)
		}
		if n > 0 {
			total[code] += uint64(n)
		}
	}
	snapshot := func() map[outcome.Code]uint64 {
		copied := map[outcome.Code]uint64{}
		for code, n := range total {
			copied[code] = n
		}
		return copied
	}
	var h counters.History
	for at := l.base.Boot - 25*time.Hour; at < l.base.Boot; at += 15 * time.Minute {
		hour := int((l.base.Boot - at) / time.Hour)
		for _, code := range outcome.Codes {
			wave := 20 - (hour-16)*(hour-16)/8 // most of them eight hours after the day began
			count(code, max(0, each[code]*max(2, wave)/20+l.random.IntN(1+each[code]/3)))
		}
		h = h.Add(at, snapshot())
	}
	if err := c.Close(); err != nil {
		l.t.Error(err)
	}
	if err := statefile.Write(counters.HistoryPath(l.Status.Host.Dir, name), h.Text(), 0o640); err != nil {
		l.t.Fatal(err)
	}
}

// units is all units as they should be.
func (l *life) units(_ context.Context, names ...string) ([]systemd.Unit, error) {
	found := make([]systemd.Unit, len(names))
	for i, name := range names {
		found[i] = l.unit(name)
	}
	if l.noUnits {
		return nil, check.ErrUnseen
	}
	return found, nil
}

func (l *life) unit(name string) systemd.Unit {
	u := systemd.Unit{Name: name, Load: "loaded", Active: "active", File: "enabled", MaxConnections: 256}
	switch {
	case name == units.Relay:
	case strings.HasSuffix(name, ".service"):
		u.Active = "inactive"
		u.Started = l.base.Wall.Add(-7 * time.Minute)
		if strings.HasPrefix(name, "wgkex-restore") {
			u.Started = l.base.Wall.Add(-l.base.Boot + time.Minute)
		}
		u.Ended = u.Started.Add(1340 * time.Millisecond)
		if name == units.Firewall {
			u.File = "disabled"
		}
	case name == "wgkex.socket":
		u.Listen, u.Accepted, u.Refused = []string{"[::]:10012"}, 48213, 12
	case strings.HasPrefix(name, "wgkex@"):
		cfg, _ := l.ReadEffective()
		for _, s := range units.Sockets(cfg) {
			if s.Unit == name {
				u.Listen = []string{fmt.Sprintf("[::]:%d", s.Listen[0].Port)}
			}
		}
		u.Accepted = 9310
	case name == "wgkex-http.socket":
		u.Listen = []string{"[::]:80"}
	case name == units.MetricsSocket:
		u.Listen, u.Accepted = []string{"[::1]:9587"}, 2881
	case name == units.LocalSocket:
		u.Accepted = 17
	}
	if l.failed[name] {
		u.Active = "failed"
	}
	return u
}

// seen is the gateway as the page sees it.
type seen struct{ *life }

func (s seen) interfaceOf(name string) (key address.Key, addr netip.Addr, index int, err error) {
	d := s.devices["wg"+name[2:]]
	if d == nil {
		return key, addr, 0, fmt.Errorf("interface %s: %w", name, kernel.ErrMissing)
	}
	_, addr = address.Profile(0).Of(d.Key)
	return d.Key, addr, d.Number.WireGuard, nil
}

func (s seen) WireGuard(name string) (kernel.WireGuard, error) {
	key, addr, index, err := s.interfaceOf(name)
	return kernel.WireGuard{Index: index, Up: true, MTU: 1420, IPv6: true, Addresses: []netip.Addr{addr}, Key: key, Port: 51820}, err
}

func (s seen) VXLAN(name string) (kernel.VXLAN, error) {
	_, addr, index, err := s.interfaceOf(name)
	return kernel.VXLAN{Index: index + 1, Up: true, MTU: 1350, Local: addr, Lower: index, Learning: name == s.learns}, err
}

func (s seen) Unit(_ context.Context, name string) (systemd.Unit, error) {
	if s.noUnits {
		return systemd.Unit{}, check.ErrUnseen
	}
	return s.unit(name), nil
}

func (s seen) Active(context.Context, ...string) ([]string, error) { return nil, nil }
func (s seen) Listeners() ([]systemd.Listener, error)              { return nil, check.ErrUnseen }
func (s seen) Owner(uint64) string                                 { return "" }
func (s seen) Limits() (units.Limits, bool, error)                 { return units.Limits{}, false, kernel.ErrNoTable }

func (s seen) Exchange(context.Context, netip.AddrPort) (string, error) {
	return "", check.ErrUnseen
}

func (s seen) HTTPExchange(context.Context, string, string) (string, error) {
	return "", check.ErrUnseen
}
func (s seen) Metrics(context.Context, netip.AddrPort) (int, error) { return 200, nil }

// evening is the gateway of the pictures in the documents.
func evening(t *testing.T) *life {
	l := newLife(t, 1000, "ffww01", "ffww02", "ffww03", "ffww04")
	l.peers("ffww01", 803, time.Second, 160*time.Second)
	l.peers("ffww01", 41, 4*time.Minute, 50*time.Minute)
	l.peers("ffww01", 23, 70*time.Minute, 100*time.Minute)
	l.peers("ffww01", 9, 0, 0)
	l.static("ffww01", "fd00:1::/64", "fe80::2/128")
	l.peers("ffww02", 264, time.Second, 160*time.Second)
	l.peers("ffww02", 12, 4*time.Minute, 50*time.Minute)
	l.peers("ffww02", 197, 0, 0)
	l.restore("ffww02", 36)
	l.peers("ffww03", 118, time.Second, 160*time.Second)
	l.peers("ffww03", 5, 4*time.Minute, 50*time.Minute)
	l.exchanges("ffww01", map[outcome.Code]int{outcome.OK: 64, outcome.AddressConflict: 1, outcome.ProhibitedKey: 2})
	l.exchanges("ffww02", map[outcome.Code]int{outcome.OK: 21, outcome.Busy: 9})
	l.exchanges("ffww03", map[outcome.Code]int{outcome.OK: 8})
	l.exchanges("ffww04", nil)
	l.exchanges("", map[outcome.Code]int{outcome.InvalidDomain: 2})
	l.failed["wgkex-cleanup@ffww03.service"] = true
	l.learns = "vxww02"
	for _, name := range []string{"ffww01", "ffww02", "ffww03", "ffww04"} {
		l.use(name, func(d *domain.Domain) error {
			_, err := d.Save()
			return err
		})
	}
	l.base.Pass(7 * time.Second)
	return l
}
