// Package units says which systemd units a configuration asks for and what
// goes into their drop-ins. The unit files themselves are in units/.
package units

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/protocol"

	"github.com/coreos/go-systemd/v22/unit"
)

const (
	// Target pulls in all that the configuration asks for.
	Target = "wgkex.target"
	// MetricsSocket is where metrics are served.
	MetricsSocket = "wgkex-metrics.socket"
	// LocalSocket is where programs of the gateway ask for exchanges. It is wanted
	// where there are domains.
	LocalSocket = "wgkex-local.socket"
	// Relay tells other gateways of keys. It is wanted where a broker is configured, and
	// is in a package of its own.
	Relay = "wgkex-relay.service"
	// RelaySocket is what Relay hears of. It starts and stops with it, but stays when
	// the relay ends by itself.
	RelaySocket = "wgkex-relay.socket"
	// Firewall bounds what one source may ask of the ports. It runs only where
	// the admin enables it.
	Firewall = "wgkex-firewall.service"
	// Table is the nftables table (family inet) of Firewall. Its sets have what
	// Limits says.
	Table         = "wgkex"
	PortSet       = "ports"
	TunnelPortSet = "tunnel_ports"
	InterfaceSet  = "interfaces"
	// DropIn is the name of the generated file in UNIT.d.
	DropIn = "50-wgkex-generator.conf"
)

// Socket is a socket unit and where the configuration makes it listen.
type Socket struct {
	Unit string
	// Domain is the one that it serves, empty for all.
	Domain string
	Listen []config.Listen
	// HTTP says that HTTP is spoken, Path is that of its UNIX socket, if it has one.
	HTTP bool
	Path string
	// Metrics says that metrics are served there, and no exchange.
	Metrics bool
	// Device is the interface that an HTTP socket is bound to, empty for none. All
	// that it listens on are link-local addresses of the interface then.
	Device string
}

// Sockets are the sockets that the configuration asks for, the shared one
// first.
func Sockets(c config.Config) []Socket {
	var sockets []Socket
	if !c.Listen.IsZero() {
		sockets = append(sockets, Socket{Unit: SocketName(""), Listen: []config.Listen{c.Listen}})
	}
	for _, d := range c.Sorted() {
		if !d.Listen.IsZero() {
			sockets = append(sockets, Socket{Unit: SocketName(d.Name), Domain: d.Name, Listen: []config.Listen{d.Listen}})
		}
	}
	public, devices := Socket{Unit: HTTPName(""), HTTP: true, Path: c.HTTP.Socket}, map[string]Socket{}
	for _, l := range c.HTTP.Listen {
		if device := l.Addr.Zone(); device != "" {
			s := devices[device]
			devices[device] = Socket{Unit: HTTPName(device), HTTP: true, Device: device, Listen: append(s.Listen, l)}
		} else {
			public.Listen = append(public.Listen, l)
		}
	}
	if public.Path != "" || public.Listen != nil {
		sockets = append(sockets, public)
	}
	for _, device := range slices.Sorted(maps.Keys(devices)) {
		sockets = append(sockets, devices[device])
	}
	if c.Metrics.Listen != nil {
		sockets = append(sockets, Socket{Unit: MetricsSocket, Metrics: true, Listen: c.Metrics.Listen})
	}
	return sockets
}

// Limits are what the firewall limits, in ascending order. Port 0, to which nobody
// connects, and interface lo, of which nothing is limited, stand for none: a set of
// nftables is not empty.
type Limits struct {
	// Ports are all, TunnelPorts those where HTTP is served at link-local addresses of
	// Interfaces, be it at all addresses.
	Ports, TunnelPorts []uint16
	Interfaces         []string
}

// LimitsOf is what the configuration asks for.
func LimitsOf(c config.Config) (limits Limits) {
	for _, s := range Sockets(c) {
		for _, l := range s.Listen {
			if l.Addr.IsLoopback() && s.Metrics {
				continue // what comes from the gateway is not limited
			}
			limits.Ports = append(limits.Ports, l.Port)
			switch {
			case s.Device != "":
				limits.TunnelPorts = append(limits.TunnelPorts, l.Port)
				limits.Interfaces = append(limits.Interfaces, s.Device)
			case s.HTTP && !l.Addr.IsValid():
				limits.TunnelPorts = append(limits.TunnelPorts, l.Port)
				for _, d := range c.Sorted() {
					if protocol.ValidName(d.WireGuard) { // others cannot be in a unit
						limits.Interfaces = append(limits.Interfaces, d.WireGuard)
					}
				}
			}
		}
	}
	limits.Ports, limits.TunnelPorts = set(limits.Ports, 0), set(limits.TunnelPorts, 0)
	limits.Interfaces = set(limits.Interfaces, "lo")
	return limits
}

