package main

import (
	"context"
	"net/netip"

	"wgkex/internal/check"
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

func (gateway) Limits() (units.Limits, bool, error) { return check.FirewallLimits() }

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
