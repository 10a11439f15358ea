//go:build vm

package suite

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wgkex/internal/address"

	"golang.org/x/sys/unix"
)

// network is a network namespace on a link of its own to the gateway, in which
// every address of its prefixes exists.
type network struct {
	namespace          *os.File
	gateway4, gateway6 netip.AddrPort
}

func makeNetwork(t *testing.T, name string, number int, prefixes ...string) *network {
	t.Helper()
	sh(t, `ip netns add %[1]s
		ip link add %[1]s type veth peer name uplink netns %[1]s
		ip addr add 10.97.%[2]d.1/24 dev %[1]s; ip addr add fd97:%[2]d::1/64 dev %[1]s nodad; ip link set %[1]s up
		ip -n %[1]s addr add 10.97.%[2]d.2/24 dev uplink; ip -n %[1]s addr add fd97:%[2]d::2/64 dev uplink nodad
		ip -n %[1]s link set uplink up; ip -n %[1]s link set lo up
		ip netns exec %[1]s sysctl -qw net.ipv6.ip_nonlocal_bind=1`, name, number)
	t.Cleanup(func() { sh(t, "ip link del %s; ip netns del %[1]s", name) })
	for _, prefix := range prefixes {
		via := fmt.Sprintf("10.97.%d.2", number)
		if strings.Contains(prefix, ":") {
			via = fmt.Sprintf("fd97:%d::2", number)
		}
		sh(t, "ip -n %s route add local %s dev lo; ip route add %[2]s via %[3]s", name, prefix, via)
	}
	namespace, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() })
	return &network{
		namespace: namespace,
		gateway4:  netip.MustParseAddrPort(fmt.Sprintf("10.97.%d.1:%d", number, sharedPort)),
		gateway6:  netip.MustParseAddrPort(fmt.Sprintf("[fd97:%d::1]:%d", number, sharedPort)),
	}
}

// dial connects to the shared port from one of the network's addresses. A
// socket stays in the namespace in which it was made.
func (n *network) dial(from netip.Addr, timeout time.Duration) (*net.TCPConn, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	to := n.gateway4
	if from.Is6() {
		to = n.gateway6
	}
	dialer := net.Dialer{Timeout: timeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	conn, dialErr := dialer.Dial("tcp", to.String())
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	if dialErr != nil {
		return nil, dialErr
	}
	return conn.(*net.TCPConn), nil
}

// exchange is that of a router that tries once.
func (n *network) exchange(from netip.Addr, domain string, key address.Key) error {
	const tooLong = 10 * time.Minute // only for when it never ends
	conn, err := n.dial(from, tooLong)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(tooLong)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s\n%s\n", domain, key); err != nil {
		return err
	}
	if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
		return fmt.Errorf("answer %q, error %v", answer, err)
	}
	return nil
}

// honest addresses are each in a /48 of its own, or IPv4.
func honest(i int) netip.Addr {
	if i%4 == 0 {
		return netip.AddrFrom4([4]byte{198, 18, 1, byte(i / 4)})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:1::1", 0x1000+i))
}

const honestPrefixes = "198.18.1.0/24 2001:db8:1000::/36"

// within is any address of a /64, or the IPv4 address.
func within(prefix netip.Prefix) netip.Addr {
	if prefix.Addr().Is4() {
		return prefix.Addr()
	}
	a := prefix.Addr().As16()
	for i := 8; i < 16; i++ {
		a[i] = byte(rand.Int())
	}
	return netip.AddrFrom16(a)
}

// attack counts what became of hostile connections.
type attack struct {
	*network
	timeout                   time.Duration // of connecting
	tried, in, held, mostHeld atomic.Int64
	wg                        sync.WaitGroup
}

// Each keeps the connection for as long as the gateway lets it, but for those
// whose point is not to.
var hostile = map[string]func(*net.TCPConn){
	"idle": keep,
	"slow": func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write([]byte("f")); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	},
	"garbage": func(conn *net.TCPConn) {
		_, _ = conn.Write(bytes.Repeat([]byte{0xff, 0, '\r', 0x80}, 2000))
		keep(conn)
	},
	"reset": func(conn *net.TCPConn) { _ = conn.SetLinger(0) },
	"scan":  func(*net.TCPConn) {},
	"TLS": func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("\x01", 506))
		keep(conn)
	},
	"HTTP": func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
		keep(conn)
	},
}

func keep(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }

// try connects once and leaves the rest to another goroutine.
func (a *attack) try(from netip.Addr, kind string) {
	a.tried.Add(1)
	conn, err := a.dial(from, a.timeout)
	if err != nil {
		return
	}
	a.in.Add(1)
	held := a.held.Add(1)
	for most := a.mostHeld.Load(); held > most && !a.mostHeld.CompareAndSwap(most, held); most = a.mostHeld.Load() {
	}
	a.wg.Go(func() {
		defer a.held.Add(-1)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
		hostile[kind](conn)
	})
}

