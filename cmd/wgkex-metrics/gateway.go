package main

import (
	"context"
	"net/http"
	"net/netip"

	"wgkex/internal/check"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// gateway is this one as it is seen from the sandbox, for package check. Systemd is nil
// where there is no D-Bus.
type gateway struct{ systemd *systemd.Manager }

// connect is for metrics.Gateway. It never fails: there is more to see than units.
func connect(ctx context.Context) (check.Gateway, func(), error) {
	manager, err := systemd.ConnectBus(ctx)
	if err != nil {
		return gateway{}, func() {}, nil
	}
	return gateway{manager}, manager.Close, nil
}

func (gateway) WireGuard(name string) (kernel.WireGuard, error) { return kernel.InspectWireGuard(name) }
func (gateway) VXLAN(name string) (kernel.VXLAN, error)         { return kernel.InspectVXLAN(name) }
func (gateway) Limits() (units.Limits, bool, error)             { return check.FirewallLimits() }

func (g gateway) Unit(ctx context.Context, name string) (systemd.Unit, error) {
	if g.systemd == nil {
		return systemd.Unit{}, check.ErrUnseen
	}
	return g.systemd.Unit(ctx, name)
}

func (g gateway) Active(ctx context.Context, patterns ...string) ([]string, error) {
	if g.systemd == nil {
		return nil, check.ErrUnseen
	}
	return g.systemd.Active(ctx, patterns...)
}

// There is no /proc in the sandbox, and no network to try an exchange.

func (gateway) Listeners() ([]systemd.Listener, error) { return nil, check.ErrUnseen }
func (gateway) Owner(uint64) string                    { return "" }

func (gateway) Exchange(context.Context, netip.AddrPort) (string, error) {
	return "", check.ErrUnseen
}

func (gateway) HTTPExchange(context.Context, string, string) (string, error) {
	return "", check.ErrUnseen
}

// Metrics is answered by this process itself.
func (gateway) Metrics(context.Context, netip.AddrPort) (int, error) { return http.StatusOK, nil }
