//go:build vm

package suite

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/address"
)

// Routers made of nothing but a shell, md5sum, nc and the kernel's devices
// exchange their keys over IPv4 and IPv6 and reach the gateway through the
// tunnel, and it them.
func TestTunnel(t *testing.T) {
	for _, r := range []struct {
		name, domain                       string
		number, version, port, wgport, vni int
	}{
		{"r1", "ffww01", 1, 4, port1, 51821, 101},
		{"r2", "ffww01", 2, 6, sharedPort, 51821, 101},
		{"r3", "ffww02", 3, 6, port2, 51822, 102},
		{"r4", "ffww02", 4, 4, sharedPort, 51822, 102},
	} {
		key := makeRouter(t, r.name, r.number, r.domain, r.version, r.port, r.wgport, r.vni)
		wantRouter(t, r.domain, key)
		inRouter := "ip netns exec " + r.name
		sh(t, "%s ping -6 -c 3 -i 0.2 -W 10 fd00:%d::1", inRouter, r.vni)
		sh(t, "ping -6 -c 3 -i 0.2 -W 10 fd00:%d::1%d", r.vni, r.number)
		// Multicast goes out on each flood entry; ping counts one answer for
		// each packet and shows the others as duplicates.
		gateway := linkLocal(t, "ip -6 addr show dev vx-"+r.domain)
		router := linkLocal(t, "ip -n "+r.name+" -6 addr show dev vx0")
		if out := sh(t, "%s ping -6 -c 5 -i 0.5 -W 10 -I vx0 ff02::1", inRouter); !strings.Contains(out, "from "+gateway) {
			t.Errorf("%s: the gateway does not answer to ff02::1:\n%s", r.name, out)
		}
		if out := sh(t, "ping -6 -c 5 -i 0.5 -W 10 -I vx-%s ff02::1", r.domain); !strings.Contains(out, "from "+router) {
			t.Errorf("%s: the router does not answer to ff02::1:\n%s", r.name, out)
		}
		// Once more, over the live tunnel: it must not be disturbed.
		before := sh(t, "wg show wg-%s latest-handshakes | grep -F '%s'", r.domain, key)
		accept(t, r.port, r.domain, key)
		if after := sh(t, "wg show wg-%s latest-handshakes | grep -F '%s'", r.domain, key); after != before && strings.HasSuffix(after, "\t0") {
			t.Errorf("%s: the exchange reset a live tunnel: %q, then %q", r.name, before, after)
		}
		// Nor by the same key in another domain.
		for other := range profiles {
			accept(t, sharedPort, other, key)
		}
		sh(t, "%s ping -6 -c 1 -W 10 fd00:%d::1", inRouter, r.vni)
	}
}

// A domain whose routers hash the key without a newline.
func TestGluonProfile(t *testing.T) {
	const name, number, vni = "ffgluon", 12, 112
	domainWithProfile(t, name, number, address.Gluon)
	key := makeRouter(t, "r5", 5, name, 6, sharedPort, 51820+number, vni)
	wantRouter(t, name, key)
	sh(t, "ping -6 -c 3 -i 0.2 -W 10 fd00:%d::15", vni)
	cleanup(t, name, "")
	if s, _ := readStatus(t, name); len(s.Peers) != 1 || s.Peers[0].State != "live" {
		t.Errorf("status: %+v", s)
	}
	wantRouter(t, name, key)
}

func linkLocal(t *testing.T, command string) string {
	t.Helper()
	return sh(t, "%s scope link | sed -n 's,.*inet6 \\(fe80[^/]*\\)/.*,\\1,p'", command)
}

func TestBusyboxNC(t *testing.T) {
	key := newKey(t)
	if out := sh(t, "printf '%%s\\n' ffww01 %s | busybox nc 127.0.0.1 %d", key, port1); out != "" {
		t.Errorf("the gateway said %q", out)
	}
	wantRouter(t, "ffww01", key)
	if out := sh(t, "printf 'ffww01\\nnonsense\\n' | busybox nc 127.0.0.1 %d", port1); out != "ERR: INVALID_WGKEY" {
		t.Errorf("the gateway said %q", out)
	}
}

