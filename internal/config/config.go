// Package config reads the configuration: wgkex.toml and conf.d/*.toml, merged
// into one. Every error names the file and the line it comes from.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/pelletier/go-toml/v2"
)

const (
	// Dir is where the admin writes the configuration.
	Dir = "/etc/wgkex"
	// File is the main file's name in Dir.
	File = "wgkex.toml"
	// Effective is the last configuration that was whole and valid at a
	// daemon-reload, in one file that only root can write: the generator writes
	// it, and what runs goes by it.
	Effective = "/run/wgkex/effective.toml"
)

const (
	defaultMaxPeers   = 10000
	defaultMaxPending = 1000
	defaultStaleAfter = time.Hour
	minStaleAfter     = policy.LiveFor // a younger handshake is that of a live tunnel

	maxInterfaceName = 15 // IFNAMSIZ less the NUL
)

// Config is a whole and valid configuration.
type Config struct {
	// Listen is where wgkex.socket listens, the shared port.
	Listen Listen
	// ReplyOK says that an accepted router is answered OK instead of nothing.
	ReplyOK bool
	// ProhibitedKeys are refused in every domain.
	ProhibitedKeys []address.Key
	// Domains by name.
	Domains map[string]Domain
	HTTP    HTTP
	Metrics Metrics
	Gateway Gateway
	MQTT    MQTT
	// Weights of gateways by name, see Weight.
	Weights map[string]int
}

// Metrics is the configuration of wgkex-metrics.socket.
type Metrics struct {
	// Listen is where it listens, empty for nowhere. Where there are domains it is
	// DefaultMetrics, unless the files say otherwise.
	Listen []Listen
}

// DefaultMetrics is where metrics are served that the files say nothing about: only
// programs of the gateway reach it.
var DefaultMetrics = Listen{Addr: netip.IPv6Loopback(), Port: 9587}

// HTTP is the configuration of wgkex-http.service.
type HTTP struct {
	// Listen is where it listens.
	Listen []Listen
	// Socket is the path of its UNIX socket, empty for none.
	Socket string
	// TrustedProxies are those whose word about a client's address counts.
	TrustedProxies []netip.Prefix
	// DefaultDomain is the domain of requests that name none, empty for none.
	DefaultDomain string
}

// On reports whether HTTP is served at all.
func (h HTTP) On() bool { return len(h.Listen) > 0 || h.Socket != "" }

// Gateway is how others call this gateway.
type Gateway struct {
	// Name tells it from the other gateways of the community. It is empty for the
	// host name.
	Name string
	// Address is the name or the IP address where routers reach WireGuard, empty for
	// Name.
	Address string
}

// OwnName is Name or, where that is not set, the name of the host.
func (g Gateway) OwnName() (string, error) {
	if g.Name != "" {
		return g.Name, nil
	}
	return os.Hostname()
}

// OwnAddress is Address or, where that is not set, OwnName.
func (g Gateway) OwnAddress() (string, error) {
	if g.Address != "" {
		return g.Address, nil
	}
	return g.OwnName()
}

// Domain is the configuration of one domain.
type Domain struct {
	Name      string
	WireGuard string // interface name
	VXLAN     string // interface name
	// Listen is where the domain's own socket listens.
	Listen     Listen
	Addresses  address.Profile
	MaxPeers   int
	MaxPending int // peers that never had a handshake
	StaleAfter time.Duration
}

// Serves reports whether a connection to the local address may ask for domain:
// a domain's own socket serves that domain alone, the shared one serves all. No
// two sockets of a configuration accept the same connection.
func (c Config) Serves(local netip.AddrPort, domain string) bool {
	d, ok := c.Domains[domain]
	return ok && (c.Listen.Accepts(local) || d.Listen.Accepts(local))
}

// Prohibited reports whether the key is listed in prohibited_keys.
func (c Config) Prohibited(key address.Key) bool {
	return slices.Contains(c.ProhibitedKeys, key)
}

// Names are those of the domains, in order.
func (c Config) Names() []string { return slices.Sorted(maps.Keys(c.Domains)) }

// Sorted is the domains in the order of their names.
func (c Config) Sorted() []Domain {
	return slices.SortedFunc(maps.Values(c.Domains), func(a, b Domain) int { return cmp.Compare(a.Name, b.Name) })
}