func (a *attack) String() string {
	return fmt.Sprintf("of %d hostile connections %d got in (%.1f %%), %d at the same time", a.tried.Load(), a.in.Load(),
		100*float64(a.in.Load())/float64(a.tried.Load()), a.mostHeld.Load())
}

func firewall(t *testing.T) {
	t.Helper()
	sh(t, "systemctl start wgkex-firewall")
	t.Cleanup(func() { sh(t, "systemctl stop wgkex-firewall") })
}

// nothingLeft checks that no trace of any connection is left.
func nothingLeft(t *testing.T) {
	t.Helper()
	noHandlers(t)
	if out := sh(t, "systemctl list-units --all --no-legend --failed 'wgkex*'"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
	eventually(t, "connections gone", func() bool {
		return sh(t, "ss -Htn state connected exclude time-wait sport = :%d", sharedPort) == ""
	})
	if out := sh(t, "for lock in /run/wgkex/domains/*.lock; do flock -n $lock true || echo $lock; done"); out != "" {
		t.Errorf("locked are %s", out)
	}
	if out := sh(t, "systemctl is-active wgkex.socket"); out != "active" {
		t.Errorf("the socket is %s", out)
	}
}

// missing is how many of the keys have no peer. Silence alone is no proof: it
// is also what a router hears whose connection the socket does not take.
func missing(t *testing.T, domain string, keys []address.Key) (n int) {
	t.Helper()
	peers := map[address.Key]bool{}
	for _, key := range consistent(t, domain) {
		peers[key] = true
	}
	for _, key := range keys {
		if !peers[key] {
			n++
		}
	}
	return n
}

// With the firewall, routers elsewhere are served while one source attacks.
func TestLongOneSourceCannotStarve(t *testing.T) {
	starve := oneSource(t)
	firewall(t)
	if n := starve(); n > 0 {
		t.Errorf("with wgkex-firewall %d routers were not served", n)
	}
	t.Log(sh(t, "nft list chain inet wgkex source"))
}

// Without it they are not, which is why there is one. Each connection for which
// a handler is started costs time: an eighth of them will do.
func TestLongOneSourceStarves(t *testing.T) {
	starve := oneSource(t)
	sh(t, `mkdir -p /run/systemd/system/wgkex.socket.d; printf '[Socket]\nMaxConnections=32\n' > /run/systemd/system/wgkex.socket.d/99-test.conf
		systemctl daemon-reload; systemctl restart wgkex.socket`)
	n := starve()
	sh(t, "rm -r /run/systemd/system/wgkex.socket.d; systemctl daemon-reload; systemctl restart wgkex.socket")
	if n == 0 {
		t.Error("without wgkex-firewall all routers were served: the attack is too weak to tell anything")
	}
}

// oneSource makes an attack and routers. The attacker has one /64 and one IPv4
// address and opens and holds as many connections as it can, while routers
// elsewhere come, one each second. What it returns runs that, and returns how
// many routers were not served in their first try.
func oneSource(t *testing.T) (starve func() int) {
	const domain, routers = "starve", 10
	cleanupDomain(t, domain, 20)
	internet := makeNetwork(t, "internet", 1, strings.Fields(honestPrefixes)...)
	attackers := makeNetwork(t, "attackers", 2, "2001:db8:a:1::/64", "198.18.2.1/32")
	sources := []netip.Prefix{
		netip.MustParsePrefix("2001:db8:a:1::/64"), netip.MustParsePrefix("2001:db8:a:1::/64"),
		netip.MustParsePrefix("2001:db8:a:1::/64"), netip.MustParsePrefix("198.18.2.1/32"),
	}
	kinds := []string{"idle", "slow", "garbage"}

	return func() int {
		start := time.Now()
		a := &attack{network: attackers, timeout: 2 * time.Second}
		ctx, stop := context.WithCancel(t.Context())
		for worker := range 100 {
			a.wg.Go(func() {
				for i := worker; ctx.Err() == nil; i++ {
					if a.held.Load() >= 64 { // more would change nothing for anybody
						time.Sleep(100 * time.Millisecond)
						continue
					}
					a.try(within(sources[i%len(sources)]), kinds[i%len(kinds)])
				}
			})
		}
		eventually(t, "the attack to be at its height", func() bool { return a.tried.Load() > 200 })
		keys := make([]address.Key, routers)
		var wg sync.WaitGroup
		for i := range keys {
			keys[i] = newKey(t)
			wg.Go(func() {
				if err := internet.exchange(honest(i), domain, keys[i]); err != nil {
					t.Logf("router %d from %s: %v", i, honest(i), err)
				}
			})
			time.Sleep(time.Second)
		}
		wg.Wait()
		stop()
		t.Logf("%s, in %.0f s", a, time.Since(start).Seconds())
		a.wg.Wait()
		nothingLeft(t)
		t.Logf("all was over after %.0f s", time.Since(start).Seconds())
		return missing(t, domain, keys)
	}
}

func TestHostileFlood(t *testing.T)     { hostileFlood(t, 1500, 30) }
func TestLongHostileFlood(t *testing.T) { hostileFlood(t, 10000, 200) }

// hostileFlood opens so many hostile connections of all kinds, and has so many
// routers come among them.
func hostileFlood(t *testing.T, flood, routers int) {
	const domain = "flood"
	cleanupDomain(t, domain, 21)
	firewall(t)
	// As many attackers as an emulated gateway has processor time for: it serves
	// a few exchanges a second, and these get 2 a second through.
	internet := makeNetwork(t, "internet", 1, strings.Fields(honestPrefixes)...)
	attackers := makeNetwork(t, "attackers", 2, "2001:db8:a::/48", "198.18.2.0/24")
	var sources []netip.Prefix
	for _, prefix := range []string{
		"2001:db8:a:1::/64", "2001:db8:a:2::/64", "2001:db8:a:3::/64", "198.18.2.1/32", "198.18.2.2/32",
	} {
		sources = append(sources, netip.MustParsePrefix(prefix))
	}
	kinds := []string{"idle", "slow", "garbage", "reset", "scan", "TLS", "HTTP"}

	limit, err := strconv.Atoi(sh(t, "systemctl show --value -p MemoryMax wgkex.slice"))
	if err != nil {
		t.Fatal(err)
	}
	peak := 0
	measured, measure := context.WithCancel(t.Context())
	var measuring sync.WaitGroup
	measuring.Go(func() {
		for ; measured.Err() == nil; time.Sleep(500 * time.Millisecond) {
			// The slice goes away when no handler runs.
			if data, err := os.ReadFile("/sys/fs/cgroup/wgkex.slice/memory.peak"); err == nil {
				n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
				peak = max(peak, n)
			}
		}
	})

	a := &attack{network: attackers, timeout: 500 * time.Millisecond}
	start := time.Now()
	keys := make([]address.Key, routers)
	for i := range keys {
		keys[i] = newKey(t)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	// For a slow machine: the socket has its limit, too.
	waiting := make(chan struct{}, 50)
	for range 80 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < flood; i = int(next.Add(1)) - 1 {
				// The routers come evenly spread among the attackers.
				if i%(flood/routers) == 0 {
					n := i / (flood / routers)
					wg.Go(func() {
						waiting <- struct{}{}
						defer func() { <-waiting }()
						if err := internet.exchange(honest(n), domain, keys[n]); err != nil {
							t.Errorf("router %d from %s: %v", n, honest(n), err)
						}
					})
				}
				a.try(within(sources[i%len(sources)]), kinds[i/len(sources)%len(kinds)])
			}
		})
	}
	wg.Wait()
	t.Logf("%s, in %.0f s", a, time.Since(start).Seconds())
	a.wg.Wait()
	nothingLeft(t)
	measure()
	measuring.Wait()
	t.Logf("all was over after %.0f s; peak of the slice's memory %.1f MiB of %d", time.Since(start).Seconds(), float64(peak)/(1<<20), limit>>20)
	t.Log(sh(t, "nft list chain inet wgkex source"))
	if n := missing(t, domain, keys); n > 0 {
		t.Errorf("%d of %d routers were not served in their first try", n, routers)
	}
	if peak == 0 || peak >= limit {
		t.Errorf("the slice's memory was at %d of %d", peak, limit)
	}
}

