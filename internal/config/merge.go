package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/protocol"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The keys that there are.
var (
	topKeys     = []string{"listen", "reply", "prohibited_keys", "domains", "http", "metrics", "gateway", "mqtt", "gateways"}
	domainKeys  = []string{"wireguard", "vxlan", "listen", "addresses", "max_peers", "max_pending", "stale_after"}
	httpKeys    = []string{"listen", "socket", "trusted_proxies", "default_domain"}
	metricsKeys = []string{"listen", "enabled"}
	gatewayKeys = []string{"name", "address"}
)

// merge makes one configuration of all files. A key may be set in one of them
// only, but prohibited keys, which add up.
type merge struct {
	sources  []source
	unread   []*Error // files that could not be read or parsed
	mistakes []*Error // what is wrong in the others
	lines    map[place]int
	settings map[string]setting // by key path
}

// place is where a file sets a key, or opens a table.
type place struct{ file, path string }

type setting struct {
	value any
	place place
}

func open(files []string) *merge {
	m := new(merge)
	for _, path := range files {
		s, mistake := readSource(path)
		switch {
		case mistake != nil && exists(path): // otherwise it was removed just now
			m.unread = append(m.unread, mistake)
			m.sources = append(m.sources, source{path: path})
		case mistake == nil:
			m.sources = append(m.sources, s)
		}
	}
	return m
}

func (m *merge) fail(at place, format string, args ...any) {
	m.mistakes = append(m.mistakes, &Error{Position: m.position(at), Message: fmt.Sprintf(format, args...)})
}

// position is right once locate was called.
func (m *merge) position(p place) Position { return Position{File: p.file, Line: m.lines[p]} }

// err is all mistakes in the order of files and lines.
func (m *merge) err() error {
	all := slices.Concat(m.unread, m.mistakes)
	slices.SortFunc(all, func(a, b *Error) int {
		return cmp.Or(m.compare(a.Position, b.Position), cmp.Compare(a.Message, b.Message))
	})
	var errs []error
	for _, e := range all {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

func (m *merge) compare(a, b Position) int {
	index := func(file string) int {
		if i := slices.IndexFunc(m.sources, func(s source) bool { return s.path == file }); i >= 0 {
			return i
		}
		return len(m.sources) // the directory conf.d
	}
	return cmp.Or(cmp.Compare(index(a.File), index(b.File)), cmp.Compare(a.Line, b.Line))
}

// config checks all files and makes the Config of them.
func (m *merge) config() Config {
	m.mistakes, m.settings = nil, map[string]setting{}
	c := Config{Domains: map[string]Domain{}}
	domains := map[string]place{} // where each is mentioned first
	weights := map[string]int{}
	for _, s := range m.sources {
		for key, value := range s.tree {
			switch key {
			case "prohibited_keys":
				c.ProhibitedKeys = append(c.ProhibitedKeys, m.keys(place{s.path, key}, value)...)
			case "domains":
				m.domainTables(s.path, value, domains)
			case "http":
				m.table(s.path, key, value, httpKeys)
			case "metrics":
				m.table(s.path, key, value, metricsKeys)
			case "gateway":
				m.table(s.path, key, value, gatewayKeys)
			case "mqtt":
				m.table(s.path, key, value, mqttKeys)
			case "gateways":
				m.weigh(s.path, value, weights)
			default:
				m.set(place{s.path, keyPath(key)}, key, value, topKeys)
			}
		}
	}

	c.Listen = m.listen("listen")
	switch reply := get(m, "reply", "silent"); reply {
	case "silent":
	case "ok":
		c.ReplyOK = true
	default:
		m.fail(m.settings["reply"].place, `reply is %q: must be "silent" or "ok"`, reply)
	}
	listens := map[string]Listen{"listen": c.Listen}
	interfaces := map[string]string{}
	// In the order they are written, so that it is the second who is wrong.
	for _, name := range slices.SortedFunc(maps.Keys(domains), func(a, b string) int {
		return cmp.Or(m.compare(m.position(domains[a]), m.position(domains[b])), cmp.Compare(a, b))
	}) {
		c.Domains[name] = m.domain(name, domains[name], listens, interfaces)
	}
	c.HTTP = m.http(c.Domains, listens)
	c.Metrics = m.metrics(c.Domains, listens)
	c.Gateway = m.gateway()
	c.MQTT = m.mqtt()
	if len(weights) > 0 {
		c.Weights = weights
	}
	return c
}

// table takes a table of a file that has no tables in it.
func (m *merge) table(file, name string, value any, known []string) {
	at := place{file, keyPath(name)}
	table, _ := as[map[string]any](m, at, value)
	for key, value := range table {
		m.set(place{file, keyPath(name, key)}, key, value, known)
	}
}

// domainTables takes the table "domains" of a file.
func (m *merge) domainTables(file string, value any, domains map[string]place) {
	tables, ok := as[map[string]any](m, place{file, "domains"}, value)
	if !ok {
		return
	}
	for name, value := range tables {
		at := place{file, keyPath("domains", name)}
		table, ok := as[map[string]any](m, at, value)
		if !ok {
			continue
		}
		if _, known := domains[name]; !known {
			domains[name] = at
		}
		for key, value := range table {
			m.set(place{file, keyPath("domains", name, key)}, key, value, domainKeys)
		}
	}
}

// set notes what a file sets a key to; known are those that it may be.
func (m *merge) set(at place, key string, value any, known []string) {
	if !slices.Contains(known, key) {
		hint := ""
		if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, key) }); i >= 0 {
			hint = ": write " + known[i] + " in small letters"
		}
		m.fail(at, "unknown key %s%s", at.path, hint)
		return
	}
	if before, taken := m.settings[at.path]; taken {
		m.fail(at, "%s is already set at %s", at.path, m.position(before.place))
		return
	}
	m.settings[at.path] = setting{value, at}
}

