package address

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// DeriveLines writes a line with the key, its MAC and its address, separated by
// tabs, for each line of keys. It goes on after a bad key, so that one line in a
// long list costs only itself. The error joins one for each of these, or says that
// there was no key.
func (p Profile) DeriveLines(keys io.Reader, out io.Writer) error {
	var errs []error
	lines := bufio.NewScanner(keys)
	n := 0
	for lines.Scan() {
		n++
		key, err := ParseKey(lines.Text())
		if err != nil {
			errs = append(errs, fmt.Errorf("key %d: %q is %w", n, lines.Text(), err))
			continue
		}
		mac, addr := p.Of(key)
		if _, err := fmt.Fprintf(out, "%s\t%s\t%s\n", key, mac, addr); err != nil {
			return err
		}
	}
	if n == 0 && lines.Err() == nil {
		return errors.New("no key to derive from")
	}
	return errors.Join(append(errs, lines.Err())...)
}
