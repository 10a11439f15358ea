package cleanup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/policy"

	"github.com/coreos/go-systemd/v22/journal"
)

// told is what a Reporter has written and logged.
type told struct {
	out, err strings.Builder
	logged   []string
}

// reporter is one of domain d that all goes to told, by hand or not.
func (w *told) reporter(dryRun, byHand bool) Reporter {
	p := Reporter{
		Domain: config.Domain{Name: "d"}, DryRun: dryRun, Out: &w.out,
		Log: func(priority journal.Priority, message string, fields ...logging.Field) {
			entry := fmt.Sprintf("%d %s", priority, message)
			for _, f := range fields {
				entry += " " + f.Name + "=" + f.Value
			}
			w.logged = append(w.logged, entry)
		},
	}
	if byHand {
		p.Err = &w.err
	}
	return p
}

func (w *told) want(t *testing.T, out, err string, logged ...string) {
	t.Helper()
	if w.out.String() != out || w.err.String() != err || !slices.Equal(w.logged, logged) {
		t.Errorf("got %q, %q, logged %q, want %q, %q, %q", w.out.String(), w.err.String(), w.logged, out, err, logged)
	}
}

func TestReportRemoved(t *testing.T) {
	pending := policy.NewRecord(key(1), time.Hour)
	silent := policy.Record{Key: key(2), Kind: policy.Managed, LastHandshake: time.Unix(1, 0), Active: time.Hour}
	peer := func(r policy.Record) (string, string) {
		_, addr := address.RFC4291.Of(r.Key)
		return r.Key.String(), addr.String()
	}
	for _, c := range []struct {
		record policy.Record
		age    string
	}{
		{pending, "without a handshake"},
		{silent, "last handshake 2h0m1s ago"},
	} {
		k, addr := peer(c.record)
		now := 3*time.Hour + 900*time.Millisecond
		var dry, real told
		dry.reporter(true, true).Removed(c.record, now)
		dry.want(t, "would remove peer "+k+", address "+addr+", "+c.age+"\n", "")
		real.reporter(false, true).Removed(c.record, now)
		real.want(t, "", "", "5 removed peer "+k+" of domain d, address "+addr+", "+c.age+" DOMAIN=d PUBLIC_KEY="+k+" ADDRESS="+addr)
	}
}

func TestReportFinished(t *testing.T) {
	counts := Report{
		Seen: 1, Static: 2, Live: 5, Marked: 6, Unmarked: 7, Removed: 8, Repaired: 9, Orphans: 10, Saved: 11, Duration: 1234567 * time.Microsecond,
	}
	leftOver := counts
	leftOver.LeftOver, leftOver.Readdressed = 4, 3
	const (
		text       = "1 seen, 5 live, 6 marked, 7 unmarked, 8 removed, 2 static, 9 repaired, 10 orphans, 11 saved"
		more       = ", 4 left over, 3 of them readdressed"
		beginning  = " DOMAIN=d SEEN=1 LIVE=5 MARKED=6 UNMARKED=7 REMOVED=8 STATIC=2 "
		end        = " REPAIRED=9 ORPHANS=10 SAVED=11 DURATION_MS=1234"
		fields     = beginning + "LEFT_OVER=0 READDRESSED=0" + end
		moreFields = beginning + "LEFT_OVER=4 READDRESSED=3" + end
	)
	failure := errors.New("no buffer space")
	for _, c := range []struct {
		report Report
		dryRun bool
		err    error
		out    string
		logged []string
	}{
		{counts, true, nil, "domain d: " + text + ", 1.235s\n", nil},
		{leftOver, true, nil, "domain d: " + text + more + ", 1.235s\n", nil},
		{counts, true, failure, "", nil},
		{counts, false, nil, "", []string{"5 cleanup of domain d: " + text + ", 1.235s" + fields}},
		{leftOver, false, nil, "", []string{"5 cleanup of domain d: " + text + more + ", 1.235s" + moreFields}},
		// What was done before it failed is told.
		{counts, false, failure, "", []string{"5 cleanup of domain d: " + text + ", 1.235s" + fields}},
	} {
		var w told
		w.reporter(c.dryRun, true).Finished(c.report, c.err)
		w.want(t, c.out, "", c.logged...)
	}
}

func TestReportFailed(t *testing.T) {
	const line, entry = "cleanup of domain d: no buffer space\n", "3 cleanup of domain d: no buffer space DOMAIN=d"
	for _, c := range []struct {
		dryRun, byHand bool
		err            string
		logged         []string
	}{
		{false, true, line, []string{entry}},
		{false, false, "", []string{entry}},
		{true, true, line, nil},
		{true, false, "", nil},
	} {
		var w told
		w.reporter(c.dryRun, c.byHand).Failed(errors.New("no buffer space"))
		w.want(t, "", c.err, c.logged...)
	}
}
