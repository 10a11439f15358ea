package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/address"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// file is what one configuration file may hold. Pointers tell what it sets.
type file struct {
	Listen         *int64                `toml:"listen,omitempty"`
	Reply          *string               `toml:"reply,omitempty"`
	ProhibitedKeys []string              `toml:"prohibited_keys,omitempty"`
	Domains        map[string]fileDomain `toml:"domains,omitempty"`
}

type fileDomain struct {
	WireGuard  *string `toml:"wireguard,omitempty"`
	VXLAN      *string `toml:"vxlan,omitempty"`
	Listen     *int64  `toml:"listen,omitempty"`
	Addresses  *string `toml:"addresses,omitempty"`
	MaxPeers   *int64  `toml:"max_peers,omitempty"`
	MaxPending *int64  `toml:"max_pending,omitempty"`
	StaleAfter *string `toml:"stale_after,omitempty"`
}

// merge collects files: a later value replaces an earlier one of the same key,
// prohibited keys add up.
type merge struct {
	file
	sources      []source
	prohibitedAt []Position          // of each of file.ProhibitedKeys
	origin       map[string]Position // of each key path
	errs         []error
}

type source struct {
	path string
	data []byte
}

func (m *merge) fail(at Position, format string, args ...any) {
	m.errs = append(m.errs, &Error{Position: at, Message: fmt.Sprintf(format, args...)})
}

func (m *merge) add(path string, data []byte) {
	var f file
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&f)
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case err == nil:
	case errors.As(err, &strict):
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			m.fail(Position{path, row}, "unknown key %s", keyPath(e.Key()...))
		}
		return
	case errors.As(err, &decode):
		row, _ := decode.Position()
		// The rest of a message about a type names ours, of no use to an admin.
		message, _, _ := strings.Cut(strings.TrimPrefix(decode.Error(), "toml: "), " into struct field")
		if key := decode.Key(); len(key) > 0 {
			message = keyPath(key...) + ": " + message
		}
		m.fail(Position{path, row}, "%s", message)
		return
	default:
		m.fail(Position{File: path}, "%v", err)
		return
	}

	set(&m.Listen, f.Listen)
	set(&m.Reply, f.Reply)
	m.ProhibitedKeys = append(m.ProhibitedKeys, f.ProhibitedKeys...)
	for name, theirs := range f.Domains {
		ours := m.Domains[name]
		set(&ours.WireGuard, theirs.WireGuard)
		set(&ours.VXLAN, theirs.VXLAN)
		set(&ours.Listen, theirs.Listen)
		set(&ours.Addresses, theirs.Addresses)
		set(&ours.MaxPeers, theirs.MaxPeers)
		set(&ours.MaxPending, theirs.MaxPending)
		set(&ours.StaleAfter, theirs.StaleAfter)
		if m.Domains == nil {
			m.Domains = map[string]fileDomain{}
		}
		m.Domains[name] = ours
	}
	m.sources = append(m.sources, source{path, data})
}

func set[T any](dst **T, src *T) {
	if src != nil {
		*dst = src
	}
}

// locateAll notes the position of every key. The decoder gives positions for
// its own errors only, and ours come after merging.
func (m *merge) locateAll() {
	m.origin = map[string]Position{}
	for _, s := range m.sources {
		m.locate(s.path, s.data)
	}
	m.errs = nil
}

func (m *merge) locate(path string, data []byte) {
	var p unstable.Parser
	p.Reset(data)
	at := func(n *unstable.Node) Position {
		return Position{path, p.Shape(n.Raw).Start.Line}
	}
	var keyValue func(prefix []string, n *unstable.Node)
	keyValue = func(prefix []string, n *unstable.Node) {
		parts, last := nodeKey(n)
		full := append(slices.Clone(prefix), parts...)
		name := keyPath(full...)
		m.origin[name] = at(last)
		m.origin[strings.ToLower(name)] = at(last)
		// Dotted keys and inline tables open tables on the way.
		for i := 1; i < len(full); i++ {
			m.openTable(full[:i], at(last))
		}
		switch value := n.Value(); value.Kind {
		case unstable.InlineTable:
			for it := value.Children(); it.Next(); {
				keyValue(full, it.Node())
			}
		case unstable.Array:
			for it := value.Children(); it.Next() && strings.EqualFold(name, "prohibited_keys"); {
				if it.Node().Kind == unstable.String {
					m.prohibitedAt = append(m.prohibitedAt, at(it.Node()))
				}
			}
		}
	}
	var table []string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table:
			parts, last := nodeKey(e)
			table = parts
			for i := 1; i <= len(table); i++ {
				m.openTable(table[:i], at(last))
			}
		case unstable.KeyValue:
			keyValue(table, e)
		}
	}
}

// openTable notes the first place where a table is mentioned.
func (m *merge) openTable(parts []string, at Position) {
	for _, name := range []string{keyPath(parts...), strings.ToLower(keyPath(parts...))} {
		if _, ok := m.origin[name]; !ok {
			m.origin[name] = at
		}
	}
}

func nodeKey(n *unstable.Node) (parts []string, last *unstable.Node) {
	for it := n.Key(); it.Next(); {
		last = it.Node()
		parts = append(parts, string(last.Data))
	}
	return parts, last
}

