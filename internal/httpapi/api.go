// Package httpapi is the exchange over HTTP: what routers ask, and how they are
// answered. docs/http.md describes both for those who write clients.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strconv"
	"sync"
	"time"

	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

const (
	// MaxBody is the longest body of a request, in bytes.
	MaxBody = 4 << 10
	// bodyTimeout is how long a body may take, however slowly it drips.
	bodyTimeout = 5 * time.Second
	// exchangeTimeout is how long an exchange may take.
	exchangeTimeout = 5 * time.Second
	// retryAfter is when a client may ask again what could not be answered, in
	// seconds. Routers do so each minute.
	retryAfter = 60
	// maxAsking is how many exchanges one client may ask for at a time.
	maxAsking = 32
)

// Settings is what the configuration says about HTTP.
type Settings struct {
	// TrustedProxies are those whose word about a client's address counts, beside
	// whoever comes by the UNIX socket.
	TrustedProxies []netip.Prefix
	// DefaultDomain is the domain of requests that name none, empty for none.
	DefaultDomain string
	// Address is the host name or IP address where routers reach WireGuard.
	Address string
}

// API answers requests. Its connections are of TCP, or of a UNIX socket.
type API struct {
	// Exchange asks for an exchange. The error says that there was no answer.
	Exchange func(context.Context, protocol.Request) (protocol.Answer, error)
	// Settings reads them.
	Settings func() (Settings, error)
	// Elsewhere is the end of the tunnels of another gateway, which the router with the
	// key is to connect to, if there is one that is better for it. Usable says that it
	// could connect to this gateway. Nil is for a gateway that knows no others.
	Elsewhere func(domain, key string, usable bool) (Endpoint, bool)
	// Failed is told why a request could not be answered.
	Failed func(error)

	mu     sync.Mutex
	asking map[netip.Prefix]int // exchanges under way, by client
}

// The paths of what can be asked.
const (
	pathV1  = "/api/v1/wg/key/exchange" // Munich's routers
	pathV2  = "/api/v2/wg/key/exchange" // Munich's routers that can be sent elsewhere
	pathKey = "/api/add_key"            // Aachen's routers
)

// request is the body of all three. A router may send more.
type request struct {
	Domain string `json:"domain"`
	Key    string `json:"public_key"`
}

// done is the answer to an exchange of v1.
type done struct{ Message string }

// Endpoint is the answer to an exchange of v2: the gateway that the router is to
// connect to.
type Endpoint struct {
	// Address is a host name or an IP address, Port a number.
	Address, Port string
	// AllowedIPs is the link-local address of the gateway, without a prefix length,
	// which routers add themselves.
	AllowedIPs []string
	PublicKey  string
}

// Alive is the answer to GET /, by which a router knows that the tunnel carries
// something.
const Alive = "This gateway is alive.\n"

// ServeHTTP is that of http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if len(r.TransferEncoding) > 0 {
		// Another length may have been given, too, and that was ignored (RFC 9112
		// section 6.1).
		closeAfter(w)
	}
	if r.ProtoMajor != 1 { // the preface of HTTP/2
		refuse(w, http.StatusHTTPVersionNotSupported, "BAD_REQUEST", "only HTTP/1.0 and HTTP/1.1 are spoken here")
		return
	}
	// No redirect to the usual form: a POST would not come again.
	switch p := path.Clean(r.URL.Path); p {
	case "/":
		if allowed(w, r, http.MethodGet, http.MethodHead) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, Alive) // a client that is gone needs none
		}
	case pathV1, pathV2, pathKey:
		if allowed(w, r, http.MethodPost) {
			a.exchange(w, r, p)
		}
	default:
		refuse(w, http.StatusNotFound, "NOT_FOUND", "there is nothing at this path")
	}
}

// allowed reports whether the method is one of them, and refuses all others.
func allowed(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	for _, m := range methods {
		w.Header().Add("Allow", m)
	}
	refuse(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "this method is not for this path")
	return false
}

// exchange answers a request for one.
func (a *API) exchange(w http.ResponseWriter, r *http.Request, path string) {
	settings, err := a.Settings()
	if err != nil {
		a.Failed(err)
		refuseCode(w, outcome.Busy)
		return
	}
	asked, ok := readRequest(w, r)
	if !ok {
		return
	}
	if path == pathKey || asked.Domain == "" {
		asked.Domain = settings.DefaultDomain
	}
	client := Client(r, settings.TrustedProxies)
	if client.IsValid() && !Trusted(client, settings.TrustedProxies) {
		if !a.enter(client) {
			refuseCode(w, outcome.Busy)
			return
		}
		defer a.leave(client)
	}
	// What was asked for goes on when the client leaves, and counts as its own until it
	// is answered. Some clients only close their half of the connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), exchangeTimeout)
	defer cancel()
	answer, err := a.Exchange(ctx, protocol.Request{Domain: asked.Domain, Key: asked.Key, Way: outcome.HTTP, Remote: client})
	switch {
	case err != nil:
		a.Failed(err)
		refuseCode(w, outcome.Busy)
	case answer.Code != outcome.OK:
		refuseCode(w, answer.Code)
	case path == pathV2:
		endpoint, ok := here(settings, answer.Gateway)
		if a.Elsewhere != nil {
			if other, better := a.Elsewhere(asked.Domain, asked.Key, ok); better {
				endpoint, ok = other, true
			}
		}
		if !ok {
			refuseCode(w, outcome.Busy)
			return
		}
		write(w, http.StatusOK, struct{ Endpoint Endpoint }{endpoint})
	default:
		write(w, http.StatusOK, done{"OK"})
	}
}

