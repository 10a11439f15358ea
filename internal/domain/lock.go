package domain

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"wgkex/internal/statefile"

	"golang.org/x/sys/unix"
)

// takeLock takes a flock(2), waiting for it until the context is done; then the
// error is the context's. Read access suffices for one.
func takeLock(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := waitForLock(ctx, path)
		if err != nil {
			return nil, err
		}
		// Somebody may have removed the file meanwhile, and others lock a new
		// one.
		if isAt(f, path) {
			return f, nil
		}
		_ = f.Close() // nothing was written to it
	}
}

// isAt reports whether the file is still the one at the path.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

func waitForLock(ctx context.Context, path string) (*os.File, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	locked := make(chan error)
	go func() {
		err := flock(int(f.Fd()))
		select {
		case locked <- err:
		case <-ctx.Done():
			// Nobody waits for it any more. Nothing ends a flock(2) that waits,
			// but the lock is given back as soon as it is there.
			_ = f.Close()
		}
	}()
	select {
	case err = <-locked:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

// openLock opens the lock, and makes it if need be. What is no file of ours is
// never followed or changed.
func openLock(path string) (*os.File, error) {
	for {
		f, err := statefile.Open(path, os.O_RDONLY, maxState)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		f, err = statefile.Create(path, os.O_RDONLY, fileMode)
		if !errors.Is(err, fs.ErrExist) { // somebody else was faster
			return f, err
		}
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
