package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"wgkex/internal/message"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

const (
	// maxWaiting is how many keys wait to be added at most. They take some 10 MiB. One
	// more is left out: its router registers again.
	maxWaiting = 1 << 16
	// atOnce is how many exchanges of a domain are asked for at a time, maxAsked those of
	// all domains.
	atOnce   = 128
	maxAsked = 256
	// patience is for how long a key is tried: a router that still wants to connect has
	// registered again by then.
	patience = 15 * time.Minute
	// askTimeout is longer than the local socket takes when others use the domain.
	askTimeout = 60 * time.Second
	// firstPause and maxPause are how long a domain rests that could not take keys. The
	// pause is doubled each time.
	firstPause = 2 * time.Second
	maxPause   = time.Minute
)

// errFull is the error of a key that there is no room for, errRepeated of one that waits
// already.
var (
	errFull     = errors.New("too many keys wait")
	errRepeated = errors.New("the key waits already")
)

// inbox is the keys that other gateways have accepted and that are to be added here: a
// queue for each domain, so that one that cannot take any does not keep the others
// waiting.
type inbox struct {
	// ask asks for an exchange.
	ask func(context.Context, protocol.Request) (protocol.Answer, error)
	// done is told what became of a key: a code that is final, or Busy for one that was
	// tried for too long.
	done func(message.Key, outcome.Code)

	ctx   context.Context // until which keys are added
	asked chan struct{}   // places of exchanges that are asked for
	wg    sync.WaitGroup

	mu      sync.Mutex
	lanes   map[string]*lane
	waiting map[message.Key]time.Time // since when, those that are asked for included
}

// lane is the queue of a domain.
type lane struct {
	domain string
	fresh  []message.Key
	// again are those that could not be taken, in their order.
	again []message.Key
	// more is told of fresh keys.
	more chan struct{}
}

func newInbox(ctx context.Context, ask func(context.Context, protocol.Request) (protocol.Answer, error), done func(message.Key, outcome.Code)) *inbox {
	return &inbox{
		ask: ask, done: done, ctx: ctx, asked: make(chan struct{}, maxAsked),
		lanes: map[string]*lane{}, waiting: map[message.Key]time.Time{},
	}
}

// add has the key added when its turn comes.
func (b *inbox) add(k message.Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.waiting[k]; there {
		return errRepeated
	}
	if len(b.waiting) >= maxWaiting {
		return errFull
	}
	b.waiting[k] = time.Now()
	l := b.lanes[k.Domain]
	if l == nil {
		l = &lane{domain: k.Domain, more: make(chan struct{}, 1)}
		b.lanes[k.Domain] = l
		b.wg.Go(func() { b.work(b.ctx, l) })
	}
	l.fresh = append(l.fresh, k)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return nil
}

// isFull reports whether there is no room for another key.
func (b *inbox) isFull() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting) >= maxWaiting
}

// length is how many keys wait, and since when the first of them does, zero for none.
func (b *inbox) length() (n int, oldest time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, since := range b.waiting {
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	return len(b.waiting), oldest
}

// work adds the keys of a domain until there are no more.
func (b *inbox) work(ctx context.Context, l *lane) {
	pause := firstPause
	var due time.Time // when those are tried again that could not be taken
	for ctx.Err() == nil {
		fresh, again := b.left(l)
		switch {
		case fresh == 0 && again == 0:
			return
		case again > 0 && due.IsZero():
			due = time.Now().Add(pause/2 + rand.N(pause/2)) // not all gateways at a time
		case again > 0 && !time.Now().Before(due):
			if b.try(ctx, l, b.takeAgain(l)) {
				pause = firstPause
			} else {
				pause = min(2*pause, maxPause)
			}
			due = time.Time{}
		case fresh > 0:
			b.try(ctx, l, b.take(l))
		default:
			select {
			case <-ctx.Done():
			case <-l.more:
			case <-time.After(time.Until(due)):
			}
		}
	}
}

// left is how many keys the lane has, which is given up when there are none.
func (b *inbox) left(l *lane) (fresh, again int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(l.fresh)+len(l.again) == 0 {
		delete(b.lanes, l.domain)
		if len(b.waiting) == 0 {
			b.waiting = map[message.Key]time.Time{} // maps do not become smaller
		}
	}
	return len(l.fresh), len(l.again)
}

// take takes the next keys out of the queue.
func (b *inbox) take(l *lane) []message.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(l.fresh), atOnce)
	batch := l.fresh[:n:n]
	if l.fresh = l.fresh[n:]; len(l.fresh) == 0 {
		l.fresh = nil // let go of the memory
	}
	return batch
}

// takeAgain takes all keys that could not be taken.
func (b *inbox) takeAgain(l *lane) []message.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	again := l.again
	l.again = nil
	return again
}

// try asks for exchanges with the keys, many at a time, and reports whether one came to
// its end.
func (b *inbox) try(ctx context.Context, l *lane, keys []message.Key) (taken bool) {
	for batch := range slices.Chunk(keys, atOnce) {
		taken = b.tryBatch(ctx, l, batch) || taken
	}
	return taken
}

// tryBatch asks for exchanges with the keys, all at a time.
func (b *inbox) tryBatch(ctx context.Context, l *lane, batch []message.Key) (taken bool) {
	codes := make([]outcome.Code, len(batch))
	var wg sync.WaitGroup
	for i, k := range batch {
		select {
		case b.asked <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return false
		}
		wg.Go(func() {
			defer func() { <-b.asked }()
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			answer, err := b.ask(ctx, protocol.Request{Domain: k.Domain, Key: k.Key.String(), Way: outcome.Relay})
			if codes[i] = answer.Code; err != nil {
				codes[i] = outcome.Busy
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return false // what is not known to be done is done again
	}
	now := time.Now()
	for i, k := range batch {
		// What a router would try again.
		later := codes[i] == outcome.Busy || codes[i] == outcome.Internal
		b.mu.Lock()
		if later && now.Sub(b.waiting[k]) < patience {
			l.again = append(l.again, k)
			b.mu.Unlock()
			continue
		}
		delete(b.waiting, k)
		b.mu.Unlock()
		taken = taken || !later
		b.done(k, codes[i])
	}
	return taken
}

// wait waits until all work has ended, as it does when the context is done.
func (b *inbox) wait() { b.wg.Wait() }
