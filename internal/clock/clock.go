// Package clock is a clock that several processes have in common and that nobody sets.
package clock

import (
	"os"
	"strconv"
	"strings"
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

// BootedFile says when this gateway has booted, in nanoseconds of SinceBoot. In a container
// that clock is the machine's, which may have booted long before (time_namespaces(7) could
// change that, and systemd-nspawn(1) does not use them).
const BootedFile = "/run/wgkex/booted"

// BootedText is what is in the file.
func BootedText(booted time.Duration) []byte {
	return []byte(strconv.FormatInt(int64(booted), 10) + "\n")
}

// Booted is what the file says. Without one it is 0, when the machine has booted.
func Booted(path string) time.Duration {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	booted, err := strconv.ParseInt(strings.TrimSuffix(string(text), "\n"), 10, 64)
	if err != nil || booted < 0 {
		return 0
	}
	return time.Duration(booted)
}
