// wgkex-handler serves one exchange on the connection that systemd hands it.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"
	"wgkex/internal/protocol"
	"wgkex/internal/serve"
	"wgkex/internal/version"

	"golang.org/x/sys/unix"
)

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: wgkex-handler [--version]\n\n"+
			"Serves one WireGuard key exchange. systemd starts it as wgkex@.service for each\n"+
			"connection to wgkex.socket and wgkex@.socket. See wgkex-handler(8).\n")
	}
	printVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *printVersion {
		fmt.Println(version.Version)
		return
	}
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	conn, err := serve.Inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-handler: %v\n", err)
		os.Exit(1)
	}
	handle(conn)
}

// handle carries out the exchange that the client of the connection asks for.
func handle(conn *net.TCPConn) {
	s := serve.Server{Host: domain.System, Log: logging.Log}
	r := serve.Request{Remote: serve.AddrPort(conn.RemoteAddr())}
	if s.Config, r.Err = config.LoadEffective(); r.Err == nil {
		r.Err = read(&s, &r, conn)
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
func read(s *serve.Server, r *serve.Request, conn *net.TCPConn) error {
	reader := protocol.NewReader(conn)
	name, err := reader.Domain()
	if err != nil {
		return err
	}
	if err := s.Name(r, name); err != nil {
		return err
	}
	if local := serve.AddrPort(conn.LocalAddr()); !s.Config.Serves(local, name) {
		return outcome.Refuse(outcome.InvalidDomain, "%s does not serve this domain", local)
	}
	key, err := reader.Key()
	if err != nil {
		return err
	}
	return s.Key(r, key)
}
