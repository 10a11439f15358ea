// Package relay tells other gateways which keys this one has accepted, and has theirs
// added here, over an MQTT broker. It keeps what it knows of them in a file, by which
// routers are sent to one of them.
package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/announce"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/message"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
	"wgkex/internal/statefile"

	"github.com/coreos/go-systemd/v22/journal"
)

const (
	// tick is how often files are written, if there is something new.
	tick = time.Second
	// numbersEvery is how often the numbers are written.
	numbersEvery = 15 * time.Second
	// manyKeys is how many keys take memory that is worth giving back.
	manyKeys = 1000
	// presenceEvery is how often the others are told how many peers there are.
	presenceEvery = time.Minute
	// presenceTimeout is how long that may take.
	presenceTimeout = 45 * time.Second
	// absentAfter is after how many times in which a domain could not be read the others
	// are told that it is not served.
	absentAfter = 3
	// compareEvery is how often it is compared what the others know with the peers that
	// there are, compareAfter how long after the connection was made, and
	// compareLeast the shortest time between two comparisons.
	compareEvery   = time.Hour
	compareAfter   = 10 * time.Second
	compareLeast   = time.Minute
	compareTimeout = 2 * time.Minute
	// doubtAfter takes the place of compareAfter when the broker has forgotten the gateways:
	// by then all are there again, since each tries to connect at least once a minute.
	doubtAfter = 90 * time.Second
	// comparePause is the pause after each key that a comparison has found.
	comparePause = 10 * time.Millisecond
	// anewAfter is for how long a relay has no connection before it ends. systemd then starts
	// one that has the files of now: the addresses of name servers, certificates, the
	// password.
	anewAfter = 15 * time.Minute
	// failureEvery is how often at most the same kind of failure is logged.
	failureEvery = time.Minute
	// farewellTimeout is how long the end waits for the broker.
	farewellTimeout = 5 * time.Second
	fileMode        = 0o644
)

// Broker is the connection to an MQTT broker, which makes itself anew.
type Broker interface {
	// Start connects, until the context is done. The handler's methods must not wait for
	// the broker.
	Start(ctx context.Context, h Handler) error
	// Subscribe asks for messages. The broker may know already.
	Subscribe(ctx context.Context, to ...message.Subscription) error
	// Publish returns when the broker has the message, if its QoS is 1. The error is
	// ErrRefused for one that it will never have.
	Publish(ctx context.Context, m message.Message) error
	// Close says good-bye.
	Close(ctx context.Context)
}

// ErrRefused is the error of what the broker does not allow.
var ErrRefused = errors.New("the broker refuses it")

// Handler is told what comes from a broker.
type Handler interface {
	// Connected is told whether the broker still has the session of before.
	Connected(resumed bool)
	Disconnected(why error)
	// Received returns when the message can be forgotten by the broker.
	Received(m message.Message)
}

// Relay is that of one gateway, for as long as its configuration is the same.
type Relay struct {
	// Name is that of this gateway, and Address where routers reach it.
	Name, Address string
	// Domains are those that it serves.
	Domains []string
	Broker  Broker
	// Ask asks for an exchange on the local socket.
	Ask func(context.Context, protocol.Request) (protocol.Answer, error)
	// Own reads what others are told of this gateway, and Peers the keys of its managed
	// peers by their domains. Domains that cannot be read are missing.
	Own   func(context.Context) ([]gateways.Own, error)
	Peers func(context.Context) (map[string][]address.Key, error)
	// Announcements are the datagrams of package announce.
	Announcements net.Conn
	// Ledger is the file that outlives the relay, Known that with what is known of the
	// gateways, and Numbers that with the Stats.
	Ledger, Known, Numbers string
	// SinceBoot is the clock of the last two.
	SinceBoot func() time.Duration
	// Stale reports whether the configuration is another one. The relay then ends.
	Stale func() bool
	// Alive is told every second that nothing hangs.
	Alive func()
	Log   func(journal.Priority, string, ...logging.Field)

	reader    message.Reader
	ledger    *ledger
	inbox     *inbox
	outbox    *outbox
	connected chan struct{} // has room for one: there is a connection
	unkept    func(error)

	mu     sync.Mutex
	known  gateways.Known
	dirty  bool
	recent message.Recent
	stats  gateways.Stats
	// doubtful says that the broker has forgotten the gateways: what it is told until the
	// next comparison may reach none of them. lapsed says so until the ledger knows.
	doubtful, lapsed bool
}

