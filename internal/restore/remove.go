package restore

import (
	"context"
	"errors"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
)

// ErrStatic and ErrUnknown are the errors of peers that Remove leaves alone: one
// that is not wgkex's, and one that is not there.
var (
	ErrStatic  = errors.New("not a peer that wgkex manages")
	ErrUnknown = errors.New("no such peer")
)

// Remove removes peers with all that belongs to them, and takes them out of what
// is saved. It returns the error of each; err says that nothing is certain.
func Remove(ctx context.Context, host domain.Host, c config.Domain, lockTimeout time.Duration, keys []address.Key) (errs []error, err error) {
	err = host.Locked(ctx, c, lockTimeout, func(d *domain.Domain) error {
		errs, err = remove(d, keys)
		return err
	})
	return errs, err
}

func remove(d *domain.Domain, keys []address.Key) (errs []error, err error) {
	survey, err := d.Refresh(nil)
	if err != nil {
		return nil, err
	}
	records := make(map[address.Key]policy.Record, len(survey.Records))
	for _, r := range survey.Records {
		records[r.Key] = r
	}
	// First, so that nobody comes back who was removed, whatever comes between.
	were, err := d.Unsave(keys...)
	if err != nil {
		return nil, err
	}
	errs = make([]error, len(keys))
	var gone []policy.Record
	for i, key := range keys {
		r, there := records[key]
		switch {
		case there && r.Kind == policy.Managed:
			gone = append(gone, r)
			delete(records, key) // or it would be removed twice
		case there:
			errs[i] = ErrStatic
		case !slices.Contains(were, key) && !slices.Contains(keys[:i], key):
			errs[i] = ErrUnknown
		}
	}
	if len(gone) > 0 {
		_, err = d.Remove(gone...)
	}
	return errs, err
}
