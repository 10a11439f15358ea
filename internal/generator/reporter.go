package generator

import (
	"fmt"
	"io"
	"os"

	"wgkex/internal/logging"

	"github.com/coreos/go-systemd/v22/journal"
)

// Reporter writes errors to where a generator can. System is the one in use.
type Reporter struct {
	// BySystemd says that systemd runs the generator, not somebody by hand.
	BySystemd bool
	// Container is the file that systemd has in a container alone
	// (https://systemd.io/CONTAINER_INTERFACE).
	Container string
	// Kmsg is the device that writes to the kernel's log.
	Kmsg string
	// Log writes a journal entry.
	Log func(journal.Priority, string, ...logging.Field)
	// Err is standard error.
	Err io.Writer
}

// System is the Reporter of this process. It knows by SYSTEMD_SCOPE whether
// systemd runs it (systemd.generator(7)).
func System() Reporter {
	return Reporter{
		BySystemd: os.Getenv("SYSTEMD_SCOPE") != "",
		Container: "/run/systemd/container",
		Kmsg:      "/dev/kmsg",
		Log:       logging.Log,
		Err:       os.Stderr,
	}
}

// Report writes an error to the kernel's log, whence the journal takes it: at
// boot there is no journal yet (systemd.generator(7)). A container has no
// kernel's log of its own, and its /dev/kmsg leads nowhere: there it goes to the
// journal, which every daemon-reload but that of the boot finds running, and
// wgkex.service reports what is broken at boot. Run by hand, or where there is no
// kernel's log to write to, it writes to standard error.
func (r Reporter) Report(message string) {
	out, prefix := r.Err, "wgkex-generator: "
	if r.BySystemd {
		if _, err := os.Stat(r.Container); err == nil {
			r.Log(journal.PriErr, message)
			return
		}
		if log, err := os.OpenFile(r.Kmsg, os.O_WRONLY, 0); err == nil {
			defer log.Close()
			out, prefix = log, fmt.Sprintf("<%d>wgkex-generator[%d]: ", journal.PriErr, os.Getpid())
		}
	}
	fmt.Fprintf(out, "%s%s\n", prefix, message)
}
