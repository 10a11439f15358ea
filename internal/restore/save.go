package restore

import (
	"context"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
)

// Save reads the peers of a domain and saves those that are managed. It returns
// how many it saved.
func Save(ctx context.Context, host domain.Host, c config.Domain, lockTimeout time.Duration) (n int, err error) {
	err = host.Locked(ctx, c, lockTimeout, func(d *domain.Domain) error {
		if _, err := d.Refresh(nil); err != nil {
			return err
		}
		n, err = d.Save()
		return err
	})
	return n, err
}
