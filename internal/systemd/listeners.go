package systemd

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wgkex/internal/config"
)

// Listener is a TCP socket that listens.
type Listener struct {
	Addr netip.AddrPort
	// Inode identifies the socket.
	Inode uint64
	// Systemd says that process 1 has it: it is that of a socket unit.
	Systemd bool
}

// At is where it listens.
func (l Listener) At() config.Listen {
	at := config.Listen{Addr: l.Addr.Addr().Unmap(), Port: l.Addr.Port()}
	if at.Addr == netip.IPv6Unspecified() {
		at.Addr = netip.Addr{}
	}
	return at
}

// Listeners are all listening TCP sockets of this network namespace. Telling
// whose they are needs root.
func Listeners() ([]Listener, error) {
	inits, err := sockets("/proc/1")
	if err != nil {
		return nil, fmt.Errorf("finding the sockets of systemd: %w", err)
	}
	listeners, err := AnyListeners()
	for i, l := range listeners {
		listeners[i].Systemd = slices.Contains(inits, l.Inode)
	}
	return listeners, err
}

// AnyListeners are the same without telling whose they are, which anybody may ask.
func AnyListeners() ([]Listener, error) {
	var listeners []Listener
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		list, err := parseTable(string(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", table, err)
		}
		listeners = append(listeners, list...)
	}
	return listeners, nil
}

// Closed are the addresses of a socket unit on which systemd does not listen, as
// after a daemon-reload that changed them: then systemd closes the old ones, and
// opens the new ones only when the unit is restarted.
func (u Unit) Closed(listeners []Listener) []string {
	var closed []string
	for _, address := range u.Listen {
		if strings.HasPrefix(address, "/") {
			continue // a UNIX socket, which nobody else takes
		}
		want, err := ParseListen(address)
		if err != nil || !slices.ContainsFunc(listeners, func(l Listener) bool {
			return l.Systemd && l.Addr == netip.AddrPortFrom(want.Addr().WithZone(""), want.Port())
		}) {
			closed = append(closed, address)
		}
	}
	return closed
}

// ParseListen reads an address as systemd shows it in Listen, with the interface
// of a link-local one at its end: "[fe80::1]:10012%eth0" (systemd.socket(5)).
func ParseListen(address string) (netip.AddrPort, error) {
	before, zone, _ := strings.Cut(address, "%")
	at, err := netip.ParseAddrPort(before)
	return netip.AddrPortFrom(at.Addr().WithZone(zone), at.Port()), err
}

// sockets are the inodes of the sockets that a process has open, by its
// directory in /proc.
func sockets(process string) ([]uint64, error) {
	descriptors, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return nil, err
	}
	var inodes []uint64
	for _, d := range descriptors {
		// Such as "socket:[1719]" (proc_pid_fd(5)). One that was closed
		// meanwhile has no link any more.
		target, _ := os.Readlink(filepath.Join(process, "fd", d.Name()))
		number, isSocket := strings.CutPrefix(target, "socket:[")
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); isSocket && err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes, nil
}

// parseTable reads /proc/net/tcp or /proc/net/tcp6 (proc_pid_net(5)): of each
// line's fields the second is the local address, the fourth the state, 0A for
// TCP_LISTEN (include/net/tcp_states.h), and the tenth the inode.
func parseTable(table string) ([]Listener, error) {
	var listeners []Listener
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" {
			continue // the heading, and connections
		}
		addr, err := parseAddress(f[1])
		if err != nil {
			return nil, err
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("inode %q: %w", f[9], err)
		}
		listeners = append(listeners, Listener{Addr: addr, Inode: inode})
	}
	return listeners, nil
}

// parseAddress reads an address and a port in hexadecimal. The address is in
// words of 32 bits, each written as a number of the machine's byte order.
func parseAddress(s string) (netip.AddrPort, error) {
	text, portText, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, err)
	}
	for word := range slices.Chunk(raw[:len(raw)/4*4], 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	port, err := strconv.ParseUint(portText, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address and port", s)
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// Owner is a process that has the socket open, such as "nginx (process 812)",
// empty when none is found.
func Owner(inode uint64) string {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		inodes, err := sockets(process)
		if err != nil || !slices.Contains(inodes, inode) {
			continue // it has ended, or has not this one
		}
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process))
	}
	return ""
}
