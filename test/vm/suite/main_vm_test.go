//go:build vm

package suite

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/policy"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The gateway that all tests share. Tests that change more than their own peers
// put it back.
const configuration = `
listen = 10012
prohibited_keys = ["QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU="]

[domains.ffww01]
wireguard = "wg-ffww01"
vxlan = "vx-ffww01"
listen = 10013

[domains.ffww02]
wireguard = "wg-ffww02"
vxlan = "vx-ffww02"
listen = 10014
addresses = "ffmuc"

# Its WireGuard interface is of another type.
[domains.broken]
wireguard = "wg-broken"
vxlan = "vx-broken"

# Its interfaces do not exist.
[domains.absent]
wireguard = "wg-absent"
vxlan = "vx-absent"
listen = 10015
`

const (
	sharedPort = 10012
	port1      = 10013 // of ffww01
	port2      = 10014 // of ffww02
)

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the suite needs root in a VM of its own: run it with test/vm/run")
		os.Exit(1)
	}
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: setting up the gateway:", err)
			os.Exit(1)
		}
	}
	must(follow())
	must(os.WriteFile("/etc/wgkex/wgkex.toml", []byte(configuration), 0o644))
	for _, command := range []string{
		// Those of an earlier run in this boot.
		"for name in ffww01 ffww02 broken; do ip link del vx-$name; ip link del wg-$name; done; true",
		"./suite-files/gateway ffww01 1 rfc4291",
		"./suite-files/gateway ffww02 2 ffmuc",
		"ip link add wg-broken type bridge",
		"ip link add vx-broken type bridge",
		// No cleanup but where a test asks for it.
		"mkdir -p /run/systemd/system/wgkex-cleanup@.timer.d; printf '[Timer]\\nOnBootSec=\\nOnUnitActiveSec=\\nOnBootSec=10d\\n' > /run/systemd/system/wgkex-cleanup@.timer.d/never.conf",
		"systemctl daemon-reload",
		"systemctl start wgkex.socket",
		"systemctl start wgkex@ffww01.socket",
		"systemctl start wgkex@ffww02.socket",
	} {
		_, err := try("%s", command)
		must(err)
	}
	os.Exit(m.Run())
}

// try runs a shell command and returns its output, both kinds, without white
// space around it.
func try(format string, args ...any) (string, error) {
	command := fmt.Sprintf(format, args...)
	out, err := exec.Command("bash", "-c", command).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", command, err, text)
	}
	return text, err
}

