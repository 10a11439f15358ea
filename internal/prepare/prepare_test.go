package prepare

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"

	"golang.org/x/sys/unix"
)

// bench is the start of sockets on a gateway with a shared port, domain d with a
// port and an address, and domain e without.
type bench struct {
	*domaintest.Gateway
	Prepare
	files    config.Config
	filesErr error

	mu         sync.Mutex
	complaints []string
}

func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	d := b.Gateway.Config
	d.Listen = config.Listen{Addr: netip.MustParseAddr("192.0.2.1"), Port: 10013}
	e := config.Domain{Name: "e", WireGuard: "we", VXLAN: "ve"}
	cfg := config.Config{Listen: config.Listen{Port: 10012}, Domains: map[string]config.Domain{"d": d, "e": e}}
	cfg.HTTP = config.HTTP{Listen: []config.Listen{{Port: 8080}, {Addr: netip.MustParseAddr("fe80::1%w"), Port: 80}}, Socket: "/run/h"}
	cfg.Metrics = config.Metrics{Listen: []config.Listen{config.DefaultMetrics}}
	b.files = cfg
	b.Prepare = Prepare{
		Effective: cfg,
		Files:     func() (config.Config, error) { return b.files, b.filesErr },
		Host:      b.Gateway.Host,
		Listeners: func() ([]systemd.Listener, error) { return nil, nil },
		Complain: func(message string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.complaints = append(b.complaints, message)
		},
	}
	// Interfaces of domain e are not there.
	b.Prepare.Host.Devices = func(wireguard, vxlan string) (kernel.Devices, error) {
		if wireguard == "we" {
			return nil, fmt.Errorf("interface %s: %w", wireguard, kernel.ErrMissing)
		}
		return b.Gateway.Host.Devices(wireguard, vxlan)
	}
	return b
}

func TestMayListen(t *testing.T) {
	const (
		changed   = "the configuration in /etc/wgkex has changed since the last daemon-reload: run systemctl daemon-reload, then start %s again"
		noPort    = "domain e has no port of its own: set domains.e.listen in /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d"
		noDomain  = "domain x is not in the configuration: add [domains.x] to /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d"
		noShared  = "there is no shared port: set listen in /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d"
		forShared = "wgkex.socket"
	)
	inFiles := func(name string, listen config.Listen) func(*bench) {
		return func(b *bench) {
			b.files.Domains = map[string]config.Domain{name: {Name: name, Listen: listen}}
		}
	}
	for _, c := range []struct {
		name         string
		change       func(*bench)
		socket, at   string
		want         string
		wantReadings int
	}{
		{"the shared one", nil, "", "10012", "", 1},
		{"a domain's own", nil, "d", "192.0.2.1:10013", "", 1},
		{"the shared one elsewhere", nil, "", "10013", fmt.Sprintf(changed, forShared), 0},
		{"the shared one without a port", nil, "", "", fmt.Sprintf(changed, forShared), 0},
		{"a domain's own elsewhere", nil, "d", "10013", fmt.Sprintf(changed, "wgkex@d.socket"), 0},
		{"a domain without a port", nil, "e", "", noPort, 0},
		{"no domain", nil, "x", "", noDomain, 0},
		{"a port that the files give alone", inFiles("e", config.Listen{Port: 10014}), "e", "", fmt.Sprintf(changed, "wgkex@e.socket"), 0},
		{"a domain that the files have alone", inFiles("x", config.Listen{Port: 10014}), "x", "", fmt.Sprintf(changed, "wgkex@x.socket"), 0},
		{"a domain that the files have without a port", inFiles("x", config.Listen{}), "x", "", noDomain, 0},
		{"broken files", func(b *bench) { b.filesErr = errors.New("broken") }, "x", "", noDomain, 0},
		{"broken files do not matter", func(b *bench) { b.filesErr = errors.New("broken") }, "d", "192.0.2.1:10013", "", 1},
		{"HTTP", nil, "http", "8080 /run/h", "", 0},
		{"metrics", nil, "metrics", "[::1]:9587", "", 0},
		{"metrics elsewhere", nil, "metrics", "9587", fmt.Sprintf(changed, "wgkex-metrics.socket"), 0},
		{"no metrics", func(b *bench) { b.Effective.Metrics.Listen, b.files.Metrics.Listen = nil, nil }, "metrics", "", "metrics are off: set metrics.listen in /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d", 0},
		{"HTTP of an interface", nil, "http@w", "[fe80::1]:80%w", "", 0},
		{"HTTP elsewhere", nil, "http", "8080", fmt.Sprintf(changed, "wgkex-http.socket"), 0},
		{"HTTP of another interface", nil, "http@v", "", "HTTP has no address on interface v: set http.listen in /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d", 0},
		{"no HTTP", func(b *bench) { b.Effective.HTTP = config.HTTP{}; b.files.HTTP = config.HTTP{} }, "http", "", "HTTP has no port and no UNIX socket: set http.listen in /etc/wgkex/wgkex.toml or a file in /etc/wgkex/conf.d", 0},
		{"no shared port", func(b *bench) { b.Effective.Listen, b.files.Listen = config.Listen{}, config.Listen{} }, "", "", noShared, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if c.change != nil {
				c.change(b)
			}
			got := ""
			unit := units.SocketName(c.socket)
			if strings.HasPrefix(c.socket, "http") || c.socket == "metrics" {
				unit = "wgkex-" + c.socket + ".socket"
			}
			if err := b.Run(t.Context(), unit, c.at); err != nil {
				got = err.Error()
			}
			if got != c.want || b.Dumps != c.wantReadings || b.complaints != nil {
				t.Errorf("got %q, %d readings, complaints %q, want %q, %d readings", got, b.Dumps, b.complaints, c.want, c.wantReadings)
			}
		})
	}
}

