package status

import (
	"errors"
	"fmt"
	"io/fs"

	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/statefile"
)

// History is how far the counters of a domain were over the last day, empty where cleanup
// has not kept anything yet.
func (s Source) History(name string) (counters.History, error) {
	path := counters.HistoryPath(s.Host.Dir, name)
	text, err := statefile.Read(path, counters.MaxHistory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var h counters.History
	if err == nil {
		if h, err = counters.ParseHistory(text); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("history of the counters: %w", domain.Privileged(err))
	}
	return h, nil
}
