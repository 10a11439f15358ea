package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
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
				c.ok("configuration in %s, domains: %d", dir, len(cfg.Domains))
			}
			if err == nil && !configOnly {
				if effective, err := config.LoadEffective(); err != nil || !reflect.DeepEqual(effective, cfg) {
					c.fail("configuration in %s: changed since the last daemon-reload: run systemctl daemon-reload", dir)
				}
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
	wanted := map[string]bool{}
	for _, s := range units.Sockets(cfg) {
		wanted[s.Unit] = true
		state, listen, err := socketState(ctx, conn, s.Unit)
		switch {
		case err != nil:
			c.fail("%s: %v", s.Unit, err)
		case !s.In(listen):
			c.fail("%s has another port than %s: run systemctl daemon-reload and systemctl restart %s", s.Unit, s.Listen, s.Unit)
		case state != "active":
			c.fail("%s is %s: run systemctl start %s", s.Unit, state, s.Unit)
		// After a daemon-reload with another port systemd has the new one in
		// its properties and none open.
		case !listening(s.Port):
			c.fail("%s does not listen on %s: run systemctl restart %s", s.Unit, s.Where(), s.Unit)
		default:
			c.ok("%s: active on %s", s.Unit, s.Where())
		}
	}
	for _, d := range cfg.Sorted() {
		wanted[units.TimerName(d.Name)] = true
	}
	patterns := []string{units.SocketName(""), units.SocketName("*"), units.TimerName("*")}
	active, err := conn.ListUnitsByPatternsContext(ctx, []string{"active"}, patterns)
	if err != nil {
		c.fail("units: asking systemd: %v", err)
	}
	for _, u := range active {
		if !wanted[u.Name] {
			c.fail("%s is active but not in the configuration: run systemctl stop %s", u.Name, u.Name)
		}
	}
}

// socketState is a socket's ActiveState and the addresses that it listens on
// or would, in the words of org.freedesktop.systemd1(5).
func socketState(ctx context.Context, conn *dbus.Conn, unit string) (state string, listen []string, err error) {
	active, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
	if err != nil {
		return "", nil, err
	}
	property, err := conn.GetUnitTypePropertyContext(ctx, unit, "Socket", "Listen")
	if err != nil {
		return "", nil, err
	}
	var pairs [][]any // of type and address
	if err := property.Value.Store(&pairs); err != nil {
		return "", nil, err
	}
	for _, p := range pairs {
		if len(p) == 2 {
			listen = append(listen, fmt.Sprint(p[1]))
		}
	}
	state, _ = active.Value.Value().(string)
	return state, listen, nil
}

// listening reports whether any socket listens on the TCP port, by the tables
// in proc_net(5): an address in hexadecimal with the port at its end, and the
// state, 0A for TCP_LISTEN (include/net/tcp_states.h).
func listening(port uint16) bool {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "0A" {
				return true
			}
		}
	}
	return false
}
