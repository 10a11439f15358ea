package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/message"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"

	"github.com/coreos/go-systemd/v22/journal"
)

// hub is an MQTT broker. It keeps what is for a client that is away, and does not give
// anybody a message of its own.
type hub struct {
	mu       sync.Mutex
	up       bool
	clients  map[string]*hubClient
	retained map[string]message.Message
	sent     []message.Message // all of them
}

// hubClient is a client's session, and its connection.
type hubClient struct {
	hub     *hub
	name    string
	filters []message.Subscription
	handler Handler
	there   bool
	session bool // the broker has one
	pending []message.Message
	wake    chan struct{}
}

func newHub() *hub {
	return &hub{up: true, clients: map[string]*hubClient{}, retained: map[string]message.Message{}}
}

func (h *hub) client(name string) *hubClient {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clients[name] == nil {
		h.clients[name] = &hubClient{hub: h, name: name, session: true, wake: make(chan struct{}, 1)}
	}
	return h.clients[name]
}

// set switches the broker off or on.
func (h *hub) set(up bool) {
	h.mu.Lock()
	h.up = up
	var there []*hubClient
	for _, c := range h.clients {
		if c.there {
			there = append(there, c)
		}
	}
	h.mu.Unlock()
	for _, c := range there {
		if up {
			c.connected()
			c.signal()
		} else {
			c.handler.Disconnected(errors.New("the broker has gone"))
		}
	}
}

// lose makes the broker forget all sessions.
func (h *hub) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.clients {
		c.session, c.pending, c.filters = false, nil, nil
	}
}

// connected tells the client of its connection.
func (c *hubClient) connected() {
	c.hub.mu.Lock()
	resumed := c.session
	c.session = true
	c.hub.mu.Unlock()
	c.handler.Connected(resumed)
}

func (h *hub) keys() (all []message.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.sent {
		if !m.Retained {
			all = append(all, m)
		}
	}
	return all
}

func (c *hubClient) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *hubClient) Start(ctx context.Context, handler Handler) error {
	c.hub.mu.Lock()
	c.handler, c.there = handler, true
	up := c.hub.up
	c.hub.mu.Unlock()
	if up {
		c.connected()
	}
	go func() {
		defer func() {
			c.hub.mu.Lock()
			c.there = false
			c.hub.mu.Unlock()
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.wake:
			}
			for {
				c.hub.mu.Lock()
				var m message.Message
				some := c.hub.up && len(c.pending) > 0
				if some {
					m, c.pending = c.pending[0], c.pending[1:]
				}
				c.hub.mu.Unlock()
				if !some {
					break
				}
				handler.Received(m)
			}
		}
	}()
	c.signal()
	return nil
}

func (c *hubClient) Subscribe(_ context.Context, to ...message.Subscription) error {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if !c.hub.up {
		return errors.New("the broker has gone")
	}
	c.filters = to
	for _, m := range c.hub.retained {
		if s, ok := c.wants(m); ok && s.Kept {
			c.pending = append(c.pending, m)
		}
	}
	c.signal()
	return nil
}

func (c *hubClient) wants(m message.Message) (message.Subscription, bool) {
	for _, s := range c.filters {
		want, got := strings.Split(s.Filter, "/"), strings.Split(m.Topic, "/")
		match := len(want) == len(got)
		for i := 0; match && i < len(want); i++ {
			match = want[i] == "+" || want[i] == got[i]
		}
		if match {
			return s, true
		}
	}
	return message.Subscription{}, false
}

