package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/statefile"
)

// Domain reads one domain with its peers, but for its counters.
func (s Source) Domain(ctx context.Context, c config.Domain) (Domain, error) {
	d, err := s.domain(ctx, c)
	if err != nil {
		return d, domain.Privileged(err)
	}
	return d, nil
}

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
