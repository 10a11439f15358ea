package restore

import (
	"context"
	"errors"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
)

// Save reads the peers of a domain and saves those that are managed. It returns
// how many it saved.
func Save(ctx context.Context, host domain.Host, c config.Domain, lockTimeout time.Duration) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	d, err := host.Open(ctx, c)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, err := d.Refresh(nil); err != nil {
		return 0, err
	}
	return d.Save()
}
