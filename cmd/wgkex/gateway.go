package main

import (
	"context"
	"errors"
	"net/netip"

	"wgkex/internal/client"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// gateway is this one, for packages check and apply.
type gateway struct{ *systemd.Manager }

func (gateway) WireGuard(name string) (kernel.WireGuard, error) { return kernel.InspectWireGuard(name) }
func (gateway) VXLAN(name string) (kernel.VXLAN, error)         { return kernel.InspectVXLAN(name) }
func (gateway) Listeners() ([]systemd.Listener, error)          { return systemd.Listeners() }
func (gateway) Owner(inode uint64) string                       { return systemd.Owner(inode) }

func (gateway) Limits() (limits units.Limits, known bool, err error) {
	there, err := kernel.HasTable(units.Table)
	if err != nil {
		return limits, false, err
	}
	if !there {
		return limits, false, kernel.ErrNoTable
	}
	var errs [3]error
	limits.Ports, errs[0] = kernel.PortSet(units.Table, units.PortSet)
	limits.TunnelPorts, errs[1] = kernel.PortSet(units.Table, units.TunnelPortSet)
	limits.Interfaces, errs[2] = kernel.InterfaceSet(units.Table, units.InterfaceSet)
	err = errors.Join(errs[:]...)
	// A copy of the rules that is the admin's own may do without the sets.
	if errors.Is(err, kernel.ErrNoTable) {
		return limits, false, nil
	}
	return limits, err == nil, err
}

func (gateway) HTTPExchange(ctx context.Context, network, address string) (string, error) {
	return client.ProbeHTTP(ctx, network, address)
}

func (gateway) Metrics(ctx context.Context, at netip.AddrPort) (int, error) {
	return client.ProbeMetrics(ctx, at)
}

func (gateway) Exchange(ctx context.Context, at netip.AddrPort) (string, error) {
	answer, err := client.Probe(ctx, at)
	return string(answer), err
}
