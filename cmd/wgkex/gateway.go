package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"

	"golang.org/x/sys/unix"
)

// gateway is this one, for packages check and apply.
type gateway struct{ *systemd.Manager }

func (gateway) WireGuard(name string) (kernel.WireGuard, error) { return kernel.InspectWireGuard(name) }
func (gateway) VXLAN(name string) (kernel.VXLAN, error)         { return kernel.InspectVXLAN(name) }
func (gateway) Listeners() ([]systemd.Listener, error)          { return systemd.Listeners() }
func (gateway) Owner(inode uint64) string                       { return systemd.Owner(inode) }

func (gateway) FirewallPorts() (ports []uint16, known bool, err error) {
	there, err := kernel.HasTable(units.Table)
	if err != nil {
		return nil, false, err
	}
	if !there {
		return nil, false, kernel.ErrNoTable
	}
	// A copy of the rules that is the admin's own may do without the set.
	ports, err = kernel.PortSet(units.Table, units.PortSet)
	if errors.Is(err, kernel.ErrNoTable) {
		return nil, false, nil
	}
	return ports, err == nil, err
}

// exchangeTimeout is how long a handler may take to start and to refuse what
// names no domain, on a gateway that has much else to do.
const exchangeTimeout = 30 * time.Second

func (gateway) Exchange(ctx context.Context, at netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	// A connection that is closed at once may not take this any more.
	_, writeErr := io.WriteString(conn, "\n")
	answer, err := io.ReadAll(io.LimitReader(conn, 1024))
	// Closed with what was sent unread, which is silence, too.
	if len(answer) > 0 || errors.Is(err, unix.ECONNRESET) {
		return string(answer), nil
	}
	return "", errors.Join(writeErr, err)
}
