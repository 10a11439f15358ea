// resident serves exchanges one after the other in a process that stays: the
// least that they could cost in any design. It does to each what wgkex-handler
// does, with the same packages, but for the process and the sandbox of its own.
//
// It is for the bench alone: it runs as root, and whoever sends half a request
// may keep a connection for ten seconds.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
	"wgkex/internal/serve"
)

func main() {
	once := flag.String("once", "", "listen on this address for connections with one exchange each, as wgkex does")
	kept := flag.String("kept", "", "listen on this address for connections with many exchanges, each of them answered")
	flag.Parse()
	if err := run(*once, *kept); err != nil {
		fmt.Fprintln(os.Stderr, "resident:", err)
		os.Exit(1)
	}
}

func run(once, kept string) error {
	cfg, err := config.LoadEffective()
	if err != nil {
		return err
	}
	s := &server{serve: serve.Server{Config: cfg, Host: domain.System, Log: logging.Log}}
	failed := make(chan error)
	for address, handle := range map[string]func(*net.TCPConn) error{once: s.once, kept: s.kept} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { failed <- accept(listener.(*net.TCPListener), handle) }()
	}
	return <-failed
}

func accept(listener *net.TCPListener, handle func(*net.TCPConn) error) error {
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			return err
		}
		go func() {
			if err := handle(conn); err != nil {
				fmt.Fprintf(os.Stderr, "resident: %s: %v\n", conn.RemoteAddr(), err)
			}
			_ = conn.Close()
		}()
	}
}

// server carries out one exchange at a time: a serve.Server is not for several
// goroutines, and the domain's lock would have them wait anyway.
type server struct {
	mu    sync.Mutex
	serve serve.Server
}

// once serves the one exchange of a connection.
func (s *server) once(conn *net.TCPConn) error {
	r := serve.Request{Remote: serve.AddrPort(conn.RemoteAddr())}
	name, key, err := read(protocol.NewReader(conn))
	r.Err = err
	s.exchange(&r, name, key)
	return protocol.Finish(conn, r.Code(), s.serve.Config.ReplyOK)
}

// kept serves the exchanges of a connection until the client closes it or leaves
// a line out.
func (s *server) kept(conn *net.TCPConn) error {
	reader := protocol.NewReader(conn)
	for {
		r := serve.Request{Remote: serve.AddrPort(conn.RemoteAddr())}
		name, key, err := read(reader)
		if outcome.CodeOf(err) == outcome.NoDomain {
			return nil
		}
		if err != nil {
			return err
		}
		s.exchange(&r, name, key)
		answer := "OK\n"
		if code := r.Code(); code != outcome.OK {
			answer = "ERR: " + string(code) + "\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return err
		}
	}
}

// read reads the two lines of a request.
func read(reader *protocol.Reader) (name, key string, err error) {
	if name, err = reader.Domain(); err != nil {
		return "", "", err
	}
	key, err = reader.Key()
	return name, key, err
}

// exchange carries out, counts and logs the request, which has these lines unless
// it has an Err.
func (s *server) exchange(r *serve.Request, name, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Err == nil {
		r.Err = s.serve.Name(r, name)
	}
	if r.Err == nil {
		r.Err = s.serve.Key(r, key)
	}
	s.serve.Exchange(r)
	s.serve.Report(r)
}