// config checks what was merged and makes the Config of it.
func (m *merge) config() Config {
	c := Config{Domains: map[string]Domain{}}
	c.Listen = m.port(m.Listen, "listen")
	switch reply := deref(m.Reply, "silent"); reply {
	case "silent":
	case "ok":
		c.ReplyOK = true
	default:
		m.fail(m.at("reply"), `reply is %q: must be "silent" or "ok"`, reply)
	}
	for i, s := range m.ProhibitedKeys {
		key, err := address.ParseKey(s)
		if err != nil {
			m.fail(m.prohibited(i), "prohibited key %q: %v", s, err)
		}
		c.ProhibitedKeys = append(c.ProhibitedKeys, key)
	}

	ports := map[uint16]string{}
	if c.Listen != 0 {
		ports[c.Listen] = "listen"
	}
	interfaces := map[string]string{}
	for _, name := range slices.SortedFunc(maps.Keys(m.Domains), func(a, b string) int {
		// In the order they are written, so that it is the second who is wrong.
		pa, pb := m.at(keyPath("domains", a)), m.at(keyPath("domains", b))
		return cmp.Or(cmp.Compare(m.fileIndex(pa.File), m.fileIndex(pb.File)), cmp.Compare(pa.Line, pb.Line), cmp.Compare(a, b))
	}) {
		c.Domains[name] = m.domain(name, ports, interfaces)
	}
	return c
}

// at is where a key was set. The decoder takes keys in any case, domain names
// only as they are.
func (m *merge) at(path string) Position {
	if p, ok := m.origin[path]; ok {
		return p
	}
	return m.origin[strings.ToLower(path)]
}

func (m *merge) fileIndex(path string) int {
	return slices.IndexFunc(m.sources, func(s source) bool { return s.path == path })
}

func (m *merge) prohibited(i int) Position {
	if i < len(m.prohibitedAt) {
		return m.prohibitedAt[i]
	}
	return Position{}
}

// domain checks one domain; ports and interfaces hold who took them so far.
func (m *merge) domain(name string, ports map[uint16]string, interfaces map[string]string) Domain {
	f := m.Domains[name]
	here := m.at(keyPath("domains", name))
	path := func(key string) string { return keyPath("domains", name, key) }

	if !ValidDomainName(name) {
		m.fail(here, "domain name %q: must be 1 to %d of A-Z a-z 0-9 _ . - and begin with a letter, a digit or _", name, maxDomainName)
		return Domain{} // the other messages would have to quote it
	}
	d := Domain{
		Name:       name,
		Listen:     m.port(f.Listen, path("listen")),
		MaxPeers:   m.count(f.MaxPeers, defaultMaxPeers, path("max_peers")),
		MaxPending: m.count(f.MaxPending, defaultMaxPending, path("max_pending")),
		StaleAfter: defaultStaleAfter,
	}
	if d.Listen != 0 {
		if other, taken := ports[d.Listen]; taken {
			m.fail(m.at(path("listen")), "port %d of domain %s is already taken by %s", d.Listen, name, other)
		}
		ports[d.Listen] = path("listen")
	}
	for _, i := range []struct {
		key   string
		value *string
		field *string
	}{{"wireguard", f.WireGuard, &d.WireGuard}, {"vxlan", f.VXLAN, &d.VXLAN}} {
		at := m.at(path(i.key))
		switch {
		case i.value == nil:
			m.fail(here, "domain %s has no %s interface: set %s", name, i.key, path(i.key))
			continue
		case !validInterfaceName(*i.value):
			m.fail(at, "%q is no interface name: 1 to %d printable characters without / and :", *i.value, maxInterfaceName)
		case interfaces[*i.value] != "":
			m.fail(at, "interface %s of domain %s is already used by %s", *i.value, name, interfaces[*i.value])
		}
		interfaces[*i.value] = path(i.key)
		*i.field = *i.value
	}
	if f.Addresses != nil {
		if err := d.Addresses.UnmarshalText([]byte(*f.Addresses)); err != nil {
			m.fail(m.at(path("addresses")), "%v", err)
		}
	}
	if f.StaleAfter != nil {
		stale, err := time.ParseDuration(*f.StaleAfter)
		if err != nil {
			m.fail(m.at(path("stale_after")), `stale_after is %q: must be a duration such as "1h" or "90m"`, *f.StaleAfter)
		} else if stale < minStaleAfter {
			m.fail(m.at(path("stale_after")), "stale_after is %s: under %s it would remove live tunnels", stale, minStaleAfter)
		}
		d.StaleAfter = stale
	}
	return d
}

func (m *merge) port(v *int64, path string) uint16 {
	if v == nil {
		return 0
	}
	if *v < 1 || *v > math.MaxUint16 {
		m.fail(m.at(path), "%d is no TCP port: must be 1 to %d", *v, math.MaxUint16)
		return 0
	}
	return uint16(*v)
}

func (m *merge) count(v *int64, byDefault int, path string) int {
	if v == nil {
		return byDefault
	}
	if *v < 1 || *v > math.MaxInt32 {
		m.fail(m.at(path), "%d is out of range: must be 1 to %d", *v, math.MaxInt32)
		return byDefault
	}
	return int(*v)
}

// keyPath writes a key's path as TOML would, quoting what is not a bare key.
func keyPath(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, part := range parts {
		quoted[i] = part
		if part == "" || strings.ContainsFunc(part, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
		}) {
			quoted[i] = strconv.Quote(part)
		}
	}
	return strings.Join(quoted, ".")
}

func deref[T any](p *T, byDefault T) T {
	if p == nil {
		return byDefault
	}
	return *p
}