func sh(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := try(format, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newKey(t testing.TB) address.Key {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return address.Key(private.PublicKey())
}

func dial(t testing.TB, port int) *net.TCPConn {
	t.Helper()
	// One address after the other: a second connection on a slow machine would be
	// a second exchange.
	dialer := net.Dialer{FallbackDelay: -1}
	conn, err := dialer.Dial("tcp", fmt.Sprintf("localhost:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	// The gateway's own limits are shorter; this is for when it fails.
	if err := conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// send sends the bytes and returns all that the gateway answers.
func send(t testing.TB, port int, request string) string {
	t.Helper()
	conn := dial(t, port)
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Errorf("%q: %v", request, err)
	}
	return answer(t, conn)
}

func answer(t testing.TB, conn io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("after %q: %v", data, err)
	}
	return string(data)
}

func accept(t testing.TB, port int, domain string, key address.Key) {
	t.Helper()
	if got := send(t, port, domain+"\n"+key.String()+"\n"); got != "" {
		t.Errorf("%s in %s on port %d: %q", key, domain, port, got)
	}
}

func refuse(t testing.TB, port int, request, code string) {
	t.Helper()
	if got := send(t, port, request); got != "ERR: "+code+"\n" {
		shown := request
		if len(shown) > 200 {
			shown = shown[:200] + "…"
		}
		t.Errorf("%q on port %d: got %q, want %s", shown, port, got, code)
	}
}

var profiles = map[string]address.Profile{"ffww01": address.RFC4291, "ffww02": address.FFMUC}

// fdbEntry is one of the entries of a managed peer, as bridge shows it.
func fdbEntry(domain, mac string, addr netip.Addr) string {
	return fmt.Sprintf("%s dst %s via wg-%s self permanent", mac, addr, domain)
}

// derived is the key's link-local address in the domain.
func derived(domain string, key address.Key) netip.Addr {
	_, addr := profiles[domain].Of(key)
	return addr
}

// flushFDB removes all FDB entries of the domain's VXLAN interface. What a
// router's packets teach the interface meanwhile is not permanent.
func flushFDB(t *testing.T, domain string) {
	t.Helper()
	sh(t, "bridge fdb show dev vx-%s | sed 's/^[^ ]*/fdb del & dev vx-%[1]s/; s/ permanent$//' | bridge -batch -", domain)
	if out := sh(t, "bridge fdb show dev vx-%s | sed -n '/ permanent$/p'", domain); out != "" {
		t.Fatalf("left in the FDB:\n%s", out)
	}
}

// editState reads the domain's peers and changes what is kept of them.
func editState(t *testing.T, name string, change func([]policy.Record)) {
	t.Helper()
	cfg, err := config.LoadEffective()
	if err != nil {
		t.Fatal(err)
	}
	d, err := domain.System.Open(t.Context(), cfg.Domains[name])
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Refresh(func(s domain.Survey) { change(s.Records) }); err != nil {
		t.Fatal(err)
	}
}

// makeRouter makes a network namespace that exchanges its key and uses the
// tunnel, see suite-files/router.
func makeRouter(t *testing.T, name string, number int, domain string, version, port, wgport, vni int) address.Key {
	t.Helper()
	sh(t, "rm -f %s.key", name) // of another test's
	out := sh(t, "./suite-files/router %s %d %s %d %d %d %d %s", name, number, domain, version, port, wgport, vni, profiles[domain])
	t.Cleanup(func() { _, _ = try("ip netns del %s", name) })
	key, err := address.ParseKey(strings.Split(out, "\t")[0])
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	reach(t, name, vni)
	return key
}

// reach waits until the router reaches the gateway through the tunnel: the
// first packet of a handshake may be lost while its uplink comes up.
func reach(t *testing.T, router string, vni int) {
	t.Helper()
	eventually(t, router+" reaching the gateway", func() bool {
		_, err := try("ip netns exec %s ping -6 -c 1 -W 5 fd00:%d::1", router, vni)
		return err == nil
	})
}

// wantRouter checks with wg and bridge that each key has a peer with exactly its
// address and both FDB entries with via.
func wantRouter(t testing.TB, domain string, keys ...address.Key) {
	t.Helper()
	ips := sh(t, "wg show wg-%s allowed-ips", domain)
	entries := map[string]int{}
	for line := range strings.Lines(sh(t, "bridge fdb show dev vx-%s", domain)) {
		entries[strings.TrimSpace(line)]++
	}
	for _, key := range keys {
		mac, addr := profiles[domain].Of(key)
		if n := strings.Count(ips+"\n", fmt.Sprintf("%s\t%s/128\n", key, addr)); n != 1 {
			t.Errorf("%s: %d peers %s with %s alone", domain, n, key, addr)
		}
		for _, m := range []string{"00:00:00:00:00:00", mac.String()} {
			if entry := fdbEntry(domain, m, addr); entries[entry] != 1 {
				t.Errorf("%s: %d FDB entries %q", domain, entries[entry], entry)
			}
		}
	}
}

// state is everything in the kernel that wgkex could change.
func state(t testing.TB) string {
	t.Helper()
	return sh(t, "wg show all dump; bridge fdb show; ip addr; ip -6 route")
}

// followed is what the journal has said since the suite began. To start journalctl
// for each question would take most of the time of many a test.
var followed struct {
	sync.Mutex
	entries []map[string]string
}

// follow reads the journal for as long as the suite runs.
func follow() error {
	cmd := exec.Command("journalctl", "-f", "-n", "0", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		decoder := json.NewDecoder(out)
		for {
			var e map[string]any
			if err := decoder.Decode(&e); err != nil {
				fmt.Fprintln(os.Stderr, "the journal cannot be followed any more:", err)
				return
			}
			entry := map[string]string{}
			for name, value := range e {
				entry[name] = fmt.Sprint(value)
			}
			followed.Lock()
			followed.entries = append(followed.entries, entry)
			followed.Unlock()
		}
	}()
	// What is written before journalctl looks does not come.
	for range 100 {
		if _, err = mark(3 * time.Second); err == nil {
			break
		}
	}
	return err
}

// mark writes an entry, waits until it comes back, and returns how many came
// before. What the journal was sent earlier has come by then, since wgkex, systemd
// and the suite write to the same socket.
func mark(atMost time.Duration) (int, error) {
	text := rand.Text()
	followed.Lock()
	from := len(followed.entries)
	followed.Unlock()
	if err := journal.Send(text, journal.PriInfo, nil); err != nil {
		return 0, err
	}
	for end := time.Now().Add(atMost); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		followed.Lock()
		i := slices.IndexFunc(followed.entries[from:], func(e map[string]string) bool { return e["MESSAGE"] == text })
		followed.Unlock()
		if i >= 0 {
			return from + i, nil
		}
	}
	return 0, errors.New("the journal does not tell what it was told")
}

// entries are the journal entries that a command writes with the given
// identifier.
func entries(t testing.TB, identifier string, do func()) []map[string]string {
	t.Helper()
	first, err := mark(5 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	do()
	last, err := mark(5 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	followed.Lock()
	defer followed.Unlock()
	var list []map[string]string
	for _, e := range followed.entries[first:last] {
		if e["SYSLOG_IDENTIFIER"] == identifier {
			list = append(list, e)
		}
	}
	return list
}

// eventually waits for something that systemd or the kernel does in its own
// time. The limit is only for when it never does.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

// noHandlers waits until no handler runs or is known to systemd any more.
func noHandlers(t testing.TB) {
	t.Helper()
	var left string
	t.Cleanup(func() {
		if t.Failed() && left != "" {
			t.Logf("handlers that were left:\n%s", left)
		}
	})
	eventually(t, "handlers gone", func() bool {
		left, _ = try("systemctl list-units --all --no-legend 'wgkex@*.service'; pgrep -x wgkex-handler")
		return left == ""
	})
}
