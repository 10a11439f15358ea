package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
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

// down is a gateway whose WireGuard interface is down.
type down struct{ *fake }

func (d down) WireGuard(name string) (kernel.WireGuard, error) {
	w, err := d.fake.WireGuard(name)
	w.Up = false
	return w, err
}

// What monitoring reads, absent fields included, stays as it is.
func TestReport(t *testing.T) {
	// report is the JSON about a gateway with a timer that is masked and a WireGuard
	// interface that is down, with DIR for the directory of the configuration.
	report := func(text string) string {
		t.Helper()
		checker, _ := newChecker(t, text)
		checker.Connect = func(context.Context) (Gateway, func(), error) {
			g := newFake()
			g.units[timerName] = systemd.Unit{Load: "masked"}
			return down{g}, func() {}, nil
		}
		if checker.CheckConfig() {
			checker.CheckGateway(t.Context())
		}
		var out strings.Builder
		if err := checker.Report().WriteJSON(&out); err != nil {
			t.Error(err)
		}
		return strings.ReplaceAll(out.String(), checker.Dir, "DIR")
	}
	got := report(goodText)
	const want = `{
  "result": "failed",
  "counts": {
    "ok": 3,
    "warning": 1,
    "failed": 1
  },
  "findings": [
    {
      "level": "ok",
      "text": "configuration in DIR, domains: 1"
    },
    {
      "level": "failed",
      "domain": "ffww01",
      "text": "DIR/wgkex.toml:1: domain ffww01: wgww01 is down: run ip link set wgww01 up",
      "mend": [
        "ip link set wgww01 up"
      ]
    },
    {
      "level": "ok",
      "unit": "wgkex-local.socket",
      "text": "wgkex-local.socket: active"
    },
    {
      "level": "ok",
      "domain": "ffww01",
      "unit": "wgkex@ffww01.socket",
      "text": "wgkex@ffww01.socket: active on port 10013"
    },
    {
      "level": "warning",
      "domain": "ffww01",
      "unit": "wgkex-cleanup@ffww01.timer",
      "text": "wgkex-cleanup@ffww01.timer is masked, so that stale peers of domain ffww01 are not removed: run systemctl unmask wgkex-cleanup@ffww01.timer, then wgkex apply",
      "mend": [
        "systemctl unmask wgkex-cleanup@ffww01.timer",
        "wgkex apply"
      ]
    }
  ]
}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = report("listen = '<'\n")
	const broken = `{
  "result": "failed",
  "counts": {
    "ok": 0,
    "warning": 0,
    "failed": 1
  },
  "findings": [
    {
      "level": "failed",
      "text": "DIR/wgkex.toml:1: listen is \"<\": must be `
	if !strings.HasPrefix(got, broken) {
		t.Errorf("got\n%s\nwant\n%s", got, broken)
	}
	if got, want := fmt.Sprint((&Checker{}).Report()), "{ok {0 0 0} []}"; got != want {
		t.Errorf("of nothing got %s, want %s", got, want)
	}
}

// Each command of a finding is in its text, in the order in which they are to be run.
func TestMend(t *testing.T) {
	var found findings
	found.add(Failed, "%s is masked: run %s, then %s", "x", run("systemctl unmask %s", "x"), apply)
	found.add(Failed, "%s fails", "x")
	want := []Finding{
		{Level: Failed, Text: "x is masked: run systemctl unmask x, then wgkex apply", Mend: []string{"systemctl unmask x", "wgkex apply"}},
		{Level: Failed, Text: "x fails"},
	}
	if !reflect.DeepEqual([]Finding(found), want) {
		t.Errorf("got %+v, want %+v", found, want)
	}
}
