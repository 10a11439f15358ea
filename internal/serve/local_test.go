package serve

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/outcome"
)

// local is the client's end of a connection that the bench serves until it ends.
func (b *bench) local(ctx context.Context, load func() (config.Config, error)) (client *net.UnixConn, done chan struct{}) {
	b.T.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.T.TempDir(), "s"), Net: "unix"})
	if err != nil {
		b.T.Fatal(err)
	}
	defer listener.Close()
	client, err = net.DialUnix("unix", nil, listener.Addr().(*net.UnixAddr))
	if err != nil {
		b.T.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		b.T.Fatal(err)
	}
	if load == nil {
		cfg := b.Server.Config
		load = func() (config.Config, error) { return cfg, nil }
	}
	done = make(chan struct{})
	go func() {
		defer close(done)
		b.HandleLocal(ctx, conn, load)
	}()
	b.T.Cleanup(func() {
		client.Close()
		<-done
	})
	return client, done
}

// say sends all and returns all answers.
func (b *bench) say(client *net.UnixConn, text string) string {
	b.T.Helper()
	go func() {
		if _, err := io.WriteString(client, text); err == nil {
			_ = client.CloseWrite()
		}
	}()
	answers, err := io.ReadAll(client)
	if err != nil {
		b.T.Error(err)
	}
	return string(answers)
}

func TestHandleLocal(t *testing.T) {
	b := newBench(t)
	client, _ := b.local(t.Context(), nil)
	k1, k2, prohibited := domaintest.Key(1).String(), domaintest.Key(2).String(), domaintest.Key(50).String()
	long := strings.Repeat("x", 1000)
	text := "d\n" + k1 + "\nd\n" + prohibited + "\ne\n" + k2 + "\n\n" + k2 + "\nd\n\nd\n" + long + "\nd\n" + k1 + "\r\nd\n" + k2 + "\nd\n"
	want := "OK\nERR: PROHIBITED_WGKEY\nERR: INVALID_DOMAIN\nERR: NO_DOMAIN\nERR: NO_WGKEY\nERR: INVALID_WGKEY\nOK\nOK\nERR: NO_WGKEY\n"
	if got := b.say(client, text); got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	b.WantRouter(domaintest.Key(1), true)
	b.WantRouter(domaintest.Key(2), true)
	b.Consistent()
	if got := b.counted("d"); got[outcome.OK] != 3 || got[outcome.NoKey] != 2 {
		t.Errorf("counted %v", got)
	}
	if len(b.logged) != 9 || !strings.Contains(b.logged[0], "accepted local: peer "+k1+" added in domain d") || !strings.Contains(b.logged[0], "REMOTE=local") {
		t.Errorf("logged %q", b.logged)
	}
}

// A program may say by which way it was asked, and by whom. By HTTP it is told what
// the router connects to.
func TestLocalWays(t *testing.T) {
	b := newBench(t)
	client, _ := b.local(t.Context(), nil)
	k1, k2 := domaintest.Key(1).String(), domaintest.Key(2).String()
	text := "d http 192.0.2.7\n" + k1 + "\nd relay\n" + k2 + "\nd http 2001:db8::7\nx\n http\n" + k1 + "\nd tcp\n" + k1 + "\n"
	b.OwnAddrs = []netip.Addr{netip.MustParseAddr("fe80::1")}
	gateway, err := b.Devices.Gateway()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("OK %s %d %s\nOK\nERR: INVALID_WGKEY\nERR: NO_DOMAIN\nERR: INVALID_DOMAIN\n", gateway.Addr, gateway.Port, gateway.Key)
	if got := b.say(client, text); got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
	for i, want := range []string{"WAY=http REMOTE=192.0.2.7 DOMAIN=d", "WAY=relay REMOTE=relay DOMAIN=d", "WAY=http REMOTE=2001:db8::7 DOMAIN=d", "WAY=http REMOTE=http DOMAIN= ", "WAY=local REMOTE=local DOMAIN= "} {
		if i >= len(b.logged) || !strings.Contains(b.logged[i], want) {
			t.Errorf("logged %q, want %q", b.logged[min(i, len(b.logged)-1)], want)
		}
	}
	results, err := counters.Read(counters.Path(b.Gateway.Host.Dir, "d"))
	if want := (counters.Results{outcome.HTTP: {outcome.OK: 1, outcome.InvalidKey: 1}, outcome.Relay: {outcome.OK: 1}}); err != nil || !reflect.DeepEqual(results, want) {
		t.Errorf("counted %v, %v, want %v", results, err, want)
	}
}

// Those that arrive together are added together, and the lock is taken once.
func TestLocalBatch(t *testing.T) {
	b := newBench(t)
	b.Gateway.Config.MaxPeers, b.Gateway.Config.MaxPending = 1000, 1000
	b.Server.Config.Domains["d"] = b.Gateway.Config
	var text strings.Builder
	for n := range 100 {
		fmt.Fprintf(&text, "d\n%s\n", domaintest.Key(100+n))
	}
	calls := map[string]int{}
	b.Between = func(method string) { calls[method]++ }
	client, _ := b.local(t.Context(), nil)
	if got := b.say(client, text.String()); got != strings.Repeat("OK\n", 100) {
		t.Errorf("answered %q", got)
	}
	// More than one batch, if the connection brought them so.
	if calls["AddPeers"] == 0 || calls["AddPeers"] > 3 || calls["AddPeer"] > 0 || calls["Gateway"] != calls["AddPeers"] || b.Dumps > 0 {
		t.Errorf("calls %v, %d dumps", calls, b.Dumps)
	}
	b.Consistent()
	if got := b.Counts(); got.Peers != 100 || got.Pending != 100 {
		t.Errorf("counted %+v", got)
	}
}

// A process serves so many and ends between two of them.
func TestLocalEnds(t *testing.T) {
	b := newBench(t)
	client, done := b.local(t.Context(), nil)
	request := "d\n" + domaintest.Key(1).String() + "\n"
	go func() { _, _ = io.WriteString(client, strings.Repeat(request, maxExchanges+500)) }()
	answers := make([]byte, maxExchanges*len("OK\n"))
	if _, err := io.ReadFull(client, answers); err != nil || string(answers) != strings.Repeat("OK\n", maxExchanges) {
		t.Errorf("%v", err)
	}
	// What was not read makes a reset of the end.
	if more, err := io.ReadAll(client); len(more) > 0 {
		t.Errorf("one more answer: %q, %v", more, err)
	}
	<-done
}

// A process that is to end serves what has arrived.
func TestLocalStopped(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	client, done := b.local(ctx, nil)
	if _, err := io.WriteString(client, "d\n"+domaintest.Key(1).String()+"\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("OK\n"))
	if _, err := io.ReadFull(client, answer); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}
