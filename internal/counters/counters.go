// Package counters counts the outcomes of exchanges across the processes that
// serve them, and bounds how many of them are logged.
package counters

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"wgkex/internal/outcome"

	"golang.org/x/sys/unix"
)

const (
	// logWindow and logBurst: in each window of so long so many entries are
	// logged, far more than honest routers cause but in a reboot storm.
	logWindow = 10 * time.Second
	logBurst  = 300
)

// layout is the contents of the file, which the processes share as memory
// (mmap(2)): counting needs no lock, and the file never grows. All fields are
// for atomic access alone.
type layout struct {
	results [16]uint64 // in the order of outcome.Codes
	// window is the number of the current logWindow since 1970, logged and
	// leftOut count its entries.
	window, logged, leftOut uint64
}

const size = int(unsafe.Sizeof(layout{}))

// Counters is an open file of counters.
type Counters struct {
	memory []byte
	*layout
}

// Path is the file for a domain, for "" that of all exchanges without a domain,
// which also bounds the log. No domain's name begins with a dot.
func Path(dir, domain string) string { return filepath.Join(dir, domain+".counters") }

// Open opens the file, and makes it if need be.
func Open(path string) (*Counters, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Memory without room for it in the file would end the process with SIGBUS.
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() < int64(size) {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
			return nil, fmt.Errorf("making room in %s: %w", path, err)
		}
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	return &Counters{memory: memory, layout: (*layout)(unsafe.Pointer(&memory[0]))}, nil
}

// Close gives the memory back.
func (c *Counters) Close() error {
	return unix.Munmap(c.memory)
}

// Count counts one outcome.
func (c *Counters) Count(code outcome.Code) {
	for i, known := range outcome.Codes {
		if known == code {
			atomic.AddUint64(&c.results[i], 1)
		}
	}
}

// AllowLog reports whether one more entry may be logged at this time, and how
// many were left out since the last one that might.
func (c *Counters) AllowLog(now time.Time) (ok bool, leftOut uint64) {
	window := uint64(now.Unix() / int64(logWindow.Seconds()))
	if old := atomic.LoadUint64(&c.window); old != window && atomic.CompareAndSwapUint64(&c.window, old, window) {
		atomic.StoreUint64(&c.logged, 0)
	}
	if atomic.AddUint64(&c.logged, 1) > logBurst {
		atomic.AddUint64(&c.leftOut, 1)
		return false, 0
	}
	return true, atomic.SwapUint64(&c.leftOut, 0)
}

// Read is the number of outcomes by their code, without those that never came.
// A file that is not there counts nothing.
func Read(path string) (map[outcome.Code]uint64, error) {
	results := map[outcome.Code]uint64{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return results, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) != size {
		return nil, fmt.Errorf("%s is no file of counters", path)
	}
	l := (*layout)(unsafe.Pointer(&data[0]))
	for i, code := range outcome.Codes {
		if l.results[i] > 0 {
			results[code] = l.results[i]
		}
	}
	return results, nil
}
