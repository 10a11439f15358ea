// Package units says which systemd units a configuration asks for and what
// goes into their drop-ins. The unit files themselves are in units/.
package units

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"wgkex/internal/config"
)

const (
	// Target pulls in all that the configuration asks for.
	Target = "wgkex.target"
	// DropIn is the name of the generated file in UNIT.d.
	DropIn = "50-wgkex-generator.conf"
)

// Socket is a socket unit and the port that the configuration gives it.
type Socket struct {
	Unit   string
	Domain string // empty for the shared port
	Port   uint16
}

// Sockets are the sockets that the configuration asks for, the shared one
// first.
func Sockets(c config.Config) []Socket {
	var sockets []Socket
	if c.Listen != 0 {
		sockets = append(sockets, Socket{Unit: SocketName(""), Port: c.Listen})
	}
	for _, d := range c.Sorted() {
		if d.Listen != 0 {
			sockets = append(sockets, Socket{Unit: SocketName(d.Name), Domain: d.Name, Port: d.Listen})
		}
	}
	return sockets
}

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
	return fmt.Sprintf(`# Made by wgkex-generator from the configuration in %s.
[Socket]
ListenStream=
ListenStream=%d
Environment=%[3]s=%[2]d
`, config.Dir, s.Port, portVariable)
}

// portVariable is the environment variable that tells the socket's
// ExecStartPre= which port it got.
const portVariable = "WGKEX_PORT"

// GeneratedPort is the port in the generated one of a socket's drop-ins. It is
// fs.ErrNotExist when there is none.
func GeneratedPort(dropIns []string) (uint16, error) {
	for _, path := range dropIns {
		if filepath.Base(path) != DropIn {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="+portVariable+"="); ok {
				port, err := strconv.ParseUint(value, 10, 16)
				return uint16(port), err
			}
		}
	}
	return 0, fs.ErrNotExist
}

// Write writes drop-ins and the target's wants into the directory dir of
// systemd.generator(7).
func Write(c config.Config, dir string) error {
	for _, s := range Sockets(c) {
		if err := writeFile(filepath.Join(dir, s.Unit+".d", DropIn), s.dropIn()); err != nil {
			return err
		}
		template := "wgkex.socket"
		if s.Domain != "" {
			template = "wgkex@.socket"
		}
		if err := want(dir, s.Unit, template); err != nil {
			return err
		}
	}
	return nil
}

// want makes the target want the unit, whose file is called template.
func want(dir, unit, template string) error {
	wants := filepath.Join(dir, Target+".wants")
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
