package serve

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// firstFD is the first descriptor that systemd hands over (SD_LISTEN_FDS_START in
// sd_listen_fds(3)).
const firstFD = 3

// Inherited is the connection of an Accept=yes socket (sd_listen_fds(3)), which is
// a *net.TCPConn or a *net.UnixConn. It is written here, since go-systemd's package
// for it brings crypto/tls into a program that is started for each exchange.
func Inherited[Conn net.Conn]() (inherited Conn, err error) {
	if pid := os.Getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return inherited, fmt.Errorf("no connection from systemd: LISTEN_PID is %q", pid)
	}
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return inherited, fmt.Errorf("LISTEN_FDS is %q, want one connection", n)
	}
	file := os.NewFile(firstFD, "connection")
	conn, err := net.FileConn(file) // a copy, not to be inherited
	_ = file.Close()
	if err != nil {
		return inherited, fmt.Errorf("the descriptor from systemd: %w", err)
	}
	inherited, ok := conn.(Conn)
	if !ok {
		return inherited, fmt.Errorf("the descriptor from systemd is a %T, want a %T", conn, inherited)
	}
	return inherited, nil
}

// AddrPort is a TCP address without the IPv6 form of an IPv4 one, which a
// dual-stack socket reports.
func AddrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
