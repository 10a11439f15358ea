package counters

import (
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"wgkex/internal/outcome"
)

func TestCount(t *testing.T) {
	if len(outcome.Codes) > len(layout{}.results) {
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
				c.Count(outcome.OK)
				c.Count(outcome.Busy)
				c.Count("of no meaning")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := map[outcome.Code]uint64{outcome.OK: 8000, outcome.Busy: 8000}
	if got, err := Read(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("a short file was read")
	}
	if c, err := Open(path); err != nil {
		t.Error(err)
	} else {
		c.Count(outcome.OK) // the file has its length again
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
