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
	for text, want := range map[string]time.Duration{
		string(BootedText(5 * time.Hour)): 5 * time.Hour,
		"":                                0, "x\n": 0, "-1\n": 0, "99999999999999999999\n": 0,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := Booted(path); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
