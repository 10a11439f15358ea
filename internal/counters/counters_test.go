package counters

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/outcome"

	"golang.org/x/sys/unix"
)

func TestCount(t *testing.T) {
	if len(outcome.Ways) > len(layout{}.results) || len(outcome.Codes) > len(layout{}.results[0]) {
		t.Fatalf("no place for %d codes", len(outcome.Codes))
	}
	path := filepath.Join(t.TempDir(), "counters")
	if got, err := Read(path); err != nil || len(got) != 0 {
		t.Errorf("before the file is there: %v, %v", got, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c, err := Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			for range 1000 {
				c.Count(outcome.TCP, outcome.OK)
				c.Count(outcome.TCP, outcome.Busy)
				c.Count(outcome.HTTP, outcome.Busy)
				c.Count(outcome.TCP, "of no meaning")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := Results{outcome.TCP: {outcome.OK: 8000, outcome.Busy: 8000}, outcome.HTTP: {outcome.Busy: 8000}}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if total := got.Total(); !reflect.DeepEqual(total, map[outcome.Code]uint64{outcome.OK: 8000, outcome.Busy: 16000}) {
		t.Errorf("in total %v", total)
	}
}

// Files that are not ours: reading says so in one line, and counting begins
// anew without touching what a link leads to.
func TestForeign(t *testing.T) {
	valid := append(ours.bytes(), make([]byte, size-len(ours.bytes()))...)
	change := func(at int, b byte) []byte {
		data := slices.Clone(valid)
		data[at] ^= b
		return data
	}
	old := make([]byte, 19*8) // the layout without a header
	old[0] = 7
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	for name, put := range map[string]func(path string) error{
		"old layout":    func(path string) error { return os.WriteFile(path, old, 0o644) },
		"short":         func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) },
		"half-written":  func(path string) error { return os.WriteFile(path, valid[:size/2], 0o644) },
		"long":          func(path string) error { return os.WriteFile(path, append(slices.Clone(valid), 0), 0o644) },
		"other magic":   func(path string) error { return os.WriteFile(path, change(0, 1), 0o644) },
		"newer version": func(path string) error { return os.WriteFile(path, change(8, 3), 0o644) },
		"another size":  func(path string) error { return os.WriteFile(path, change(12, 1), 0o644) },
		"huge and sparse": func(path string) error {
			return errors.Join(os.WriteFile(path, valid, 0o644), os.Truncate(path, 1<<40))
		},
		"FIFO": func(path string) error { return unix.Mkfifo(path, 0o644) },
		"link": func(path string) error {
			return errors.Join(os.WriteFile(other, valid, 0o644), os.Symlink(other, path))
		},
		"link to nowhere": func(path string) error { return os.Symlink(filepath.Join(dir, "nowhere"), path) },
		"link to itself":  func(path string) error { return os.Symlink(path, path) },
		"socket": func(path string) error {
			listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
			if err == nil {
				listener.SetUnlinkOnClose(false)
				err = listener.Close()
			}
			return err
		},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := put(path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := Read(path); !errors.Is(err, errForeign) || !strings.HasPrefix(err.Error(), path+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s was read: %v, %v", name, got, err)
		}
		c, err := Open(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Count(outcome.TCP, outcome.Busy)
		c.Close()
		if got, err := Read(path); err != nil || !reflect.DeepEqual(got, Results{outcome.TCP: {outcome.Busy: 1}}) {
			t.Errorf("%s: counted %v, %v", name, got, err)
		}
	}
	if data, err := os.ReadFile(other); err != nil || !slices.Equal(data, valid) {
		t.Errorf("what the link leads to is %x, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was made through a link")
	}

	// A directory stays, and is an error for both.
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "directory")); !errors.Is(err, unix.EISDIR) {
		t.Errorf("opening a directory: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "directory")); !errors.Is(err, unix.EISDIR) {
		t.Errorf("reading a directory: %v", err)
	}
}

// A file whose maker was killed before it was whole becomes ours.
func TestUnfinished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	for _, n := range []int{0, size} {
		if err := os.WriteFile(path, make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || len(got) != 0 {
			t.Errorf("%d bytes: %v, %v", n, got, err)
		}
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		c.Count(outcome.TCP, outcome.OK)
		c.Close()
		if got, err := Read(path); err != nil || got[outcome.TCP][outcome.OK] != 1 {
			t.Errorf("%d bytes: counted %v, %v", n, got, err)
		}
	}
}

// Whoever changes the layout has to change the version.
func TestLayout(t *testing.T) {
	if size != 1064 || ours.version != 2 {
		t.Errorf("size %d of version %d", size, ours.version)
	}
}

func TestAllowLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	now := time.Unix(1_800_000_000, 0)
	allowed := 0
	var leftOut uint64
	for n := range 3 * logBurst {
		c, err := Open(path) // as each handler does
		if err != nil {
			t.Fatal(err)
		}
		ok, out := c.AllowLog(now.Add(time.Duration(n) * time.Millisecond))
		if ok {
			allowed++
		}
		leftOut += out
		c.Close()
	}
	if allowed != logBurst || leftOut != 0 {
		t.Errorf("%d allowed, %d left out", allowed, leftOut)
	}
	c, _ := Open(path)
	if ok, out := c.AllowLog(now.Add(logWindow)); !ok || out != 2*logBurst {
		t.Errorf("in the next window: %v, %d left out", ok, out)
	}
	if ok, out := c.AllowLog(now.Add(logWindow)); !ok || out != 0 {
		t.Errorf("once more: %v, %d left out", ok, out)
	}
}
