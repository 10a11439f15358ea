package domain

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"wgkex/internal/kernel"

	"golang.org/x/sys/unix"
)

// Host is what domains live on. There is one, System, but in tests.
type Host struct {
	// Dir holds locks, snapshots and counters.
	Dir string
	// Devices opens the interfaces of a domain.
	Devices func(wireguard, vxlan string) (kernel.Devices, error)
	// Now is the wall clock, which handshakes are told in.
	Now func() time.Time
	// SinceBoot is a clock that nobody sets, for how long something has been.
	SinceBoot func() time.Duration
}

// System is this gateway. tmpfiles.d makes its directory, for the user wgkex to
// write in.
var System = Host{Dir: "/run/wgkex/domains", Devices: kernel.Open, Now: time.Now, SinceBoot: sinceBoot}

// sinceBoot is CLOCK_BOOTTIME (clock_gettime(2)), which goes on during suspend.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every Linux that WireGuard is in has the clock
	}
	return time.Duration(ts.Nano())
}

// Privileged says what an error for want of privileges wants, for whoever runs
// a command by hand. Other errors stay as they are.
func Privileged(err error) error {
	if errors.Is(err, fs.ErrPermission) { // EPERM and EACCES
		return fmt.Errorf("%w (it needs root, or the user wgkex with CAP_NET_ADMIN)", err)
	}
	return err
}