func (c *hubClient) Publish(ctx context.Context, m message.Message) error {
	for {
		c.hub.mu.Lock()
		up := c.hub.up
		if up {
			c.hub.deliver(c, m)
		}
		c.hub.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// deliver gives the message to all but its sender. The lock is held.
func (h *hub) deliver(from *hubClient, m message.Message) {
	h.sent = append(h.sent, m)
	if m.Retained {
		h.retained[m.Topic] = m
	}
	m.Retained = false
	for _, c := range h.clients {
		if _, ok := c.wants(m); ok && c != from {
			c.pending = append(c.pending, m)
			c.signal()
		}
	}
}

// publish is a message of another client.
func (h *hub) publish(m message.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deliver(nil, m)
}

// said is what is retained of a topic.
func (h *hub) said(topic string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.retained[topic].Payload)
}

func (c *hubClient) Close(context.Context) {}

// node is a gateway with a relay. Its local socket adds peers.
type node struct {
	t     *testing.T
	hub   *hub
	relay *Relay
	name  string
	dir   string
	gateway

	announcements net.Conn // where handlers send to
	stop          func()
	ended         chan error

	mu2    sync.Mutex
	peers  map[message.Key]bool
	unread bool // domain d cannot be read
	fail   int  // so many readings of the keys fail
	stale  bool
	logged []string
	alive  int
}

func newNode(t *testing.T, h *hub, name string) *node {
	return &node{t: t, hub: h, name: name, dir: t.TempDir(), peers: map[message.Key]bool{}}
}

// newRelay is that of a new process.
func (n *node) newRelay() *Relay {
	return &Relay{
		Name: n.name, Address: n.name + ".example.org", Domains: []string{"d", "e"}, Broker: n.hub.client(n.name),
		Ask: func(ctx context.Context, r protocol.Request) (protocol.Answer, error) {
			a, err := n.ask(ctx, r)
			if err == nil && a.Code == outcome.OK {
				k, _ := address.ParseKey(r.Key)
				n.mu2.Lock()
				n.peers[message.Key{Domain: r.Domain, Key: k}] = true
				n.mu2.Unlock()
			}
			return a, err
		},
		Ledger: filepath.Join(n.dir, "ledger"), Known: filepath.Join(n.dir, "gateways.json"), Numbers: filepath.Join(n.dir, "stats.json"),
		Own: func(context.Context) (all []gateways.Own, err error) {
			n.mu2.Lock()
			defer n.mu2.Unlock()
			for _, domain := range []string{"d", "e"} {
				if domain == "d" && n.unread {
					continue
				}
				own := gateways.Own{Domain: domain, Port: 51820, Key: key(77), Link: netip.MustParseAddr("fe80::1")}
				for k := range n.peers {
					if k.Domain == domain {
						own.Live++
					}
				}
				all = append(all, own)
			}
			return all, nil
		},
		Peers: func(context.Context) (map[string][]address.Key, error) {
			n.mu2.Lock()
			defer n.mu2.Unlock()
			if n.fail > 0 {
				n.fail--
				return nil, errors.New("no answer")
			}
			all := map[string][]address.Key{"d": {}, "e": {}}
			for k := range n.peers {
				all[k.Domain] = append(all[k.Domain], k.Key)
			}
			return all, nil
		},
		SinceBoot: func() time.Duration { return time.Hour + time.Duration(time.Now().Unix())*time.Second },
		Stale: func() bool {
			n.mu2.Lock()
			defer n.mu2.Unlock()
			return n.stale
		},
		Alive: func() { n.alive++ },
		Log: func(p journal.Priority, text string, _ ...logging.Field) {
			n.mu2.Lock()
			defer n.mu2.Unlock()
			n.logged = append(n.logged, fmt.Sprint(int(p), " ", text))
		},
	}
}

// start starts the relay; stop ends it.
func (n *node) start() {
	ctx, cancel := context.WithCancel(n.t.Context())
	var theirs net.Conn
	n.announcements, theirs = net.Pipe()
	n.relay = n.newRelay()
	n.relay.Announcements = theirs
	n.ended = make(chan error, 1)
	go func() { n.ended <- n.relay.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-n.ended; err != nil {
			n.t.Error(err)
		}
	}
	synctest.Wait()
}

// register has routers register at the node itself.
func (n *node) register(keys ...message.Key) {
	for _, k := range keys {
		n.mu2.Lock()
		n.peers[k] = true
		n.mu2.Unlock()
		_ = n.announcements.SetWriteDeadline(time.Now().Add(time.Millisecond)) // nobody waits
		_, _ = n.announcements.Write([]byte(k.Domain + "\n" + k.Key.String() + "\n"))
	}
}

// put and drop make a key a peer or none, without a word to the relay.
func (n *node) put(k message.Key) {
	n.mu2.Lock()
	defer n.mu2.Unlock()
	n.peers[k] = true
}

func (n *node) drop(k message.Key) {
	n.mu2.Lock()
	defer n.mu2.Unlock()
	delete(n.peers, k)
}

func (n *node) has(keys ...message.Key) bool {
	n.mu2.Lock()
	defer n.mu2.Unlock()
	return !slices.ContainsFunc(keys, func(k message.Key) bool { return !n.peers[k] })
}

func (n *node) known() gateways.Known {
	n.t.Helper()
	text, err := os.ReadFile(n.relay.Known)
	if err != nil {
		n.t.Fatal(err)
	}
	k, err := gateways.Parse(text)
	if err != nil {
		n.t.Fatal(err)
	}
	return k
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func run(t *testing.T, do func(t *testing.T, h *hub, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newNode(t, h, "gw01"), newNode(t, h, "gw02")
		a.start()
		b.start()
		settle(2 * time.Second)
		do(t, h, a, b)
		a.stop()
		b.stop()
		synctest.Wait()
	})
}

// A router that registers at one gateway is a peer of both, and each is told of once.
func TestRelay(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		other := message.Key{Domain: "e", Key: key(1)}
		a.register(numbered(1), numbered(1), other)
		b.register(numbered(2))
		settle(time.Second)
		if !a.has(numbered(1), numbered(2), other) || !b.has(numbered(1), numbered(2), other) {
			t.Errorf("%v, %v", a.peers, b.peers)
		}
		if sent := h.keys(); len(sent) != 3 {
			t.Errorf("sent %+v", sent)
		}
		// At the other one, too, in the same minute.
		b.register(numbered(1))
		settle(time.Second)
		if len(h.keys()) != 3 {
			t.Errorf("sent %+v", h.keys())
		}
		// Hours later nothing is sent again, unless a router registers again.
		settle(compareEvery + time.Minute)
		if len(h.keys()) != 3 {
			t.Errorf("sent %+v", h.keys())
		}
		b.register(numbered(1))
		settle(time.Second)
		if sent := h.keys(); len(sent) != 4 || sent[3].Origin != "gw02" {
			t.Errorf("sent %+v", sent)
		}
		if s := a.relay.Stats(); !s.Connected || s.Sent != 2 || s.Received[gateways.Result(outcome.OK)] != 2 || s.Waiting != 0 || s.Unsent != 0 {
			t.Errorf("%+v", s)
		}
		text, err := os.ReadFile(a.relay.Numbers)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := gateways.ParseStats(text); err != nil || !s.Connected || s.Sent != 2 || a.relay.SinceBoot()-s.At > 2*numbersEvery {
			t.Errorf("written are %+v, %v", s, err)
		}
		if a.alive < int(compareEvery/tick) {
			t.Errorf("%d signs of life", a.alive)
		}
	})
}

