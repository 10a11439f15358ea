package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/units"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func checkCommand() *cobra.Command {
	var dir string
	var configOnly bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, interfaces and units",
		Long: "Prints a line for each thing that was looked at and exits with status 1 if any is\n" +
			"wrong. Mistakes in the configuration are reported with file and line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := checker{out: cmd.OutOrStdout()}
			cfg, err := config.Load(dir)
			if err != nil {
				for line := range strings.Lines(err.Error()) {
					c.fail("%s", strings.TrimSuffix(line, "\n"))
				}
			} else {
				c.ok("configuration in %s: %d domains", dir, len(cfg.Domains))
			}
			if err == nil && !configOnly {
				for _, d := range cfg.Sorted() {
					c.interfaces(dir, d)
				}
				c.units(cmd.Context(), cfg)
			}
			if c.failed > 0 {
				return fmt.Errorf("%d of the checks failed", c.failed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "config", config.Dir, "directory of the configuration")
	cmd.Flags().BoolVar(&configOnly, "config-only", false, "look at the configuration alone, as before installing it")
	return cmd
}

type checker struct {
	out    io.Writer
	failed int
}

func (c *checker) ok(format string, args ...any) {
	fmt.Fprintf(c.out, "ok: "+format+"\n", args...)
}

func (c *checker) fail(format string, args ...any) {
	c.failed++
	fmt.Fprintf(c.out, "FAILED: "+format+"\n", args...)
}

func (c *checker) interfaces(dir string, d config.Domain) {
	devices, err := kernel.Open(d.WireGuard, d.VXLAN)
	if err != nil {
		c.fail("%s: domain %s: %v", config.Locate(dir, "domains", d.Name), d.Name, err)
		return
	}
	defer devices.Close()
	key, err := devices.PublicKey()
	switch {
	case errors.Is(err, unix.EPERM):
		c.fail("domain %s: reading %s needs root or CAP_NET_ADMIN", d.Name, d.WireGuard)
	case err != nil:
		c.fail("domain %s: %v", d.Name, err)
	case key.IsZero():
		c.fail("domain %s: interface %s has no private key", d.Name, d.WireGuard)
	default:
		c.ok("domain %s: interfaces %s with public key %s, and %s", d.Name, d.WireGuard, key, d.VXLAN)
	}
}

// units compares the sockets as systemd has them with the configuration.
func (c *checker) units(ctx context.Context, cfg config.Config) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		c.fail("units: asking systemd: %v", err)
		return
	}
	defer conn.Close()
	for _, s := range units.Sockets(cfg) {
		state, err := conn.GetUnitPropertyContext(ctx, s.Unit, "ActiveState")
		if err != nil {
			c.fail("%s: %v", s.Unit, err)
			continue
		}
		dropIns, err := conn.GetUnitPropertyContext(ctx, s.Unit, "DropInPaths")
		if err != nil {
			c.fail("%s: %v", s.Unit, err)
			continue
		}
		active, _ := state.Value.Value().(string)
		paths, _ := dropIns.Value.Value().([]string)
		switch port, err := units.GeneratedPort(paths); {
		case errors.Is(err, fs.ErrNotExist) || err == nil && port != s.Port:
			c.fail("%s: port %d is not known to systemd: run systemctl daemon-reload", s.Unit, s.Port)
		case err != nil:
			c.fail("%s: %v", s.Unit, err)
		case active != "active":
			c.fail("%s is %s: run systemctl start %s", s.Unit, strings.TrimSpace(active), s.Unit)
		default:
			c.ok("%s: active on port %d", s.Unit, s.Port)
		}
	}
}
