// Package generator is what wgkex-generator does: it keeps the configuration for
// all that runs, and has the units written that it asks for.
package generator

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/statefile"
	"wgkex/internal/units"
)

// Generator is one run.
type Generator struct {
	// Load reads the configuration (config.LoadOrEffective).
	Load func() (cfg config.Config, usable bool, err error)
	// Effective is the file that a valid configuration is kept in
	// (config.Effective).
	Effective string
	// Booted is the file that tells when the gateway has booted (clock.BootedFile), and
	// SinceBoot the clock.
	Booted    string
	SinceBoot func() time.Duration
	// Report is told of each error, in a line.
	Report func(message string)
}

// Run generates units in the directory and returns whether everything went well.
// A broken configuration changes nothing: the last valid one is generated once
// more, since systemd has thrown away what the last run generated.
func (g Generator) Run(dir string) bool {
	cfg, usable, err := g.Load()
	well := err == nil
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			g.Report(strings.TrimSuffix(line, "\n"))
		}
		if !usable {
			g.Report("the configuration is broken and there is no earlier one: wgkex does not run")
			return false
		}
		g.Report("the configuration is broken: what runs goes on as it was")
	} else if saveErr := g.save(cfg); saveErr != nil {
		g.Report(fmt.Sprintf("keeping the configuration for the case that it gets broken: %v", saveErr))
		well = false
	}
	if bootedErr := g.noteBooted(); bootedErr != nil {
		g.Report(fmt.Sprintf("noting when the gateway has booted: %v", bootedErr))
		well = false
	}
	if writeErr := units.Write(cfg, dir); writeErr != nil {
		g.Report(writeErr.Error())
		well = false
	}
	return well
}

// noteBooted writes the file at the first run after a boot.
func (g Generator) noteBooted() error {
	if _, err := os.Lstat(g.Booted); err == nil {
		return nil
	}
	return write(g.Booted, clock.BootedText(g.SinceBoot()))
}

func (g Generator) save(cfg config.Config) error {
	text, err := cfg.TOML()
	if err != nil {
		return err
	}
	return write(g.Effective, text)
}

// write writes a file in /run. At boot the generators run before systemd-tmpfiles.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return statefile.Write(path, text, 0o644)
}