// Run relays until the context is done, until the configuration is another one, or until
// there was no connection for long.
func (r *Relay) Run(ctx context.Context) error {
	r.known, r.stats.Received = gateways.Known{}, map[gateways.Result]uint64{}
	r.connected = make(chan struct{}, 1)
	r.reader = message.Reader{Gateway: r.Name, Serves: r.serves}
	r.unkept = logging.NowAndThen(failureEvery, func(err error) {
		r.Log(journal.PriErr, fmt.Sprintf("what others read of the relay is not kept: %v", err))
	})
	var err error
	if r.ledger, err = openLedger(r.Ledger, logging.NowAndThen(failureEvery, func(err error) { r.Log(journal.PriErr, err.Error()) })); err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	r.inbox = newInbox(working, r.Ask, r.added)
	r.outbox = newOutbox(r.Name, r.Broker.Publish, r.told, logging.NowAndThen(failureEvery, func(err error) {
		r.Log(journal.PriErr, fmt.Sprintf("other gateways cannot be told of keys: %v", err))
	}))
	for _, k := range r.ledger.inOrder() {
		r.accept(k)
	}
	// The broker is there until others were told that this gateway goes.
	connection, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	if err := r.Broker.Start(connection, handler{r}); err != nil {
		return errors.Join(err, r.ledger.close())
	}
	r.outbox.start(working)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		r.listen(working)
	}()
	r.loop(working)
	stop()
	r.inbox.wait()
	r.outbox.wait()
	_ = r.Announcements.Close()
	<-listening
	farewell, cancel := context.WithTimeout(connection, farewellTimeout)
	defer cancel()
	r.leave(farewell)
	r.Broker.Close(farewell)
	stats := r.Stats()
	stats.Connected = false
	r.keep(r.Numbers, stats.Text())
	return r.ledger.close()
}

func (r *Relay) serves(domain string) bool { return slices.Contains(r.Domains, domain) }

// loop does what is to be done from time to time.
func (r *Relay) loop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	// job runs do, one at a time, and a moment later if it is asked for meanwhile.
	type job struct {
		due  time.Time
		busy chan struct{}
	}
	newJob := func(due time.Time) *job { return &job{due, make(chan struct{}, 1)} }
	run := func(j *job, next time.Duration, do func(context.Context)) {
		if time.Now().Before(j.due) {
			return
		}
		select {
		case j.busy <- struct{}{}:
			j.due = time.Now().Add(next)
			wg.Go(func() { do(ctx); <-j.busy })
		default:
		}
	}
	sooner := func(j *job, due time.Time) {
		if due.Before(j.due) {
			j.due = due
		}
	}
	var unread atomic.Bool // the peers that were to be compared
	never := time.Now().Add(1 << 62)
	presence, compare := newJob(never), newJob(never)
	p := presenter{Relay: r}
	compared := time.Now().Add(-compareLeast)
	var numbers time.Time // when they are due
	most := 0             // keys that waited at a time
	connected := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.connected:
			presence.due = time.Now()
			p.anew.Store(true)
			if r.hasLapsed() {
				r.ledger.doubt()
				compare.due = later(time.Now().Add(doubtAfter), compared.Add(compareLeast))
			} else if !r.isDoubtful() {
				// A connection that comes and goes does not put it off.
				sooner(compare, later(time.Now().Add(compareAfter), compared.Add(compareLeast)))
			}
		case <-ticks.C:
		}
		if unread.Swap(false) {
			sooner(compare, time.Now().Add(compareLeast))
		}
		run(presence, presenceEvery, p.present)
		if !time.Now().Before(compare.due) {
			compared = time.Now()
		}
		run(compare, compareEvery, func(ctx context.Context) {
			if !r.compare(ctx) {
				unread.Store(true)
			}
		})
		r.ledger.mend()
		r.write()
		stats := r.Stats() // which takes all locks
		if now := time.Now(); !now.Before(numbers) {
			numbers = now.Add(numbersEvery)
			r.keep(r.Numbers, stats.Text())
		}
		if waiting := stats.Waiting + stats.Unsent; waiting > 0 {
			most = max(most, waiting)
		} else if most > manyKeys {
			most = 0
			debug.FreeOSMemory() // what they took would be held for long
		}
		r.Alive()
		if stats.Connected {
			connected = time.Now()
		}
		if r.Stale() || time.Since(connected) >= anewAfter {
			return
		}
	}
}

// Stats is what there is to see now.
func (r *Relay) Stats() gateways.Stats {
	waiting, oldest := r.inbox.length()
	unsent := r.outbox.length()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Received = maps.Clone(s.Received)
	s.At, s.Waiting, s.Oldest, s.Unsent = r.SinceBoot(), waiting, oldest, unsent
	return s
}

// write writes what is known of the gateways, if it has changed.
func (r *Relay) write() {
	r.mu.Lock()
	var text []byte
	if r.dirty {
		text, r.dirty = r.known.Text(), false
	}
	r.mu.Unlock()
	if text == nil {
		return
	}
	r.keep(r.Known, text)
}

// keep writes a file that others read.
func (r *Relay) keep(path string, text []byte) {
	if err := statefile.Write(path, text, fileMode); err != nil {
		r.unkept(err)
	}
}

func (r *Relay) isConnected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats.Connected
}

func (r *Relay) isDoubtful() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doubtful
}

// hasLapsed reports once whether the broker has forgotten the gateways.
func (r *Relay) hasLapsed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	lapsed := r.lapsed
	r.lapsed = false
	return lapsed
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (r *Relay) count(result gateways.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Received[result]++
}

