package domain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"wgkex/internal/clock"
	"wgkex/internal/kernel"
)

// Host is what domains live on. There is one, System, but in tests.
type Host struct {
	// Dir holds locks, states and counters.
	Dir string
	// SavedDir holds the saved peers.
	SavedDir string
	// Devices opens the interfaces of a domain.
	Devices func(wireguard, vxlan string) (kernel.Devices, error)
	// Now is the wall clock, which the kernel tells handshakes in.
	Now func() time.Time
	// SinceBoot is a clock that nobody sets, for how long something has been.
	SinceBoot func() time.Duration
	// BootID tells one boot from another.
	BootID func() string
	// Booted is SinceBoot when the gateway has booted, which may be a container.
	Booted func() time.Duration
}

// System is this gateway. tmpfiles.d makes its directories, for the services to
// write in.
var System = Host{
	Dir: "/run/wgkex/domains", SavedDir: "/var/lib/wgkex", Devices: kernel.Open,
	Now: time.Now, SinceBoot: clock.SinceBoot, BootID: bootID,
	Booted: func() time.Duration { return clock.Booted(clock.BootedFile) },
}

// Clocks reads both: how far the wall clock is from the time since boot, as
// nanoseconds since 1970, and the time since boot. The wall clock comes first, so
// that a pause between the two makes a handshake look later, not earlier.
func (h Host) Clocks() (offset, sinceBoot time.Duration) {
	wall := time.Duration(h.Now().UnixNano())
	sinceBoot = h.SinceBoot()
	return wall - sinceBoot, sinceBoot
}

// fileMode is that of the files in Dir: the services are users of one group.
const fileMode = 0o660

// bootID is the kernel's (random(4)), as systemd writes it: without hyphens.
// The units give it to their processes, which have no /proc.
func bootID() string {
	if id := os.Getenv("WGKEX_BOOT_ID"); id != "" {
		return id
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(string(id)), "-", "")
}

// Privileged says what an error for want of privileges wants, for whoever runs
// a command by hand. Other errors stay as they are.
func Privileged(err error) error {
	if errors.Is(err, fs.ErrPermission) { // EPERM and EACCES
		return fmt.Errorf("%w (it needs root, or the user wgkex with CAP_NET_ADMIN)", err)
	}
	return err
}
