package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/message"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

// gateway is a local socket.
type gateway struct {
	mu    sync.Mutex
	took  time.Duration // an exchange takes
	asked []string      // keys in the order in which they were asked for
	most  int           // at a time
	now   int
	ended int // exchanges
	// answer is OK where it is nil.
	answer func(protocol.Request) (outcome.Code, error)
	result map[message.Key]outcome.Code
	order  []message.Key // those with a result
}

// pass lets time pass. It makes no timer that is due at once: with the race detector, Go
// 1.26 crashes now and then where one is waited for in a bubble.
func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gateway) ask(ctx context.Context, r protocol.Request) (protocol.Answer, error) {
	g.mu.Lock()
	g.asked = append(g.asked, r.Key)
	g.now++
	g.most = max(g.most, g.now)
	took := g.took
	g.mu.Unlock()
	err := pass(ctx, took)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
	if err != nil {
		return protocol.Answer{}, err
	}
	if r.Way != outcome.Relay || r.Remote.IsValid() {
		panic("not by way relay")
	}
	g.ended++
	code := outcome.OK
	if g.answer != nil {
		code, err = g.answer(r)
	}
	return protocol.Answer{Code: code}, err
}

func (g *gateway) done(k message.Key, code outcome.Code) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.result == nil {
		g.result = map[message.Key]outcome.Code{}
	}
	if _, twice := g.result[k]; twice {
		panic("a key is done twice")
	}
	g.result[k] = code
	g.order = append(g.order, k)
}

// resultOf is what became of a key, empty for nothing yet.
func (g *gateway) resultOf(k message.Key) outcome.Code {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.result[k]
}

func bubble(t *testing.T, do func(t *testing.T, ctx context.Context)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		do(t, ctx)
		cancel()
		synctest.Wait()
	})
}

func add(t *testing.T, b *inbox, keys ...message.Key) {
	t.Helper()
	for _, k := range keys {
		if err := b.add(k); err != nil {
			t.Errorf("%v: %v", k, err)
		}
	}
}

// Many at once are done in their order, each once, so many at a time.
func TestInboxMany(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := gateway{took: time.Millisecond}
		b := newInbox(ctx, g.ask, g.done)
		const n = 20000
		var keys []message.Key
		for i := range n {
			keys = append(keys, numbered(i))
		}
		add(t, b, keys...)
		if err := b.add(numbered(n - 1)); !errors.Is(err, errRepeated) {
			t.Errorf("one that waits: %v", err)
		}
		if waiting, oldest := b.length(); waiting != n || time.Since(oldest) != 0 {
			t.Errorf("%d wait since %v", waiting, oldest)
		}
		b.wait()
		if !slices.Equal(g.order, keys) || len(g.asked) != n || g.most != atOnce {
			t.Errorf("%d done, %d asked for, %d at a time", len(g.order), len(g.asked), g.most)
		}
		if waiting, oldest := b.length(); waiting != 0 || !oldest.IsZero() || len(b.lanes) != 0 {
			t.Errorf("afterwards %d wait since %v, %d lanes", waiting, oldest, len(b.lanes))
		}
		// The same again, since it is done.
		delete(g.result, numbered(1))
		add(t, b, numbered(1))
		b.wait()
		if g.result[numbered(1)] != outcome.OK {
			t.Error("it is not done again")
		}
	})
}

func TestInboxFull(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := gateway{took: time.Hour}
		b := newInbox(ctx, g.ask, g.done)
		for i := range maxWaiting {
			add(t, b, numbered(i))
		}
		if err := b.add(numbered(maxWaiting)); !errors.Is(err, errFull) {
			t.Errorf("one more: %v", err)
		}
	})
}

// A domain that cannot take keys is asked again, less and less often, and does not keep
// the others waiting. When it can, all are taken in their order.
func TestInboxBusy(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		begun := time.Now()
		tries := map[string][]time.Duration{}
		var g gateway
		g.answer = func(r protocol.Request) (outcome.Code, error) {
			tries[r.Key] = append(tries[r.Key], time.Since(begun))
			switch {
			case r.Domain == "e", time.Since(begun) >= 5*time.Minute:
				return outcome.OK, nil
			case len(tries[r.Key])%3 == 0:
				return outcome.Internal, nil
			case len(tries[r.Key])%3 == 1:
				return "", errors.New("the local socket is not there")
			}
			return outcome.Busy, nil
		}
		b := newInbox(ctx, g.ask, g.done)
		keys := []message.Key{numbered(3), numbered(1), numbered(2)}
		add(t, b, keys...)
		other := message.Key{Domain: "e", Key: key(1)}
		add(t, b, other)
		time.Sleep(time.Second)
		synctest.Wait()
		if g.resultOf(other) != outcome.OK || g.resultOf(keys[0]) != "" {
			t.Errorf("the other domain: %v", g.resultOf(other))
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if want := append([]message.Key{other}, keys...); !slices.Equal(g.order, want) {
			t.Errorf("done are %v, want %v", g.order, want)
		}
		at := tries[key(3).String()]
		for i := 1; i < len(at); i++ {
			pause := at[i] - at[i-1]
			if most := min(firstPause<<(i-1), maxPause); pause > most || pause < most/2 {
				t.Errorf("pause %d is %v, want at most %v", i, pause, most)
			}
		}
		if len(at) < 8 || len(b.waiting) != 0 {
			t.Errorf("tried at %v, %d wait", at, len(b.waiting))
		}
	})
}