// set is the list in order, each once, or none.
func set[T cmp.Ordered](list []T, none T) []T {
	if list == nil {
		return []T{none}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Equal reports whether both are the same.
func (l Limits) Equal(o Limits) bool {
	return slices.Equal(l.Ports, o.Ports) && slices.Equal(l.TunnelPorts, o.TunnelPorts) && slices.Equal(l.Interfaces, o.Interfaces)
}

// String is the ports, and those in tunnels with their interfaces.
func (l Limits) String() string {
	if slices.Equal(l.Interfaces, []string{"lo"}) {
		return fmt.Sprintf("ports %d", l.Ports)
	}
	return fmt.Sprintf("ports %d, in tunnels %d of %s", l.Ports, l.TunnelPorts, l.Interfaces)
}

// Patterns match the units that the configuration makes run or not.
var Patterns = []string{SocketName(""), SocketName("*"), HTTPName(""), HTTPName("*"), MetricsSocket, LocalSocket, Relay, RelaySocket, TimerName("*")}

// HTTPName is the unit of the addresses on an interface, of all others for "".
func HTTPName(device string) string {
	if device == "" {
		return "wgkex-http.socket"
	}
	return "wgkex-http@" + device + ".socket"
}

// Starter is the unit that starts the socket. It is another one where that is bound to
// an interface.
func (s Socket) Starter() string {
	if s.Device != "" {
		return starterName(s.Device)
	}
	return s.Unit
}

// IsStarter reports whether the unit is a service that starts a socket.
func IsStarter(unit string) bool { return strings.HasPrefix(unit, "wgkex-http-bind@") }

// starterName is the service that starts the socket of an interface whenever that
// appears.
func starterName(device string) string { return "wgkex-http-bind@" + device + ".service" }

// Service is the unit that serves an HTTP socket.
func (s Socket) Service() string { return strings.TrimSuffix(s.Unit, ".socket") + ".service" }

// DeviceUnit is the unit of the interface that the socket is bound to.
func (s Socket) DeviceUnit() string { return deviceName(s.Device) }

// Where is all places where the socket listens, in a sentence.
func (s Socket) Where() string { return strings.Join(s.places(config.Listen.Where), " and ") }

// Given is all places as the unit is given them, and gives them on to wgkex prepare.
func (s Socket) Given() string { return strings.Join(s.places(config.Listen.String), " ") }

// places is all places where the socket listens, each in the words of text.
func (s Socket) places(text func(config.Listen) string) []string {
	var places []string
	for _, l := range s.Listen {
		places = append(places, text(l))
	}
	if s.Path != "" {
		places = append(places, s.Path)
	}
	return places
}

// SocketName is the unit of a domain's own port, of the shared one for "".
func SocketName(domain string) string {
	if domain == "" {
		return "wgkex.socket"
	}
	return "wgkex@" + domain + ".socket"
}

// template is the unit file.
func (s Socket) template() string {
	switch {
	case s.Device != "":
		return "wgkex-http@.socket"
	case s.Domain != "":
		return "wgkex@.socket"
	}
	return s.Unit
}

// dropIn replaces the unit file's placeholder, with which a socket refuses to
// start (systemd.socket(5): an empty ListenStream= resets the list).
func (s Socket) dropIn() string {
	unescaped := strings.NewReplacer("%", "%%") // not a specifier
	text := fmt.Sprintf("# Made by wgkex-generator from the configuration in %s.\n[Socket]\nListenStream=\n", config.Dir)
	for _, place := range s.places(s.stream) {
		text += "ListenStream=" + unescaped.Replace(place) + "\n"
	}
	text += fmt.Sprintf("Environment=\"WGKEX_LISTEN=%s\"\n", unescaped.Replace(s.Given()))
	if s.Device != "" {
		text += "BindToDevice=" + s.Device + "\n"
	}
	if slices.ContainsFunc(s.Listen, func(l config.Listen) bool { return l.Addr.IsValid() }) {
		// The sockets may start before the address is there.
		text += "FreeBind=yes\n"
	}
	return text
}

// stream is a place in the words of ListenStream=. What is bound to an interface has
// no interface in its addresses: systemd would look it up when it reads the unit.
func (s Socket) stream(l config.Listen) string {
	if s.Device != "" {
		return netip.AddrPortFrom(l.Addr.WithZone(""), l.Port).String()
	}
	return l.String()
}

// firewallDropIn tells the firewall what to limit, and has it in place before the
// ports are open.
func firewallDropIn(c config.Config, sockets []Socket) string {
	var names []string
	for _, s := range sockets {
		names = append(names, s.Unit)
	}
	limits := LimitsOf(c)
	var interfaces []string
	for _, name := range limits.Interfaces {
		// In quotation marks: some names are words of nft.
		interfaces = append(interfaces, `\"`+name+`\"`)
	}
	return fmt.Sprintf(`# Made by wgkex-generator from the configuration in %s.
[Unit]
Before=%s
[Service]
Environment="WGKEX_PORTS={ %s }" "WGKEX_TUNNEL_PORTS={ %s }" "WGKEX_INTERFACES={ %s }"
`, config.Dir, strings.Join(names, " "), portList(limits.Ports), portList(limits.TunnelPorts), strings.Join(interfaces, ", "))
}

func portList(ports []uint16) string {
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = strconv.Itoa(int(port))
	}
	return strings.Join(texts, ", ")
}

// Shown is all places as systemd shows them in the property Listen of a socket, such
// as "[::]:10012".
func (s Socket) Shown() []string {
	return s.places(func(l config.Listen) string {
		if !l.Addr.IsValid() {
			return fmt.Sprintf("[::]:%d", l.Port)
		}
		return s.stream(l)
	})
}

// In reports whether the socket's places are among those that systemd shows.
func (s Socket) In(listen []string) bool {
	return !slices.ContainsFunc(s.Shown(), func(place string) bool { return !slices.Contains(listen, place) })
}

// Write writes drop-ins and the target's wants into the directory dir of
// systemd.generator(7).
func Write(c config.Config, dir string) error {
	sockets := Sockets(c)
	for _, s := range sockets {
		if err := writeFile(filepath.Join(dir, s.Unit+".d", DropIn), s.dropIn()); err != nil {
			return err
		}
		who, unit, template := []string{Target}, s.Unit, s.template()
		if s.Device != "" {
			// The socket itself would wait for the interface, and the target for it.
			who, unit, template = append(who, deviceName(s.Device)), s.Starter(), starterName("")
		}
		for _, w := range who {
			if err := want(dir, w, unit, template); err != nil {
				return err
			}
		}
	}
	if len(sockets) > 0 {
		if err := writeFile(filepath.Join(dir, Firewall+".d", DropIn), firewallDropIn(c, sockets)); err != nil {
			return err
		}
	}
	if len(c.Domains) > 0 {
		if err := want(dir, Target, LocalSocket, LocalSocket); err != nil {
			return err
		}
	}
	if c.Relays() {
		if err := writeRelay(c.MQTT, dir); err != nil {
			return err
		}
	}
	for _, d := range c.Sorted() {
		if err := want(dir, Target, TimerName(d.Name), "wgkex-cleanup@.timer"); err != nil {
			return err
		}
		if err := writeRestore(d, dir); err != nil {
			return err
		}
	}
	return nil
}

// writeRelay has the relay started, with the files that it may read.
func writeRelay(m config.MQTT, dir string) error {
	text := "# Made by wgkex-generator from the configuration in " + config.Dir + ".\n[Service]\n"
	for _, c := range m.Credentials() {
		text += fmt.Sprintf("LoadCredential=%s:%s\n", c.Name, c.Path)
	}
	if err := writeFile(filepath.Join(dir, Relay+".d", DropIn), text); err != nil {
		return err
	}
	return want(dir, Target, Relay, Relay)
}

// writeRestore has the domain's peers restored whenever one of its interfaces
// appears or is set up anew, and saved before they go.
func writeRestore(d config.Domain, dir string) error {
	// When systemd-networkd starts it configures WireGuard interfaces anew that it
	// finds, and so removes their peers.
	for _, who := range []string{deviceName(d.WireGuard), deviceName(d.VXLAN), "systemd-networkd.service"} {
		if err := want(dir, who, RestoreName(d.Name), "wgkex-restore@.service"); err != nil {
			return err
		}
	}
	// What else may be in the name of an interface would be escaped in that of a
	// unit, and wg-quick(8) would not know it.
	if strings.ContainsFunc(d.WireGuard, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-", r)
	}) {
		return nil
	}
	const text = "# Made by wgkex-generator from the configuration in " + config.Dir + ".\n[Unit]\nAfter=wg-quick@%[1]s.service\n"
	if err := writeFile(filepath.Join(dir, RestoreName(d.Name)+".d", DropIn), fmt.Sprintf(text, d.WireGuard)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, SaveName(d.Name)+".d", DropIn), fmt.Sprintf(text+"PartOf=wg-quick@%[1]s.service\n", d.WireGuard))
}

// deviceName is the unit of a network interface (systemd.device(5)).
func deviceName(name string) string {
	return unit.UnitNamePathEscape("/sys/subsystem/net/devices/"+name) + ".device"
}

// RestoreName is the service that restores a domain's peers.
func RestoreName(domain string) string { return "wgkex-restore@" + domain + ".service" }

// SaveName is the service that saves a domain's peers when it stops.
func SaveName(domain string) string { return "wgkex-save@" + domain + ".service" }

// TimerName is the timer of a domain's cleanup.
func TimerName(domain string) string { return "wgkex-cleanup@" + domain + ".timer" }

// CleanupName is the service that the timer of a domain's cleanup starts.
func CleanupName(domain string) string { return "wgkex-cleanup@" + domain + ".service" }

// want makes one unit want another, whose file is called template.
func want(dir, who, unit, template string) error {
	wants := filepath.Join(dir, who+".wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Join("/usr/lib/systemd/system", template), filepath.Join(wants, unit))
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