// keys takes the prohibited keys of a file.
func (m *merge) keys(at place, value any) (keys []address.Key) {
	m.eachString(at, value, func(i int, text string) {
		key, err := address.ParseKey(text)
		if err != nil {
			m.fail(at.element(i), "prohibited key %q: %v", text, err)
		}
		keys = append(keys, key)
	})
	return keys
}

// eachString passes each string of an array on, with its index.
func (m *merge) eachString(at place, value any, do func(i int, text string)) {
	list, _ := as[[]any](m, at, value)
	for i, element := range list {
		text, ok := element.(string)
		if !ok {
			m.fail(at, "%s has %s: must be strings in quotation marks", at.path, typeName(element))
			continue
		}
		do(i, text)
	}
}

// element is the place of a string in an array.
func (p place) element(i int) place { return place{p.file, fmt.Sprintf("%s[%d]", p.path, i)} }

// domain checks one domain, mentioned first at here. listens is where others
// listen so far, and interfaces who has which, both by key path.
func (m *merge) domain(name string, here place, listens map[string]Listen, interfaces map[string]string) Domain {
	path := func(key string) string { return keyPath("domains", name, key) }
	at := func(key string) place { return m.settings[path(key)].place }

	if !protocol.ValidName(name) {
		m.fail(here, "domain name %q: "+nameRule, name, protocol.MaxLine)
		return Domain{} // the other messages would have to quote it
	}
	d := Domain{
		Name:       name,
		Listen:     m.listen(path("listen")),
		MaxPeers:   m.count(path("max_peers"), defaultMaxPeers),
		MaxPending: m.count(path("max_pending"), defaultMaxPending),
	}
	m.take(path("listen"), d.Listen, "domain "+name, listens)
	for _, i := range []struct {
		key   string
		field *string
	}{{"wireguard", &d.WireGuard}, {"vxlan", &d.VXLAN}} {
		if _, isSet := m.settings[path(i.key)]; !isSet {
			// A file that did not parse may have it.
			if len(m.unread) == 0 {
				m.fail(here, "domain %s has no %s interface: set %s", name, i.key, path(i.key))
			}
			continue
		}
		value, ok := as[string](m, at(i.key), m.settings[path(i.key)].value)
		switch {
		case !ok:
			continue
		case !validInterfaceName(value):
			m.fail(at(i.key), "%q is no interface name: 1 to %d printable characters without / and :", value, maxInterfaceName)
		case interfaces[value] != "":
			m.fail(at(i.key), "interface %s of domain %s is already used by %s", value, name, interfaces[value])
		}
		interfaces[value] = path(i.key)
		*i.field = value
	}
	if err := d.Addresses.UnmarshalText([]byte(get(m, path("addresses"), d.Addresses.String()))); err != nil {
		m.fail(at("addresses"), "%v", err)
	}
	stale, err := parseDuration(get(m, path("stale_after"), defaultStaleAfter.String()))
	if err != nil {
		m.fail(at("stale_after"), "stale_after is %v", err)
	} else if stale < minStaleAfter {
		m.fail(at("stale_after"), "stale_after is %s: under %s it would remove live tunnels", stale, minStaleAfter)
	}
	d.StaleAfter = stale
	return d
}

