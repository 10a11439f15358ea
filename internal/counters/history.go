package counters

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/outcome"
)

// History is how far the counters of a domain were at some times of the last day, the
// oldest first. Cleanup keeps it, so that there is about one Entry for each quarter of
// an hour. It is a text file:
//
//	wgkex-history 1
//	86400 OK 120 BUSY 3
//	87345 OK 131 BUSY 3
type History []Entry

// Entry is how far they were at one time.
type Entry struct {
	// At is the time since boot, in whole seconds.
	At     time.Duration
	Totals map[outcome.Code]uint64
}

const (
	historyHead = "wgkex-history 1\n"
	// HistorySpan is for how long entries count.
	HistorySpan = 24 * time.Hour
	// historyStep is a little less than the time between two runs of cleanup. Further
	// runs between them, by hand, add no entry and so push none out.
	historyStep = 14 * time.Minute
	// maxEntries is a day of them, and the last one before that day.
	maxEntries = int(HistorySpan/historyStep) + 2
	// MaxHistory is more than the longest file has, in bytes.
	MaxHistory = 64 << 10
	// historyBegins is when the first cleanup after a boot has run at the latest.
	historyBegins = 20 * time.Minute
	// maxUptime keeps times within what a Duration has, in seconds.
	maxUptime = 1 << 33
)

// HistoryPath is the file with the history of a domain.
func HistoryPath(dir, domain string) string { return filepath.Join(dir, domain+".history") }

// ErrNoHistory is the error of what is no history of ours.
var ErrNoHistory = errors.New("not a history of this version of wgkex; the next cleanup replaces it")

// ParseHistory reads the text of a file, whatever is in it. A file that was cut or
// changed is ErrNoHistory as a whole: it tells nothing that is worth a guess.
func ParseHistory(text []byte) (History, error) {
	rest, ok := bytes.CutPrefix(text, []byte(historyHead))
	if !ok || len(text) > MaxHistory || len(rest) > 0 && rest[len(rest)-1] != '\n' {
		return nil, ErrNoHistory
	}
	var h History
	for line := range strings.Lines(string(rest)) {
		e, ok := parseEntry(strings.TrimSuffix(line, "\n"))
		if !ok || len(h) == maxEntries || len(h) > 0 && e.At <= h[len(h)-1].At {
			return nil, ErrNoHistory
		}
		h = append(h, e)
	}
	return h, nil
}

func parseEntry(line string) (e Entry, ok bool) {
	words := strings.Split(line, " ")
	seconds, err := strconv.ParseUint(words[0], 10, 64)
	if err != nil || seconds > maxUptime || len(words)%2 == 0 {
		return e, false
	}
	e = Entry{At: time.Duration(seconds) * time.Second, Totals: map[outcome.Code]uint64{}}
	for pair := range slices.Chunk(words[1:], 2) {
		code := outcome.Code(pair[0])
		n, err := strconv.ParseUint(pair[1], 10, 64)
		if _, twice := e.Totals[code]; err != nil || n == 0 || twice || !slices.Contains(outcome.Codes, code) {
			return e, false
		}
		e.Totals[code] = n
	}
	return e, true
}

// Text is the file as it is written.
func (h History) Text() []byte {
	text := []byte(historyHead)
	for _, e := range h {
		text = strconv.AppendInt(text, int64(e.At/time.Second), 10)
		for _, code := range outcome.Codes {
			if n := e.Totals[code]; n > 0 {
				text = fmt.Appendf(text, " %s %d", code, n)
			}
		}
		text = append(text, '\n')
	}
	return text
}

// Add is the history with one more entry, and without those that are too old to count,
// but for the last of these. It is the same where the last entry is of just before.
func (h History) Add(now time.Duration, totals map[outcome.Code]uint64) History {
	now = now.Truncate(time.Second)
	h = h.before(now)
	if len(h) > 0 && now-h[len(h)-1].At < historyStep {
		return h
	}
	h = append(slices.Clone(h), Entry{At: now, Totals: totals})
	for len(h) > maxEntries || len(h) > 1 && now-h[1].At >= HistorySpan {
		h = h[1:]
	}
	return h
}

// before is the history without entries of a later time, as of another boot of a
// container whose /run stayed.
func (h History) before(now time.Duration) History {
	i := slices.IndexFunc(h, func(e Entry) bool { return e.At > now })
	if i < 0 {
		return h
	}
	return h[:i]
}

// Series is, for each code that came, how often it did in each of n equal parts of the
// last HistorySpan, the oldest first, given how far the counters are now. What came
// between two entries counts for the part in which the later one is. A counter that went
// back began anew in between.
//
// It also returns for how long before now that tells. That is less than HistorySpan
// after a boot, and where the first entry came so late that nobody knows when what it
// counts came.
func (h History) Series(now time.Duration, totals map[outcome.Code]uint64, n int) (series map[outcome.Code][]uint64, known time.Duration) {
	all := append(slices.Clone(h.before(now)), Entry{At: now, Totals: totals})
	last := Entry{} // counters are 0 at boot
	if all[0].At > historyBegins {
		last, all = all[0], all[1:]
	}
	known = min(now-last.At, HistorySpan)
	part := HistorySpan / time.Duration(n)
	series = map[outcome.Code][]uint64{}
	for _, e := range all {
		i := n - 1 - int((now-e.At)/part)
		for code, count := range e.Totals {
			since := count
			if before := last.Totals[code]; count >= before {
				since -= before
			}
			if since == 0 || i < 0 {
				continue
			}
			if series[code] == nil {
				series[code] = make([]uint64, n)
			}
			series[code][i] += since
		}
		last = e
	}
	return series, known
}
