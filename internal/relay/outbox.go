package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"wgkex/internal/message"
)

const (
	// maxUnsent is how many keys wait to be sent at most. One more is left out, and found
	// by the next comparison.
	maxUnsent = 1 << 16
	// publishers is how many keys are sent at a time, without an answer of the broker.
	publishers = 16
	// sendPause is the pause after a key could not be sent.
	sendPause = time.Second
)

// outbox is the keys that the other gateways are to be told of.
type outbox struct {
	// publish returns when the broker has the message.
	publish func(context.Context, message.Message) error
	// told is told of each key that the broker has, refused why it will not have one.
	told    func(message.Key)
	refused func(error)
	// origin is the name of this gateway.
	origin string

	wg   sync.WaitGroup
	more chan struct{} // has room for one: there are keys

	mu     sync.Mutex
	unsent []message.Key
	queued map[message.Key]struct{} // those that are being sent included
}

func newOutbox(origin string, publish func(context.Context, message.Message) error, told func(message.Key), refused func(error)) *outbox {
	return &outbox{publish: publish, told: told, refused: refused, origin: origin, more: make(chan struct{}, 1), queued: map[message.Key]struct{}{}}
}

// start sends keys until the context is done.
func (o *outbox) start(ctx context.Context) {
	for range publishers {
		o.wg.Go(func() { o.work(ctx) })
	}
}

// add has the key sent. It is false if there is no room for it.
func (o *outbox) add(k message.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, there := o.queued[k]; there {
		return true
	}
	if len(o.queued) >= maxUnsent {
		return false
	}
	o.queued[k] = struct{}{}
	o.unsent = append(o.unsent, k)
	o.wake()
	return true
}

func (o *outbox) wake() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// length is how many keys are to be sent.
func (o *outbox) length() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queued)
}

// next waits for a key.
func (o *outbox) next(ctx context.Context) (k message.Key, ok bool) {
	for {
		o.mu.Lock()
		if len(o.unsent) > 0 {
			k, o.unsent = o.unsent[0], o.unsent[1:]
			if len(o.unsent) > 0 {
				o.wake() // another one
			} else {
				o.unsent = nil // let go of the memory
			}
			o.mu.Unlock()
			return k, true
		}
		o.mu.Unlock()
		select {
		case <-o.more:
		case <-ctx.Done():
			return k, false
		}
	}
}

func (o *outbox) work(ctx context.Context) {
	for {
		k, ok := o.next(ctx)
		if !ok {
			return
		}
		m := k.Message()
		m.Origin = o.origin
		err := o.publish(ctx, m)
		for err != nil && !errors.Is(err, ErrRefused) {
			if !rest(ctx, sendPause) {
				return
			}
			err = o.publish(ctx, m)
		}
		if err != nil {
			o.refused(err)
		} else {
			o.told(k)
		}
		o.mu.Lock()
		if delete(o.queued, k); len(o.queued) == 0 {
			o.queued = map[message.Key]struct{}{} // maps do not become smaller
		}
		o.mu.Unlock()
	}
}

// wait waits until all work has ended.
func (o *outbox) wait() { o.wg.Wait() }