// here is this gateway, where the router's key was accepted. It is not ok when routers
// cannot connect to it.
func here(s Settings, own *protocol.Gateway) (e Endpoint, ok bool) {
	if own == nil || !own.Addr.IsValid() || own.Port == 0 || s.Address == "" {
		return Endpoint{}, false
	}
	return Endpoint{
		Address: s.Address, Port: strconv.Itoa(int(own.Port)), AllowedIPs: []string{own.Addr.String()}, PublicKey: own.Key,
	}, true
}

// readRequest reads the body. What is no request it refuses. Routers send no proper
// Content-Type, so none is asked for.
func readRequest(w http.ResponseWriter, r *http.Request) (asked request, ok bool) {
	connection := http.NewResponseController(w)
	// Only a connection can be slow: others have no deadlines.
	_ = connection.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err == nil {
		// From here on the server itself looks whether the client goes. Otherwise it has
		// a body to throw away, which must not take longer either.
		_ = connection.SetReadDeadline(time.Time{})
	}
	switch tooLong := new(http.MaxBytesError); {
	case errors.As(err, &tooLong):
		refuse(w, http.StatusRequestEntityTooLarge, "TOO_LARGE", "the body is longer than "+strconv.Itoa(MaxBody)+" bytes")
	case errors.Is(err, os.ErrDeadlineExceeded):
		refuse(w, http.StatusRequestTimeout, "TIMEOUT", "the body took too long")
	case err != nil:
		refuse(w, http.StatusBadRequest, "BAD_REQUEST", "the body cannot be read")
	case json.Unmarshal(body, &asked) != nil:
		refuse(w, http.StatusBadRequest, "BAD_REQUEST", `the body is not JSON such as {"domain": "NAME", "public_key": "KEY"}`)
	default:
		return asked, true
	}
	return request{}, false
}

// enter reports whether the client may ask for one more exchange, until it leaves.
func (a *API) enter(client netip.Addr) bool {
	source := Source(client)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking[source] >= maxAsking {
		return false
	}
	if a.asking == nil {
		a.asking = map[netip.Prefix]int{}
	}
	a.asking[source]++
	return true
}

func (a *API) leave(client netip.Addr) {
	source := Source(client)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking[source]--; a.asking[source] == 0 {
		delete(a.asking, source)
	}
}

// refusals are what clients are told of codes.
var refusals = map[outcome.Code]struct {
	status  int
	message string
}{
	outcome.NoDomain:        {http.StatusBadRequest, "the request names no domain"},
	outcome.InvalidDomain:   {http.StatusBadRequest, "there is no such domain here"},
	outcome.NoKey:           {http.StatusBadRequest, "the request has no public key"},
	outcome.InvalidKey:      {http.StatusBadRequest, "the public key is not the base64 of a WireGuard key"},
	outcome.ProhibitedKey:   {http.StatusForbidden, "this public key may not be added"},
	outcome.AddressConflict: {http.StatusConflict, "the address of this public key belongs to somebody else: make another key"},
	outcome.Busy:            {http.StatusServiceUnavailable, "the gateway cannot add the key now: try again later"},
	outcome.Internal:        {http.StatusInternalServerError, "the gateway has failed: its log says why"},
}

// refuseCode refuses an exchange.
func refuseCode(w http.ResponseWriter, code outcome.Code) {
	r := refusals[code]
	if r.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	writeError(w, r.status, string(code), r.message)
}

// refuse refuses what is no request that there is. What follows it on the
// connection is not read.
func refuse(w http.ResponseWriter, status int, code, message string) {
	closeAfter(w)
	writeError(w, status, code, message)
}

func closeAfter(w http.ResponseWriter) { w.Header().Set("Connection", "close") }

func writeError(w http.ResponseWriter, status int, code, message string) {
	type details struct {
		Message string `json:"message"`
		Code    string `json:"code"`
	}
	write(w, status, struct {
		Error details `json:"error"`
	}{details{message, code}})
}

func write(w http.ResponseWriter, status int, answer any) {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // the types are above
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that is gone needs none
}