func TestForms(t *testing.T) {
	for name, form := range map[string]string{
		"LF": "ffww01\n%s\n", "CRLF": "ffww01\r\n%s\r\n", "no last newline": "ffww01\n%s", "a third line": "ffww01\n%s\nmore\n",
		"a lot more": "ffww01\n%s\n" + strings.Repeat("more\n", 5000),
	} {
		key := newKey(t)
		conn := dial(t, port1)
		if _, err := fmt.Fprintf(conn, form, key); err != nil {
			t.Error(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Error(err)
		}
		if got := answer(t, conn); got != "" {
			t.Errorf("%s: %q", name, got)
		}
		conn.Close()
		wantRouter(t, "ffww01", key)
	}
	// Drop by drop, as a slow line has it.
	key := newKey(t)
	conn := dial(t, port1)
	defer conn.Close()
	for _, b := range []byte("ffww01\n" + key.String() + "\n") {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := answer(t, conn); got != "" {
		t.Errorf("byte by byte: %q", got)
	}
	wantRouter(t, "ffww01", key)
}

// Every refusal is read whole, is logged, and changes nothing in the kernel.
func TestRefusals(t *testing.T) {
	const prohibited = "QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU="
	good := newKey(t).String()
	own1 := sh(t, "wg show wg-ffww01 public-key")
	static, conflict, ownAddr := newKey(t), newKey(t), newKey(t)
	_, conflictAddr := address.RFC4291.Of(conflict)
	_, ownAddress := address.RFC4291.Of(ownAddr)
	sh(t, "wg set wg-ffww01 peer %s allowed-ips fd00:5::/64,%s/128", static, conflictAddr)
	sh(t, "ip addr add %s/64 dev vx-ffww02 nodad", ownAddress)
	t.Cleanup(func() {
		sh(t, "wg set wg-ffww01 peer %s remove; ip addr del %s/64 dev vx-ffww02; systemctl restart wgkex.socket wgkex@ffww01.socket", static, ownAddress)
	})
	sh(t, "systemctl restart wgkex@ffww01.socket") // reads the static peers
	long := strings.Repeat("x", 65)
	marker := "MARK$(touch /tmp/pwned);`touch /tmp/pwned`|&'\""
	before := state(t)
	// A second spelling of a key, as RFC 7748 decoding takes it: with the top bit.
	topBit := func(text string) string {
		key, err := address.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		key[31] |= 0x80
		return key.String()
	}
	refused := 0
	log := entries(t, "wgkex-handler", func() {
		for _, c := range []struct {
			port          int
			request, code string
		}{
			{port1, "\n" + good + "\n", "NO_DOMAIN"},
			{port1, "\r\n", "NO_DOMAIN"},
			{port1, "nowhere\n" + good + "\n", "INVALID_DOMAIN"},
			{sharedPort, "nowhere\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "ffww02\n" + good + "\n", "INVALID_DOMAIN"},
			{port2, "ffww01\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "FFWW01\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "ffww01 \n" + good + "\n", "INVALID_DOMAIN"},
			{port1, long[:64] + "\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, long + "\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, strings.Repeat("x", 4096) + "\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, strings.Repeat("x", 30000), "INVALID_DOMAIN"},
			{port1, "ffww01\x00\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "\xff\xfe\x80\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "../../etc/passwd\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, marker + "\n" + good + "\n", "INVALID_DOMAIN"},
			{port1, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n", "INVALID_DOMAIN"},
			{port1, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x01", 500), "INVALID_DOMAIN"},
			{port1, "ffww01\n\n", "NO_WGKEY"},
			{port1, "ffww01\r\n\r\n", "NO_WGKEY"},
			{port1, "ffww01\n" + long[:64] + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + long + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + strings.Repeat("x", 4096) + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + good[:43] + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n " + good + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + good[:20] + "\x00" + good[21:] + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n\xff\xfe\x80\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + marker + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "INVALID_WGKEY"},
			{port1, "ffww01\nAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + topBit(good) + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + topBit(prohibited) + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + topBit(own1) + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n" + topBit(static.String()) + "\n", "INVALID_WGKEY"},
			{port1, "ffww01\n9v///////////////////////////////////////38=\n", "INVALID_WGKEY"}, // 9 and the prime
			{port1, "ffww01\n" + prohibited + "\n", "PROHIBITED_WGKEY"},
			{port1, "ffww01\n" + own1 + "\n", "PROHIBITED_WGKEY"},
			{port1, "ffww01\n" + static.String() + "\n", "PROHIBITED_WGKEY"},
			{port1, "ffww01\n" + conflict.String() + "\n", "ADDRESS_CONFLICT"},
			{port1, "ffww01\n" + ownAddr.String() + "\n", "ADDRESS_CONFLICT"},
			{sharedPort, "broken\n" + good + "\n", "BUSY"},
			{sharedPort, "absent\n" + good + "\n", "BUSY"},
		} {
			refuse(t, c.port, c.request, c.code)
			refused++
			if after := state(t); after != before {
				t.Fatalf("%q changed the kernel from\n%s\nto\n%s", c.request, before, after)
			}
		}
	})
	if len(log) != refused {
		t.Errorf("%d log entries for %d refusals: %v", len(log), refused, log)
	}
	for _, e := range log {
		if e["WGKEX_RESULT"] == "" || e["WGKEX_REMOTE"] == "" {
			t.Errorf("a log entry without fields: %v", e)
		}
		if strings.Contains(fmt.Sprint(e), "MARK") {
			t.Errorf("client bytes in the log: %v", e)
		}
	}
	if _, err := os.Stat("/tmp/pwned"); err == nil {
		t.Error("a shell got the client's bytes")
	}
}

// Silence, broken connections and half-closed ones, all at the same time since
// each takes its 5 s.
func TestSilence(t *testing.T) {
	before := state(t)
	var wg sync.WaitGroup
	for _, c := range []struct {
		name, request, code string
		halfClose           bool
	}{
		{"silence", "", "NO_DOMAIN", false},
		{"silence in the domain", "ffw", "NO_DOMAIN", false},
		{"silence after the domain", "ffww01\n", "NO_WGKEY", false},
		{"silence in the key", "ffww01\nDw6zz5lr8K1KpwXOfnI1q", "NO_WGKEY", false},
		{"nothing, half-closed", "", "NO_DOMAIN", true},
		{"the domain, half-closed", "ffww01", "NO_WGKEY", true},
		{"the domain's line, half-closed", "ffww01\n", "NO_WGKEY", true},
		{"half a key, half-closed", "ffww01\nDw6zz5lr8K1KpwXOfnI1q", "INVALID_WGKEY", true},
	} {
		wg.Go(func() {
			conn := dial(t, port1)
			defer conn.Close()
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.halfClose {
				if err := conn.CloseWrite(); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
			if got := answer(t, conn); got != "ERR: "+c.code+"\n" {
				t.Errorf("%s: got %q, want %s", c.name, got, c.code)
			}
		})
	}
	for _, request := range []string{"", "ffw", "ffww01\n", "ffww01\nDw6zz5lr8K1KpwXOfnI1q"} {
		wg.Go(func() {
			conn := dial(t, port1)
			if _, err := io.WriteString(conn, request); err != nil {
				t.Error(err)
			}
			if err := conn.SetLinger(0); err != nil { // so that closing sends a RST
				t.Error(err)
			}
			conn.Close()
		})
	}
	wg.Wait()
	noHandlers(t)
	if after := state(t); after != before {
		t.Errorf("the kernel changed from\n%s\nto\n%s", before, after)
	}
}

func TestSameKey(t *testing.T) {
	key := newKey(t)
	accept(t, port1, "ffww01", key)
	accept(t, port1, "ffww01", key)
	accept(t, sharedPort, "ffww02", key)
	accept(t, sharedPort, "ffww01", key)
	wantRouter(t, "ffww01", key)
	wantRouter(t, "ffww02", key)
}

// Many keys at once on a device that has more than a hundred peers, some
// of them static with many allowed IPs, so that a dump takes several messages.
func TestManyAtOnce(t *testing.T)     { manyAtOnce(t, 40) }
func TestLongManyAtOnce(t *testing.T) { manyAtOnce(t, 200) }

func manyAtOnce(t *testing.T, n int) {
	for i := range 3 {
		var ips []string
		for n := range 300 {
			ips = append(ips, fmt.Sprintf("fd98:%d::%x/128", i, n))
		}
		sh(t, "wg set wg-ffww02 peer %s allowed-ips %s", newKey(t), strings.Join(ips, ","))
	}
	var more []string
	for range 120 {
		more = append(more, fmt.Sprintf("wg set wg-ffww02 peer %s", newKey(t)))
	}
	sh(t, "%s", strings.Join(more, "\n"))
	sh(t, "systemctl restart wgkex@ffww02.socket")
	before := strings.Count(sh(t, "wg show wg-ffww02 peers")+"\n", "\n")

	keys := make([]address.Key, n)
	var wg sync.WaitGroup
	for i := range keys {
		keys[i] = newKey(t)
		wg.Go(func() { accept(t, port2, "ffww02", keys[i]) })
	}
	wg.Wait()
	wantRouter(t, "ffww02", keys...)
	if after := strings.Count(sh(t, "wg show wg-ffww02 peers")+"\n", "\n"); after != before+n {
		t.Errorf("%d peers, after %d more than %d", after, n, before)
	}
	// And all of them known now.
	for _, key := range keys[:5] {
		accept(t, port2, "ffww02", key)
		wantRouter(t, "ffww02", key)
	}
}

func TestJournalEntry(t *testing.T) {
	key := newKey(t)
	_, addr := address.RFC4291.Of(key)
	var local net.Addr
	log := entries(t, "wgkex-handler", func() {
		conn := dial(t, port1)
		local = conn.LocalAddr()
		fmt.Fprintf(conn, "ffww01\n%s\n", key)
		answer(t, conn)
		conn.Close()
	})
	if len(log) != 1 {
		t.Fatalf("%d entries, want one: %v", len(log), log)
	}
	for name, want := range map[string]string{
		"WGKEX_DOMAIN": "ffww01", "WGKEX_RESULT": "OK", "WGKEX_REMOTE": local.String(),
		"WGKEX_PUBLIC_KEY": key.String(), "WGKEX_ADDRESS": addr.String(), "PRIORITY": "5",
	} {
		if log[0][name] != want {
			t.Errorf("%s is %q, want %q", name, log[0][name], want)
		}
	}
	if !strings.Contains(log[0]["MESSAGE"], key.String()) {
		t.Errorf("the message does not name the key: %q", log[0]["MESSAGE"])
	}
}
