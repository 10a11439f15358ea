package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReloaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	loads := 0
	var fail error
	load := Reloaded(path, func() (bool, error) {
		loads++
		return loads > 1, fail
	})
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	for range 3 {
		if again, err := load(); err != nil || again {
			t.Errorf("%v, %v", again, err)
		}
	}
	write("2")
	if again, err := load(); err != nil || !again || loads != 2 {
		t.Errorf("%v, %v after %d", again, err, loads)
	}
	fail = errors.New("broken")
	write("3")
	for range 2 {
		if _, err := load(); !errors.Is(err, fail) {
			t.Error(err)
		}
	}
}
