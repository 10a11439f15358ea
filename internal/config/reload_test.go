package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReloading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	loads := 0
	var fail error
	load := reloading(path, func() (Config, error) {
		loads++
		return Config{ReplyOK: loads > 1}, fail
	})
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	for range 3 {
		if cfg, err := load(); err != nil || cfg.ReplyOK {
			t.Errorf("%+v, %v", cfg, err)
		}
	}
	write("2")
	if cfg, err := load(); err != nil || !cfg.ReplyOK || loads != 2 {
		t.Errorf("%+v, %v after %d", cfg, err, loads)
	}
	fail = errors.New("broken")
	write("3")
	for range 2 {
		if _, err := load(); !errors.Is(err, fail) {
			t.Error(err)
		}
	}
}
