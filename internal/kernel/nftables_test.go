package kernel

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// elements is a message of the kernel about set elements with these keys.
func elements(keys ...[]byte) []byte {
	const nested = unix.NLA_F_NESTED
	list := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|nested, nil)
	for _, key := range keys {
		element := list.AddRtAttr(unix.NFTA_LIST_ELEM|nested, nil)
		element.AddRtAttr(unix.NFTA_SET_ELEM_KEY|nested, nil).AddRtAttr(unix.NFTA_DATA_VALUE, key)
	}
	head := []byte{unix.NFPROTO_INET, 0, 0, 0}
	table := nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated("wgkex")).Serialize()
	return slices.Concat(head, table, list.Serialize())
}

func TestParseElements(t *testing.T) {
	for _, c := range []struct {
		message []byte
		want    []uint16
		broken  bool
	}{
		{elements(), nil, false},
		{elements([]byte{0x27, 0x1c}), []uint16{10012}, false},
		{elements([]byte{0x27, 0x1d}, []byte{0, 22}), []uint16{10013, 22}, false},
		{elements([]byte{1, 2, 3, 4}), nil, true}, // of an IPv4 address
		{[]byte{1, 0, 0}, nil, true},
		{append(elements(), 8, 0), nil, true},
	} {
		got, err := parseElements(c.message)
		if !slices.Equal(got, c.want) || (err != nil) != c.broken {
			t.Errorf("%x: got %v, %v, want %v", c.message, got, err, c.want)
		}
	}
}

func FuzzParseElements(f *testing.F) {
	f.Add(elements([]byte{0x27, 0x1d}, []byte{0, 22}))
	f.Fuzz(func(t *testing.T, message []byte) {
		if ports, err := parseElements(message); err != nil && ports != nil {
			t.Errorf("%v and %v", ports, err)
		}
	})
}
