// wgkex-generator is the systemd generator that turns the configuration into
// ports of sockets and wants of wgkex.target.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/statefile"
	"wgkex/internal/units"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/journal"
)

const usage = `usage: wgkex-generator NORMAL-DIR [EARLY-DIR LATE-DIR]

Writes the units that the configuration in ` + config.Dir + ` asks for to NORMAL-DIR.
systemd runs it at boot and at each daemon-reload. See wgkex-generator(8).
`

func main() {
	switch {
	case len(os.Args) == 2 && (os.Args[1] == "--help" || os.Args[1] == "-h"):
		fmt.Print(usage)
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Println(version.Version)
	case len(os.Args) != 2 && len(os.Args) != 4:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		if !generate(os.Args[1]) {
			os.Exit(1)
		}
	}
}

// generate reports whether everything went well. A broken configuration
// changes nothing: the last valid one is generated once more, since systemd
// has thrown away what the last run generated.
func generate(dir string) bool {
	cfg, usable, err := config.LoadOrEffective()
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			report(strings.TrimSuffix(line, "\n"))
		}
		if !usable {
			report("the configuration is broken and there is no earlier one: wgkex does not run")
			return false
		}
		report("the configuration is broken: what runs goes on as it was")
	} else if saveErr := save(cfg); saveErr != nil {
		report(fmt.Sprintf("keeping the configuration for the case that it gets broken: %v", saveErr))
	}
	if writeErr := units.Write(cfg, dir); writeErr != nil {
		report(writeErr.Error())
		return false
	}
	return err == nil
}

func save(cfg config.Config) error {
	text, err := cfg.TOML()
	if err != nil {
		return err
	}
	// At boot the generators run before systemd-tmpfiles.
	if err := os.MkdirAll(filepath.Dir(config.Effective), 0o755); err != nil {
		return err
	}
	return statefile.Write(config.Effective, text, 0o644)
}

// report writes an error to the kernel's log, whence the journal takes it: at
// boot there is no journal yet (systemd.generator(7)). A container has no
// kernel's log of its own, and its /dev/kmsg leads nowhere: there it goes to the
// journal, which every daemon-reload but that of the boot finds running, and
// wgkex.service reports what is broken at boot. Run by hand, without systemd's
// SYSTEMD_SCOPE, it writes to standard error.
func report(message string) {
	out, prefix := os.Stderr, "wgkex-generator: "
	if os.Getenv("SYSTEMD_SCOPE") != "" {
		// As in https://systemd.io/CONTAINER_INTERFACE.
		if _, err := os.Stat("/run/systemd/container"); err == nil {
			logging.Log(journal.PriErr, message)
			return
		}
		if log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			defer log.Close()
			out, prefix = log, fmt.Sprintf("<%d>wgkex-generator[%d]: ", journal.PriErr, os.Getpid())
		}
	}
	fmt.Fprintf(out, "%s%s\n", prefix, message)
}
