//go:build vm

package kernel

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestInspect(t *testing.T) {
	newDevices(t)
	own := netip.MustParseAddr("fe80::1")
	sh(t, "wg set wgtest listen-port 51999")
	w, err := InspectWireGuard("wgtest")
	ok(t, err)
	v, err := InspectVXLAN("vxtest")
	ok(t, err)
	if key := sh(t, "wg show wgtest public-key"); w.Key.String() != key || !w.Up || !w.IPv6 || w.MTU != 1420 || w.Port != 51999 || !slices.Equal(w.Addresses, []netip.Addr{own}) {
		t.Errorf("%+v, want the key %s and the address %s", w, key, own)
	}
	if v.VNI != 99 || v.Port != 8472 || v.Local != own || v.Remote.IsValid() || v.Lower != w.Index || !v.Up || v.External || !v.Learning || v.Limit != 0 {
		t.Errorf("%+v over %+v", v, w)
	}

	sh(t, "ip link set wgtest down; ip link set vxtest down; wg set wgtest listen-port 0 private-key /dev/null; sysctl -qw net.ipv6.conf.wgtest.disable_ipv6=1")
	w, err = InspectWireGuard("wgtest")
	ok(t, err)
	if w.Up || w.IPv6 || len(w.Addresses) > 0 || !w.Key.IsZero() || w.Port != 0 {
		t.Errorf("%+v", w)
	}
	if v, err := InspectVXLAN("vxtest"); err != nil || v.Up {
		t.Errorf("%+v, %v", v, err)
	}

	for _, c := range []struct {
		options string
		right   func(VXLAN) bool
	}{
		{"id 5 dstport 4789", func(v VXLAN) bool { return !v.Local.IsValid() && v.Lower == 0 && v.Port == 4789 }},
		{"id 5 dstport 4789 local 192.0.2.1", func(v VXLAN) bool { return v.Local == netip.MustParseAddr("192.0.2.1") }},
		{"id 5 dstport 4789 remote 192.0.2.1 dev lo", func(v VXLAN) bool { return v.Remote == netip.MustParseAddr("192.0.2.1") && v.Lower == 1 }},
		{"id 5 dstport 4789 group ff02::1 dev lo nolearning", func(v VXLAN) bool { return v.Remote == netip.MustParseAddr("ff02::1") && !v.Learning }},
		{"external dstport 4789", func(v VXLAN) bool { return v.External }},
		{"id 5 dstport 4789 maxaddress 7", func(v VXLAN) bool { return v.Limit == 7 }},
	} {
		sh(t, "ip link add vxother type vxlan %s", c.options)
		v, err := InspectVXLAN("vxother")
		sh(t, "ip link del vxother")
		if err != nil || !c.right(v) {
			t.Errorf("%s: %+v, %v", c.options, v, err)
		}
	}

	if _, err := InspectWireGuard("none"); !errors.Is(err, ErrMissing) {
		t.Errorf("a WireGuard interface that is not there: %v", err)
	}
	if _, err := InspectVXLAN("none"); !errors.Is(err, ErrMissing) {
		t.Errorf("a VXLAN interface that is not there: %v", err)
	}
	if _, err := InspectWireGuard("lo"); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("another type: %v", err)
	}
}

func TestPortSet(t *testing.T) {
	if there, err := HasTable("test"); err != nil || there {
		t.Errorf("before: %v, %v", there, err)
	}
	if ports, err := PortSet("test", "ports"); !errors.Is(err, ErrNoTable) {
		t.Errorf("before: %v, %v", ports, err)
	}
	sh(t, `nft add table inet test`)
	t.Cleanup(func() { sh(t, "nft delete table inet test") })
	if there, err := HasTable("test"); err != nil || !there {
		t.Errorf("%v, %v", there, err)
	}
	if ports, err := PortSet("test", "ports"); !errors.Is(err, ErrNoTable) {
		t.Errorf("without a set: %v, %v", ports, err)
	}
	sh(t, `nft 'add set inet test ports { type inet_service; }'`)
	if ports, err := PortSet("test", "ports"); err != nil || len(ports) > 0 {
		t.Errorf("an empty set: %v, %v", ports, err)
	}
	// More than one message of the kernel holds.
	want := make([]uint16, 2000)
	for i := range want {
		want[i] = uint16(20000 + i)
	}
	sh(t, `nft "add element inet test ports { $(seq -s , 20000 21999) }"`)
	if ports, err := PortSet("test", "ports"); err != nil || !slices.Equal(ports, want) {
		t.Errorf("%d ports, %v", len(ports), err)
	}
	if names, err := InterfaceSet("test", "names"); !errors.Is(err, ErrNoTable) {
		t.Errorf("without a set: %v, %v", names, err)
	}
	sh(t, `nft 'add set inet test names { type ifname; elements = { "wg-b", "a", "abcdefghijklmno" } }'`)
	if names, err := InterfaceSet("test", "names"); err != nil || !slices.Equal(names, []string{"a", "abcdefghijklmno", "wg-b"}) {
		t.Errorf("names %q, %v", names, err)
	}
	if ports, err := PortSet("test", "names"); err == nil {
		t.Errorf("names are ports %v", ports)
	}
}
