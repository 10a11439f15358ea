package statefile

import (
	"os"
	"sync"
)

// Reloaded is a load for who asks often: it reads the file at path again only when that
// was replaced. Several may call it at a time.
func Reloaded[T any](path string, load func() (T, error)) func() (T, error) {
	var mu sync.Mutex
	var read os.FileInfo
	var last T
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		now, err := os.Stat(path)
		if err == nil && read != nil && os.SameFile(now, read) && now.ModTime().Equal(read.ModTime()) {
			return last, nil
		}
		fresh, err := load()
		if err == nil {
			read, last = now, fresh
		}
		return fresh, err
	}
}
