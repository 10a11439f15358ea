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
// (mmap(2)): counting needs no lock, and the file never grows. All fields but
// the header are for atomic access alone.
type layout struct {
	header header
	// results is in the order of outcome.Ways, then of outcome.Codes.
	results [8][16]uint64
	// window is the number of the current logWindow since 1970, logged and
	// leftOut count its entries.
	window, logged, leftOut uint64
}

// header says what the file is. Whoever changes layout changes version.
type header struct {
	magic   [8]byte
	version uint32
	size    uint32 // of the file, in bytes
}

const size = int(unsafe.Sizeof(layout{}))

var ours = header{magic: [8]byte([]byte("wgkexcnt")), version: 2, size: uint32(size)}

// Counters is an open file of counters.
type Counters struct {
	memory []byte
	*layout
}

// Path is the file for a domain, for "" that of all exchanges without a domain,
// which also bounds the log. No domain's name begins with a dot.
func Path(dir, domain string) string { return filepath.Join(dir, domain+".counters") }

// errForeign is what makes Open replace a file.
var errForeign = errors.New("not a file of counters of this version of wgkex; the next exchange replaces it")

// Open opens the file, and makes it if need be. Counting begins anew when the
// file is not ours, as after an upgrade: /run outlives it.
func Open(path string) (*Counters, error) {
	c, err := open(path)
	if errors.Is(err, errForeign) || errors.Is(err, fs.ErrPermission) { // another user's
		// Removed, not truncated, which would end those with SIGBUS who have it
		// in their memory. Two at a time may lose one count; no harm.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		c, err = open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func open(path string) (*Counters, error) {
	f, err := openFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch err := check(f); {
	case errors.Is(err, errNew):
		// All who find it so do the same to it, which is as good as once.
		if err := begin(f); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	return &Counters{memory: memory, layout: (*layout)(unsafe.Pointer(&memory[0]))}, nil
}

// openFile opens a file, not what a symbolic link leads to, and does not wait
// for the other end of a FIFO.
func openFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a symbolic link, a socket
		return nil, errForeign
	}
	var inner *fs.PathError
	if errors.As(err, &inner) {
		return nil, inner.Err // the path is for the callers to say
	}
	return f, err
}

// errNew says that the file is empty, or was to become ours.
var errNew = errors.New("new")

// check says whether a file is ours.
func check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	if info.Mode().IsRegular() && info.Size() == 0 {
		return errNew
	}
	if !info.Mode().IsRegular() || info.Size() != int64(size) {
		return errForeign
	}
	var found header
	if _, err := f.ReadAt(found.bytes(), 0); err != nil {
		return err
	}
	switch found {
	case ours:
		return nil
	case header{}: // begin did not get further
		return errNew
	}
	return errForeign
}

func (h *header) bytes() []byte {
	return (*[unsafe.Sizeof(*h)]byte)(unsafe.Pointer(h))[:]
}

// begin makes room for the counters: memory without room for it in the file
// would end the process with SIGBUS. Whatever the umask, the group may read them, for
// the metrics.
func begin(f *os.File) error {
	if err := f.Chmod(0o640); err != nil {
		return fmt.Errorf("letting the group read: %w", err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	_, err := f.WriteAt(ours.bytes(), 0)
	return err
}

// Close gives the memory back.
func (c *Counters) Close() error {
	return unix.Munmap(c.memory)
}

// Count counts one outcome.
func (c *Counters) Count(way outcome.Way, code outcome.Code) {
	for i, known := range outcome.Codes {
		if known == code {
			atomic.AddUint64(&c.results[way][i], 1)
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

// Results is the number of outcomes by way and code, without those that never
// came.
type Results map[outcome.Way]map[outcome.Code]uint64

// Total is the number of outcomes by their code alone.
func (r Results) Total() map[outcome.Code]uint64 {
	total := map[outcome.Code]uint64{}
	for _, counts := range r {
		for code, n := range counts {
			total[code] += n
		}
	}
	return total
}

// Read reads a file. One that is not there counts nothing.
func Read(path string) (Results, error) {
	results := Results{}
	f, err := openFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return results, nil
	}
	if err == nil {
		defer f.Close()
		err = check(f)
	}
	if errors.Is(err, errNew) {
		return results, nil
	}
	var l layout
	if err == nil {
		_, err = f.ReadAt((*[size]byte)(unsafe.Pointer(&l))[:], 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, way := range outcome.Ways {
		for i, code := range outcome.Codes {
			if n := l.results[way][i]; n > 0 {
				if results[way] == nil {
					results[way] = map[outcome.Code]uint64{}
				}
				results[way][code] = n
			}
		}
	}
	return results, nil
}
