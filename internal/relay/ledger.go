package relay

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"wgkex/internal/address"
	"wgkex/internal/message"
	"wgkex/internal/protocol"
	"wgkex/internal/statefile"
)

// The ledger is a file with a line for each event, in their order. A relay that is killed
// leaves it as it is, and its last line perhaps cut.
const (
	ledgerHeader = "wgkex-relay 1\n"
	// maxLedger is more than a ledger grows to, in bytes.
	maxLedger  = 64 << 20
	ledgerMode = 0o600
	// spareLines is how many lines a ledger may have beside those that it needs.
	spareLines = 10000
	// maxKnown is how many keys are known at most. A key that there is no room for is
	// announced again by the next comparison.
	maxKnown = 1 << 17
)

// event is the first word of a line.
type event string

const (
	heard   event = "heard"   // another gateway has accepted the key, it is to be added here
	added   event = "added"   // that is done
	dropped event = "dropped" // that cannot be done
	told    event = "told"    // the other gateways were told of it
)

// mark is what is kept of a known key.
type mark struct {
	// round is the round of comparisons in which the key was noted last.
	round uint32
	// own is a key that this gateway has told the others of.
	own bool
}

// ledger is which keys the other gateways know of, and which of theirs are still to be
// added here.
type ledger struct {
	path   string
	failed func(error)

	mu    sync.Mutex
	known map[message.Key]mark
	round uint32
	// waiting are those that were heard, with their number in the order.
	waiting map[message.Key]uint64
	next    uint64
	file    *os.File
	lines   int
}

// openLedger reads what there is. What is no ledger of this version is begun anew, which
// failed is told, as it is of what cannot be written later.
func openLedger(path string, failed func(error)) (*ledger, error) {
	l := &ledger{path: path, failed: failed, known: map[message.Key]mark{}, waiting: map[message.Key]uint64{}}
	f, err := statefile.Open(path, os.O_RDONLY, maxLedger)
	switch {
	case err == nil:
		err = l.read(f)
		_ = f.Close() // nothing was written to it
		if err != nil {
			failed(fmt.Errorf("%s is begun anew: %w", path, err))
			l.known, l.waiting = map[message.Key]mark{}, map[message.Key]uint64{}
		}
	case errors.Is(err, statefile.ErrForeign):
		failed(fmt.Errorf("is begun anew: %w", err))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return l, l.rewrite()
}

func (l *ledger) read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 4096)
	if header, err := lines.ReadString('\n'); err != nil || header != ledgerHeader {
		return errors.New("it is no ledger of this version of wgkex")
	}
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line without an end was cut
		}
		if err != nil {
			return err
		}
		if what, k, ok := parseLine(strings.TrimSuffix(line, "\n")); ok {
			l.apply(what, k)
		}
	}
}

func parseLine(line string) (what event, k message.Key, ok bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 3 || !protocol.ValidName(fields[1]) {
		return "", k, false
	}
	key, err := address.ParseKey(fields[2])
	return event(fields[0]), message.Key{Domain: fields[1], Key: key}, err == nil
}

func (l *ledger) apply(what event, k message.Key) {
	switch what {
	case heard:
		if _, there := l.waiting[k]; !there && len(l.waiting) < maxWaiting {
			l.waiting[k] = l.next
			l.next++
		}
	case added:
		delete(l.waiting, k)
		l.know(k, false)
	case dropped:
		delete(l.waiting, k)
	case told:
		l.know(k, true)
	}
}

func (l *ledger) know(k message.Key, own bool) {
	if old, there := l.known[k]; there || len(l.known) < maxKnown {
		l.known[k] = mark{l.round, own || old.own}
	}
}

// note notes an event.
func (l *ledger) note(what event, k message.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, isKnown := l.known[k]
	l.apply(what, k)
	if what == told && isKnown {
		return // it stays known
	}
	if l.file != nil {
		_, err := fmt.Fprintf(l.file, "%s %s %s\n", what, k.Domain, k.Key)
		l.complain(err)
	}
	if l.lines++; l.lines > len(l.known)+len(l.waiting)+spareLines {
		l.complain(l.rewrite())
	}
}

func (l *ledger) complain(err error) {
	if err != nil {
		l.failed(fmt.Errorf("keeping what was announced: %w", err))
	}
}

// inOrder is the keys that are still to be added, as they came.
func (l *ledger) inOrder() []message.Key {
	keys := make([]message.Key, 0, len(l.waiting))
	for k := range l.waiting {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b message.Key) int { return cmp.Compare(l.waiting[a], l.waiting[b]) })
	return keys
}

// rewrite writes a file with the lines that are needed. The lock is held, but at first.
func (l *ledger) rewrite() error {
	if l.file != nil {
		_ = l.file.Close() // each line was written at once
		l.file = nil
	}
	text := []byte(ledgerHeader)
	for k, m := range l.known {
		what := added
		if m.own {
			what = told
		}
		text = fmt.Appendf(text, "%s %s %s\n", what, k.Domain, k.Key)
	}
	for _, k := range l.inOrder() {
		text = fmt.Appendf(text, "%s %s %s\n", heard, k.Domain, k.Key)
	}
	l.lines = len(l.known) + len(l.waiting)
	if err := statefile.Write(l.path, text, ledgerMode); err != nil {
		return err
	}
	var err error
	l.file, err = statefile.Open(l.path, os.O_WRONLY|os.O_APPEND, maxLedger)
	return err
}

// compare returns those of the domain's peers that the other gateways do not know of, and
// forgets the keys that are no peers any more. What is noted from begin on is not
// forgotten.
func (l *ledger) compare(begun uint32, domain string, peers []address.Key) (unknown []message.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range peers {
		k := message.Key{Domain: domain, Key: p}
		m, isKnown := l.known[k]
		_, isWaiting := l.waiting[k]
		if isKnown {
			l.known[k] = mark{begun, m.own}
		} else if !isWaiting {
			unknown = append(unknown, k)
		}
	}
	for k, m := range l.known {
		if k.Domain == domain && m.round != begun {
			delete(l.known, k)
		}
	}
	return unknown
}

// forget forgets what is known of domains that are not served any more.
func (l *ledger) forget(serves func(domain string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.known {
		if !serves(k.Domain) {
			delete(l.known, k)
		}
	}
}

// doubt forgets which keys the others were told of by this gateway, since the broker may
// not have passed them on.
func (l *ledger) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.known)
	for k, m := range l.known {
		if m.own {
			delete(l.known, k)
		}
	}
	if len(l.known) != before {
		l.complain(l.rewrite())
	}
}

// begin begins a round of comparisons, before peers are read.
func (l *ledger) begin() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.round++
	return l.round
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