// isNew reports whether a key was neither heard nor sent in the last minute.
func (r *Relay) isNew(k message.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recent.Add(k, time.Now())
}

// hear takes what a gateway says of itself, be it this one.
func (r *Relay) hear(h message.Heard) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = true
	return r.known.Hear(h, r.Name, r.SinceBoot())
}

// handler is what the broker is given.
type handler struct{ *Relay }

// Connected is that of Handler. A broker without the session may have lost what it should
// have passed on, so the next comparison finds all that this gateway has told.
func (h handler) Connected(resumed bool) {
	h.mu.Lock()
	h.stats.Connected = true
	if !resumed {
		h.doubtful, h.lapsed = true, true
	}
	h.mu.Unlock()
	h.Log(journal.PriNotice, "connected to the broker")
	select {
	case h.connected <- struct{}{}:
	default:
	}
}

// Disconnected is that of Handler.
func (h handler) Disconnected(why error) {
	h.mu.Lock()
	were := h.stats.Connected
	h.stats.Connected = false
	h.mu.Unlock()
	if were {
		h.Log(journal.PriWarning, fmt.Sprintf("the connection to the broker is lost: %v", why))
	}
}

// Received is that of Handler. The key of a message is in the ledger when it returns.
func (h handler) Received(m message.Message) {
	heard, err := h.reader.Read(m)
	switch {
	case errors.Is(err, message.ErrOwn):
		h.count(gateways.ResultOwn)
	case errors.Is(err, message.ErrDomain):
		h.count(gateways.ResultDomain)
	case err != nil:
		h.count(gateways.ResultInvalid)
	default:
		if k, isKey := heard.(message.Key); isKey {
			h.receive(k)
		} else if h.hear(heard) != nil {
			h.count(gateways.ResultFull)
		} else {
			h.count(gateways.ResultKnown)
		}
	}
}

func (r *Relay) receive(k message.Key) {
	if !r.isNew(k) {
		r.count(gateways.ResultRepeated)
		return
	}
	if r.inbox.isFull() { // or a flood would fill the ledger, too
		r.count(gateways.ResultFull)
		return
	}
	r.ledger.note(heard, k)
	r.accept(k)
}

// accept has a key added that is in the ledger.
func (r *Relay) accept(k message.Key) {
	switch err := r.inbox.add(k); {
	case errors.Is(err, errFull):
		r.ledger.note(dropped, k)
		r.count(gateways.ResultFull)
	case err != nil:
		r.count(gateways.ResultRepeated)
	}
}

// added notes what became of a key of another gateway.
func (r *Relay) added(k message.Key, code outcome.Code) {
	if code == outcome.OK {
		r.ledger.note(added, k)
	} else {
		r.ledger.note(dropped, k)
	}
	r.count(gateways.Result(code))
}

// told notes that the broker has a key of this gateway, and will pass it on.
func (r *Relay) told(k message.Key) {
	r.mu.Lock()
	r.stats.Sent++
	doubtful := r.doubtful
	r.mu.Unlock()
	if !doubtful {
		r.ledger.note(told, k)
	}
}

// listen takes announcements until the context is done.
func (r *Relay) listen(ctx context.Context) {
	buffer := make([]byte, announce.MaxSize+1)
	for ctx.Err() == nil {
		n, err := r.Announcements.Read(buffer)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			r.Log(journal.PriErr, fmt.Sprintf("reading announcements: %v", err))
			rest(ctx, tick)
			continue
		}
		keys, err := announce.Parse(buffer[:n])
		if err != nil {
			continue // only handlers may send any
		}
		for _, k := range keys {
			if r.serves(k.Domain) && r.isNew(k) {
				r.outbox.add(k) // or the next comparison finds it
			}
		}
	}
}

// compare tells of peers that the other gateways do not know of, at a bounded rate. It
// reports whether the peers could be read.
func (r *Relay) compare(ctx context.Context) (read bool) {
	begun := r.ledger.begin()
	reading, cancel := context.WithTimeout(ctx, compareTimeout)
	peers, err := r.Peers(reading)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.Log(journal.PriWarning, fmt.Sprintf("peers cannot be compared with what other gateways know: %v", err))
		}
		return false
	}
	r.ledger.forget(r.serves)
	r.mu.Lock()
	if r.doubtful {
		r.doubtful, r.recent = false, message.Recent{}
	}
	r.mu.Unlock()
	found := 0
	for _, domain := range slices.Sorted(maps.Keys(peers)) {
		if !r.serves(domain) {
			continue
		}
		for _, k := range r.ledger.compare(begun, domain, peers[domain]) {
			if !r.isNew(k) {
				continue
			}
			found++
			r.outbox.add(k)
			if !rest(ctx, comparePause) {
				return true
			}
		}
	}
	if found > 0 {
		r.Log(journal.PriNotice, fmt.Sprintf("other gateways were told of %d peers that they may not know of", found))
	}
	return true
}

// rest waits, and reports whether the context is still not done.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