// What is not to be taken is not taken, and counted.
func TestRefused(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, _ *node) {
		before := a.relay.Stats().Received
		k := numbered(1).Message()
		for _, m := range []message.Message{
			{Topic: k.Topic, Payload: make([]byte, 256<<10)},
			{Topic: k.Topic, Payload: []byte("x")},
			{Topic: "wireguard-worker/gw03/status", Payload: []byte("x")},
			{Topic: k.Topic, Payload: k.Payload, Origin: "gw01"},
			{Topic: k.Topic, Payload: k.Payload, Origin: "gw03"},
			{Topic: k.Topic, Payload: k.Payload},
		} {
			h.publish(m)
		}
		// What the broker should not have sent.
		handler{a.relay}.Received(message.Message{Topic: "wireguard/x/all", Payload: k.Payload})
		settle(time.Second)
		after := a.relay.Stats().Received
		for result, want := range map[gateways.Result]uint64{gateways.ResultInvalid: 3, gateways.ResultOwn: 1, gateways.Result(outcome.OK): 1, gateways.ResultRepeated: 1, gateways.ResultDomain: 1} {
			if got := after[result] - before[result]; got != want {
				t.Errorf("%s: %d, want %d", result, got, want)
			}
		}
	})
}

// What there is no room for is left out, and does not make the ledger grow.
func TestFull(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, _ *node) {
		a.took = 24 * time.Hour
		const more = 1000
		for i := range maxWaiting + more {
			handler{a.relay}.Received(numbered(i).Message())
		}
		if s := a.relay.Stats(); s.Waiting != maxWaiting || s.Received[gateways.ResultFull] != more {
			t.Errorf("%+v", s)
		}
		text, err := os.ReadFile(a.relay.Ledger)
		if n := strings.Count(string(text), "\n"); err != nil || n != maxWaiting+1 {
			t.Errorf("%d lines, %v", n, err)
		}
	})
}

