package cleanup

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/policy"

	"github.com/coreos/go-systemd/v22/journal"
)

// Reporter says what becomes of a run: a dry run on its output, any other in the
// journal.
type Reporter struct {
	// Domain needs only its name, but for Removed.
	Domain config.Domain
	DryRun bool
	// Log writes a journal entry.
	Log func(journal.Priority, string, ...logging.Field)
	// Out gets the lines of a dry run.
	Out io.Writer
	// Err gets the failure of any run. It is nil when nobody sees it, as under
	// systemd.
	Err io.Writer
}

// Removed tells of a peer that was removed, for Cleanup.
func (p Reporter) Removed(r policy.Record, now time.Duration) {
	_, addr := p.Domain.Addresses.Of(r.Key)
	age := "without a handshake"
	if !r.Pending() || r.Active != 0 { // or one before it was restored
		age = "last handshake " + (now - r.Active).Round(time.Second).String() + " ago"
	}
	if p.DryRun {
		fmt.Fprintf(p.Out, "would remove peer %s, address %s, %s\n", r.Key, addr, age)
		return
	}
	p.Log(journal.PriNotice, fmt.Sprintf("removed peer %s of domain %s, address %s, %s", r.Key, p.Domain.Name, addr, age),
		p.inDomain(), logging.Field{Name: "PUBLIC_KEY", Value: r.Key.String()}, logging.Field{Name: "ADDRESS", Value: addr.String()})
}

// Finished tells what a run did, whose error is err. A dry run that failed has
// counted nothing that is worth a line.
func (p Reporter) Finished(r Report, err error) {
	if p.DryRun {
		if err == nil {
			fmt.Fprintf(p.Out, "domain %s: %s\n", p.Domain.Name, r.summary())
		}
		return
	}
	count := func(name string, n int) logging.Field { return logging.Field{Name: name, Value: strconv.Itoa(n)} }
	p.Log(journal.PriNotice, fmt.Sprintf("cleanup of domain %s: %s", p.Domain.Name, r.summary()), p.inDomain(),
		count("SEEN", r.Seen), count("LIVE", r.Live), count("MARKED", r.Marked), count("UNMARKED", r.Unmarked),
		count("REMOVED", r.Removed), count("STATIC", r.Static), count("LEFT_OVER", r.LeftOver), count("READDRESSED", r.Readdressed),
		count("REPAIRED", r.Repaired), count("ORPHANS", r.Orphans), count("SAVED", r.Saved),
		logging.Field{Name: "DURATION_MS", Value: strconv.FormatInt(r.Duration.Milliseconds(), 10)})
}

// Warn tells of what a run does not depend on, for Cleanup.
func (p Reporter) Warn(err error) {
	p.Log(journal.PriWarning, fmt.Sprintf("cleanup of domain %s: %v", p.Domain.Name, err), p.inDomain())
}

// Failed tells of a run that could not do everything, or could not begin.
func (p Reporter) Failed(err error) {
	message := fmt.Sprintf("cleanup of domain %s: %v", p.Domain.Name, err)
	if p.Err != nil {
		fmt.Fprintln(p.Err, message)
	}
	if !p.DryRun {
		p.Log(journal.PriErr, message, p.inDomain())
	}
}

func (p Reporter) inDomain() logging.Field {
	return logging.Field{Name: "DOMAIN", Value: p.Domain.Name}
}

// summary is the counts in words.
func (r Report) summary() string {
	text := fmt.Sprintf("%d seen, %d live, %d marked, %d unmarked, %d removed, %d static, %d repaired, %d orphans, %d saved",
		r.Seen, r.Live, r.Marked, r.Unmarked, r.Removed, r.Static, r.Repaired, r.Orphans, r.Saved)
	if r.LeftOver > 0 {
		text += fmt.Sprintf(", %d left over, %d of them readdressed", r.LeftOver, r.Readdressed)
	}
	return text + ", " + r.Duration.Round(time.Millisecond).String()
}
