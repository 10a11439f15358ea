package kernel

import (
	"bytes"
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
		want    [][]byte
		broken  bool
	}{
		{elements(), nil, false},
		{elements([]byte{0x27, 0x1c}), [][]byte{{0x27, 0x1c}}, false},
		{elements([]byte{0x27, 0x1d}, []byte{0, 22}), [][]byte{{0x27, 0x1d}, {0, 22}}, false},
		{[]byte{1, 0, 0}, nil, true},
		{append(elements(), 8, 0), nil, true},
	} {
		got, err := parseElements(c.message)
		if !slices.EqualFunc(got, c.want, bytes.Equal) || (err != nil) != c.broken {
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
