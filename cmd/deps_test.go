// Package cmd holds the programs. What they may be made of is tested here.
package cmd

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goList runs `go list` with the format for the patterns and returns its lines.
func goList(t *testing.T, format string, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-f", format}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Fields(string(out))
}

// layers are the packages in the order in which they may import: each only what
// is in a line below its own. docs/architecture.md shows the same.
var layers = [][]string{
	{"cmd/wgkex", "cmd/wgkex-handler", "cmd/wgkex-cleanup", "cmd/wgkex-generator", "cmd/wgkex-local", "cmd/wgkex-restore", "cmd/wgkex-http", "cmd/wgkex-metrics", "cmd/wgkex-relay"},
	{"internal/metrics", "internal/mqtt"},
	{"internal/page"},
	{"internal/serve", "internal/apply", "internal/check", "internal/status", "internal/prepare", "internal/generator", "internal/httpd", "internal/relay"},
	{"internal/exchange", "internal/cleanup", "internal/restore", "internal/units", "internal/systemd"},
	{"internal/domain"},
	{"internal/kernel", "internal/config", "internal/counters", "internal/logging", "internal/client", "internal/announce"},
	{"internal/statefile", "internal/clock"},
	{"internal/saved", "internal/httpapi", "internal/gateways"},
	{"internal/message"},
	{"internal/policy", "internal/protocol"},
	{"internal/address", "internal/outcome", "internal/version"},
}

func TestLayers(t *testing.T) {
	level := map[string]int{}
	for i, packages := range layers {
		for _, p := range packages {
			level["wgkex/"+p] = i + 1
		}
	}
	for _, line := range goList(t, `{{$p := .ImportPath}}{{range .Imports}}{{$p}},{{.}} {{end}}{{$p}}, `, "wgkex/internal/...", "wgkex/cmd/...") {
		importer, imported, _ := strings.Cut(line, ",")
		if importer == "wgkex/cmd" || strings.HasSuffix(importer, "test") { // stand-ins for tests
			continue
		}
		if level[importer] == 0 {
			t.Errorf("%s is in no layer", importer)
		}
		if strings.HasPrefix(imported, "wgkex/") && level[imported] <= level[importer] {
			t.Errorf("%s imports %s, which is not below it", importer, imported)
		}
	}
}

// Only internal/kernel speaks netlink, and rules know nothing of the system.
func TestImports(t *testing.T) {
	for _, c := range []struct {
		importers []string
		forbidden []string
	}{
		{slices.Concat(layers[8:]...), []string{"os/exec", "golang.org/x/sys", "github.com"}},
		{slices.Concat(layers[9:]...), []string{"net/http"}}, // which internal/httpapi is about
		{slices.Concat(layers[:6]...), []string{"github.com/vishvananda/netlink", "golang.zx2c4.com/wireguard"}},
		{slices.Concat(layers...), []string{"os/exec"}},
	} {
		for _, importer := range c.importers {
			for _, imported := range goList(t, `{{join .Imports "\n"}}`, "wgkex/"+importer) {
				for _, f := range c.forbidden {
					if imported == f || strings.HasPrefix(imported, f+"/") {
						t.Errorf("%s imports %s", importer, imported)
					}
				}
			}
		}
	}
}

// What a program is made of is what starts with it, and what can have flaws.
func TestModules(t *testing.T) {
	netlink := []string{
		"github.com/coreos/go-systemd/v22", "github.com/mdlayher/genetlink", "github.com/mdlayher/netlink", "github.com/mdlayher/socket",
		"github.com/pelletier/go-toml/v2", "github.com/vishvananda/netlink", "github.com/vishvananda/netns",
		"golang.org/x/crypto", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys", "golang.zx2c4.com/wireguard/wgctrl", "wgkex",
	}
	prometheus := []string{
		"github.com/beorn7/perks", "github.com/cespare/xxhash/v2", "github.com/godbus/dbus/v5", "github.com/munnerz/goautoneg",
		"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/prometheus/common", "github.com/prometheus/procfs",
		"google.golang.org/protobuf",
	}
	for program, want := range map[string][]string{
		"wgkex-handler": netlink,
		"wgkex-cleanup": netlink,
		"wgkex-local":   netlink,
		"wgkex-metrics": slices.Sorted(slices.Values(slices.Concat(netlink, prometheus))),
		"wgkex-restore": netlink,
		"wgkex-http":    {"github.com/coreos/go-systemd/v22", "github.com/pelletier/go-toml/v2", "golang.org/x/sys", "wgkex"},
		"wgkex-relay": {
			"github.com/coreos/go-systemd/v22", "github.com/eclipse/paho.golang", "github.com/gorilla/websocket",
			"github.com/pelletier/go-toml/v2", "golang.org/x/net", "golang.org/x/sys", "wgkex",
		},
		"wgkex-generator": {"github.com/coreos/go-systemd/v22", "github.com/pelletier/go-toml/v2", "golang.org/x/sys", "wgkex"},
	} {
		got := goList(t, "{{with .Module}}{{.Path}}{{end}}", "-deps", "wgkex/cmd/"+program)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s is made of %v, want %v", program, got, want)
		}
	}
}

// "wgkex version --verbose" has the modules of all programs of its package. The relay is in
// another one.
func TestModulesOfCommand(t *testing.T) {
	own := goList(t, "{{with .Module}}{{.Path}}{{end}}", "-deps", "wgkex/cmd/wgkex")
	for _, program := range goList(t, "{{.ImportPath}}", "wgkex/cmd/...") {
		if program == "wgkex/cmd/wgkex-relay" {
			continue
		}
		for _, module := range goList(t, "{{with .Module}}{{.Path}}{{end}}", "-deps", program) {
			if !slices.Contains(own, module) {
				t.Errorf("%s is in %s alone", module, program)
			}
		}
	}
}

// The handler is started for each exchange: what it does not need must not start
// with it.
func TestHandlerPackages(t *testing.T) {
	packages := goList(t, "{{.ImportPath}}", "-deps", "wgkex/cmd/wgkex-handler")
	for _, never := range []string{"crypto/tls", "crypto/x509", "net/http", "os/exec", "text/template"} {
		if slices.Contains(packages, never) {
			t.Errorf("the handler contains %s", never)
		}
	}
}