func TestTaken(t *testing.T) {
	const (
		shared = "port 10012 is taken by another program or unit (ss -ltnp 'sport = :10012')"
		own    = "192.0.2.1:10013 is taken by another program or unit (ss -ltnp 'sport = :10013')"
	)
	for _, c := range []struct {
		listener, socket, at string
		want                 []string
	}{
		{"[::]:10012", "", "10012", []string{shared}},
		{"127.0.0.1:10012", "", "10012", []string{shared}},
		{"[::]:10011", "", "10012", nil},
		{"[::]:10013", "d", "192.0.2.1:10013", []string{own}},
		{"0.0.0.0:10013", "d", "192.0.2.1:10013", []string{own}},
		{"[::ffff:192.0.2.1]:10013", "d", "192.0.2.1:10013", []string{own}},
		{"192.0.2.2:10013", "d", "192.0.2.1:10013", nil},
		{"[2001:db8::1]:10013", "d", "192.0.2.1:10013", nil},
	} {
		b := newBench(t)
		b.Listeners = func() ([]systemd.Listener, error) {
			return []systemd.Listener{{Addr: netip.MustParseAddrPort(c.listener)}}, nil
		}
		if err := b.Run(t.Context(), units.SocketName(c.socket), c.at); err != nil || !slices.Equal(b.complaints, c.want) {
			t.Errorf("%s: got %v, complaints %q, want %q", c.listener, err, b.complaints, c.want)
		}
	}
	b := newBench(t)
	b.Listeners = func() ([]systemd.Listener, error) { return nil, unix.EACCES }
	if err := b.Run(t.Context(), "wgkex.socket", "10012"); err != nil || b.complaints != nil {
		t.Errorf("where nobody can tell: got %v, complaints %q", err, b.complaints)
	}
}

// The first exchange finds the peers read.
func TestPeersAreRead(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	if err := b.Run(t.Context(), "wgkex@d.socket", "192.0.2.1:10013"); err != nil {
		t.Fatal(err)
	}
	if got := b.Counts(); got.Peers != 1 || b.Dumps != 1 {
		t.Errorf("got %+v, %d readings", got, b.Dumps)
	}
}

// What keeps a domain from serving does not keep its socket from listening.
func TestTrouble(t *testing.T) {
	b := newBench(t)
	b.Prepare.Host.Devices = func(string, string) (kernel.Devices, error) {
		return nil, fmt.Errorf("interface w: %w", kernel.ErrUnfit)
	}
	err := b.Run(t.Context(), "wgkex.socket", "10012")
	slices.Sort(b.complaints) // of domains at the same time
	want := []string{"domain d cannot serve yet: interface w: cannot serve", "domain e cannot serve yet: interface w: cannot serve"}
	if err != nil || !slices.Equal(b.complaints, want) {
		t.Errorf("got %v, complaints %q, want %q", err, strings.Join(b.complaints, "\n"), want)
	}
}
