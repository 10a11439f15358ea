package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrNoTable is the error when there is no such nftables table or set.
var ErrNoTable = errors.New("there is no such table or set")

// HasTable reports whether there is an nftables table of the family inet. It
// needs CAP_NET_ADMIN.
func HasTable(table string) (bool, error) {
	_, err := askNFTables(unix.NFT_MSG_GETTABLE, 0, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
	if errors.Is(err, ErrNoTable) {
		return false, nil
	}
	return err == nil, err
}

// askNFTables makes a request of linux/netfilter/nf_tables.h about the family
// inet.
func askNFTables(message, flags int, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNoTable
	}
	return messages, err
}

// PortSet reads the ports in a set of an nftables table of the family inet, in
// ascending order. Its error is ErrNoTable when either is missing. It needs
// CAP_NET_ADMIN.
func PortSet(table, set string) ([]uint16, error) {
	elements, err := readSet(table, set)
	if err != nil {
		return nil, err
	}
	ports := make([]uint16, len(elements))
	for i, e := range elements {
		if len(e) != 2 {
			return nil, fmt.Errorf("set %s of table inet %s: an element of %d bytes is no port", set, table, len(e))
		}
		ports[i] = binary.BigEndian.Uint16(e)
	}
	slices.Sort(ports)
	return ports, nil
}

// InterfaceSet reads the names of interfaces in a set, in order, as PortSet does
// ports.
func InterfaceSet(table, set string) ([]string, error) {
	elements, err := readSet(table, set)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(elements))
	for i, e := range elements {
		names[i] = string(bytes.TrimRight(e, "\x00")) // IFNAMSIZ bytes
	}
	slices.Sort(names)
	return names, nil
}

// readSet reads the elements of a set.
func readSet(table, set string) ([][]byte, error) {
	messages, err := askNFTables(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP,
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
	if err != nil {
		return nil, fmt.Errorf("reading set %s of table inet %s: %w", set, table, err)
	}
	var elements [][]byte
	for _, m := range messages {
		more, err := parseElements(m)
		if err != nil {
			return nil, fmt.Errorf("reading set %s of table inet %s: %w", set, table, err)
		}
		elements = append(elements, more...)
	}
	return elements, nil
}

// parseElements reads the keys, which are in network byte order, of the elements
// in one message. Each is nested: list, element, key, value.
func parseElements(message []byte) ([][]byte, error) {
	if len(message) < nl.SizeofNfgenmsg {
		return nil, errors.New("the kernel's answer is cut short")
	}
	values := [][]byte{message[nl.SizeofNfgenmsg:]}
	for _, kind := range []uint16{unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE} {
		var inner [][]byte
		for _, v := range values {
			more, err := valuesOf(kind, v)
			if err != nil {
				return nil, err
			}
			inner = append(inner, more...)
		}
		values = inner
	}
	return values, nil
}

// valuesOf are the values of the attributes of one kind.
func valuesOf(kind uint16, attrs []byte) ([][]byte, error) {
	var values [][]byte
	for len(attrs) > 0 {
		found, value, rest, err := cutAttribute(attrs)
		if err != nil {
			return nil, err
		}
		if found == kind {
			values = append(values, value)
		}
		attrs = rest
	}
	return values, nil
}
