package check

import (
	"errors"

	"wgkex/internal/kernel"
	"wgkex/internal/units"
)

// FirewallLimits reads what the firewall of this gateway limits, for Gateway. It needs
// CAP_NET_ADMIN.
func FirewallLimits() (limits units.Limits, known bool, err error) {
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
