package httpd

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"wgkex/internal/httpapi"
)

// pool is the connections that are open. When there are too many, the one that has
// waited longest goes, of the source that has most: who comes in is served, whoever
// came before.
type pool struct {
	trusted func(netip.Addr) bool

	mu      sync.Mutex
	sources map[source]map[*connection]struct{}
	// total is by whether they are of proxies.
	total map[bool]int
	idle  *time.Timer
	after time.Duration
}

// source is whose connections count together. That of a proxy has no limit of its
// own.
type source struct {
	netip.Prefix
	proxy bool
}

// connection is one of a pool.
type connection struct {
	net.Conn
	pool     *pool
	source   source
	requests atomic.Int32
	lines    atomic.Int32 // of the request that is being read
	quiet    atomic.Bool  // nothing has come since the last answer

	// Those are the pool's.
	waiting time.Time // since when there is nothing to do for it
	busy    bool
	closed  bool
}

func newPool(trusted func(netip.Addr) bool) *pool {
	return &pool{trusted: trusted, sources: map[source]map[*connection]struct{}{}, total: map[bool]int{}}
}

// whenIdle calls do when there was no connection for so long.
func (p *pool) whenIdle(after time.Duration, do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after, p.idle = after, time.AfterFunc(after, do)
}

// add takes a connection in, which may cost another one. It is nil when there is no
// room.
func (p *pool) add(c net.Conn) *connection {
	n := &connection{Conn: c, pool: p, source: p.sourceOf(c), waiting: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	proxy := n.source.proxy
	full := p.total[proxy] >= maxConnections
	if mine := len(p.sources[n.source]); full || !proxy && mine >= maxOfSource {
		victim := p.victim(func(s source) bool {
			return s.proxy == proxy && (s == n.source || mine < maxOfSource)
		})
		if victim == nil {
			return nil
		}
		p.remove(victim)
		_ = victim.Conn.Close() // its server finds out
	}
	if p.sources[n.source] == nil {
		p.sources[n.source] = map[*connection]struct{}{}
	}
	p.sources[n.source][n] = struct{}{}
	p.total[proxy]++
	p.idle.Stop()
	return n
}

func (p *pool) sourceOf(c net.Conn) source {
	at, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return source{proxy: true}
	}
	addr := at.AddrPort().Addr().Unmap()
	return source{httpapi.Source(addr), p.trusted(addr)}
}

// victim is a connection that waits, of those sources the one that has most of them,
// of these the one that has waited longest. It is nil if all are busy.
func (p *pool) victim(of func(source) bool) (victim *connection) {
	most := 0
	for s, connections := range p.sources {
		if !of(s) || len(connections) < most {
			continue
		}
		for c := range connections {
			if !c.busy && (victim == nil || len(connections) > most || c.waiting.Before(victim.waiting)) {
				victim, most = c, len(connections)
			}
		}
	}
	return victim
}

// closeQuiet closes the connections on which nothing is under way.
func (p *pool) closeQuiet() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, connections := range p.sources {
		for c := range connections {
			if c.quiet.Load() {
				_ = c.Conn.Close() // its server finds out, and has it removed
			}
		}
	}
}

// open is how many connections there are.
func (p *pool) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total[true] + p.total[false]
}

// remove forgets a connection, once.
func (p *pool) remove(c *connection) {
	if c.closed {
		return
	}
	c.closed = true
	delete(p.sources[c.source], c)
	if len(p.sources[c.source]) == 0 {
		delete(p.sources, c.source)
	}
	p.total[c.source.proxy]--
	if p.total[true]+p.total[false] == 0 {
		p.idle.Reset(p.after)
	}
}

func (p *pool) setBusy(c *connection, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.busy = busy
	if !busy {
		c.waiting = time.Now()
	}
}

// Close is that of net.Conn.
func (c *connection) Close() error {
	c.pool.mu.Lock()
	c.pool.remove(c)
	c.pool.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets net/http say that there is no more to come before it closes, or
// what the client has sent and nobody reads could take the answer from it.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Read is that of net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.quiet.Store(false)
		if c.lines.Add(int32(bytes.Count(b[:n], []byte("\n")))) > maxLines {
			return 0, errLines
		}
	}
	return n, err
}

var errLines = errors.New("a request of too many lines")

// last counts a request and reports whether it has to be the last one.
func (c *connection) last() bool {
	c.lines.Store(0)
	c.quiet.Store(false)
	return c.requests.Add(1) >= maxRequests && !c.source.proxy
}

// listener has its connections in a pool.
type listener struct {
	net.Listener
	pool  *pool
	stale func() bool
	end   func()
}

// Accept is that of net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.stale != nil && l.stale() {
			l.end()
		}
		if n := l.pool.add(c); n != nil {
			return n, nil
		}
		_ = c.Close()
	}
}