// While the broker is away keys stay where they are, and then all have all.
func TestBrokerAway(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		h.set(false)
		var keys []message.Key
		for i := range 500 {
			keys = append(keys, numbered(i))
			[]*node{a, b}[i%2].register(numbered(i))
			settle(100 * time.Millisecond)
		}
		settle(time.Minute)
		if len(h.keys()) != 0 || a.relay.Stats().Connected || a.relay.Stats().Unsent != 250 {
			t.Errorf("sent %d, %+v", len(h.keys()), a.relay.Stats())
		}
		h.set(true)
		settle(5 * time.Second)
		if !a.has(keys...) || !b.has(keys...) || len(h.keys()) != len(keys) {
			t.Errorf("%d, %d of %d, %d were sent", len(a.peers), len(b.peers), len(keys), len(h.keys()))
		}
		settle(compareEvery + time.Minute)
		if len(h.keys()) != len(keys) {
			t.Errorf("%d were sent", len(h.keys()))
		}
	})
}

// What came while no relay ran is made up for: what others have sent, and what was
// accepted here.
func TestRelayAway(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		a.register(numbered(1))
		settle(time.Second)
		b.stop()
		settle(time.Minute)
		a.register(numbered(2))
		b.register(numbered(3))
		settle(time.Minute)
		if b.has(numbered(2)) || a.has(numbered(3)) {
			t.Error("without a relay")
		}
		b.start()
		settle(compareAfter + 2*tick)
		if !b.has(numbered(2)) || !a.has(numbered(3)) || len(h.keys()) != 3 {
			t.Errorf("%v, %v, sent %+v", a.peers, b.peers, h.keys())
		}
		// What handlers could not tell is found each hour.
		b.mu2.Lock()
		b.peers[numbered(4)] = true
		b.mu2.Unlock()
		settle(compareEvery + 2*tick)
		if !a.has(numbered(4)) || len(h.keys()) != 4 {
			t.Errorf("%v, sent %+v", a.peers, h.keys())
		}
		settle(compareEvery + time.Minute)
		if len(h.keys()) != 4 {
			t.Errorf("sent %+v", h.keys())
		}
	})
}

// A broker that dies has lost what it should have passed on. Each gateway says once more
// what it has said, when the others are there again, and not what it has heard.
func TestBrokerForgets(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		a.register(numbered(1))
		b.register(numbered(2))
		settle(2 * time.Second)
		b.stop()
		a.register(numbered(3))
		settle(2 * time.Second)
		h.set(false)
		h.lose()
		h.set(true)
		a.register(numbered(4)) // the broker has nobody to pass it on to
		settle(5 * time.Second)
		// A second connection, which the broker knows, does not end the doubt.
		c := h.client("gw01")
		c.handler.Disconnected(errors.New("lost"))
		c.handler.Connected(true)
		settle(time.Minute)
		b.start()
		settle(2 * doubtAfter)
		if !b.has(numbered(3), numbered(4)) {
			t.Errorf("the other gateway has %v", b.peers)
		}
		said := map[string]int{}
		for _, m := range h.keys() {
			said[m.Origin+" "+string(m.Payload)]++
		}
		if want := map[string]int{"gw01 " + key(1).String(): 2, "gw01 " + key(3).String(): 2, "gw01 " + key(4).String(): 2, "gw02 " + key(2).String(): 2}; !maps.Equal(said, want) {
			t.Errorf("said were %v, want %v", said, want)
		}
		before := len(h.keys())
		settle(2 * compareEvery)
		if got := len(h.keys()); got != before {
			t.Errorf("%d keys were said without a reason", got-before)
		}
	})
}

