package kernel

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What netlink tells of IPv6 is what /proc does.
func TestIPv6Enabled(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) == 0 {
		t.Fatal(interfaces, err)
	}
	for _, i := range interfaces {
		// The file is missing where the kernel has no IPv6.
		value, _ := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", i.Name, "disable_ipv6"))
		want := strings.TrimSpace(string(value)) == "0"
		if got, err := ipv6Enabled(i.Index); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", i.Name, got, err, want)
		}
	}
	if _, err := ipv6Enabled(1 << 30); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there: %v", err)
	}
}

// link is a RTM_NEWLINK message with settings of IPv6.
func link(settings []byte) []byte {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET, []byte{1, 2, 3, 4})
	spec.AddRtAttr(unix.AF_INET6|unix.NLA_F_NESTED, nl.NewRtAttr(inet6Conf, settings).Serialize())
	return append(make([]byte, unix.SizeofIfInfomsg), append(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(1420)).Serialize(), spec.Serialize()...)...)
}

func FuzzParseIPv6(f *testing.F) {
	off := make([]byte, 4*40)
	off[4*disableIPv6] = 1
	for _, c := range []struct {
		content []byte
		want    bool
		wrong   bool
	}{
		{link(make([]byte, 4*40)), true, false},
		{link(off), false, false},
		{link(off[:8]), false, true},
		{make([]byte, unix.SizeofIfInfomsg), false, false},
		{nil, false, true},
	} {
		if got, err := parseIPv6(c.content); got != c.want || (err != nil) != c.wrong {
			f.Errorf("%v: %v, %v", c.content, got, err)
		}
		f.Add(c.content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if enabled, err := parseIPv6(content); enabled && err != nil {
			t.Error(err)
		}
	})
}
