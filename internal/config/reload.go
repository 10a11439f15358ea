package config

import (
	"os"
	"sync"
)

// EffectiveReloaded is a LoadEffective for who asks often: it reads the file again
// only when that was replaced. Several may call it at a time.
func EffectiveReloaded() func() (Config, error) { return reloading(Effective, LoadEffective) }

func reloading(path string, load func() (Config, error)) func() (Config, error) {
	var mu sync.Mutex
	var read os.FileInfo
	var cfg Config
	return func() (Config, error) {
		mu.Lock()
		defer mu.Unlock()
		now, err := os.Stat(path)
		if err == nil && read != nil && os.SameFile(now, read) && now.ModTime().Equal(read.ModTime()) {
			return cfg, nil
		}
		fresh, err := load()
		if err == nil {
			read, cfg = now, fresh
		}
		return fresh, err
	}
}
