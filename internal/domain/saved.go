package domain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/policy"
	"wgkex/internal/saved"
	"wgkex/internal/statefile"
)

// savedMode is that of the files in SavedDir: nobody needs them but who restores.
const savedMode = 0o600

func (h Host) savedPath(name string) string { return filepath.Join(h.SavedDir, name+".peers") }

// Saved reads the saved peers of a domain. The error is fs.ErrNotExist when there
// are none.
func (h Host) Saved(name string) (file saved.File, err error) {
	err = h.readSaved(name, func(r io.Reader) (err error) {
		file, err = saved.Parse(r)
		return err
	})
	return file, err
}

// SavedSummary is when the peers of a domain were saved, and how many the file says
// that it has. It reads much less than Saved, whose errors it has.
func (h Host) SavedSummary(name string) (at time.Time, peers int, err error) {
	err = h.readSaved(name, func(r io.Reader) (err error) {
		at, peers, err = saved.Summary(r)
		return err
	})
	return at, peers, err
}

func (h Host) readSaved(name string, parse func(io.Reader) error) error {
	f, err := statefile.Open(h.savedPath(name), os.O_RDONLY, saved.MaxSize)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := parse(io.LimitReader(f, saved.MaxSize)); err != nil {
		return fmt.Errorf("%s: %w", h.savedPath(name), err)
	}
	return nil
}

// SavedInfo tells whether the saved peers are still those of another time, by
// os.SameFile: each write makes another file. It is nil where there is none.
func (h Host) SavedInfo(name string) os.FileInfo {
	info, err := os.Lstat(h.savedPath(name))
	if err != nil {
		return nil
	}
	return info
}

// Save saves the managed peers of the State, and returns how many it saved.
//
// Peers in the file that the kernel does not have any more stay there as long as
// they could be restored, but for those that wgkex has removed: they went with
// their interface, or somebody has written WireGuard's configuration anew, and a
// run of the cleanup may come before the restore.
func (d *Domain) Save(removed ...address.Key) (int, error) {
	state, err := d.State()
	if err != nil {
		return 0, err
	}
	if state == nil {
		return 0, fmt.Errorf("the peers of domain %s were not read", d.Config.Name)
	}
	records, err := state.All()
	if err != nil {
		return 0, err
	}
	now := d.Host.SinceBoot()
	file := saved.File{
		Domain: d.Config.Name, Addresses: d.Config.Addresses,
		Saved: d.Host.Now(), BootID: d.Host.BootID(), SinceBoot: now,
	}
	known := make(map[address.Key]bool, len(records)+len(removed))
	for _, key := range removed {
		known[key] = true
	}
	for _, r := range records {
		known[r.Key] = true
		if r.Kind == policy.Managed {
			file.Peers = append(file.Peers, r.Save(now))
		}
	}
	for _, p := range d.lost() {
		if !known[p.Key] {
			known[p.Key] = true
			file.Peers = append(file.Peers, p)
		}
	}
	return len(file.Peers), d.writeSaved(file)
}

// Unsave takes peers out of the saved file, before they are removed: they must not
// come back by a restore. It returns those that were in the file.
func (d *Domain) Unsave(keys ...address.Key) (were []address.Key, err error) {
	file, err := d.Host.Saved(d.Config.Name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, saved.ErrForeign) || errors.Is(err, statefile.ErrForeign) {
		return nil, nil // nothing is restored of it
	}
	if err != nil {
		return nil, err
	}
	file.Peers = slices.DeleteFunc(file.Peers, func(p policy.Saved) bool {
		is := slices.Contains(keys, p.Key)
		if is {
			were = append(were, p.Key)
		}
		return is
	})
	if len(were) == 0 {
		return nil, nil
	}
	return were, d.writeSaved(file)
}

func (d *Domain) writeSaved(f saved.File) error {
	if err := statefile.Write(d.Host.savedPath(d.Config.Name), f.Text(), savedMode); err != nil {
		return fmt.Errorf("saving the peers: %w", err)
	}
	return nil
}

// lost is the peers of the saved file that could still be restored. A file that
// cannot be read has none: it is replaced.
func (d *Domain) lost() []policy.Saved {
	file, err := d.Host.Saved(d.Config.Name)
	if err != nil || !Fits(file, d.Config) {
		return nil
	}
	return d.Host.Restorable(file, d.Config.StaleAfter)
}

// Fits reports whether the file is of the domain, with the same addresses.
func Fits(f saved.File, c config.Domain) bool {
	return f.Domain == c.Name && f.Addresses == c.Addresses
}

// Restorable is the peers of the file that are not gone, as they are now.
func (h Host) Restorable(f saved.File, staleAfter time.Duration) []policy.Saved {
	elapsed := f.Elapsed(h.BootID(), h.Booted(), h.SinceBoot())
	var peers []policy.Saved
	for _, p := range f.Peers {
		p.Silent += elapsed
		if !p.Gone(staleAfter) {
			peers = append(peers, p)
		}
	}
	return peers
}
