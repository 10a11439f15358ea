// Package httpd serves HTTP on the sockets that systemd hands over: with limits, for
// as long as there is work.
package httpd

import (
	"bytes"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// What a client may take of the server. None of it is for the configuration: a
// router needs one connection, one request and a second.
const (
	headerTimeout = 5 * time.Second
	// requestTimeout is for headers and body together, also one that is thrown away,
	// and answerTimeout for all of a request.
	requestTimeout = 10 * time.Second
	answerTimeout  = 25 * time.Second
	keepAlive      = 30 * time.Second
	// maxHeader is what net/http takes for 8 KiB: it adds 4 KiB of its own.
	maxHeader = 4 << 10
	// maxLines is how many lines a request may have, of which net/http makes something
	// that takes thirty times as much memory.
	maxLines = 256
	// maxRequests is how many requests a connection may make that is not of a proxy:
	// what limits connections limits requests then, too.
	maxRequests = 16
	// maxConnections are all, and as many of trusted proxies; maxOfSource those of one
	// client.
	maxConnections = 512
	maxOfSource    = 64
	// endTimeout is how long the end waits for requests under way.
	endTimeout = 10 * time.Second
)

// Server is an HTTP server.
type Server struct {
	Handler http.Handler
	// Trusted reports whether the address is one of a proxy. Whoever comes by a UNIX
	// socket is one, too.
	Trusted func(netip.Addr) bool
	// Idle is how long there must be no connection for the server to end.
	Idle time.Duration
	// Stale reports whether the sockets are not those that there should be any more.
	// The server then ends with the connection that it has just taken, and the next one
	// starts it with others. It may be nil.
	Stale func() bool
	// Troubled is told of what goes wrong in the server itself. It may be nil.
	Troubled func(error)

	ending atomic.Bool
}

// Run serves until the context is done, or there is no work. Then it takes no more
// connections, which wait in the sockets for the next process, and ends when those
// that it has taken are served.
func (s *Server) Run(ctx context.Context, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connections := newPool(s.Trusted)
	connections.whenIdle(s.Idle, cancel)
	server := &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  requestTimeout,
		WriteTimeout:                 answerTimeout,
		IdleTimeout:                  keepAlive,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(errorLog{s.Troubled}, "", 0),
		ConnState: func(c net.Conn, state http.ConnState) {
			if c, ok := c.(*connection); ok && state == http.StateIdle {
				c.quiet.Store(true)
			}
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
	}
	failed := make([]error, len(listeners))
	var wg sync.WaitGroup
	for i, l := range listeners {
		wg.Go(func() {
			failed[i] = server.Serve(listener{l, connections, s.Stale, cancel})
			cancel()
		})
	}
	<-ctx.Done()
	for _, l := range listeners {
		_ = l.Close() // ends Serve
	}
	wg.Wait()
	// Not Shutdown and SetKeepAlivesEnabled, which drop a request that has just arrived.
	s.ending.Store(true)
	for end := time.Now().Add(endTimeout); connections.open() > 0 && time.Now().Before(end); {
		connections.closeQuiet()
		time.Sleep(10 * time.Millisecond)
	}
	_ = server.Close() // whoever is still there has had the time
	for i, err := range failed {
		if errors.Is(err, net.ErrClosed) {
			failed[i] = nil
		}
	}
	return errors.Join(failed...)
}

// key is that of the connection in a request's context.
type key struct{}

// serve counts the requests of a connection.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if c, ok := r.Context().Value(key{}).(*connection); ok && c.last() || s.ending.Load() {
		w.Header().Set("Connection", "close")
	}
	s.Handler.ServeHTTP(w, r)
}

// errorLog passes on what is not a client's fault: net/http says both in the same way.
type errorLog struct{ troubled func(error) }

func (l errorLog) Write(line []byte) (int, error) {
	for _, trouble := range []string{"panic", "Accept error"} {
		if l.troubled != nil && bytes.Contains(line, []byte(trouble)) {
			first, _, _ := bytes.Cut(line, []byte("\n")) // not a whole stack
			l.troubled(errors.New(string(first)))
		}
	}
	return len(line), nil
}

// Busy marks the connection of a request's context as one that is not to be closed
// for others, until done is called.
func Busy(ctx context.Context) (done func()) {
	c, ok := ctx.Value(key{}).(*connection)
	if !ok {
		return func() {}
	}
	c.pool.setBusy(c, true)
	return func() { c.pool.setBusy(c, false) }
}