// Position is a place in a configuration file. Line is 1-based, 0 when the
// error is about the file as a whole.
type Position struct {
	File string
	Line int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Error is one mistake in the configuration.
type Error struct {
	Position
	Message string
}

func (e *Error) Error() string { return e.Position.String() + ": " + e.Message }

// Load reads the configuration in dir, usually Dir. A missing main file or
// conf.d counts as empty. The error joins an Error for each mistake, in the
// order of files and lines.
func Load(dir string) (Config, error) {
	files, mistake := list(dir)
	return read(files, mistake)
}

// LoadEffective reads the Effective configuration. It has no mistakes; the
// error says that there is none.
func LoadEffective() (Config, error) { return loadEffective(Effective) }

// ErrNoDomain is the error for a domain that the Effective configuration does not
// have.
var ErrNoDomain = errors.New("not in the configuration as of the last daemon-reload")

// EffectiveDomain is a domain of the Effective configuration, and all of that.
func EffectiveDomain(name string) (Config, Domain, error) {
	c, domains, err := EffectiveDomains(name)
	if err != nil {
		return Config{}, Domain{}, err
	}
	return c, domains[0], nil
}

// EffectiveDomains is the named domains of the Effective configuration, all without
// a name, and all of that, which is there with ErrNoDomain, too.
func EffectiveDomains(names ...string) (Config, []Domain, error) {
	c, err := LoadEffective()
	if err != nil {
		return Config{}, nil, err
	}
	if len(names) == 0 {
		return c, c.Sorted(), nil
	}
	var domains []Domain
	for _, name := range names {
		d, ok := c.Domains[name]
		if !ok {
			return c, nil, fmt.Errorf("domain %s is %w, %s", name, ErrNoDomain, Effective)
		}
		domains = append(domains, d)
	}
	return c, domains, nil
}

func loadEffective(path string) (Config, error) {
	if _, err := os.Stat(path); err != nil {
		return Config{}, fmt.Errorf("there was no valid configuration at a daemon-reload yet: %w", err)
	}
	return read([]string{path}, nil)
}

// LoadOrEffective reads the configuration in Dir or, when it is broken, the
// Effective one: a broken file changes nothing of what runs. The error tells
// what is broken even when the Config is usable, which ok says.
func LoadOrEffective() (c Config, ok bool, err error) {
	c, err = Load(Dir)
	if err == nil {
		return c, true, nil
	}
	c, effectiveErr := LoadEffective()
	if effectiveErr != nil {
		return Config{}, false, err
	}
	return c, true, err
}

// Locate is where the configuration in dir sets the key with these parts, such
// as "domains", "ffww01": for errors that are found only later.
func Locate(dir string, parts ...string) Position {
	files, _ := list(dir)
	m := open(files)
	m.locate()
	for _, s := range m.sources {
		if p := m.position(place{s.path, keyPath(parts...)}); p.Line > 0 {
			return p
		}
	}
	return Position{File: dir}
}

func read(files []string, mistake *Error) (Config, error) {
	m := open(files)
	if mistake != nil {
		m.unread = append(m.unread, mistake)
	}
	c := m.config()
	if len(m.unread)+len(m.mistakes) == 0 {
		return c, nil
	}
	// Only the broken configuration pays for knowing where everything is: a
	// handler reads the whole one for each connection.
	m.locate()
	m.config()
	return Config{}, m.err()
}

// TOML is the configuration as one file that reads back as the same.
func (c Config) TOML() ([]byte, error) {
	top := map[string]any{}
	c.Listen.putTOML(top)
	if c.ReplyOK {
		top["reply"] = "ok"
	}
	if len(c.ProhibitedKeys) > 0 {
		top["prohibited_keys"] = c.ProhibitedKeys
	}
	domains := map[string]any{}
	for name, d := range c.Domains {
		table := map[string]any{
			"wireguard":   d.WireGuard,
			"vxlan":       d.VXLAN,
			"addresses":   d.Addresses,
			"max_peers":   d.MaxPeers,
			"max_pending": d.MaxPending,
			"stale_after": d.StaleAfter.String(),
		}
		d.Listen.putTOML(table)
		domains[name] = table
	}
	top["domains"] = domains
	for name, table := range map[string]map[string]any{
		"http":    c.HTTP.table(),
		"metrics": c.Metrics.table(len(c.Domains) > 0),
		"gateway": notEmpty(map[string]string{"name": c.Gateway.Name, "address": c.Gateway.Address}),
		"mqtt":    c.MQTT.table(),
	} {
		if len(table) > 0 {
			top[name] = table
		}
	}
	if len(c.Weights) > 0 {
		top["gateways"] = c.Weights
	}
	return toml.Marshal(top)
}

func (h HTTP) table() map[string]any {
	table := notEmpty(map[string]string{"socket": h.Socket, "default_domain": h.DefaultDomain})
	if len(h.TrustedProxies) > 0 {
		table["trusted_proxies"] = h.TrustedProxies
	}
	putListens(table, h.Listen)
	return table
}

// table is empty where nothing has to be said; there are domains or not.
func (m Metrics) table(domains bool) map[string]any {
	table := map[string]any{}
	putListens(table, m.Listen)
	if m.Listen == nil && domains {
		table["enabled"] = false
	}
	return table
}

func putListens(table map[string]any, listens []Listen) {
	var values []any
	for _, l := range listens {
		values = append(values, l.value())
	}
	if values != nil {
		table["listen"] = values
	}
}

// notEmpty is a table of those that are set.
func notEmpty(values map[string]string) map[string]any {
	table := map[string]any{}
	for key, value := range values {
		if value != "" {
			table[key] = value
		}
	}
	return table
}

func (l Listen) putTOML(table map[string]any) {
	if !l.IsZero() {
		table["listen"] = l.value()
	}
}

// value is l as it is written in a file.
func (l Listen) value() any {
	if !l.Addr.IsValid() {
		return int64(l.Port)
	}
	return l.String()
}

// validInterfaceName is the kernel's dev_valid_name() in net/core/dev.c,
// without the bytes above ASCII that it would allow.
func validInterfaceName(s string) bool {
	ok := len(s) >= 1 && len(s) <= maxInterfaceName && s != "." && s != ".."
	for _, c := range []byte(s) {
		ok = ok && c > ' ' && c < 0x7f && c != '/' && c != ':'
	}
	return ok
}