// A relay that ends in the middle of its work goes on with it, in order.
func TestKilled(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		b.took = time.Second
		var keys []message.Key
		for i := range 1000 {
			keys = append(keys, numbered(i))
			h.publish(numbered(i).Message())
		}
		settle(2500 * time.Millisecond)
		waiting := b.relay.Stats().Waiting
		if waiting == 0 || waiting > 1000-atOnce {
			t.Errorf("%d wait", waiting)
		}
		b.stop()
		b.mu.Lock()
		asked := len(b.asked)
		b.mu.Unlock()
		b.start()
		settle(20 * time.Second)
		if !b.has(keys...) || b.relay.Stats().Waiting != 0 {
			t.Errorf("%d peers, %+v", len(b.peers), b.relay.Stats())
		}
		// Those that were done are not done again.
		if again := len(b.asked) - asked; again != waiting {
			t.Errorf("%d were asked for again, want %d", again, waiting)
		}
		if sent := len(h.keys()); sent != 1000 {
			t.Errorf("%d were sent", sent)
		}
	})
}

// A comparison of many does not send them all at a time.
func TestCompareRate(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		a.mu2.Lock()
		for i := range 5000 {
			a.peers[numbered(i)] = true
		}
		a.mu2.Unlock()
		before := 0
		for range 70 {
			settle(time.Second)
			now := len(h.keys())
			if now-before > int(time.Second/comparePause)+publishers {
				t.Fatalf("%d in a second", now-before)
			}
			before = now
		}
		if len(b.peers) != 5000 || before != 5000 {
			t.Errorf("%d peers, %d sent", len(b.peers), before)
		}
	})
}

// Each gateway knows of the other how it is reached and how many peers it has, whether it
// is there and how long it is silent.
func TestPresence(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		b.register(numbered(1), numbered(2))
		settle(presenceEvery + 2*tick)
		there := a.known()["gw02"]
		d := there.Domains["d"]
		if !there.Online || d.Live != 2 || a.relay.SinceBoot()-d.Counted > 10*time.Second || d.Endpoint == nil || d.Endpoint.Host != "gw02.example.org" || there.Domains["e"].Live != 0 {
			t.Errorf("%+v, %+v", there, d.Endpoint)
		}
		if own := a.known()["gw01"]; !own.Online || own.Domains["d"].Live != 2 || own.Domains["d"].Endpoint == nil {
			t.Errorf("itself: %+v", own)
		}
		// What does not change is said once, the number each minute.
		count := func(topic string) (n int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, m := range h.sent {
				if m.Topic == topic {
					n++
				}
			}
			return n
		}
		settle(10 * presenceEvery)
		if data, live := count("wireguard-worker/gw02/d/data"), count("wireguard-metrics/d/gw02/connected_peers"); data != 1 || live < 11 || live > 12 {
			t.Errorf("data was said %d times, the number %d times", data, live)
		}
		// A domain that cannot be read any more.
		b.mu2.Lock()
		b.unread = true
		b.mu2.Unlock()
		settle((absentAfter - 1) * presenceEvery)
		if d := a.known()["gw02"].Domains["d"]; d.Live != 2 {
			t.Errorf("after a moment: %+v", d)
		}
		settle(2 * presenceEvery)
		if g := a.known()["gw02"]; g.Domains["d"].Live != -1 || g.Domains["e"].Live != 0 {
			t.Errorf("afterwards: %+v", g)
		}
		b.mu2.Lock()
		b.unread = false
		b.mu2.Unlock()
		settle(presenceEvery + tick)
		if d := a.known()["gw02"].Domains["d"]; d.Live != 2 {
			t.Errorf("again: %+v", d)
		}
		b.stop()
		settle(2 * tick)
		if g := a.known()["gw02"]; g.Online || g.Domains["d"].Live != -1 || g.Domains["e"].Live != -1 {
			t.Errorf("gone: %+v", g)
		}
		b.start()
		settle(2 * tick)
		if g := a.known()["gw02"]; !g.Online || g.Domains["d"].Live != 2 {
			t.Errorf("back: %+v", g)
		}
		// Without a broker numbers become old.
		h.set(false)
		settle(5 * presenceEvery)
		for name, g := range a.known() {
			if age := a.relay.SinceBoot() - g.Domains["d"].Counted; age < 4*presenceEvery {
				t.Errorf("%s: the number is %v old", name, age)
			}
		}
		h.set(true)
		settle(2 * tick)
		for name, g := range a.known() {
			if age := a.relay.SinceBoot() - g.Domains["d"].Counted; !g.Online || age > 4*tick {
				t.Errorf("%s, afterwards: %+v", name, g)
			}
		}
	})
}

