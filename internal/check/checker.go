package check

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"

	"wgkex/internal/config"
)

// Checker prints what is found, a line for each Finding, and counts what failed.
type Checker struct {
	Out io.Writer
	// Dir is the directory of the configuration.
	Dir string
	// Effective reads the configuration of the last daemon-reload
	// (config.LoadEffective).
	Effective func() (config.Config, error)
	// Connect connects to this gateway. Its disconnect ends that.
	Connect func(context.Context) (g Gateway, disconnect func(), err error)

	// Config is what CheckConfig has read.
	Config config.Config

	failed int
}

func (c *Checker) report(f Finding) {
	if f.Level == Failed {
		c.failed++
	}
	fmt.Fprintln(c.Out, f)
}

// Fail reports something that failed.
func (c *Checker) Fail(format string, args ...any) {
	c.report(Finding{Level: Failed, Text: fmt.Sprintf(format, args...)})
}

// Err is an error if anything has failed so far.
func (c *Checker) Err() error {
	if c.failed > 0 {
		return fmt.Errorf("%d of the checks failed", c.failed)
	}
	return nil
}

// where tells where the configuration sets a key.
func (c *Checker) where(parts ...string) config.Position { return config.Locate(c.Dir, parts...) }

// CheckConfig reads the configuration, checks it by itself and reports whether it
// is good.
func (c *Checker) CheckConfig() bool {
	var err error
	if c.Config, err = config.Load(c.Dir); err != nil {
		for line := range strings.Lines(err.Error()) {
			c.Fail("%s", strings.TrimSuffix(line, "\n"))
		}
		return false
	}
	for _, f := range Config(c.Config, c.where) {
		c.report(f)
	}
	if c.failed > 0 {
		return false
	}
	c.report(Finding{Text: fmt.Sprintf("configuration in %s, domains: %d", c.Dir, len(c.Config.Domains))})
	return true
}

// Current reports whether the configuration is that of the last daemon-reload.
func (c *Checker) Current() bool {
	effective, err := c.Effective()
	return err == nil && reflect.DeepEqual(effective, c.Config)
}

// CheckGateway checks everything else, by the configuration that CheckConfig has
// read.
func (c *Checker) CheckGateway(ctx context.Context) {
	g, disconnect, err := c.Connect(ctx)
	if err != nil {
		c.Fail("%v (it needs root)", err)
		return
	}
	defer disconnect()
	if !c.Current() {
		c.Fail("configuration in %s: changed since the last daemon-reload: run wgkex apply", c.Dir)
	}
	Run(ctx, g, c.Config, c.where, c.report)
}
