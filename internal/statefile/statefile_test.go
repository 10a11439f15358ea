package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, text := range []string{"one", "a longer second one", ""} {
		if err := Write(path, []byte(text), 0o660); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 100); err != nil || string(got) != text {
			t.Errorf("read %q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o660 {
		t.Errorf("%v, %v, want mode 0660 whatever the umask", info.Mode(), err)
	}
}

// What a killed process has left, or a stranger has put there, is in nobody's
// way, and nothing is written through a link.
func TestWriteOverLeftOvers(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "state"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(string) error{
		"half a file": func(p string) error { return os.WriteFile(p, []byte("ha"), 0o600) },
		"a link":      func(p string) error { return os.Symlink(victim, p) },
		"a FIFO":      func(p string) error { return unix.Mkfifo(p, 0o600) },
	} {
		if err := put(filepath.Join(dir, ".state.new")); err != nil {
			t.Fatal(err)
		}
		if err := Write(path, []byte("new"), 0o600); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("%s: %v is left", name, left)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "whole" {
		t.Errorf("the victim of a link holds %q", got)
	}
}

func TestReadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for name, put := range map[string]func(string) error{
		"a directory":    func(p string) error { return os.Mkdir(p, 0o700) },
		"a FIFO":         func(p string) error { return unix.Mkfifo(p, 0o600) },
		"a link":         func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a long file":    func(p string) error { return os.WriteFile(p, make([]byte, 101), 0o600) },
		"a sparse file":  func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<40)) },
		"a dangling one": func(p string) error { return os.Symlink("nowhere", p) },
	} {
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 100); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(filepath.Join(dir, "none"), 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}
