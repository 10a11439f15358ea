package status

import (
	"context"
	"fmt"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/gateways"
	"wgkex/internal/policy"
)

// Own is what other gateways are told of this one: of each domain that can be read, in
// the order of the names. Warn is told of the others.
func (s Source) Own(ctx context.Context, cfg config.Config) []gateways.Own {
	all := []gateways.Own{}
	s.eachRead(ctx, cfg, func(d *domain.Domain, records []policy.Record) error {
		end, err := d.Kernel.Gateway()
		if err != nil {
			return err
		}
		sinceBoot := s.Host.SinceBoot()
		own := gateways.Own{Domain: d.Config.Name, Port: end.Port, Key: end.Key, Link: end.Addr}
		for _, r := range records {
			if r.State(sinceBoot, d.Config.StaleAfter) == policy.StateLive {
				own.Live++
			}
		}
		all = append(all, own)
		return nil
	})
	return all
}

// Keys tells of the managed peers of each domain that can be read, in the order of the
// names. Warn is told of the others.
func (s Source) Keys(ctx context.Context, cfg config.Config, tell func(domain string, keys []address.Key)) {
	s.eachRead(ctx, cfg, func(d *domain.Domain, records []policy.Record) error {
		var keys []address.Key
		for _, r := range records {
			if r.Kind == policy.Managed {
				keys = append(keys, r.Key)
			}
		}
		tell(d.Config.Name, keys)
		return nil
	})
}

// eachRead calls do with each domain and what is known of its peers, one after the other:
// nobody waits for what this is about.
func (s Source) eachRead(ctx context.Context, cfg config.Config, do func(*domain.Domain, []policy.Record) error) {
	for _, c := range cfg.Sorted() {
		err := s.Host.Locked(ctx, c, OverviewTimeout, func(d *domain.Domain) error {
			records, _, err := s.records(d)
			if err != nil {
				return err
			}
			return do(d, records)
		})
		if err != nil {
			s.Warn(fmt.Errorf("domain %s: %w", c.Name, domain.Privileged(err)))
		}
	}
}