// With another configuration the relay ends, and says so to the others.
// What makes it up for a datagram that was lost, whatever happens to it: a connection that
// comes and goes, a reading that fails, a key that was forgotten and comes again while the
// relay is away.
func TestMadeUpFor(t *testing.T) {
	for name, disturb := range map[string]func(h *hub, a, b *node, k message.Key){
		"a connection that comes and goes": func(h *hub, a, _ *node, k message.Key) {
			a.put(k)
			c := h.client("gw01")
			for range 3600 / 8 {
				c.handler.Disconnected(errors.New("another client has the same name"))
				c.handler.Connected(true)
				settle(8 * time.Second)
			}
		},
		"a reading that fails": func(_ *hub, a, _ *node, k message.Key) {
			a.stop()
			a.put(k)
			a.fail = 1
			a.start()
			settle(2 * time.Minute)
		},
		"a key that was forgotten": func(_ *hub, a, b *node, k message.Key) {
			a.register(k)
			settle(time.Minute)
			a.drop(k)
			b.drop(k)
			settle(2 * time.Hour)
			a.stop()
			a.put(k)
			a.start()
			settle(2 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, h *hub, a, b *node) {
				settle(2 * compareEvery)
				disturb(h, a, b, numbered(1))
				if !b.has(numbered(1)) {
					t.Error("the other gateway does not have the key")
				}
			})
		})
	}
}

// A gateway is on line whatever others say, and however many these are.
func TestOnLine(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, _ *node) {
		const topic = "wireguard-worker/gw01/status"
		h.publish(message.Status{Gateway: "gw01"}.Message()) // as Munich's worker at its end
		settle(2 * presenceEvery)
		if got := h.said(topic); got != "1" {
			t.Errorf("the status is %q", got)
		}
		a.stop()
		for i := range 64 {
			h.publish(message.Status{Gateway: fmt.Sprint("other", i), Online: true}.Message())
		}
		a.start()
		settle(2 * presenceEvery)
		if got := h.said(topic); got != "1" {
			t.Errorf("with 64 others the status is %q", got)
		}
		if !a.known()["gw01"].Online {
			t.Error("it does not know of itself")
		}
	})
}

func TestStale(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		b.mu2.Lock()
		b.stale = true
		b.mu2.Unlock()
		settle(2 * tick)
		select {
		case err := <-b.ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatal("it has not ended")
		}
		settle(2 * tick)
		if a.known()["gw02"].Online {
			t.Error("on line")
		}
		b.stale = false
		b.start()
	})
}

// A relay that has no connection for long ends, to be started with the files of then.
func TestAnew(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		h.set(false)
		settle(anewAfter - 2*tick)
		h.set(true)
		settle(anewAfter)
		h.set(false)
		settle(anewAfter - 2*tick)
		select {
		case <-b.ended:
			t.Fatal("it has ended too early")
		default:
		}
		settle(2*tick + 2*farewellTimeout)
		for _, n := range []*node{a, b} {
			select {
			case err := <-n.ended:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Fatal("it has not ended")
			}
		}
		h.set(true)
		a.start()
		b.start()
		settle(tick)
	})
}

// Datagrams that are none of a handler's do no harm.
func TestAnnouncements(t *testing.T) {
	run(t, func(t *testing.T, h *hub, a, b *node) {
		for _, text := range []string{"x", "nowhere\n" + key(1).String() + "\n", strings.Repeat("x", 100)} {
			if _, err := a.announcements.Write([]byte(text)); err != nil {
				t.Error(err)
			}
		}
		a.register(numbered(1))
		settle(time.Second)
		if len(h.keys()) != 1 || !b.has(numbered(1)) {
			t.Errorf("sent %+v", h.keys())
		}
	})
}
