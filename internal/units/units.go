// Package units says which systemd units a configuration asks for and what
// goes into their drop-ins. The unit files themselves are in units/.
package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wgkex/internal/config"

	"github.com/coreos/go-systemd/v22/unit"
)

const (
	// Target pulls in all that the configuration asks for.
	Target = "wgkex.target"
	// LocalSocket is where programs of the gateway ask for exchanges. It is wanted
	// where there are domains.
	LocalSocket = "wgkex-local.socket"
	// Firewall bounds what one source may ask of the ports. It runs only where
	// the admin enables it.
	Firewall = "wgkex-firewall.service"
	// Table is the nftables table (family inet) of Firewall, and PortSet the set
	// in it with the ports of the configuration.
	Table   = "wgkex"
	PortSet = "ports"
	// DropIn is the name of the generated file in UNIT.d.
	DropIn = "50-wgkex-generator.conf"
)

// Socket is a socket unit and where the configuration makes it listen.
type Socket struct {
	Unit   string
	Domain string // empty for the shared port
	config.Listen
}

// Sockets are the sockets that the configuration asks for, the shared one
// first.
func Sockets(c config.Config) []Socket {
	var sockets []Socket
	if !c.Listen.IsZero() {
		sockets = append(sockets, Socket{Unit: SocketName(""), Listen: c.Listen})
	}
	for _, d := range c.Sorted() {
		if !d.Listen.IsZero() {
			sockets = append(sockets, Socket{Unit: SocketName(d.Name), Domain: d.Name, Listen: d.Listen})
		}
	}
	return sockets
}

// Ports are the ports that the configuration asks for, in ascending order.
func Ports(c config.Config) []uint16 {
	var ports []uint16
	for _, s := range Sockets(c) {
		ports = append(ports, s.Port)
	}
	slices.Sort(ports)
	return slices.Compact(ports) // of several addresses
}

// Patterns match the units that the configuration makes run or not.
var Patterns = []string{SocketName(""), SocketName("*"), LocalSocket, TimerName("*")}

// SocketName is the unit of a domain's own port, of the shared one for "".
func SocketName(domain string) string {
	if domain == "" {
		return "wgkex.socket"
	}
	return "wgkex@" + domain + ".socket"
}

// dropIn replaces the unit file's placeholder, with which a socket refuses to
// start (systemd.socket(5): an empty ListenStream= resets the list).
func (s Socket) dropIn() string {
	listen := strings.ReplaceAll(s.Listen.String(), "%", "%%") // not a specifier
	text := fmt.Sprintf(`# Made by wgkex-generator from the configuration in %s.
[Socket]
ListenStream=
ListenStream=%s
Environment=WGKEX_LISTEN=%[2]s
`, config.Dir, listen)
	if s.Addr.IsValid() {
		// The sockets may start before the address is there.
		text += "FreeBind=yes\n"
	}
	return text
}

// firewallDropIn tells the firewall the ports, and has it in place before they
// are open.
func firewallDropIn(sockets []Socket) string {
	var names, ports []string
	for _, s := range sockets {
		names = append(names, s.Unit)
		if port := strconv.Itoa(int(s.Port)); !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return fmt.Sprintf(`# Made by wgkex-generator from the configuration in %s.
[Unit]
Before=%s
[Service]
Environment="WGKEX_PORTS={ %s }"
`, config.Dir, strings.Join(names, " "), strings.Join(ports, ", "))
}

// In reports whether the socket's place is among the addresses that systemd
// gives for a socket, such as "[::]:10012".
func (s Socket) In(listen []string) bool {
	return slices.ContainsFunc(listen, func(address string) bool {
		l, err := config.ParseListen(address)
		return err == nil && l == s.Listen
	})
}

// Write writes drop-ins and the target's wants into the directory dir of
// systemd.generator(7).
func Write(c config.Config, dir string) error {
	sockets := Sockets(c)
	for _, s := range sockets {
		if err := writeFile(filepath.Join(dir, s.Unit+".d", DropIn), s.dropIn()); err != nil {
			return err
		}
		template := "wgkex.socket"
		if s.Domain != "" {
			template = "wgkex@.socket"
		}
		if err := want(dir, Target, s.Unit, template); err != nil {
			return err
		}
	}
	if len(sockets) > 0 {
		if err := writeFile(filepath.Join(dir, Firewall+".d", DropIn), firewallDropIn(sockets)); err != nil {
			return err
		}
	}
	if len(c.Domains) > 0 {
		if err := want(dir, Target, LocalSocket, LocalSocket); err != nil {
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
