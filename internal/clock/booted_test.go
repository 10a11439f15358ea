package clock

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestBooted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "booted")
	if got := Booted(path); got != 0 {
		t.Errorf("without a file: %s", got)
	}
	for _, now := range []time.Duration{5 * time.Hour, 6 * time.Hour} { // a boot, and a daemon-reload
		if err := NoteBooted(path, now); err != nil {
			t.Fatal(err)
		}
		if got := Booted(path); got != 5*time.Hour {
			t.Errorf("at %s: %s", now, got)
		}
	}
	for _, text := range []string{"", "x\n", "-1\n", "99999999999999999999\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := Booted(path); got != 0 {
			t.Errorf("%q: %s", text, got)
		}
	}
	if err := NoteBooted(filepath.Join(path, "x"), 0); err == nil {
		t.Error("no error")
	}
}
