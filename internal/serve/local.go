package serve

import (
	"context"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
)

const (
	// maxExchanges and maxAge bound what one process serves, so that none lives
	// long. The client then connects anew.
	maxExchanges = 10000
	maxAge       = 5 * time.Minute
	// maxBatch is how many exchanges have the domain's lock at a time: that is how
	// long others wait. More may have arrived.
	maxBatch = 256
)

// HandleLocal carries out the exchanges that a program of this gateway asks for on
// the connection, many together where it sends many, until the program closes it,
// the context is done, or it has had its share. It answers each. Load reads the
// configuration.
func (s *Server) HandleLocal(ctx context.Context, conn *net.UnixConn, load func() (config.Config, error)) {
	defer conn.Close()
	// What has arrived is served, nothing else arrives.
	defer context.AfterFunc(ctx, func() { _ = conn.CloseRead() })()
	pipe, end := protocol.NewPipe(conn), time.Now().Add(maxAge)
	for done := 0; done < maxExchanges && time.Now().Before(end); {
		asked, endErr := pipe.Next(min(maxBatch, maxExchanges-done), end)
		requests := s.local(asked, load)
		s.Exchange(requests...)
		answers := make([]protocol.Answer, len(requests))
		for i, r := range requests {
			s.Report(r)
			answers[i] = r.answer()
		}
		done += len(requests)
		if pipe.Answer(answers...) != nil || endErr != nil {
			return // the client is gone, or has no more to ask
		}
		if s.Refreshed {
			debug.FreeOSMemory()
			s.Refreshed = false
		}
	}
}

// local makes requests of what was asked.
func (s *Server) local(asked []protocol.Request, load func() (config.Config, error)) []*Request {
	cfg, err := load()
	s.Config = cfg
	requests := make([]*Request, len(asked))
	for i, a := range asked {
		r := &Request{Way: a.Way, Remote: netip.AddrPortFrom(a.Remote, 0), Err: err}
		if requests[i] = r; r.Err != nil {
			continue
		}
		if a.Domain != "" {
			r.Err = s.Name(r, a.Domain)
		}
		if r.Err == nil && a.Err != nil {
			r.Err = a.Err
		}
		if r.Err == nil {
			r.Err = s.Key(r, a.Key)
		}
	}
	return requests
}

// answer is what the program at the other end is told.
func (r *Request) answer() protocol.Answer {
	a := protocol.Answer{Code: r.Code()}
	if r.Err == nil && r.Way == outcome.HTTP {
		a.Gateway = &protocol.Gateway{Addr: r.Gateway.Addr, Port: r.Gateway.Port, Key: r.Gateway.Key.String()}
	}
	return a
}
