package serve

import (
	"errors"
	"io"
	"net"
	"os/signal"
	"strings"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/outcome"

	"golang.org/x/sys/unix"
)

// handle lets a client send the text and close its side, and returns the answer.
// The configuration is the bench's with change, which is given the port.
func (b *bench) handle(text string, load func() (config.Config, error), change func(c *config.Config, port uint16)) string {
	b.T.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.T.Fatal(err)
	}
	defer listener.Close()
	client, err := net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
	if err != nil {
		b.T.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.AcceptTCP()
	if err != nil {
		b.T.Fatal(err)
	}
	if load == nil {
		cfg := b.Server.Config
		change(&cfg, uint16(listener.Addr().(*net.TCPAddr).Port))
		load = func() (config.Config, error) { return cfg, nil }
	}
	if _, err := io.WriteString(client, text); err != nil {
		b.T.Error(err)
	}
	if err := client.CloseWrite(); err != nil {
		b.T.Error(err)
	}
	b.Handle(conn, load)
	answer, err := io.ReadAll(client)
	if err != nil {
		b.T.Error(err)
	}
	return string(answer)
}

func TestHandle(t *testing.T) {
	t.Cleanup(func() { signal.Reset(unix.SIGTERM) })
	good := domaintest.Key(1).String()
	shared := func(c *config.Config, port uint16) { c.Listen.Port = port }
	for _, c := range []struct {
		name, text string
		load       func() (config.Config, error)
		change     func(*config.Config, uint16)
		answer     string
		domain     string // under which it is counted
		code       outcome.Code
		entry      string // in it, beside the address of the client
	}{
		{"accepted", "d\n" + good + "\n", nil, shared, "", "d", outcome.OK, "peer " + good + " added in domain d"},
		{"accepted, with an answer", "d\n" + good + "\n", nil, func(c *config.Config, port uint16) {
			c.Listen.Port, c.ReplyOK = port, true
		}, "OK\n", "d", outcome.OK, "peer " + good + " added in domain d"},
		{"on the domain's own port", "d\n" + good, nil, func(c *config.Config, port uint16) {
			d := c.Domains["d"]
			d.Listen.Port = port
			c.Domains = map[string]config.Domain{"d": d}
		}, "", "d", outcome.OK, "peer " + good + " added in domain d"},
		{
			"on the port of others", "d\n" + good + "\n", nil, func(*config.Config, uint16) {},
			"ERR: INVALID_DOMAIN\n", "d", outcome.InvalidDomain, "does not serve this domain",
		},
		{"no domain", "\n", nil, shared, "ERR: NO_DOMAIN\n", "", outcome.NoDomain, "the domain line is empty or missing"},
		{"another domain", "e\n" + good + "\n", nil, shared, "ERR: INVALID_DOMAIN\n", "", outcome.InvalidDomain, "no such domain in the configuration"},
		{"no key", "d\n", nil, shared, "ERR: NO_WGKEY\n", "d", outcome.NoKey, "the public key line is empty or missing"},
		{"no public key", "d\nx\n", nil, shared, "ERR: INVALID_WGKEY\n", "d", outcome.InvalidKey, "the public key is not"},
		{"a prohibited key", "d\n" + domaintest.Key(50).String() + "\n", nil, shared, "ERR: PROHIBITED_WGKEY\n", "d", outcome.ProhibitedKey, "prohibited_keys"},
		{
			"no configuration", "d\n" + good + "\n", func() (config.Config, error) { return config.Config{}, errors.New("none yet") },
			nil, "ERR: INTERNAL\n", "", outcome.Internal, "none yet",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			signal.Reset(unix.SIGTERM)
			b := newBench(t)
			if got := b.handle(c.text, c.load, c.change); got != c.answer {
				t.Errorf("answered %q, want %q", got, c.answer)
			}
			if b.counted(c.domain)[c.code] != 1 {
				t.Errorf("counted %v, want %s", b.counted(c.domain), c.code)
			}
			if len(b.logged) != 1 || !strings.Contains(b.logged[0], " 127.0.0.1:") || !strings.Contains(b.logged[0], c.entry) {
				t.Errorf("logged %q, want %q", b.logged, c.entry)
			}
			b.WantRouter(domaintest.Key(1), c.code == outcome.OK)
			if !signal.Ignored(unix.SIGTERM) {
				t.Error("SIGTERM would end what was begun")
			}
		})
	}
}

// An exchange that had to read all peers is answered as any other.
func TestHandleRefreshed(t *testing.T) {
	t.Cleanup(func() { signal.Reset(unix.SIGTERM) })
	b := newBench(t)
	b.Number.WireGuard++
	answer := b.handle("d\n"+domaintest.Key(1).String()+"\n", nil, func(c *config.Config, port uint16) { c.Listen.Port, c.ReplyOK = port, true })
	if answer != "OK\n" || !b.Refreshed {
		t.Errorf("answered %q, refreshed %v", answer, b.Refreshed)
	}
}
