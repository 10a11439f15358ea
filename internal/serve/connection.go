package serve

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/coreos/go-systemd/v22/activation"
)

// Inherited is the connection of an Accept=yes socket (sd_listen_fds(3)).
func Inherited() (*net.TCPConn, error) {
	files := activation.Files(true)
	if len(files) != 1 {
		return nil, fmt.Errorf("%d descriptors from systemd, want one connection", len(files))
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("the descriptor from systemd: %w", err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("the descriptor from systemd is a %T, want a TCP connection", conn)
	}
	return tcp, files[0].Close()
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
