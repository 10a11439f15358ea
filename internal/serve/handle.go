package serve

import (
	"net"
	"os/signal"
	"runtime/debug"

	"wgkex/internal/config"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"

	"golang.org/x/sys/unix"
)

// Handle carries out the exchange that the client of the connection asks for, by
// the configuration that load reads, answers it and closes the connection. It is
// for a process that does nothing else: that ignores SIGTERM from then on.
func (s *Server) Handle(conn *net.TCPConn, load func() (config.Config, error)) {
	r := Request{Remote: AddrPort(conn.RemoteAddr())}
	if s.Config, r.Err = load(); r.Err == nil {
		r.Err = s.read(&r, conn)
	}
	// What is begun from here on is ended: the service manager's SIGTERM, at
	// RuntimeMaxSec= or at a shutdown, must not come between a peer and its FDB
	// entries, nor be taken for an acceptance by the client.
	signal.Ignore(unix.SIGTERM)
	s.Exchange(&r)
	s.Report(&r)
	if s.Refreshed {
		// The client may take its time to close, and what all peers take would
		// be held as long.
		debug.FreeOSMemory()
	}
	// A client that is gone has no use for an answer.
	_ = protocol.Finish(conn, r.Code(), s.Config.ReplyOK)
	_ = conn.Close()
}

// read reads the two lines.
func (s *Server) read(r *Request, conn *net.TCPConn) error {
	reader := protocol.NewReader(conn)
	name, err := reader.Domain()
	if err != nil {
		return err
	}
	if err := s.Name(r, name); err != nil {
		return err
	}
	if local := AddrPort(conn.LocalAddr()); !s.Config.Serves(local, name) {
		return outcome.Refuse(outcome.InvalidDomain, "%s does not serve this domain", local)
	}
	key, err := reader.Key()
	if err != nil {
		return err
	}
	return s.Key(r, key)
}