// take notes that the key makes somebody listen there, where nobody else may.
func (m *merge) take(path string, l Listen, who string, listens map[string]Listen) {
	if l.IsZero() {
		return
	}
	for _, other := range slices.Sorted(maps.Keys(listens)) {
		if l.Overlaps(listens[other]) {
			m.fail(m.settings[path].place, "%s of %s is already taken by %s, %s", l.Where(), who, other, listens[other].Where())
		}
	}
	listens[path] = l
}

// maxSocket is the longest path of a UNIX socket (unix(7)), without the NUL.
const maxSocket = 107

// http checks what HTTP is to do.
func (m *merge) http(domains map[string]Domain, listens map[string]Listen) (h HTTP) {
	at := func(key string) place { return m.settings[keyPath("http", key)].place }
	h.Listen = m.listens("http.listen", listens)
	h.Socket = get(m, "http.socket", "")
	if h.Socket != "" && (!filepath.IsAbs(h.Socket) || filepath.Clean(h.Socket) != h.Socket || len(h.Socket) > maxSocket || !plain(h.Socket, "/_.-")) {
		m.fail(at("socket"), "http.socket is %q: must be an absolute path of at most %d of A-Z a-z 0-9 _ . - and /", h.Socket, maxSocket)
	}
	proxies, hasProxies := m.settings["http.trusted_proxies"]
	trust := func(_ int, text string) {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || prefix.Addr().Is4In6() {
			m.fail(proxies.place, `http.trusted_proxies has %q: must be addresses or networks, such as "192.0.2.1" or "2001:db8::/64"`, text)
			return
		}
		h.TrustedProxies = append(h.TrustedProxies, prefix.Masked())
	}
	if hasProxies {
		m.eachString(proxies.place, proxies.value, trust)
	}
	h.DefaultDomain = get(m, "http.default_domain", "")
	if _, ok := domains[h.DefaultDomain]; !ok && h.DefaultDomain != "" && len(m.unread) == 0 {
		m.fail(at("default_domain"), "http.default_domain is %q: there is no such domain", h.DefaultDomain)
	}
	if len(m.unread) > 0 || h.On() {
		return h
	}
	for _, key := range httpKeys {
		if s, ok := m.settings[keyPath("http", key)]; ok {
			m.fail(s.place, "http has neither listen nor socket, so that nobody can ask it: set http.listen, such as 8080")
			break
		}
	}
	return h
}

// listens is listen for a key that may have several, in an array.
func (m *merge) listens(path string, taken map[string]Listen) (all []Listen) {
	s, ok := m.settings[path]
	if !ok {
		return nil
	}
	values, several := s.value.([]any)
	if !several {
		values = []any{s.value}
	}
	if len(values) == 0 {
		m.fail(s.place, "%s is empty", path)
	}
	for i, value := range values {
		l := m.parseListen(path, s.place, value)
		if name := path; !l.IsZero() {
			if several {
				name = s.place.element(i).path
				m.settings[name] = s // where it is, for take
			}
			m.take(name, l, path, taken)
			all = append(all, l)
		}
	}
	return all
}

// metrics checks where metrics are served.
func (m *merge) metrics(domains map[string]Domain, listens map[string]Listen) (c Metrics) {
	enabled := get(m, "metrics.enabled", true)
	_, isSet := m.settings["metrics.listen"]
	switch {
	case !enabled:
	case isSet:
		c.Listen = m.listens("metrics.listen", listens)
	case len(domains) > 0:
		c.Listen = []Listen{DefaultMetrics}
		for _, path := range slices.Sorted(maps.Keys(listens)) {
			if l := listens[path]; l.Overlaps(DefaultMetrics) && len(m.unread) == 0 {
				m.fail(m.settings[path].place, "%s is taken by metrics, unless metrics.listen is set: %s", l.Where(), DefaultMetrics)
			}
		}
	}
	return c
}

// gateway checks how this gateway is called.
func (m *merge) gateway() (g Gateway) {
	g.Name, g.Address = get(m, "gateway.name", ""), get(m, "gateway.address", "")
	if g.Name != "" && !protocol.ValidName(g.Name) {
		m.fail(m.settings["gateway.name"].place, "gateway.name is %q: "+nameRule, g.Name, protocol.MaxLine)
	}
	if _, err := netip.ParseAddr(g.Address); g.Address != "" && err != nil && (len(g.Address) > protocol.MaxHostName || !plain(g.Address, ".-")) {
		m.fail(m.settings["gateway.address"].place, "gateway.address is %q: must be a host name or an IP address, without a port", g.Address)
	}
	return g
}

