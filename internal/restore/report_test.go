package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"

	"github.com/coreos/go-systemd/v22/journal"
)

// record makes a reporter, and what it tells.
func record() (p *Reporter, out *strings.Builder, logged *[]string) {
	logged, out = new([]string), new(strings.Builder)
	return &Reporter{Domain: "d", Out: out, Log: func(priority journal.Priority, message string, fields ...logging.Field) {
		entry := fmt.Sprint(int(priority), " ", message)
		for _, f := range fields {
			entry += " " + f.Name + "=" + f.Value
		}
		*logged = append(*logged, entry)
	}}, out, logged
}

func TestReporter(t *testing.T) {
	done := Report{Saved: 9, SavedAt: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC), Restored: 5, There: 2, Gone: 1, Refused: 1, Duration: 1234567 * time.Microsecond}
	const summary = "restore of domain d: 9 saved at 2026-11-27T08:00:00Z, 5 restored, 2 there, 1 gone, 1 refused, 1.235s"
	const fields = " SAVED=9 RESTORED=5 THERE=2 GONE=1 REFUSED=1 DURATION_MS=1234 DOMAIN=d"
	damaged := done
	damaged.Damage = errors.New("it is cut")
	half := Report{SavedAt: done.SavedAt}
	key := address.Key{1}
	for what, c := range map[string]struct {
		tell func(*Reporter)
		want []string
	}{
		"done":           {func(p *Reporter) { p.Finished(done, nil) }, []string{"5 " + summary + fields}},
		"damaged":        {func(p *Reporter) { p.Finished(damaged, nil) }, []string{"4 the saved peers of domain d are damaged: it is cut DOMAIN=d", "5 " + summary + fields}},
		"nothing saved":  {func(p *Reporter) { p.Finished(Report{}, nil) }, []string{"5 no peers of domain d are saved DOMAIN=d"}},
		"failed in part": {func(p *Reporter) { p.Finished(done, errors.New("x")) }, []string{"5 " + summary + fields}},
		"failed":         {func(p *Reporter) { p.Finished(half, errors.New("x")) }, nil},
		"saved":          {func(p *Reporter) { p.Saved(3) }, []string{"5 3 peers of domain d saved SAVED=3 DOMAIN=d"}},
		"removed":        {func(p *Reporter) { p.Removed(key) }, []string{"5 removed peer " + key.String() + " of domain d PUBLIC_KEY=" + key.String() + " DOMAIN=d"}},
		"refused": {func(p *Reporter) { p.Refused(key, outcome.Refuse(outcome.Busy, "no place")) }, []string{
			"5 not restored in domain d: peer " + key.String() + ": BUSY: no place PUBLIC_KEY=" + key.String() + " DOMAIN=d",
		}},
	} {
		p, out, logged := record()
		c.tell(p)
		if fmt.Sprint(*logged) != fmt.Sprint(c.want) {
			t.Errorf("%s: logged %q, want %q", what, *logged, c.want)
		}
		if lines := strings.Count(out.String(), "\n"); lines != len(c.want) {
			t.Errorf("%s: printed %q", what, out)
		}
	}
}

// Thousands that are refused do not fill the journal.
func TestManyRefused(t *testing.T) {
	p, _, logged := record()
	for range maxRefusals + 100 {
		p.Refused(address.Key{1}, errors.New("no"))
	}
	if len(*logged) != maxRefusals {
		t.Errorf("%d entries", len(*logged))
	}
}

func TestFailed(t *testing.T) {
	for _, c := range []struct {
		err      error
		priority string
		failed   bool
	}{
		{errors.New("x"), "3 ", true},
		{fmt.Errorf("%w: x", ErrNotReady), "4 ", false},
		{fmt.Errorf("x is %w", kernel.ErrUnfit), "4 ", false},
		{fmt.Errorf("x is %w", config.ErrNoDomain), "5 ", false},
		{fmt.Errorf("%w: %w", ErrNothingToSave, kernel.ErrMissing), "5 ", false},
		{context.Canceled, "5 ", false},
		{context.DeadlineExceeded, "3 ", true},
	} {
		p, _, logged := record()
		if failed := p.Failed(c.err); failed != c.failed || len(*logged) != 1 || !strings.HasPrefix((*logged)[0], c.priority+"domain d: ") {
			t.Errorf("%v: failed %v, logged %q", c.err, failed, *logged)
		}
	}
}
