package metrics

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/client"
	"wgkex/internal/config"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// What a client may take of the process, which serves one request.
const (
	headerTimeout = 5 * time.Second
	// answerTimeout is for all domains to be read at a time, each after a wait for its
	// lock, and for the client to take the answer.
	answerTimeout = 60 * time.Second
	// maxHeader is what net/http takes for 8 KiB: it adds 4 KiB of its own.
	maxHeader = 4 << 10
)

// The paths that there are.
const (
	metricsPath = "/metrics"
	statusPath  = "/status.json"
	// Those are for wgkex-relay.service.
	ownPath  = client.OwnPath
	keysPath = client.KeysPath
)

// Handler serves the metrics, the status and the page.
func (g Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(metricsPath, func(w http.ResponseWriter, r *http.Request) {
		promhttp.HandlerFor(g.Gatherer(r.Context()), promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: true}).ServeHTTP(w, r)
	})
	mux.HandleFunc(statusPath, g.serveStatus)
	mux.HandleFunc("/{$}", g.servePage)
	mux.HandleFunc(ownPath, g.serveOwn)
	mux.HandleFunc(keysPath, g.serveKeys)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serveStatus serves what wgkex status --json prints. Domains that cannot be read are
// missing there, too; Warn is told of them.
func (g Gateway) serveStatus(w http.ResponseWriter, r *http.Request) {
	cfg, ok := g.config(w)
	if !ok {
		return
	}
	all, err := g.Status.Collect(r.Context(), cfg, cfg.Sorted())
	if err != nil {
		g.Status.Warn(err)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = all.WriteJSON(w) // a client that is gone needs no answer
}

// config reads the configuration, or says that there is none.
func (g Gateway) config(w http.ResponseWriter) (config.Config, bool) {
	cfg, err := g.ReadEffective()
	if err != nil {
		g.Status.Warn(err)
		http.Error(w, "there was no valid configuration yet", http.StatusServiceUnavailable)
	}
	return cfg, err == nil
}

// serveOwn serves what other gateways are told of this one, as JSON.
func (g Gateway) serveOwn(w http.ResponseWriter, r *http.Request) {
	if cfg, ok := g.config(w); ok {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(g.Status.Own(r.Context(), cfg)) // a client that is gone needs no answer
	}
}

// serveKeys serves the managed peers: a line for each with domain and key, and one before
// them with the domain alone, which says that it could be read.
func (g Gateway) serveKeys(w http.ResponseWriter, r *http.Request) {
	cfg, ok := g.config(w)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := bufio.NewWriter(w)
	g.Status.Keys(r.Context(), cfg, func(domain string, keys []address.Key) {
		fmt.Fprintln(out, domain)
		for _, k := range keys {
			fmt.Fprintln(out, domain, k)
		}
	})
	_ = out.Flush() // a client that is gone needs no answer
}

// Serve serves one request on the connection, and closes that.
func Serve(ctx context.Context, conn net.Conn, handler http.Handler) error {
	server := &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout,
		WriteTimeout:                 answerTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
	}
	server.SetKeepAlivesEnabled(false)
	one := &listener{ended: make(chan struct{})}
	one.conn = &connection{Conn: conn, ended: sync.OnceFunc(func() { close(one.ended) })}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := server.Serve(one); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// listener has one connection. Its end is that of the connection.
type listener struct {
	conn  net.Conn
	ended chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.ended
	return nil, io.EOF
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

// connection tells when it is closed.
type connection struct {
	net.Conn
	ended func()
}

func (c *connection) Close() error {
	defer c.ended()
	return c.Conn.Close()
}

// CloseWrite lets net/http close the connection without a reset, which could take the
// answer away from the client.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