// Connections above the limits are closed without a line each in the journal,
// and counted.
func TestTurnedAway(t *testing.T) {
	const dropIn = "/run/systemd/system/wgkex@ffww02.socket.d"
	sh(t, "mkdir -p %s; printf '[Socket]\\nMaxConnections=8\\n' > %[1]s/99-test.conf; systemctl daemon-reload; systemctl restart wgkex@ffww02.socket", dropIn)
	t.Cleanup(func() {
		sh(t, "rm -r %s; systemctl daemon-reload; systemctl restart wgkex@ffww02.socket", dropIn)
	})
	counted := func() (accepted, turnedAway int) {
		for i, property := range []string{"NAccepted", "NRefused"} {
			n, err := strconv.Atoi(sh(t, "systemctl show --value -p %s wgkex@ffww02.socket", property))
			if err != nil {
				t.Fatal(err)
			}
			*[]*int{&accepted, &turnedAway}[i] = n
		}
		return accepted, turnedAway
	}
	// quietly runs something about which systemd must not write lines.
	quietly := func(do func()) {
		for _, e := range entries(t, "systemd", do) {
			if strings.Contains(e["MESSAGE"], "ffww02.socket") {
				t.Errorf("the journal has %s", e["MESSAGE"])
			}
		}
	}
	acceptedBefore, before := counted()
	noHandlers(t)
	var wg sync.WaitGroup
	var silence atomic.Int64
	quietly(func() {
		for range 400 {
			wg.Go(func() {
				conn := dial(t, port2)
				defer conn.Close()
				if data, err := io.ReadAll(conn); err != nil || len(data) == 0 { // closed by systemd
					silence.Add(1)
				}
			})
		}
		wg.Wait()
	})
	accepted, turnedAway := counted()
	accepted, turnedAway = accepted-acceptedBefore, turnedAway-before
	t.Logf("%d accepted, %d turned away, %d heard nothing", accepted, turnedAway, silence.Load())
	if accepted < 8 || turnedAway < 100 || accepted+turnedAway != 400 || turnedAway != int(silence.Load()) {
		t.Errorf("%d accepted and %d turned away of 400, %d heard nothing", accepted, turnedAway, silence.Load())
	}
	// Some of these are gone before systemd accepts them.
	quietly(func() {
		for range 200 {
			wg.Go(func() {
				conn := dial(t, port2)
				_ = conn.SetLinger(0)
				conn.Close()
			})
		}
		wg.Wait()
		noHandlers(t)
	})
	accepted, turnedAway = counted()
	want := fmt.Sprintf("connections to wgkex@ffww02.socket: %d accepted, %d turned away\n", accepted, turnedAway)
	if out := sh(t, "wgkex status ffww02"); !strings.Contains(out, want) || !strings.Contains(out, "connections to wgkex.socket: ") || strings.Contains(out, "ffww01") {
		t.Errorf("no %s in\n%s", want, out)
	}
	want = fmt.Sprintf(`"unit": "wgkex@ffww02.socket",
      "domain": "ffww02",
      "accepted": %d,
      "turned_away": %d
`, accepted, turnedAway)
	if out := sh(t, "wgkex status ffww02 --json"); !strings.Contains(out, want) {
		t.Errorf("no %s in\n%s", want, out)
	}
	// Where systemd cannot be asked, there is the rest.
	hidden := "unshare -m sh -c 'mount -t tmpfs tmpfs /run/dbus; mount -t tmpfs tmpfs /run/systemd; wgkex status ffww02 %s'"
	if out := sh(t, hidden, ""); strings.Contains(out, "connections to") || !strings.Contains(out, "domain ffww02 on ") {
		t.Errorf("without systemd:\n%s", out)
	}
	if out := sh(t, hidden, "--json"); !strings.Contains(out, `"sockets": null`) {
		t.Errorf("without systemd:\n%s", out)
	}
}

