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
	"time"

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
	// mendEvery is how often at most a file is written anew that lacks something.
	mendEvery = 10 * time.Second
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
	// file is nil as long as none could be written.
	file  *os.File
	lines int
	// cut says that the last line may lack its end.
	cut bool
	// behind says that the file does not have all of this, and mended when it was tried last
	// to write it anew.
	behind bool
	mended time.Time
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
	l.rewrite() // or without a disk, as later
	return l, nil
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
		line := fmt.Sprintf("%s %s %s\n", what, k.Domain, k.Key)
		if l.cut {
			line = "\n" + line
		}
		_, err := l.file.WriteString(line)
		l.complain(err)
		l.cut = err != nil
		l.behind = l.behind || l.cut
	}
	if l.lines++; !l.behind && l.lines > len(l.known)+len(l.waiting)+spareLines {
		l.rewrite()
	}
}

// mend writes the file anew, if it is behind and that was not tried a moment ago.
func (l *ledger) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.behind && time.Since(l.mended) >= mendEvery {
		l.rewrite()
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

// rewrite writes a file with the lines that are needed. If that fails, the old one stays
// in use. The lock is held, but at first.
func (l *ledger) rewrite() {
	l.mended = time.Now()
	err := l.replace()
	l.behind = err != nil
	l.complain(err)
}

func (l *ledger) replace() error {
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
	if err := statefile.Write(l.path, text, ledgerMode); err != nil {
		return err
	}
	file, err := statefile.Open(l.path, os.O_WRONLY|os.O_APPEND, maxLedger)
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // it is another file now
	}
	l.file, l.lines, l.cut = file, len(l.known)+len(l.waiting), false
	return nil
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
			l.unlearn(k)
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
			l.unlearn(k)
		}
	}
}

// unlearn forgets a key. The file must not bring it back.
func (l *ledger) unlearn(k message.Key) {
	delete(l.known, k)
	l.behind = true
}

// doubt forgets which keys the others were told of by this gateway, since the broker may
// not have passed them on.
func (l *ledger) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, m := range l.known {
		if m.own {
			l.unlearn(k)
		}
	}
	if l.behind {
		l.rewrite()
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
	if l.behind {
		l.rewrite()
	}
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
