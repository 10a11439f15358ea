package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wgkex/internal/config"
)

const goodText = "[domains.ffww01]\nwireguard = 'wgww01'\nvxlan = 'vxww01'\nlisten = 10013\n[metrics]\nenabled = false\n"

// newChecker makes a checker of a configuration with this text, which is that of
// the last daemon-reload, too, and of a gateway in order.
func newChecker(t *testing.T, text string) (c *Checker, out *strings.Builder) {
	t.Helper()
	out = new(strings.Builder)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, config.File), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	connected := 0
	t.Cleanup(func() {
		if connected != 0 {
			t.Errorf("%d connections were not ended", connected)
		}
	})
	return &Checker{
		Out: out, Dir: dir,
		Effective: func() (config.Config, error) { return config.Load(dir) },
		Connect: func(context.Context) (Gateway, func(), error) {
			connected++
			return newFake(), func() { connected-- }, nil
		},
	}, out
}

// printed compares what was printed, with DIR for the directory of the
// configuration, and what is the error of it.
func (c *Checker) printed(t *testing.T, out *strings.Builder, want, wantErr string) {
	t.Helper()
	if got := strings.ReplaceAll(out.String(), c.Dir, "DIR"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got := ""
	if err := c.Err(); err != nil {
		got = err.Error()
	}
	if got != wantErr {
		t.Errorf("got %q, want %q", got, wantErr)
	}
}

func TestCheckConfig(t *testing.T) {
	for _, c := range []struct {
		name, text, want, err string
	}{
		{"good", goodText, "ok: configuration in DIR, domains: 1\n", ""},
		{"empty", "", "ok: configuration in DIR, domains: 0\n", ""},
		{
			"mistakes", "lisen = 1\nreply = 2\n",
			"FAILED: DIR/wgkex.toml:1: unknown key lisen\nFAILED: DIR/wgkex.toml:2: reply is a whole number: must be a string in quotation marks\n",
			"2 of the checks failed",
		},
		{
			"a domain that nobody can ask for", "\n[domains.ffww01]\nwireguard = 'wgww01'\nvxlan = 'vxww01'\n",
			"FAILED: DIR/wgkex.toml:2: domain ffww01 has no port, so that no router can ask for it: set domains.ffww01.listen, or listen or http.listen for all domains\n",
			"1 of the checks failed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker, out := newChecker(t, c.text)
			if good := checker.CheckConfig(); good != (c.err == "") {
				t.Errorf("good is %v", good)
			}
			checker.printed(t, out, c.want, c.err)
		})
	}
}

func TestCheckGateway(t *testing.T) {
	const (
		configuration = "ok: configuration in DIR, domains: 1\n"
		changed       = "FAILED: configuration in DIR: changed since the last daemon-reload: run wgkex apply\n"
		active        = "ok: wgkex-local.socket: active\nok: wgkex@ffww01.socket: active on port 10013\nok: wgkex-cleanup@ffww01.timer: active\n"
	)
	allWell := goodOK + "\n" + active
	for _, c := range []struct {
		name      string
		effective config.Config
		none      error // why there is no effective configuration
		systemd   error
		want, err string
	}{
		{"in order", config.Config{}, nil, nil, configuration + allWell, ""},
		{"changed", goodCfg, nil, nil, configuration + changed + allWell, "1 of the checks failed"},
		{"never read", config.Config{}, errors.New("no such file"), nil, configuration + changed + allWell, "1 of the checks failed"},
		{"by a user", config.Config{}, nil, errors.New("asking systemd: permission denied"), configuration + "FAILED: asking systemd: permission denied (it needs root)\n", "1 of the checks failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker, out := newChecker(t, goodText)
			if c.none != nil || c.effective.Domains != nil {
				checker.Effective = func() (config.Config, error) { return c.effective, c.none }
			}
			if c.systemd != nil {
				checker.Connect = func(context.Context) (Gateway, func(), error) { return nil, nil, c.systemd }
			}
			if !checker.CheckConfig() {
				t.Error("the configuration is not good")
			}
			if current := checker.Current(); current != !strings.Contains(c.want, changed) {
				t.Errorf("current is %v", current)
			}
			checker.CheckGateway(t.Context())
			checker.printed(t, out, c.want, c.err)
		})
	}
}
