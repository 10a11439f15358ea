//go:build vm

// These tests need a kernel with WireGuard and VXLAN, and root: test/vm runs
// them in a VM.
package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"wgkex/internal/address"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func sh(t *testing.T, format string, args ...any) string {
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

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	newDevices(t)
	for _, c := range []struct {
		wireguard, vxlan string
		missing          bool
	}{{"none", "vxtest", true}, {"wgtest", "none", true}, {"vxtest", "vxtest", false}, {"wgtest", "lo", false}} {
		d, err := Open(c.wireguard, c.vxlan)
		if err == nil || errors.Is(err, ErrMissing) != c.missing {
			t.Errorf("%s, %s: %v, %v", c.wireguard, c.vxlan, d, err)
		}
	}
}

func TestPublicKeyAndPeers(t *testing.T) {
	d := newDevices(t)
	key, err := d.PublicKey()
	ok(t, err)
	if want := sh(t, "wg show wgtest public-key"); key.String() != want {
		t.Errorf("public key %s, want %s", key, want)
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
	if key, err := d.PublicKey(); err != nil || key.String() != sh(t, "wg show wgtest public-key") {
		t.Errorf("public key of a device with peers: %s, %v", key, err)
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
	if key, err := d.PublicKey(); err != nil || !key.IsZero() {
		t.Errorf("public key of a device without one: %s, %v", key, err)
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
		if got, err := d.HasEntry(mac); err != nil || got != want {
			t.Errorf("has entry: %v, %v, want %v", got, err, want)
		}
	}
	has(false)
	for range 2 { // the second time changes nothing
		ok(t, d.SetEntry(mac, addr))
		ok(t, d.SetEntry(Flood, addr))
	}
	has(true)
	out := sh(t, "bridge fdb show dev vxtest | grep 'fe80::a '")
	want := "00:00:00:00:00:00 dst fe80::a via wgtest self permanent\n02:01:02:03:04:05 dst fe80::a via wgtest self permanent"
	if strings.ReplaceAll(out, " \n", "\n") != want {
		t.Errorf("bridge shows\n%s\nwant\n%s", out, want)
	}
	// The MAC moves, as of a router that the switch had learned elsewhere.
	sh(t, "bridge fdb replace %s dev vxtest dst fe80::55 dynamic", mac)
	ok(t, d.SetEntry(mac, addr))
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
		ok(t, d.RemoveEntry(Entry{MAC: mac, Dst: addr, Via: via}))
		ok(t, d.RemoveEntry(Entry{MAC: Flood, Dst: addr, Via: via}))
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
	_, keyErr := d.PublicKey()
	_, peersErr := d.Peers()
	_, hasErr := d.HasEntry(address.RFC4291.MAC(key))
	for what, err := range map[string]error{
		"PublicKey": keyErr, "Peers": peersErr, "HasEntry": hasErr,
		"AddPeer": d.AddPeer(key, addr), "ResetPeer": d.ResetPeer(key, addr), "RemovePeers": d.RemovePeers([]address.Key{key}),
		"SetEntry": d.SetEntry(address.RFC4291.MAC(key), addr), "RemoveEntry": d.RemoveEntry(Entry{MAC: address.RFC4291.MAC(key), Dst: addr}),
	} {
		if !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
