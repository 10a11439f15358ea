package mqtt

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/announce"
	"wgkex/internal/gateways"
	"wgkex/internal/logging"
	"wgkex/internal/message"
	"wgkex/internal/mqtt/mqtttest"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
	"wgkex/internal/relay"

	"github.com/coreos/go-systemd/v22/journal"
)

// gateway is one with a relay, and a local socket that accepts all.
type gateway struct {
	t           *testing.T
	name, dir   string
	broker      string
	end         context.CancelFunc
	ended       chan error
	mu          sync.Mutex
	peers       map[address.Key]bool
	asked       int
	disconnects int
}

func newGateway(t *testing.T, name, broker string) *gateway {
	g := &gateway{t: t, name: name, broker: broker, dir: t.TempDir(), peers: map[address.Key]bool{}}
	t.Cleanup(func() { g.stop() })
	return g
}

func (g *gateway) file(name string) string { return filepath.Join(g.dir, name) }

func (g *gateway) start() {
	g.t.Helper()
	_ = os.Remove(g.file("announce.sock"))
	announcements, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: g.file("announce.sock"), Net: "unixgram"})
	if err != nil {
		g.t.Fatal(err)
	}
	r := &relay.Relay{
		Name: g.name, Address: g.name + ".example.org", Domains: []string{"d"},
		Broker: New(Settings{URL: g.broker, Gateway: g.name}, func(error) {}),
		Ask: func(_ context.Context, r protocol.Request) (protocol.Answer, error) {
			k, err := address.ParseKey(r.Key)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.peers[k] = true
			g.asked++
			return protocol.Answer{Code: outcome.OK}, err
		},
		Own: func(context.Context) ([]gateways.Own, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			return []gateways.Own{{Domain: "d", Live: len(g.peers), Port: 51820, Key: number(1), Link: netip.MustParseAddr("fe80::1")}}, nil
		},
		Peers: func(context.Context) (map[string][]address.Key, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			var keys []address.Key
			for k := range g.peers {
				keys = append(keys, k)
			}
			return map[string][]address.Key{"d": keys}, nil
		},
		Announcements: announcements,
		Ledger:        g.file("ledger"), Known: g.file("gateways.json"), Numbers: g.file("stats.json"),
		SinceBoot: func() time.Duration { return time.Duration(time.Now().UnixNano()) },
		Stale:     func() bool { return false }, Alive: func() {},
		Log: func(_ journal.Priority, text string, _ ...logging.Field) {
			g.mu.Lock()
			defer g.mu.Unlock()
			if text != "connected to the broker" {
				g.disconnects++
			}
		},
	}
	var ctx context.Context
	ctx, g.end = context.WithCancel(context.Background())
	g.ended = make(chan error, 1)
	go func() { g.ended <- r.Run(ctx) }()
}

func (g *gateway) stop() {
	if g.end == nil {
		return
	}
	g.end()
	if err := <-g.ended; err != nil {
		g.t.Error(err)
	}
	g.end = nil
}

func number(n int) (k address.Key) {
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	k[20] = 1
	return k
}

// register has routers register here.
func (g *gateway) register(numbers ...int) {
	for _, n := range numbers {
		g.mu.Lock()
		g.peers[number(n)] = true
		g.mu.Unlock()
		announce.Send(g.file("announce.sock"), "d", number(n))
	}
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.peers)
}

func (g *gateway) knows(name string) gateways.Gateway {
	text, err := os.ReadFile(g.file("gateways.json"))
	if err != nil {
		return gateways.Gateway{}
	}
	k, err := gateways.Parse(text)
	if err != nil {
		g.t.Error(err)
	}
	return k[name]
}

// Two gateways have all keys of each other, whatever becomes of broker and relays.
func TestRelays(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t, "allow_anonymous true", "max_queued_messages 0")
	a, b := newGateway(t, "gw01", "mqtt://"+m.Address), newGateway(t, "gw02", "mqtt://"+m.Address)
	a.start()
	b.start()
	eventually(t, "both know each other", func() bool { return a.knows("gw02").Online && b.knows("gw01").Online })
	if d := a.knows("gw02").Domains["d"]; d.Endpoint == nil || d.Endpoint.Host != "gw02.example.org" || d.Live != 0 {
		t.Errorf("%+v", d)
	}
	a.register(1, 2, 3)
	b.register(4)
	eventually(t, "both have four peers", func() bool { return a.count() == 4 && b.count() == 4 })

	// The broker is killed while routers register at both.
	registering := make(chan struct{})
	go func() {
		defer close(registering)
		for i := range 500 {
			[]*gateway{a, b}[i%2].register(100 + i)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	m.Kill()
	<-registering
	m.Restart()
	eventually(t, "both have all", func() bool { return a.count() == 504 && b.count() == 504 })

	// One relay ends, and comes again.
	b.stop()
	eventually(t, "the end is known", func() bool { return !a.knows("gw02").Online })
	a.register(1000, 1001)
	b.mu.Lock()
	b.peers[number(1002)] = true
	b.mu.Unlock()
	b.start()
	eventually(t, "what came meanwhile", func() bool { return a.count() == 507 && b.count() == 507 })
	a.stop()
	if a.disconnects == 0 {
		t.Error("nobody was disconnected")
	}
}

// Thousands at once come in bounded time, and nothing is lost of them, nor done twice.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t, "allow_anonymous true", "max_queued_messages 0")
	b := newGateway(t, "gw02", "mqtt://"+m.Address)
	b.start()
	a := join(t, at(m, "gw01"))
	a.subscribe("d")
	a.hears("wireguard-worker/gw02/status", "1")
	const n = 2000
	var wg sync.WaitGroup
	for part := range slices.Chunk(slices.Collect(numbers(n)), n/20) {
		wg.Go(func() {
			for _, i := range part {
				if err := a.Publish(t.Context(), (message.Key{Domain: "d", Key: number(i)}).Message()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	begun := time.Now()
	wg.Wait()
	sent := time.Since(begun)
	eventually(t, "all are there", func() bool { return b.count() == n })
	t.Logf("sent in %v, done in %v", sent, time.Since(begun))
	b.stop()
	if b.asked != n {
		t.Errorf("%d exchanges", b.asked)
	}
	if text := fmt.Sprint(len(a.heard("wireguard/d/all"))); text != "0" {
		t.Errorf("%s keys came back", text)
	}
}

func numbers(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}
