package kernel

import (
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestReadAnswers(t *testing.T) {
	const port = 9
	requests := []*nl.NetlinkRequest{nl.NewNetlinkRequest(0, 0), nl.NewNetlinkRequest(0, 0), nl.NewNetlinkRequest(0, 0)}
	first, second, last := requests[0].Seq, requests[1].Seq, requests[2].Seq
	answer := func(kind uint16, seq, port uint32, errno unix.Errno) []byte {
		b := binary.NativeEndian.AppendUint32(nil, unix.SizeofNlMsghdr+4)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, seq)
		b = binary.NativeEndian.AppendUint32(b, port)
		return binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
	}
	for name, c := range map[string]struct {
		datagrams [][]byte
		errs      []error
		err       error
	}{
		"all is well":  {[][]byte{answer(unix.NLMSG_ERROR, last, port, 0)}, []error{nil, nil, nil}, nil},
		"one failed":   {[][]byte{answer(unix.NLMSG_ERROR, second, port, unix.EPERM), answer(unix.NLMSG_ERROR, last, port, 0)}, []error{nil, unix.EPERM, nil}, nil},
		"all failed":   {[][]byte{slices.Concat(answer(unix.NLMSG_ERROR, first, port, unix.EPERM), answer(unix.NLMSG_ERROR, second, port, unix.ENODEV)), answer(unix.NLMSG_ERROR, last, port, unix.EBUSY)}, []error{unix.EPERM, unix.ENODEV, unix.EBUSY}, nil},
		"another seq":  {[][]byte{answer(unix.NLMSG_ERROR, last+1, port, unix.EPERM), answer(unix.NLMSG_ERROR, last, port, 0)}, []error{nil, nil, nil}, nil},
		"another port": {[][]byte{answer(unix.NLMSG_ERROR, first, port+1, unix.EPERM), answer(unix.NLMSG_ERROR, last, port, 0)}, []error{nil, nil, nil}, nil},
		"another kind": {[][]byte{answer(unix.RTM_NEWNEIGH, first, port, unix.EPERM), answer(unix.NLMSG_ERROR, last, port, 0)}, []error{nil, nil, nil}, nil},
		"no end":       {[][]byte{answer(unix.NLMSG_ERROR, first, port, unix.EPERM)}, []error{unix.EPERM, nil, nil}, io.EOF},
		"empty":        {[][]byte{{}}, []error{nil, nil, nil}, errEmpty},
		"cut":          {[][]byte{answer(unix.NLMSG_ERROR, last, port, 0)[:19]}, []error{nil, nil, nil}, errCut},
	} {
		errs := make([]error, len(requests))
		err := readAnswers(func() ([]byte, error) {
			if len(c.datagrams) == 0 {
				return nil, io.EOF
			}
			next := c.datagrams[0]
			c.datagrams = c.datagrams[1:]
			return next, nil
		}, port, requests, errs)
		if !errors.Is(err, c.err) || !reflect.DeepEqual(errs, c.errs) {
			t.Errorf("%s: %v, %v, want %v, %v", name, errs, err, c.errs, c.err)
		}
	}
}

func TestBulkError(t *testing.T) {
	if err := bulkError([]error{nil, nil}); err != nil {
		t.Errorf("none failed: %v", err)
	}
	if err := bulkError([]error{nil, unix.EPERM}); err.Error() != unix.EPERM.Error() {
		t.Errorf("one failed: %v", err)
	}
	err := bulkError([]error{nil, unix.EPERM, ErrMissing, nil})
	if !errors.Is(err, ErrMissing) || !errors.Is(err, unix.EPERM) || err.Error() != "2 of 4 failed, the first with: "+unix.EPERM.Error() {
		t.Errorf("two failed: %v", err)
	}
}
