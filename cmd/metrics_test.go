package cmd

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wgkex/internal/metrics"
)

const (
	rulesFile     = "../packaging/prometheus/wgkex.rules.yml"
	ruleTestsFile = "../packaging/prometheus/wgkex.rules.test.yml"
	dashboardFile = "../packaging/grafana/wgkex.json"
)

// read is the text of a file.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The table of the document has all metrics in their order, with what the code says
// of each.
func TestMetricsInDocuments(t *testing.T) {
	var rows []string
	for line := range strings.Lines(read(t, "../docs/metrics.md")) {
		if strings.HasPrefix(line, "| `wgkex_") {
			rows = append(rows, strings.TrimSuffix(line, "\n"))
		}
	}
	var want []string
	for _, m := range metrics.All {
		labels := make([]string, len(m.Labels))
		for i, label := range m.Labels {
			labels[i] = "`" + label + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", m.Name, m.Type, strings.Join(labels, ", "), m.Help))
	}
	if !slices.Equal(rows, want) {
		t.Errorf("docs/metrics.md has\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
}

// Alerts, dashboard and documents name no metric and no label that there is not.
func TestMetricsInUse(t *testing.T) {
	var names []string
	known := map[string]*metrics.Metric{}
	for _, m := range metrics.All {
		names = append(names, m.Name)
		known[m.Name] = &m
	}
	used := map[string]bool{}
	for _, file := range []string{rulesFile, ruleTestsFile, dashboardFile, "../docs/metrics.md", "../docs/wgkex-metrics.8.scd"} {
		text := strings.ReplaceAll(read(t, file), `\"`, `"`)
		for _, name := range regexp.MustCompile(`\bwgkex_\w+`).FindAllString(text, -1) {
			if !slices.Contains(names, name) {
				t.Errorf("%s names %s, which is no metric", file, name)
			}
			used[name] = used[name] || file == rulesFile || file == dashboardFile
		}
		for _, m := range regexp.MustCompile(`\b(wgkex_\w+)\{([^}]*)\}`).FindAllStringSubmatch(text, -1) {
			for _, label := range regexp.MustCompile(`(\w+)=~?"|(\w+)!=`).FindAllStringSubmatch(m[2], -1) {
				name := label[1] + label[2]
				if metric := known[m[1]]; metric != nil && name != "instance" && name != "job" && !slices.Contains(metric.Labels, name) {
					t.Errorf("%s: %s has no label %s", file, m[1], name)
				}
			}
		}
	}
	for _, name := range []string{"wgkex_peers", "wgkex_exchanges_total", "wgkex_domain_up", "wgkex_config_valid"} {
		if !used[name] {
			t.Errorf("neither alerts nor dashboard use %s", name)
		}
	}
}

// Each alert is in the guide's table, and is tested to fire and not to fire.
func TestAlerts(t *testing.T) {
	group := func(text, pattern string) (all []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	alerts := group(read(t, rulesFile), `alert: (\w+)`)
	if len(alerts) < 10 {
		t.Errorf("only %d alerts", len(alerts))
	}
	if rows := group(read(t, "../docs/operating.md"), "(?m)^\\| `(Wgkex\\w+)` \\|"); !slices.Equal(rows, alerts) {
		t.Errorf("the guide's table has the alerts\n%q\nwant\n%q", rows, alerts)
	}
	tests := read(t, ruleTestsFile)
	fires, silent := group(tests, `alertname: (\w+)\n\s+exp_alerts:\n`), group(tests, `alertname: (\w+)\n\s+exp_alerts: \[\]`)
	for _, alert := range alerts {
		if !slices.Contains(fires, alert) || !slices.Contains(silent, alert) {
			t.Errorf("%s is not tested to fire and not to fire", alert)
		}
	}
	for _, alert := range slices.Concat(fires, silent) {
		if !slices.Contains(alerts, alert) {
			t.Errorf("%s is tested, and is no alert", alert)
		}
	}
}

// The dashboard is JSON, and all of its panels and annotations take their data from
// where the admin says.
func TestDashboard(t *testing.T) {
	type source struct {
		Datasource struct{ UID string }
	}
	var dashboard struct {
		Panels []struct {
			source
			ID      int
			Targets []struct {
				source
				Expr string
			}
		}
		Annotations struct{ List []source }
		Templating  struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	var sources []source
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		sources = append(sources, p.source)
		for _, target := range p.Targets {
			sources = append(sources, target.source)
		}
		if ids[p.ID] {
			t.Errorf("two panels are %d", p.ID)
		}
		ids[p.ID] = true
	}
	for _, s := range append(sources, dashboard.Annotations.List...) {
		if s.Datasource.UID != "${datasource}" {
			t.Errorf("the data of something comes from %q", s.Datasource.UID)
		}
	}
	if len(sources) < 20 || len(dashboard.Annotations.List) == 0 || len(dashboard.Templating.List) != 3 {
		t.Errorf("%d queries, %d annotations, %d variables", len(sources), len(dashboard.Annotations.List), len(dashboard.Templating.List))
	}
}
