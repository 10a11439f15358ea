//go:build vm

package suite

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// manual is the installed page, such as "wgkex.8", as text without its markup.
func manual(t *testing.T, page string) string {
	t.Helper()
	text := sh(t, "zcat /usr/share/man/man%s/%s.gz", page[len(page)-1:], page)
	return strings.NewReplacer(`\fB`, "", `\fI`, "", `\fR`, "", `\&`, "", `\-`, "-", `\.`, ".", `\`, "").Replace(text)
}

var manuals = []string{"wgkex.8", "wgkex.toml.5", "wgkex.socket.8", "wgkex-handler.8", "wgkex-cleanup.8", "wgkex-firewall.service.8", "wgkex-generator.8", "wgkex-local.8", "wgkex-restore.8", "wgkex-http.8", "wgkex-metrics.8"}

// set is the strings in sorted order, each once.
func set(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// found is what the first group of the pattern matches.
func found(text, pattern string) []string {
	var list []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return set(list)
}

// Every flag of a program is in its page, and none that it does not have.
func TestManualFlags(t *testing.T) {
	for _, c := range []struct{ page, help string }{
		{"wgkex.8", "for c in '' $(wgkex help | sed -n '/^Available Commands:/,/^$/s/^  \\([a-z]*\\) .*/\\1/p'); do wgkex $c --help; done"},
		{"wgkex-handler.8", "/usr/lib/wgkex/wgkex-handler --help"},
		{"wgkex-cleanup.8", "/usr/lib/wgkex/wgkex-cleanup --help"},
		{"wgkex-local.8", "/usr/lib/wgkex/wgkex-local --help"},
		{"wgkex-metrics.8", "/usr/lib/wgkex/wgkex-metrics --help"},
		{"wgkex-restore.8", "/usr/lib/wgkex/wgkex-restore --help"},
		{"wgkex-http.8", "/usr/lib/wgkex/wgkex-http --help"},
		{"wgkex-generator.8", "/usr/lib/systemd/system-generators/wgkex-generator --help"},
	} {
		page := manual(t, c.page)
		// Of other programs, in examples.
		page = regexp.MustCompile(`(?m)^.*(systemctl|journalctl|systemd-run) .*$`).ReplaceAllString(page, "")
		if c.page != "wgkex.8" {
			page = regexp.MustCompile(`wgkex [a-z]+ --[a-z-]+`).ReplaceAllString(page, "")
		}
		documented := found(page, `(?m)(?:^|[ [(,])(--[a-z][a-z-]*)`)
		flags := found(sh(t, "%s", c.help), `(?m)(?:^|[ [,])(--[a-z][a-z-]*)`)
		// Those of the completion's own subcommands are explained by its help.
		for _, also := range []string{"--help", "--version"} {
			if !slices.Contains(documented, also) {
				documented = set(append(documented, also))
			}
			flags = set(append(flags, also))
		}
		if !slices.Equal(documented, flags) {
			t.Errorf("%s names %q, the program %q", c.page, documented, flags)
		}
	}
}

// Every path in the pages is there on a gateway that has served, and every file
// that it has made is in the pages.
func TestManualPaths(t *testing.T) {
	serveHTTP(t, "socket = '/run/wgkex/http.sock'")
	withoutGateway(t)
	relayTo(t, "localhost")
	accept(t, port1, "ffww01", newKey(t))
	refuse(t, port1, "nowhere\n", "INVALID_DOMAIN")
	eventually(t, "the files of the relay", func() bool { _, err := try("ls /run/wgkex/relay/{gateways,stats}.json"); return err == nil })
	sh(t, "systemctl start wgkex-local.socket wgkex-firewall wgkex-cleanup@ffww01.service; install -D /dev/null /etc/wgkex/conf.d/ffww01.toml; touch /etc/wgkex/conf.d/metrics.toml; cp /usr/lib/wgkex/wgkex.nft /etc/wgkex")
	t.Cleanup(func() {
		sh(t, "systemctl stop wgkex-firewall; rm /etc/wgkex/conf.d/ffww01.toml /etc/wgkex/conf.d/metrics.toml /etc/wgkex/wgkex.nft")
	})
	var documented []string
	for _, page := range manuals {
		text := manual(t, page)
		for _, path := range found(text, `((?:/usr|/etc/wgkex|/run|/var|/proc)/[A-Za-z0-9@_./*-]*[A-Za-z0-9*/])`) {
			path = strings.NewReplacer("DOMAIN", "ffww01", "UNIT", "wgkex@ffww01.socket").Replace(path)
			documented = append(documented, path)
			if there, err := filepath.Glob(path); err != nil || len(there) == 0 {
				t.Errorf("%s names %s, which is not there", page, path)
			}
		}
	}
	for _, path := range strings.Fields(sh(t, "find /run/wgkex /var/lib/wgkex -type f -o -type s")) {
		// Other tests' domains have files like those of ffww01.
		path = regexp.MustCompile(`/(domains|lib/wgkex)/[a-z0-9]+\.`).ReplaceAllString(path, "/$1/ffww01.")
		if !slices.Contains(documented, path) {
			t.Errorf("%s is in no page", path)
		}
	}
}

// What a page says that a setting defaults to is what the unit has.
func TestManualDefaults(t *testing.T) {
	property := func(unit, name string) string { return sh(t, "systemctl show -P %s %s", name, unit) }
	for _, c := range []struct{ page, pattern, unit, name string }{
		{"wgkex.socket.8", `MaxConnections=\n(?:.*\n)+?.*How many connections.* Defaults to (\d+)`, "wgkex@ffww01.socket", "MaxConnections"},
		{"wgkex.socket.8", `MaxConnectionsPerSource=\n(?:.*\n)+?.*Defaults to (\d+)`, "wgkex@ffww01.socket", "MaxConnectionsPerSource"},
		{"wgkex.socket.8", `RuntimeMaxSec=\n(?:.*\n)+?.*Defaults to (\d+)`, "wgkex@x.service", "RuntimeMaxUSec"},
		{"wgkex.socket.8", `is ended after (\d+) seconds`, "wgkex@x.service", "RuntimeMaxUSec"},
		{"wgkex.socket.8", `LogLevelMax=\n(?:.*\n)+?.*Defaults to (\w+)`, "wgkex@x.service", "LogLevelMax"},
		{"wgkex.socket.8", `Of the sockets: defaults\s+to\s+(\w+)`, "wgkex@ffww01.socket", "LogLevelMax"},
		{"wgkex.socket.8", `Default to (\w+) and`, "wgkex.slice", "MemoryMax"},
		{"wgkex.socket.8", `Default to \w+ and (\d+)`, "wgkex.slice", "TasksMax"},
		{"wgkex.socket.8", `for one handler,\n(\w+) and`, "wgkex@x.service", "MemoryMax"},
		{"wgkex.socket.8", `for one handler,\n\w+ and (\d+)`, "wgkex@x.service", "TasksMax"},
		{"wgkex-cleanup.8", `TimeoutStartSec=\n(?:.*\n)+?.*Defaults to (\w+)`, "wgkex-cleanup@x.service", "TimeoutStartUSec"},
		{"wgkex-cleanup.8", `MemoryMax=\n(?:.*\n)+?.*Defaults to (\w+)`, "wgkex-cleanup@x.service", "MemoryMax"},
		{"wgkex-http.8", `MemoryMax=\n(?:.*\n)+?.*Defaults to (\w+)`, "wgkex-http.service", "MemoryMax"},
		{"wgkex-http.8", `TasksMax=\n(?:.*\n)+?.*Defaults to (\d+)`, "wgkex-http.service", "TasksMax"},
		{"wgkex-cleanup.8", `(\d+) minutes\s+after boot`, "wgkex-cleanup@x.timer", "OnBootUSec"},
	} {
		m := regexp.MustCompile(c.pattern).FindStringSubmatch(manual(t, c.page))
		if m == nil {
			t.Errorf("%s: nothing like %s", c.page, c.pattern)
			continue
		}
		want := property(c.unit, c.name)
		if c.name == "OnBootUSec" {
			// The suite's own drop-in has changed it.
			want = sh(t, "sed -n 's/^OnBootSec=//p' /lib/systemd/system/wgkex-cleanup@.timer")
		}
		if normal(m[1]) != normal(want) {
			t.Errorf("%s says %s=%s, %s has %s", c.page, c.name, m[1], c.unit, want)
		}
	}
}

// normal writes a number, time, size or level in one way, of those that occur.
func normal(s string) string {
	for from, to := range map[string]string{"64M": "67108864", "512M": "536870912", "2min": "120", "10min": "600", "15min": "15", "notice": "5", "crit": "2"} {
		if s == from {
			return to
		}
	}
	return s
}

// The fields in the journal are those in the pages.
func TestManualJournalFields(t *testing.T) {
	key := newKey(t)
	accept(t, port1, "ffww01", key)
	refuse(t, port1, "nowhere\n", "INVALID_DOMAIN")
	// Two runs remove the key.
	for range 2 {
		cleanup(t, "ffww01", "--mark-age=0s")
	}
	refused := newKey(t)
	sh(t, "wgkex add ffww01 %s; wgkex save ffww01; wg set wg-ffww01 peer %[1]s allowed-ips fd00:94::/64; systemctl start wgkex-restore@ffww01 wgkex-save@ffww01; systemctl stop wgkex-save@ffww01", refused)
	eventually(t, "the end of the restore", func() bool {
		out, _ := try("systemctl is-active wgkex-restore@ffww01")
		return out == "inactive"
	})
	sh(t, "wg set wg-ffww01 peer %s remove", refused)
	for identifier, page := range map[string]string{"wgkex-handler": "wgkex-handler.8", "wgkex-cleanup": "wgkex-cleanup.8", "wgkex-restore": "wgkex-restore.8"} {
		seen := map[string]bool{}
		for name := range strings.FieldsSeq(sh(t, "journalctl -b -t %s -o json | jq -r 'keys[]' | sort -u", identifier)) {
			if strings.HasPrefix(name, "WGKEX_") {
				seen[name] = true
			}
		}
		// Only a flood brings it about.
		if identifier == "wgkex-handler" {
			seen["WGKEX_LEFT_OUT"] = true
		}
		documented := found(manual(t, page), `(WGKEX_[A-Z_]+)=`)
		documented = slices.DeleteFunc(documented, func(name string) bool { return name == "WGKEX_CLEANUP_OPTIONS" })
		if names := slices.Sorted(maps.Keys(seen)); !slices.Equal(names, documented) {
			t.Errorf("%s documents %q, in the journal are %q", page, documented, names)
		}
	}
}
