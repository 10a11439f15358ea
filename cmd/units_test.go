package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// systemCalls are the names in x/sys of the system calls of Linux on the architecture.
func systemCalls(t *testing.T, arch string) map[string]bool {
	t.Helper()
	directory := goList(t, "{{.Dir}}", "golang.org/x/sys/unix")[0]
	calls := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\tSYS_(\w+) += \d+$`).FindAllStringSubmatch(read(t, filepath.Join(directory, "zsysnum_linux_"+arch+".go")), -1) {
		calls[strings.ToLower(m[1])] = true
	}
	return calls
}

// What the units allow are system calls of both architectures: systemd ignores a name
// that there is not on its own, and the program would do without that call.
func TestSystemCallsOfUnits(t *testing.T) {
	units, err := filepath.Glob("../units/*.*")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]map[string]bool{"amd64": systemCalls(t, "amd64"), "arm64": systemCalls(t, "arm64")}
	for arch, other := range map[string]string{"amd64": "open", "arm64": "openat2"} {
		if len(calls[arch]) < 250 || !calls[arch][other] || calls["arm64"]["open"] {
			t.Fatalf("the %d calls of %s are not read right", len(calls[arch]), arch)
		}
	}
	lists := 0
	for _, unit := range units {
		if info, err := os.Stat(unit); err != nil || info.IsDir() {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(.*)`).FindAllStringSubmatch(read(t, unit), -1) {
			for name := range strings.FieldsSeq(strings.TrimPrefix(m[1], "~")) {
				if strings.HasPrefix(name, "@") {
					continue // systemd's own lists, which know the architectures
				}
				lists++
				for arch := range calls {
					if !calls[arch][name] {
						t.Errorf("%s allows %s, which is no system call of %s", unit, name, arch)
					}
				}
			}
		}
	}
	if lists == 0 {
		t.Error("no unit allows anything")
	}
}

// Go does on both architectures what it does by the same calls, so a list that is tried
// in a VM of the one is right on the other: but for arch_prctl, which systemd always
// allows, and setitimer, which is for profiles alone.
func TestSystemCallsOfGo(t *testing.T) {
	root := goList(t, "{{.Root}}", "runtime")[0]
	called := func(arch string) map[string]bool {
		all := map[string]bool{}
		for _, file := range []string{"runtime/sys_linux_" + arch + ".s", "internal/runtime/syscall/linux/defs_linux_" + arch + ".go"} {
			for _, m := range regexp.MustCompile(`\bSYS_(\w+)\s+=?\s*\d+`).FindAllStringSubmatch(read(t, filepath.Join(root, "src", file)), -1) {
				all[strings.ToLower(m[1])] = true
			}
		}
		return all
	}
	amd64, arm64 := called("amd64"), called("arm64")
	if !arm64["mmap"] || !arm64["epoll_pwait"] {
		t.Errorf("the calls of Go's runtime are not read right: %v", arm64)
	}
	for call := range arm64 {
		if !amd64[call] && call != "setitimer" {
			t.Errorf("Go's runtime calls %s on arm64 and not on amd64: do the units allow it?", call)
		}
	}
}

// Where dpkg works on another root (dpkg --root with --force-script-chrootless), the
// scripts of the packages touch nothing of this one.
func TestMaintainerScriptsAnotherRoot(t *testing.T) {
	path := regexp.MustCompile(`(^|[\s"'=])(/(?:etc|run|usr|var)/[^\s"';)]*)`)
	prefixed := 0
	for _, pattern := range []string{"*.preinst", "*.postinst", "*.prerm", "*.postrm"} {
		scripts, err := filepath.Glob("../packaging/debian/" + pattern)
		if err != nil || len(scripts) == 0 {
			t.Fatalf("%d scripts %s (%v)", len(scripts), pattern, err)
		}
		for _, script := range scripts {
			for i, line := range strings.Split(read(t, script), "\n") {
				if strings.HasPrefix(strings.TrimSpace(line), "#") {
					continue
				}
				prefixed += strings.Count(line, "${DPKG_ROOT:-}")
				for _, m := range path.FindAllStringSubmatch(line, -1) {
					// They ask for it where DPKG_ROOT is empty alone.
					if m[2] != "/run/systemd/system" || !strings.Contains(line, `[ -z "${DPKG_ROOT:-}" ]`) {
						t.Errorf("%s, line %d: %s is without ${DPKG_ROOT:-}", script, i+1, m[2])
					}
				}
			}
		}
	}
	if prefixed == 0 {
		t.Error("no script uses DPKG_ROOT")
	}
}
