// Package statefile writes the files that wgkex keeps in /run and /var. They
// are replaced whole or not at all, and a process that is killed leaves at most
// one temporary file for each, which the next one takes over.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Write replaces the file at path. Whoever calls it holds the lock that keeps
// other writers of this path away: they would share the temporary file.
//
// The libraries for atomic files give each temporary file a name of its own, and
// those of killed processes stay for ever.
func Write(path string, data []byte, mode fs.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := Create(temporary, os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync() // else a power cut may leave the new name with nothing in it
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path)) // else a power cut may bring the old file back
	}
	if err != nil {
		_ = os.Remove(temporary) // the error that matters is the first
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Create makes a file that must not exist yet, a symbolic link included. Its
// mode is the given one whatever the umask, and what root makes belongs to the
// owner of the directory, so that the services can use it, too.
func Create(path string, flag int, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, err
	}
	err = f.Chmod(mode)
	if err == nil && os.Geteuid() == 0 {
		err = giveToOwner(f, filepath.Dir(path))
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

func giveToOwner(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s has no owner", dir)
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// ErrForeign is the error for something at the path that is no file of ours.
var ErrForeign = errors.New("not a regular file of ours, of a sensible size")

// Open opens an existing file that is regular, no symbolic link, at most limit
// bytes long, and may be opened so. Everything else that exists is ErrForeign. It
// never waits, as opening a FIFO would.
func Open(path string, flag int, limit int64) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EACCES) && exists(path):
		return nil, fmt.Errorf("%s: %w", path, ErrForeign)
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > limit) {
		err = fmt.Errorf("%s: %w", path, ErrForeign)
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

// exists tells a file without access from a directory without.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Read is the content of a file as Open takes it.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// ReadAs is what parse makes of the content of a file as Open takes it.
func ReadAs[T any](path string, limit int64, parse func([]byte) (T, error)) (read T, err error) {
	text, err := Read(path, limit)
	if err != nil {
		return read, err
	}
	return parse(text)
}
