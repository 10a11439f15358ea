//go:build vm

// These tests need a kernel with WireGuard and VXLAN, and root: test/vm runs
// them in a VM.
package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func sh(t testing.TB, format string, args ...any) string {
	t.Helper()
	command := fmt.Sprintf(format, args...)
	out, err := exec.Command("bash", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newKey(t *testing.T) address.Key {
	t.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return address.Key(private.PublicKey())
}

// newDevices makes wgtest with a private key, and vxtest over it.
func newDevices(t *testing.T) Devices {
	t.Helper()
	sh(t, `wg genkey > key && ip link add wgtest type wireguard && wg set wgtest private-key key && ip link set wgtest up
		ip addr add fe80::1/64 dev wgtest nodad
		ip link add vxtest address 02:00:00:00:00:01 type vxlan id 99 local fe80::1 dstport 8472 dev wgtest && ip link set vxtest up`)
	t.Cleanup(func() { sh(t, "ip link del vxtest; ip link del wgtest") })
	d, err := Open("wgtest", "vxtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpen(t *testing.T) {
	newDevices(t)
	for _, c := range []struct {
		wireguard, vxlan string
		want             error
	}{{"none", "vxtest", ErrMissing}, {"wgtest", "none", ErrMissing}, {"vxtest", "vxtest", ErrUnfit}, {"wgtest", "lo", ErrUnfit}} {
		d, err := Open(c.wireguard, c.vxlan)
		if !errors.Is(err, c.want) {
			t.Errorf("%s, %s: %v, %v", c.wireguard, c.vxlan, d, err)
		}
	}
}

func TestGatewayAndPeers(t *testing.T) {
	d := newDevices(t)
	sh(t, "wg set wgtest listen-port 51998")
	want := sh(t, "wg show wgtest public-key; wg show wgtest listen-port; ip -d link show vxtest | sed -n 's/.* local \\([^ ]*\\) .*/\\1/p'")
	gateway := func() string {
		g, err := d.Gateway()
		ok(t, err)
		return fmt.Sprintf("%s\n%d\n%s", g.Key, g.Port, g.Addr)
	}
	if got := gateway(); got != want {
		t.Errorf("the gateway is %q, want %q", got, want)
	}
	// More peers, and one with more allowed IPs, than fit into one message.
	static := newKey(t)
	var ips []string
	for n := range 1000 {
		ips = append(ips, fmt.Sprintf("fd00::%x/128", n))
	}
	sh(t, "wg set wgtest peer %s endpoint 192.0.2.7:99 allowed-ips %s,10.0.0.0/8", static, strings.Join(ips, ","))
	keys := make([]address.Key, 200)
	for i := range keys {
		keys[i] = newKey(t)
		_, addr := address.RFC4291.Of(keys[i])
		ok(t, d.AddPeer(keys[i], addr))
	}
	if got := gateway(); got != want {
		t.Errorf("the gateway with peers is %q, want %q", got, want)
	}
	peers, err := d.Peers()
	ok(t, err)
	if len(peers) != 201 || peers[0].Key != static || len(peers[0].AllowedIPs) != 1001 || peers[0].Endpoint != netip.MustParseAddrPort("192.0.2.7:99") {
		t.Fatalf("%d peers, first %+v", len(peers), peers[0])
	}
	for i, p := range peers[1:] {
		if p.Key != keys[i] || !p.Managed(address.RFC4291) || !p.Pending() {
			t.Errorf("peer %d: %+v, want %s", i, p, keys[i])
		}
	}
	ok(t, d.RemovePeers(keys))
	ok(t, d.RemovePeers(keys)) // they are gone, and that is fine
	ok(t, d.RemovePeers(nil))
	if out := sh(t, "wg show wgtest peers"); out != static.String() {
		t.Errorf("peers left: %s", out)
	}
	sh(t, "wg set wgtest private-key /dev/null")
	if g, err := d.Gateway(); err != nil || !g.Key.IsZero() {
		t.Errorf("public key of a device without one: %s, %v", g.Key, err)
	}
}

func TestAddAndResetPeer(t *testing.T) {
	d := newDevices(t)
	key, other := newKey(t), newKey(t)
	addr, otherAddr := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
	show := func(want string) {
		t.Helper()
		want = strings.NewReplacer("KEY", key.String(), "OTHER", other.String()).Replace(want)
		if got := sh(t, "wg show wgtest allowed-ips"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	ok(t, d.AddPeer(key, addr))
	ok(t, d.AddPeer(key, addr))
	show("KEY\tfe80::a/128")
	ok(t, d.AddPeer(key, otherAddr))
	show("KEY\tfe80::a/128 fe80::b/128")
	ok(t, d.ResetPeer(key, addr))
	show("KEY\tfe80::a/128")
	// What the policy is there to prevent: the newest peer takes the address.
	ok(t, d.AddPeer(other, addr))
	show("KEY\t(none)\nOTHER\tfe80::a/128")
	// Back again, with all else of the peer as it is.
	sh(t, "wg set wgtest peer %s endpoint 192.0.2.7:99 persistent-keepalive 7", key)
	ok(t, d.AddPeer(key, otherAddr))
	ok(t, d.Readdress(key, addr))
	show("KEY\tfe80::a/128\nOTHER\t(none)")
	if out := sh(t, "wg show wgtest dump | grep %s", key); !strings.Contains(out, "192.0.2.7:99") || !strings.HasSuffix(out, "\t7") {
		t.Errorf("after Readdress: %s", out)
	}
	ok(t, d.Readdress(newKey(t), addr))
	show("KEY\tfe80::a/128\nOTHER\t(none)")
}

func TestOwns(t *testing.T) {
	d := newDevices(t)
	sh(t, "ip addr add fe80::77/64 dev lo; ip addr add fe80::78/64 dev vxtest nodad")
	defer sh(t, "ip addr del fe80::77/64 dev lo")
	for _, c := range []struct {
		mac  address.MAC
		addr string
		want bool
	}{
		{address.MAC{2}, "fe80::1", true},
		{address.MAC{2}, "fe80::77", true}, // of another interface
		{address.MAC{2}, "fe80::78", true},
		{address.MAC{2, 0, 0, 0, 0, 1}, "fe80::2", true}, // the VXLAN interface's
		{address.MAC{2}, "fe80::2", false},
	} {
		if got, err := d.Owns(c.mac, netip.MustParseAddr(c.addr)); err != nil || got != c.want {
			t.Errorf("%s %s: %v, %v", c.mac, c.addr, got, err)
		}
	}
}

func TestEntries(t *testing.T) {
	d := newDevices(t)
	mac, addr := address.MAC{2, 1, 2, 3, 4, 5}, netip.MustParseAddr("fe80::a")
	sh(t, "bridge fdb add 02:ff:ff:ff:ff:ff dev vxtest dst fe80::99 via wgtest; bridge fdb append 00:00:00:00:00:00 dev vxtest dst 'fe80::99' via wgtest")
	foreign := sh(t, "bridge fdb show dev vxtest")
	has := func(want bool) {
		t.Helper()
		if got, err := d.HasEntry(mac, addr); err != nil || got != want {
			t.Errorf("has entry: %v, %v, want %v", got, err, want)
		}
		if got, err := d.HasEntry(mac, netip.MustParseAddr("fe80::b")); err != nil || got {
			t.Errorf("has entry that leads elsewhere: %v, %v", got, err)
		}
	}
	has(false)
	for range 2 { // the second time changes nothing
		ok(t, d.SetEntries([]Destination{{mac, addr}}))
		ok(t, d.SetEntries([]Destination{{Flood, addr}}))
	}
	has(true)
	out := sh(t, "bridge fdb show dev vxtest | grep 'fe80::a '")
	want := "00:00:00:00:00:00 dst fe80::a via wgtest self permanent\n02:01:02:03:04:05 dst fe80::a via wgtest self permanent"
	if strings.ReplaceAll(out, " \n", "\n") != want {
		t.Errorf("bridge shows\n%s\nwant\n%s", out, want)
	}
	// The MAC moves, as of a router that the switch had learned elsewhere.
	sh(t, "bridge fdb replace %s dev vxtest dst fe80::55 dynamic", mac)
	ok(t, d.SetEntries([]Destination{{mac, addr}}))
	if out := sh(t, "bridge fdb show dev vxtest | grep %s", mac); out != "02:01:02:03:04:05 dst fe80::a via wgtest self permanent" {
		t.Errorf("after the MAC moved: %q", out)
	}

	entries, err := d.Entries()
	ok(t, err)
	via := d.Index().WireGuard
	count := map[Entry]int{}
	for _, e := range entries {
		count[e]++
	}
	for _, e := range []Entry{{mac, addr, via, true}, {Flood, addr, via, true}, {Flood, netip.MustParseAddr("fe80::99"), via, true}} {
		if count[e] != 1 {
			t.Errorf("%d entries %+v in %+v", count[e], e, entries)
		}
	}
	if len(entries) != 4 {
		t.Errorf("%d entries, want 4: %+v", len(entries), entries)
	}
	for range 2 { // the second time it is gone already
		ok(t, d.RemoveEntries([]Entry{{MAC: mac, Dst: addr, Via: via}}))
		ok(t, d.RemoveEntries([]Entry{{MAC: Flood, Dst: addr, Via: via}}))
	}
	has(false)
	if out := sh(t, "bridge fdb show dev vxtest"); out != foreign {
		t.Errorf("other entries changed from\n%s\nto\n%s", foreign, out)
	}
}

// Devices that go away while open make ErrMissing of every call that needs them.
func TestDevicesGone(t *testing.T) {
	sh(t, `wg genkey > key && ip link add wggone type wireguard && wg set wggone private-key key
		ip link add vxgone type vxlan id 98 local fe80::1 dstport 8472 dev wggone`)
	d, err := Open("wggone", "vxgone")
	ok(t, err)
	defer d.Close()
	sh(t, "ip link del vxgone; ip link del wggone")
	key, addr := newKey(t), netip.MustParseAddr("fe80::a")
	_, gatewayErr := d.Gateway()
	_, peersErr := d.Peers()
	_, _, peerErr := d.Peer(key)
	_, hasErr := d.HasEntry(address.RFC4291.MAC(key), addr)
	_, entriesErr := d.Entries()
	for what, err := range map[string]error{
		"Gateway": gatewayErr, "Peers": peersErr, "Peer": peerErr, "HasEntry": hasErr, "Entries": entriesErr,
		"AddPeer": d.AddPeer(key, addr), "ResetPeer": d.ResetPeer(key, addr), "RemovePeers": d.RemovePeers([]address.Key{key}),
		"Readdress":  d.Readdress(key, addr),
		"SetEntries": d.SetEntries([]Destination{{address.RFC4291.MAC(key), addr}}), "RemoveEntries": d.RemoveEntries([]Entry{{MAC: address.RFC4291.MAC(key), Dst: addr}}),
	} {
		if !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The WireGuard interface alone goes, from under a VXLAN interface that is not
// bound to it.
func TestWireGuardGone(t *testing.T) {
	sh(t, "ip link add wggone type wireguard; ip link add vxstays type vxlan id 98 local fd00::1 dstport 8472")
	defer sh(t, "ip link del vxstays")
	d, err := Open("wggone", "vxstays")
	ok(t, err)
	defer d.Close()
	addr, mac, moved := netip.MustParseAddr("fe80::a"), address.MAC{2, 1}, address.MAC{2, 2}
	via := d.Index().WireGuard
	for _, m := range []address.MAC{mac, moved, Flood} {
		ok(t, d.SetEntries([]Destination{{m, addr}}))
	}
	sh(t, "ip link del wggone")
	if err := d.SetEntries([]Destination{{mac, addr}}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "wggone") {
		t.Errorf("setting an entry: %v", err)
	}
	// Others have an entry of their own towards the same address.
	sh(t, "bridge fdb append 00:00:00:00:00:00 dev vxstays dst fe80::a; bridge fdb replace %s dev vxstays dst fe80::a", moved)
	for range 2 { // the second time it is gone already
		for _, m := range []address.MAC{mac, moved, Flood} {
			ok(t, d.RemoveEntries([]Entry{{MAC: m, Dst: addr, Via: via}}))
		}
	}
	entries, err := d.Entries()
	ok(t, err)
	want := []Entry{{Flood, addr, via, true}, {Flood, addr, 0, true}, {moved, addr, 0, true}}
	byMAC := func(a, b Entry) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	slices.SortFunc(entries, byMAC)
	slices.SortFunc(want, byMAC)
	if !slices.Equal(entries, want) {
		t.Errorf("entries %+v, want %+v", entries, want)
	}
}

func TestUnfitVXLAN(t *testing.T) {
	sh(t, `ip link add wgfit type wireguard && ip link set wgfit up
		ip link add vxfour type vxlan id 96 local 192.0.2.1 dstport 8472 dev wgfit
		ip link add vxnone type vxlan id 95 dstport 8472 dev wgfit
		ip link add vxremote type vxlan id 94 remote fd00::77 dstport 8472 dev wgfit
		ip link add vxremote4 type vxlan id 93 remote 192.0.2.7 dstport 8472 dev wgfit`)
	defer sh(t, "for v in vxfour vxnone vxremote vxremote4 wgfit; do ip link del $v; done")
	for _, c := range []struct {
		vxlan  string
		unfit  bool
		remote string
	}{{"vxfour", true, "invalid IP"}, {"vxnone", true, "invalid IP"}, {"vxremote", false, "fd00::77"}, {"vxremote4", true, "invalid IP"}} {
		d, err := Open("wgfit", c.vxlan)
		ok(t, err)
		defer d.Close()
		for _, mac := range []address.MAC{Flood, {2}} {
			err := d.SetEntries([]Destination{{mac, netip.MustParseAddr("fe80::a")}})
			switch {
			case !c.unfit:
				ok(t, err)
			case !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.vxlan) || !errors.Is(err, unix.EAFNOSUPPORT):
				t.Errorf("%s: %v", c.vxlan, err)
			}
		}
		if got := d.Remote().String(); got != c.remote {
			t.Errorf("%s: remote %s, want %s", c.vxlan, got, c.remote)
		}
	}
}

// Others add and remove peers while they are read. What is read has all peers
// that nobody touches, and no peer without its allowed IPs.
func TestReadingWhileOthersWrite(t *testing.T) {
	d := newDevices(t).(*devices)
	allowed := map[address.Key]netip.Prefix{}
	var all, staying, changing []policy.Peer
	for n := range 2000 {
		p := policy.Peer{Key: testKey(n), AllowedIPs: prefixes(fmt.Sprintf("fe80::%x/128", n+1))}
		allowed[p.Key] = p.AllowedIPs[0]
		all = append(all, p)
		if n%2 == 0 {
			staying = append(staying, p)
		} else {
			changing = append(changing, p)
		}
	}
	setPeers(t, d, all)
	began := time.Now()
	_, err := d.Peers()
	ok(t, err)
	pause := 4 * time.Since(began) // every other dump or so is interrupted, on any machine
	whole := func(p policy.Peer) bool { return len(p.AllowedIPs) == 1 && p.AllowedIPs[0] == allowed[p.Key] }

	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		others, err := Open("wgtest", "vxtest")
		if err != nil {
			stopped <- err
			return
		}
		defer others.Close()
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(rand.N(pause)):
			}
			first := rand.IntN(len(changing) - 8)
			some := changing[first : first+8]
			if err := others.RemovePeers(keysOf(some)); err != nil {
				stopped <- err
				return
			}
			for _, p := range some {
				if err := others.AddPeer(p.Key, p.AllowedIPs[0].Addr()); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	var interruptions, lists, searches int
	for rounds := 0; interruptions < 5 || lists < 5 || searches < 25; rounds++ {
		if rounds == 2000 {
			t.Fatalf("only %d interruptions, %d lists, %d searches", interruptions, lists, searches)
		}
		interrupted, err := d.dumpDevice(wholeDump, func([]byte) (bool, error) { return true, nil })
		ok(t, err)
		if interrupted {
			interruptions++
		}
		peers, err := d.Peers()
		if err == nil {
			lists++
			seen := map[address.Key]bool{}
			for _, p := range peers {
				if seen[p.Key] || !whole(p) {
					t.Errorf("read peer %+v, a second time: %v", p, seen[p.Key])
				}
				seen[p.Key] = true
			}
			for _, p := range staying {
				if !seen[p.Key] {
					t.Errorf("peer %s is missing", p.Key)
				}
			}
		} else if !errors.Is(err, ErrInterrupted) {
			t.Error(err)
		}
		for range 5 {
			n := rand.IntN(len(all))
			p, found, err := d.Peer(all[n].Key)
			switch {
			case errors.Is(err, ErrInterrupted):
			case err != nil:
				t.Error(err)
			case found && !whole(p) || !found && n%2 == 0:
				t.Errorf("search for %s: found %v, %+v", all[n].Key, found, p)
			default:
				searches++
			}
		}
	}
	close(stop)
	ok(t, <-stopped)
	t.Logf("%d interruptions, %d lists, %d searches", interruptions, lists, searches)
}

func TestBulk(t *testing.T) {
	d := newDevices(t).(*devices)
	for _, empty := range []error{d.AddPeers(nil), d.RemovePeers(nil), d.SetEntries(nil), d.RemoveEntries(nil)} {
		ok(t, empty)
	}
	const n = 1000 // in several messages and several goes
	var peers []PeerAddress
	var want []policy.Peer
	var entries []Destination
	var set []Entry
	via := d.Index().WireGuard
	for i := range n {
		mac, addr := address.RFC4291.Of(testKey(i))
		peers = append(peers, PeerAddress{testKey(i), addr})
		want = append(want, policy.Peer{Key: testKey(i), AllowedIPs: []netip.Prefix{netip.PrefixFrom(addr, 128)}})
		entries = append(entries, Destination{Flood, addr}, Destination{mac, addr})
		set = append(set, Entry{Flood, addr, via, true}, Entry{mac, addr, via, true})
	}
	for range 2 { // the second time changes nothing
		ok(t, d.AddPeers(peers))
		got, err := d.Peers()
		ok(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%d peers, want %d", len(got), n)
		}
	}
	ok(t, d.AddPeers([]PeerAddress{{testKey(1), netip.MustParseAddr("192.0.2.7")}}))
	if p, _, err := d.Peer(testKey(1)); err != nil || len(p.AllowedIPs) != 2 || p.AllowedIPs[1].String() != "192.0.2.7/32" {
		t.Errorf("%+v, %v", p, err)
	}
	sorted := func(entries []Entry) []Entry {
		return slices.SortedFunc(slices.Values(entries), func(a, b Entry) int {
			return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), a.Dst.Compare(b.Dst))
		})
	}
	// The kernel refuses a multicast MAC.
	refused := Destination{address.MAC{0x33, 0x33}, netip.MustParseAddr("fe80::a")}
	for range 2 {
		err := d.SetEntries(slices.Insert(slices.Clone(entries), 1500, refused))
		var bulk *BulkError
		if !errors.As(err, &bulk) || len(bulk.Errs) != 2*n+1 || len(bulk.Unwrap()) != 1 || !errors.Is(bulk.Errs[1500], unix.EOPNOTSUPP) {
			t.Errorf("setting entries: %v", err)
		}
		got, err := d.Entries()
		ok(t, err)
		if !slices.Equal(sorted(got), sorted(set)) {
			t.Fatalf("%d entries, want %d", len(got), len(set))
		}
	}
	var bulk *BulkError
	if err := d.SetEntries(slices.Repeat([]Destination{refused}, n)); !errors.As(err, &bulk) || len(bulk.Unwrap()) != n {
		t.Errorf("setting refused entries: %v", err)
	}
	for range 2 { // the second time they are gone, and that is fine
		ok(t, d.RemoveEntries(set[:len(set)-2]))
		ok(t, d.RemovePeers(keysOf(want[:n-1])))
	}
	if got, err := d.Entries(); err != nil || !slices.Equal(sorted(got), sorted(set[len(set)-2:])) {
		t.Errorf("entries left: %+v, %v", got, err)
	}
	if got, err := d.Peers(); err != nil || !reflect.DeepEqual(got, want[n-1:]) {
		t.Errorf("peers left: %+v, %v", got, err)
	}
}

// manyDevices makes interfaces with so many peers and their FDB entries.
func manyDevices(b *testing.B, n int) (d *devices, peers []PeerAddress, entries []Entry) {
	b.Helper()
	sh(b, "ip link add wgtest type wireguard && ip link add vxtest type vxlan id 99 local fe80::1 dstport 8472 dev wgtest")
	b.Cleanup(func() { sh(b, "ip link del vxtest; ip link del wgtest") })
	opened, err := Open("wgtest", "vxtest")
	ok(b, err)
	b.Cleanup(func() { opened.Close() })
	d = opened.(*devices)
	for i := range n {
		key := testKey(i)
		mac, addr := address.RFC4291.Of(key)
		peers = append(peers, PeerAddress{key, addr})
		entries = append(entries, Entry{Flood, addr, d.Index().WireGuard, true}, Entry{mac, addr, d.Index().WireGuard, true})
	}
	setMany(b, d, peers, entries)
	return d, peers, entries
}

func setMany(b *testing.B, d *devices, peers []PeerAddress, entries []Entry) {
	b.Helper()
	ok(b, d.AddPeers(peers))
	var destinations []Destination
	for _, e := range entries {
		destinations = append(destinations, Destination{e.MAC, e.Dst})
	}
	ok(b, d.SetEntries(destinations))
}

// Removing 5,000 of 20,000 peers and their FDB entries, and adding them again;
// by hand with wg(8) and bridge(8), one command each.
func BenchmarkBulk(b *testing.B) {
	d, peers, entries := manyDevices(b, 20000)
	peers, entries = peers[:5000], entries[:10000]
	var keys []address.Key
	var set, remove, unset strings.Builder
	remove.WriteString("set wgtest")
	for _, p := range peers {
		keys = append(keys, p.Key)
		fmt.Fprintf(&remove, " peer %s remove", p.Key)
	}
	for _, e := range entries {
		fmt.Fprintf(&unset, "fdb del %s dev vxtest dst %s via wgtest\n", e.MAC, e.Dst)
		fmt.Fprintf(&set, "fdb append %s dev vxtest dst %s via wgtest\n", e.MAC, e.Dst)
	}
	ok(b, os.WriteFile("remove", []byte(remove.String()), 0o600))
	ok(b, os.WriteFile("unset", []byte(unset.String()), 0o600))
	ok(b, os.WriteFile("set", []byte(set.String()), 0o600))
	run := func(name string, prepare, do func()) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				prepare()
				b.StartTimer()
				do()
			}
		})
	}
	add := func() { setMany(b, d, peers, entries) }
	run("RemovePeers", add, func() { ok(b, d.RemovePeers(keys)) })
	run("wg", add, func() { sh(b, "xargs -a remove -s 1000000 -n 20000 wg") })
	run("RemoveEntries", add, func() { ok(b, d.RemoveEntries(entries)) })
	run("bridge del", add, func() { sh(b, "bridge -batch unset") })
	gone := func() { add(); ok(b, d.RemoveEntries(entries)); ok(b, d.RemovePeers(keys)) }
	run("AddPeers", gone, func() { ok(b, d.AddPeers(peers)) })
	run("AddPeer", gone, func() {
		for _, p := range peers {
			ok(b, d.AddPeer(p.Key, p.Addr))
		}
	})
	run("SetEntries", gone, func() { setMany(b, d, nil, entries) })
	run("bridge append", gone, func() { sh(b, "bridge -batch set") })
}

func BenchmarkPeers(b *testing.B) {
	const peers = 20000
	d, _, _ := manyDevices(b, peers)
	client := d.wg
	b.Run("wgctrl", func(b *testing.B) {
		for b.Loop() {
			device, err := client.Device("wgtest")
			if err != nil || len(device.Peers) != peers {
				b.Fatal(err)
			}
		}
	})
	b.Run("Peers", func(b *testing.B) {
		for b.Loop() {
			got, err := d.Peers()
			if err != nil || len(got) != peers {
				b.Fatal(err)
			}
		}
	})
	for _, n := range []int{0, peers / 2, peers - 1} {
		b.Run(fmt.Sprintf("Peer/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, found, err := d.Peer(testKey(n)); err != nil || !found {
					b.Fatal(found, err)
				}
			}
		})
	}
	b.Run("Gateway", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.Gateway(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