// Keys that come meanwhile are tried, and do not put off those that are to be tried again.
func TestInboxBusyAndFresh(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var g gateway
		full := true
		g.answer = func(r protocol.Request) (outcome.Code, error) {
			if r.Key == key(0).String() && full {
				return outcome.Busy, nil
			}
			return outcome.OK, nil
		}
		b := newInbox(ctx, g.ask, g.done)
		add(t, b, numbered(0))
		for i := 1; i <= 100; i++ {
			time.Sleep(100 * time.Millisecond)
			add(t, b, numbered(i))
			synctest.Wait()
			if g.resultOf(numbered(i)) != outcome.OK {
				t.Fatalf("%d is not done", i)
			}
		}
		g.mu.Lock()
		tried := 0
		for _, k := range g.asked {
			if k == key(0).String() {
				tried++
			}
		}
		full = false
		g.mu.Unlock()
		if tried < 3 {
			t.Errorf("tried %d times in 10 seconds", tried)
		}
		time.Sleep(maxPause)
		synctest.Wait()
		if g.resultOf(numbered(0)) != outcome.OK {
			t.Error("it is not done at last")
		}
	})
}

// Nothing is tried for ever, and what can never be taken is tried once.
func TestInboxGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var g gateway
		g.answer = func(r protocol.Request) (outcome.Code, error) {
			if r.Domain == "e" {
				return outcome.AddressConflict, nil
			}
			return outcome.Busy, nil
		}
		b := newInbox(ctx, g.ask, g.done)
		conflict := message.Key{Domain: "e", Key: key(1)}
		add(t, b, numbered(1), conflict)
		begun := time.Now()
		b.wait()
		if took := time.Since(begun); took < patience || took > patience+maxPause {
			t.Errorf("given up after %v", took)
		}
		if g.result[numbered(1)] != outcome.Busy || g.result[conflict] != outcome.AddressConflict {
			t.Errorf("%v", g.result)
		}
	})
}

// The end does not call anything done that may not be.
func TestInboxEnds(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		working, stop := context.WithCancel(ctx)
		g := gateway{took: time.Second}
		b := newInbox(working, g.ask, g.done)
		for i := range 1000 {
			add(t, b, numbered(i))
		}
		time.Sleep(2500 * time.Millisecond)
		stop()
		b.wait()
		if n := len(g.result); n != g.ended || n == 0 || n > 2*atOnce {
			t.Errorf("%d are done, %d exchanges came to their end", n, g.ended)
		}
	})
}

// publisher is a broker that can be gone.
type publisher struct {
	mu   sync.Mutex
	gone bool
	took time.Duration
	sent []message.Message
	told []message.Key
	// forbidden is a key that the broker does not allow.
	forbidden address.Key
	refused   int
}

func (p *publisher) refuse(error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused++
}

func (p *publisher) publish(ctx context.Context, m message.Message) error {
	if err := pass(ctx, p.took); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone:
		return errors.New("gone")
	case string(m.Payload) == p.forbidden.String():
		return fmt.Errorf("%w: not authorized", ErrRefused)
	}
	p.sent = append(p.sent, m)
	return nil
}

func (p *publisher) tell(k message.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, k)
}

// What cannot be sent is sent later, each once, many at a time.
func TestOutbox(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		p := publisher{gone: true, took: 50 * time.Millisecond}
		o := newOutbox("gw01", p.publish, p.tell, p.refuse)
		o.start(ctx)
		const n = 1000
		want := map[message.Key]bool{}
		for i := range n {
			want[numbered(i)] = true
			for range 2 {
				if !o.add(numbered(i)) {
					t.Error("not taken")
				}
			}
		}
		time.Sleep(time.Minute)
		if o.length() != n || len(p.told) != 0 {
			t.Errorf("%d are unsent, %d told", o.length(), len(p.told))
		}
		p.mu.Lock()
		p.gone = false
		p.mu.Unlock()
		time.Sleep(sendPause + n/publishers*p.took + time.Second)
		synctest.Wait()
		if o.length() != 0 || len(p.sent) != n {
			t.Errorf("%d are unsent, %d sent", o.length(), len(p.sent))
		}
		for _, k := range p.told {
			delete(want, k)
		}
		if len(want) != 0 || len(p.told) != n {
			t.Errorf("%d told, %d not", len(p.told), len(want))
		}
		if m := p.sent[0]; m.Origin != "gw01" || m.QoS != 1 || m.Retained {
			t.Errorf("%+v", m)
		}
		o.add(numbered(1)) // again, since it is sent
		time.Sleep(time.Second)
		synctest.Wait()
		if len(p.sent) != n+1 {
			t.Errorf("%d sent", len(p.sent))
		}
		// What the broker does not allow does not keep others waiting.
		p.mu.Lock()
		p.forbidden = key(2)
		p.mu.Unlock()
		o.add(numbered(2))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(p.sent) != n+1 || p.refused != 1 || o.length() != 0 {
			t.Errorf("%d sent, %d refused, %d unsent", len(p.sent), p.refused, o.length())
		}
	})
}

func TestOutboxFull(t *testing.T) {
	o := newOutbox("gw01", nil, nil, nil)
	for i := range maxUnsent {
		if !o.add(numbered(i)) {
			t.Fatal("not taken")
		}
	}
	if o.add(numbered(maxUnsent)) || !o.add(numbered(0)) {
		t.Error("one more")
	}
}
