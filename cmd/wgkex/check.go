package main

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"

	"wgkex/internal/check"
	"wgkex/internal/config"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var dir string
	var configOnly bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, interfaces, units and ports",
		Long: "Prints a line for each thing that was looked at: ok, a warning, or FAILED if routers\n" +
			"cannot be served, with what to do about it. Exits with status 1 if anything failed.\n" +
			"Mistakes in the configuration are reported with file and line.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := checker{out: cmd.OutOrStdout(), dir: dir}
			if c.config() && !configOnly {
				c.gateway(cmd.Context())
			}
			return c.err()
		},
	}
	cmd.Flags().StringVar(&dir, "config", config.Dir, "directory of the configuration")
	cmd.Flags().BoolVar(&configOnly, "config-only", false, "look at the configuration alone, as before installing it")
	return cmd
}

// checker prints what is found.
type checker struct {
	out    io.Writer
	dir    string
	cfg    config.Config
	failed int
}

func (c *checker) report(f check.Finding) {
	if f.Level == check.Failed {
		c.failed++
	}
	fmt.Fprintln(c.out, f)
}

func (c *checker) fail(format string, args ...any) {
	c.report(check.Finding{Level: check.Failed, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) err() error {
	if c.failed > 0 {
		return fmt.Errorf("%d of the checks failed", c.failed)
	}
	return nil
}

// where tells where the configuration sets a key.
func (c *checker) where(parts ...string) config.Position { return config.Locate(c.dir, parts...) }

// config checks the configuration by itself and reports whether it is good.
func (c *checker) config() bool {
	var err error
	if c.cfg, err = config.Load(c.dir); err != nil {
		for line := range strings.Lines(err.Error()) {
			c.fail("%s", strings.TrimSuffix(line, "\n"))
		}
		return false
	}
	for _, f := range check.Config(c.cfg, c.where) {
		c.report(f)
	}
	if c.failed > 0 {
		return false
	}
	c.report(check.Finding{Text: fmt.Sprintf("configuration in %s, domains: %d", c.dir, len(c.cfg.Domains))})
	return true
}

// current reports whether the configuration is that of the last daemon-reload.
func (c *checker) current() bool {
	effective, err := config.LoadEffective()
	return err == nil && reflect.DeepEqual(effective, c.cfg)
}

// gateway checks everything else.
func (c *checker) gateway(ctx context.Context) {
	manager, err := systemd.Connect(ctx)
	if err != nil {
		c.fail("%v (it needs root)", err)
		return
	}
	defer manager.Close()
	if !c.current() {
		c.fail("configuration in %s: changed since the last daemon-reload: run wgkex apply", c.dir)
	}
	check.Run(ctx, gateway{manager}, c.cfg, c.where, c.report)
}
