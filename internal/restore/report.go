package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/logging"

	"github.com/coreos/go-systemd/v22/journal"
)

// maxRefusals is how many refused peers get a journal entry of their own in a run:
// a file may have very many.
const maxRefusals = 50

// Reporter tells the journal what becomes of a run, and whoever runs it by hand.
type Reporter struct {
	Domain string
	// Log writes a journal entry.
	Log func(journal.Priority, string, ...logging.Field)
	// Out gets what a run did, in a line. It is nil when nobody sees it, as under
	// systemd.
	Out io.Writer

	refused int
}

// Refused tells of a peer that is not restored, for Restore.
func (p *Reporter) Refused(key address.Key, err error) {
	if p.refused++; p.refused > maxRefusals {
		return
	}
	p.say(journal.PriNotice, fmt.Sprintf("not restored in domain %s: peer %s: %v", p.Domain, key, err),
		logging.Field{Name: "PUBLIC_KEY", Value: key.String()})
}

// Finished tells what a run did, whose error is err. That one is for the caller to
// tell.
func (p *Reporter) Finished(r Report, err error) {
	if r.Damage != nil {
		p.say(journal.PriWarning, fmt.Sprintf("the saved peers of domain %s are damaged: %v", p.Domain, r.Damage))
	}
	switch {
	case err != nil && r.Restored == 0:
		return
	case r.SavedAt.IsZero():
		p.say(journal.PriNotice, fmt.Sprintf("no peers of domain %s are saved", p.Domain))
		return
	}
	count := func(name string, n int) logging.Field { return logging.Field{Name: name, Value: strconv.Itoa(n)} }
	p.say(journal.PriNotice, fmt.Sprintf("restore of domain %s: %s", p.Domain, r.summary()),
		count("SAVED", r.Saved), count("RESTORED", r.Restored), count("THERE", r.There), count("GONE", r.Gone), count("REFUSED", r.Refused),
		logging.Field{Name: "DURATION_MS", Value: strconv.FormatInt(r.Duration.Milliseconds(), 10)})
}

// ErrNothingToSave is the error when the interfaces are gone before the peers were
// saved. What was saved before stays.
var ErrNothingToSave = errors.New("not saved")

// Failed tells of an error of what the reporter is for, and reports whether it is
// a failure. It is none if the interfaces are not there or cannot serve, since
// systemd starts a run when they are made anew, nor if the domain is gone from the
// configuration or the run was told to end.
func (p *Reporter) Failed(err error) bool {
	priority, failed := journal.PriErr, true
	switch {
	case errors.Is(err, ErrNotReady), errors.Is(err, kernel.ErrUnfit):
		priority, failed = journal.PriWarning, false
	case errors.Is(err, ErrNothingToSave), errors.Is(err, config.ErrNoDomain), errors.Is(err, context.Canceled):
		priority, failed = journal.PriNotice, false
	}
	p.say(priority, fmt.Sprintf("domain %s: %v", p.Domain, err))
	return failed
}

// Removed tells of a peer that was removed.
func (p *Reporter) Removed(key address.Key) {
	p.say(journal.PriNotice, fmt.Sprintf("removed peer %s of domain %s", key, p.Domain), logging.Field{Name: "PUBLIC_KEY", Value: key.String()})
}

// Saved tells of saved peers.
func (p *Reporter) Saved(n int) {
	p.say(journal.PriNotice, fmt.Sprintf("%d peers of domain %s saved", n, p.Domain), logging.Field{Name: "SAVED", Value: strconv.Itoa(n)})
}

func (p *Reporter) say(priority journal.Priority, message string, fields ...logging.Field) {
	if p.Out != nil {
		fmt.Fprintln(p.Out, message)
	}
	p.Log(priority, message, append(fields, logging.Field{Name: "DOMAIN", Value: p.Domain})...)
}

// summary is the counts in words.
func (r Report) summary() string {
	return fmt.Sprintf("%d saved at %s, %d restored, %d there, %d gone, %d refused, %s",
		r.Saved, r.SavedAt.UTC().Format(time.RFC3339), r.Restored, r.There, r.Gone, r.Refused, r.Duration.Round(time.Millisecond))
}
