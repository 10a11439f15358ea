package cleanup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"wgkex/internal/address"

	"github.com/google/renameio/v2"
)

// mark says that a peer was found stale.
type mark struct {
	// At is when, since boot (CLOCK_BOOTTIME), in nanoseconds.
	At time.Duration `json:"at"`
	// LastHandshake is what the peer's last handshake was then, zero for none.
	// Another one now means that the peer is not the one that was marked.
	LastHandshake time.Time `json:"last_handshake"`
}

// marksFile is the file in the state directory.
type marksFile struct {
	// BootID tells whose CLOCK_BOOTTIME the marks are about.
	BootID string               `json:"boot_id"`
	Marks  map[address.Key]mark `json:"marks"`
}

// maxMarksFile is more than the marks of a million peers take.
const maxMarksFile = 128 << 20

// readMarks returns no marks for a file that is not there or of another boot.
// Any other reason for not having them is an error, and there are none then,
// either: without marks nobody is removed.
func readMarks(path, bootID string) (map[address.Key]mark, error) {
	none := map[address.Key]mark{}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return none, nil
	case err != nil:
		return none, err
	case !info.Mode().IsRegular() || info.Size() > maxMarksFile:
		return none, fmt.Errorf("%s is no file of marks", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return none, err
	}
	var f marksFile
	if err := json.Unmarshal(data, &f); err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	if f.BootID != bootID || f.Marks == nil {
		return none, nil
	}
	return f.Marks, nil
}

func writeMarks(path, bootID string, marks map[address.Key]mark) error {
	data, err := json.Marshal(marksFile{BootID: bootID, Marks: marks})
	if err != nil {
		return err
	}
	// renameio puts the file in place whole or not at all. The user wgkex must
	// be able to read what root wrote, in a directory for them alone.
	if err := renameio.WriteFile(path, data, 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("writing the marks: %w", err)
	}
	return nil
}
