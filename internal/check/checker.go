package check

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"

	"wgkex/internal/config"
)

// Checker prints what is found, a line for each Finding, and keeps it for a Report.
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

	found findings
}

func (c *Checker) report(f Finding) {
	c.found = append(c.found, f)
	fmt.Fprintln(c.Out, f)
}

// Fail reports something that failed.
func (c *Checker) Fail(format string, args ...any) {
	var found findings
	found.add(Failed, format, args...)
	reportAll(c.report, found)
}

// Err is an error if anything has failed so far.
func (c *Checker) Err() error {
	if n := c.found.counts().Failed; n > 0 {
		return fmt.Errorf("%d of the checks failed", n)
	}
	return nil
}

// Report is what was found so far.
func (c *Checker) Report() Report {
	return Report{Result: c.found.worst(), Counts: c.found.counts(), Findings: append([]Finding{}, c.found...)}
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
	if c.Err() != nil {
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
		c.Fail("configuration in %s: changed since the last daemon-reload: run %s", c.Dir, apply)
	}
	Run(ctx, g, c.Config, c.where, c.report)
}