// The table comes and goes with its unit and is there again after those who
// flush everything; other tables are left alone.
func TestFirewall(t *testing.T) {
	table := func() string {
		out, _ := try("nft list table inet wgkex")
		return out
	}
	complete := func(when string) {
		t.Helper()
		if got, want := table(), "elements = { 10012, 10013, 10014, 10015"; !strings.Contains(got, want) {
			t.Errorf("%s: no %s in\n%s", when, want, got)
		}
	}
	if out, _ := try("systemctl is-enabled wgkex-firewall"); out != "disabled" {
		t.Errorf("the firewall is %s", out)
	}
	if strings.Contains(table(), "chain") {
		t.Errorf("there is a table from the beginning: %s", table())
	}
	sh(t, "systemctl start nftables")
	firewall(t)
	complete("started")
	if out := sh(t, "systemctl show --value -p Before wgkex-firewall"); !strings.Contains(out, "wgkex.socket") || !strings.Contains(out, "wgkex@ffww01.socket") {
		t.Errorf("the firewall comes before %s", out)
	}
	for _, command := range []string{
		"systemctl reload wgkex-firewall", "nft flush ruleset; systemctl reload wgkex-firewall",
		"systemctl reload nftables", "systemctl restart nftables", "systemctl restart wgkex.target",
	} {
		sh(t, "%s", command)
		eventually(t, command, func() bool { return strings.Contains(table(), "limit rate") })
		complete(command)
	}
	sh(t, "nft flush ruleset; systemctl stop wgkex-firewall; systemctl stop nftables; nft add table inet other")
	sh(t, "systemctl start wgkex-firewall; systemctl stop wgkex-firewall")
	if out := sh(t, "nft list tables"); out != "table inet other" {
		t.Errorf("after the end there are %s", out)
	}
	sh(t, "nft delete table inet other")
}
