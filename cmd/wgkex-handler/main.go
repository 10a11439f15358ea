// wgkex-handler serves one exchange on the connection that systemd hands it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/exchange"
	"wgkex/internal/kernel"
	"wgkex/internal/logging"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/protocol"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// lockTimeout is how long an exchange waits for others of its domain.
const lockTimeout = 30 * time.Second

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
	conn, err := inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "wgkex-handler: %v\n", err)
		os.Exit(1)
	}
	serve(conn)
}

// inherited is the connection of an Accept=yes socket (sd_listen_fds(3)).
func inherited() (*net.TCPConn, error) {
	files := activation.Files(true)
	if len(files) != 1 {
		return nil, fmt.Errorf("%d descriptors from systemd, want one connection", len(files))
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("the descriptor from systemd: %w", err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("the descriptor from systemd is a %T, want a TCP connection", conn)
	}
	return tcp, files[0].Close()
}

// request is one exchange and what becomes of it, for the log.
type request struct {
	config config.Config
	// domain is zero until one of the configuration is named.
	domain config.Domain
	// key is zero until a valid one is read.
	key    address.Key
	action policy.Action
	// refreshed says that all peers were read.
	refreshed bool
	err       error
}

// serve answers the request on the connection, counts it and logs it.
func serve(conn *net.TCPConn) {
	var r request
	r.err = r.handle(conn)
	code := outcome.CodeOf(r.err)
	remote := addrPort(conn.RemoteAddr())
	allowed, err := count(r.domain.Name, code)
	if err != nil {
		logging.Log(journal.PriErr, fmt.Sprintf("counting the exchange: %v", err))
	}
	if allowed {
		r.log(remote, code)
	}
	if r.refreshed {
		// The client may take its time to close, and what all peers take would
		// be held as long.
		debug.FreeOSMemory()
	}
	// A client that is gone has no use for an answer.
	_ = protocol.Finish(conn, code, r.config.ReplyOK)
	_ = conn.Close()
}

// count counts the outcome for the domain, or for none as long as the client
// had not named one, and reports whether it may be logged. What cannot be
// counted may.
func count(domainName string, code outcome.Code) (logged bool, err error) {
	all, err := counters.Open(counters.Path(domain.System.Dir, ""))
	if err != nil {
		return true, err
	}
	allowed, leftOut := all.AllowLog(time.Now())
	if leftOut > 0 {
		logging.Log(journal.PriNotice, fmt.Sprintf("%d log entries about exchanges were left out, there were too many", leftOut),
			logging.Field{Name: "LEFT_OUT", Value: strconv.FormatUint(leftOut, 10)})
	}
	if domainName == "" {
		all.Count(code)
		return allowed, nil
	}
	own, err := counters.Open(counters.Path(domain.System.Dir, domainName))
	if err != nil {
		return allowed, err
	}
	own.Count(code)
	return allowed, nil
}

func (r *request) handle(conn *net.TCPConn) error {
	cfg, err := config.LoadEffective()
	if err != nil {
		return err
	}
	r.config = cfg

	reader := protocol.NewReader(conn)
	name, err := reader.Domain()
	if err != nil {
		return err
	}
	domainConfig, ok := cfg.Domains[name]
	if !ok {
		return outcome.Refuse(outcome.InvalidDomain, "no such domain in the configuration")
	}
	r.domain = domainConfig
	if port := addrPort(conn.LocalAddr()).Port(); !cfg.Serves(port, name) {
		return outcome.Refuse(outcome.InvalidDomain, "port %d does not serve this domain", port)
	}
	text, err := reader.Key()
	if err != nil {
		return err
	}
	key, err := address.ParseKey(text)
	if err != nil {
		return outcome.Refuse(outcome.InvalidKey, "the public key is %v", err)
	}
	r.key = key
	if cfg.Prohibited(key) {
		return outcome.Refuse(outcome.ProhibitedKey, "the key is listed in prohibited_keys")
	}

	// What is begun from here on is ended: the service manager's SIGTERM, at
	// RuntimeMaxSec= or at a shutdown, must not come between a peer and its FDB
	// entries, nor be taken for an acceptance by the client.
	signal.Ignore(unix.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	d, err := domain.System.Open(ctx, r.domain)
	if err != nil {
		return exchange.Classify(err)
	}
	r.action, err = exchange.Run(d, key)
	r.refreshed = d.Refreshed
	return errors.Join(err, d.Close())
}

func (r *request) log(remote netip.AddrPort, code outcome.Code) {
	var key, addr string
	if !r.key.IsZero() {
		_, a := r.domain.Addresses.Of(r.key)
		key, addr = r.key.String(), a.String()
	}
	priority := journal.PriNotice
	message := fmt.Sprintf("accepted %s: peer %s %s in domain %s, address %s", remote, key, r.action, r.domain.Name, addr)
	if r.err != nil {
		message = fmt.Sprintf("refused %s: %v", remote, r.err)
	}
	if errors.Is(r.err, kernel.ErrMissing) || errors.Is(r.err, kernel.ErrUnfit) {
		priority = journal.PriWarning // the admin has to do something
	}
	if code == outcome.Internal {
		priority = journal.PriErr
		message = fmt.Sprintf("failed %s: %v", remote, r.err)
	}
	logging.Log(priority, message,
		logging.Field{Name: "RESULT", Value: string(code)},
		logging.Field{Name: "REMOTE", Value: remote.String()},
		logging.Field{Name: "DOMAIN", Value: r.domain.Name},
		logging.Field{Name: "PUBLIC_KEY", Value: key},
		logging.Field{Name: "ADDRESS", Value: addr})
}

// addrPort is a TCP address without the IPv6 form of an IPv4 one, which a
// dual-stack socket reports.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
