package generator

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/units"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	good = "listen = 10012\n[domains.d]\nwireguard = 'w'\nvxlan = 'v'\n"
	// sockets is what good asks for, among others.
	sockets = "wgkex.socket.d/" + units.DropIn
)

// load reads a configuration as config.LoadOrEffective does, with earlier as the
// effective one, if there is one.
func load(t *testing.T, text, earlier string) func() (config.Config, bool, error) {
	read := func(text string) (config.Config, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, config.File), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(dir)
		if err != nil {
			err = errors.New(strings.ReplaceAll(err.Error(), dir, config.Dir))
		}
		return c, err
	}
	return func() (config.Config, bool, error) {
		c, err := read(text)
		if err == nil {
			return c, true, nil
		}
		if earlier == "" {
			return config.Config{}, false, err
		}
		before, earlierErr := read(earlier)
		if earlierErr != nil {
			t.Error(earlierErr)
		}
		return before, true, err
	}
}

func TestRun(t *testing.T) {
	const broken = "lisen = 1\nreply = 2\n"
	mistakes := []string{
		"/etc/wgkex/wgkex.toml:1: unknown key lisen",
		"/etc/wgkex/wgkex.toml:2: reply is a whole number",
	}
	for _, c := range []struct {
		name, text, earlier string
		// hinder makes something fail, given the parent of the directories.
		hinder  func(string) error
		ok      bool
		written bool // the socket's drop-in
		kept    bool
		reports []string // their beginnings
	}{
		{"valid", good, "", nil, true, true, true, nil},
		{"empty", "", "", nil, true, false, true, nil},
		{"broken, with an earlier one", broken, good, nil, false, true, false, append(slices.Clone(mistakes), "the configuration is broken: what runs goes on as it was")},
		{"broken", broken, "", nil, false, false, false, append(slices.Clone(mistakes), "the configuration is broken and there is no earlier one: wgkex does not run")},
		{"cannot be kept", good, "", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "run"), nil, 0o644)
		}, false, true, false, []string{"keeping the configuration for the case that it gets broken: mkdir ", "noting when the gateway has booted: mkdir "}},
		{"cannot be written", good, "", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "normal"), nil, 0o644)
		}, false, false, true, []string{"mkdir "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.hinder != nil {
				if err := c.hinder(dir); err != nil {
					t.Fatal(err)
				}
			}
			var reports []string
			normal, effective := filepath.Join(dir, "normal"), filepath.Join(dir, "run", "wgkex", "effective.toml")
			g := Generator{
				Load: load(t, c.text, c.earlier), Effective: effective, Booted: filepath.Join(dir, "run", "wgkex", "booted"),
				SinceBoot: clock.SinceBoot, Report: func(message string) { reports = append(reports, message) },
			}
			if ok := g.Run(normal); ok != c.ok {
				t.Errorf("got %v, want %v", ok, c.ok)
			}
			if !slices.EqualFunc(reports, c.reports, strings.HasPrefix) {
				t.Errorf("reported\n%s\nwant\n%s", strings.Join(reports, "\n"), strings.Join(c.reports, "\n"))
			}
			for path, want := range map[string]bool{filepath.Join(normal, sockets): c.written, effective: c.kept} {
				if got := exists(path); got != want {
					t.Errorf("%s: there is %v, want %v", path, got, want)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// What is kept reads back as the same.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	effective := filepath.Join(dir, config.File)
	g := Generator{
		Load: load(t, good, ""), Effective: effective, Booted: filepath.Join(dir, "booted"),
		Report: func(message string) { t.Error(message) },
	}
	for _, now := range []time.Duration{time.Hour, 2 * time.Hour} { // a boot, and a daemon-reload
		g.SinceBoot = func() time.Duration { return now }
		if !g.Run(t.TempDir()) {
			t.Error("not well")
		}
		if booted := clock.Booted(g.Booted); booted != time.Hour {
			t.Errorf("at %s: booted at %s", now, booted)
		}
	}
	got, err := config.Load(dir)
	if err != nil || got.Listen.Port != 10012 || got.Domains["d"].WireGuard != "w" {
		t.Errorf("got %+v, %v", got, err)
	}
	if info, err := os.Stat(effective); err != nil || info.Mode() != 0o644 {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestReport(t *testing.T) {
	const nowhere = "nowhere"
	for _, c := range []struct {
		name            string
		bySystemd       bool
		container, kmsg bool // whether they exist
		err             string
		kernel, journal bool // whether they have it
	}{
		{"by hand", false, false, true, "wgkex-generator: x\n", false, false},
		{"by hand, in a container", false, true, true, "wgkex-generator: x\n", false, false},
		{"by systemd", true, false, true, "", true, false},
		{"by systemd, in a container", true, true, true, "", false, true},
		{"by systemd, without a kernel's log", true, false, false, "wgkex-generator: x\n", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var err strings.Builder
			var logged []string
			r := Reporter{
				BySystemd: c.bySystemd, Container: filepath.Join(dir, nowhere), Kmsg: filepath.Join(dir, nowhere), Err: &err,
				Log: func(p journal.Priority, message string, _ ...logging.Field) {
					if p != journal.PriErr {
						t.Errorf("priority %d", p)
					}
					logged = append(logged, message)
				},
			}
			for file, path := range map[string]*string{"container": &r.Container, "kmsg": &r.Kmsg} {
				if file == "container" && !c.container || file == "kmsg" && !c.kmsg {
					continue
				}
				*path = filepath.Join(dir, file)
				if err := os.WriteFile(*path, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r.Report("x")
			if err.String() != c.err {
				t.Errorf("standard error %q, want %q", err.String(), c.err)
			}
			if got := slices.Equal(logged, []string{"x"}); got != c.journal || !got && logged != nil {
				t.Errorf("journal %q", logged)
			}
			text, _ := os.ReadFile(filepath.Join(dir, "kmsg"))
			line := string(text)
			if got := strings.HasPrefix(line, "<3>wgkex-generator[") && strings.HasSuffix(line, "]: x\n"); got != c.kernel || !got && line != "" {
				t.Errorf("kernel's log %q", line)
			}
		})
	}
}