// nameRule says what protocol.ValidName takes, for protocol.MaxLine.
const nameRule = "must be 1 to %d of A-Z a-z 0-9 _ . - and begin with a letter, a digit or _"

// plain reports whether the text has only letters and digits of ASCII, and the
// others.
func plain(text, others string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(others, r))
	})
}

// parseDuration is time.ParseDuration with days, which come first: "1d12h". It
// takes no signs.
func parseDuration(s string) (time.Duration, error) {
	const day, maxDays = 24 * time.Hour, 100000 // below the largest Duration
	mistake := fmt.Errorf(`%q: must be a duration such as "1h", "90m", "1d" or "1d12h"`, s)
	var days uint64
	number, rest, found := strings.Cut(s, "d")
	if found {
		var err error
		if days, err = strconv.ParseUint(number, 10, 32); err != nil || days > maxDays {
			return 0, mistake
		}
	} else {
		rest = s
	}
	sum := time.Duration(days) * day
	if found && rest == "" {
		return sum, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-sum {
		return 0, mistake
	}
	return sum + d, nil
}

// listen is a port, or a string with an address.
func (m *merge) listen(path string) Listen {
	s, ok := m.settings[path]
	if !ok {
		return Listen{}
	}
	return m.parseListen(path, s.place, s.value)
}

func (m *merge) parseListen(path string, at place, value any) Listen {
	if text, isText := value.(string); isText {
		l, err := ParseListen(text)
		if err != nil {
			m.fail(at, "%s is %q: %v", path, text, err)
		}
		return l
	}
	n, ok := as[int64](m, at, value)
	if !ok {
		return Listen{}
	}
	if n < 1 || n > math.MaxUint16 {
		m.fail(at, "%d is no TCP port: must be 1 to %d", n, math.MaxUint16)
		return Listen{}
	}
	return Listen{Port: uint16(n)}
}

func (m *merge) count(path string, byDefault int) int {
	n := get(m, path, int64(byDefault))
	if n < 1 || n > math.MaxInt32 {
		m.fail(m.settings[path].place, "%d is out of range: must be 1 to %d", n, math.MaxInt32)
		return byDefault
	}
	return int(n)
}

// get is the value of a key, byDefault when it is not set or of another type.
func get[T any](m *merge, path string, byDefault T) T {
	s, ok := m.settings[path]
	if !ok {
		return byDefault
	}
	if v, ok := as[T](m, s.place, s.value); ok {
		return v
	}
	return byDefault
}

// as is the value if it is a T; otherwise it is a mistake.
func as[T any](m *merge, at place, value any) (v T, ok bool) {
	if v, ok = value.(T); !ok {
		m.fail(at, "%s is %s: must be %s", at.path, typeName(value), typeName(any(v)))
	}
	return v, ok
}

func typeName(value any) string {
	switch value.(type) {
	case string:
		return "a string in quotation marks"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "a truth value"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date or a time"
}

// locate notes the line of every key. The decoder gives positions for its own
// errors only.
func (m *merge) locate() {
	m.lines = map[place]int{}
	for _, s := range m.sources {
		m.locateIn(s)
	}
}

func (m *merge) locateIn(s source) {
	var p unstable.Parser
	p.Reset(s.data)
	note := func(n *unstable.Node, path string) { m.lines[place{s.path, path}] = p.Shape(n.Raw).Start.Line }
	// A table is where it is mentioned first.
	openTable := func(n *unstable.Node, parts []string) {
		if _, ok := m.lines[place{s.path, keyPath(parts...)}]; !ok {
			note(n, keyPath(parts...))
		}
	}
	var keyValue func(prefix []string, n *unstable.Node)
	keyValue = func(prefix []string, n *unstable.Node) {
		parts, last := nodeKey(n)
		full := append(slices.Clone(prefix), parts...)
		// Dotted keys and inline tables open tables on the way.
		for i := 1; i < len(full); i++ {
			openTable(last, full[:i])
		}
		name := keyPath(full...)
		note(last, name)
		switch value := n.Value(); value.Kind {
		case unstable.InlineTable:
			for it := value.Children(); it.Next(); {
				keyValue(full, it.Node())
			}
		case unstable.Array:
			for it, i := value.Children(), 0; it.Next(); i++ {
				if it.Node().Kind == unstable.String {
					note(it.Node(), place{path: name}.element(i).path)
				}
			}
		}
	}
	var table []string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			parts, last := nodeKey(e)
			table = parts
			for i := 1; i <= len(table); i++ {
				openTable(last, table[:i])
			}
		case unstable.KeyValue:
			keyValue(table, e)
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
