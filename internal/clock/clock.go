// Package clock is a clock that several processes have in common and that nobody sets.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is CLOCK_BOOTTIME (clock_gettime(2)), which goes on during suspend.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every Linux that WireGuard is in has the clock
	}
	return time.Duration(ts.Nano())
}
