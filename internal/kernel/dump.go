package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrInterrupted is the error when others changed what was being read each time
// that it was read.
var ErrInterrupted = errors.New("others changed it each time that it was read")

// dumpTries is how often a dump is made before it is given up.
const dumpTries = 8

// Uninterrupted makes a dump until it is not interrupted, with a pause in
// between that doubles from 1 ms on. Its error is ErrInterrupted when it gives
// up, and otherwise that of the dump.
func Uninterrupted(dump func() (interrupted bool, err error)) error {
	pause := time.Millisecond
	for try := 1; ; try++ {
		interrupted, err := dump()
		switch {
		case err != nil:
			return err
		case !interrupted:
			return nil
		case try == dumpTries:
			return ErrInterrupted
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// Sizes of the buffer that a dump is read with. The kernel fills its messages up
// to the size of the largest buffer so far, but no further than 32 KiB
// (netlink_recvmsg() and netlink_dump() in net/netlink/af_netlink.c). The first
// message is made before it knows any: it has at most 8 KiB (NLMSG_GOODSIZE in
// linux/netlink.h). A message is made while the one before it is received.
const (
	// wholeDump makes few messages.
	wholeDump = 32 << 10
	// partDump makes small messages, for a reader that needs the start alone or
	// wants each message as it is now.
	partDump = 8 << 10
)

// dump sends a request for a dump and passes the content of each message on to
// each, until the dump ends or each wants no more. All messages must be of the
// kind. The content is overwritten by the next message. A dump is interrupted
// when the kernel says that what it dumps changed meanwhile: then nothing of it
// may be used.
func dump(protocol int, req *nl.NetlinkRequest, kind uint16, size int, each func(content []byte) (more bool, err error)) (interrupted bool, err error) {
	reader, err := startDump(protocol, req, kind, size)
	if err != nil {
		return false, err
	}
	defer reader.close()
	return reader.read(each)
}

// startDump sends a request for a dump on a socket of its own, so that the dump
// can be abandoned by closing it.
func startDump(protocol int, req *nl.NetlinkRequest, kind uint16, size int) (r dumpReader, err error) {
	s, err := openSocket(protocol, size)
	if err != nil {
		return dumpReader{}, err
	}
	if err := s.send(req.Serialize()); err != nil {
		s.close()
		return dumpReader{}, err
	}
	return dumpReader{receive: s.receive, close: s.close, seq: req.Seq, port: s.port, kind: kind}, nil
}

// socket is a netlink socket with a buffer for what it receives.
type socket struct {
	fd     int
	port   uint32
	buffer []byte
}

func openSocket(protocol, size int) (s *socket, err error) {
	s = &socket{buffer: make([]byte, size)}
	if s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := s.bind(); err != nil {
		s.close()
		return nil, fmt.Errorf("setting up a netlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) bind() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	own, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.port = own.(*unix.SockaddrNetlink).Pid
	timeout := unix.NsecToTimeval(netlinkTimeout.Nanoseconds())
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
}

func (s *socket) close() { _ = unix.Close(s.fd) } // nothing is lost with it

func (s *socket) send(messages []byte) error {
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	return ignoringEINTR(func() error { return unix.Sendto(s.fd, messages, 0, kernel) })
}

// ignoringEINTR calls a system call again that a signal ended. With a timeout
// set, a socket's calls are never restarted by the kernel (signal(7)).
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive reads a datagram of the kernel, which the next one overwrites.
func (s *socket) receive() ([]byte, error) {
	for {
		var n, flags int
		var from unix.Sockaddr
		err := ignoringEINTR(func() (err error) {
			n, _, flags, from, err = unix.Recvmsg(s.fd, s.buffer, nil, 0)
			return err
		})
		switch sender, ok := from.(*unix.SockaddrNetlink); {
		case err != nil:
			return nil, err
		case !ok || sender.Pid != 0: // another process may write to any port
			continue
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("the kernel's answer is longer than %d bytes", len(s.buffer))
		}
		return s.buffer[:n], nil
	}
}

// dumpReader reads the messages of one dump.
type dumpReader struct {
	receive func() ([]byte, error) // one datagram of messages
	close   func()
	// seq and port are those of the request. Only messages with both are read.
	seq, port uint32
	kind      uint16
}

func (r dumpReader) read(each func(content []byte) (more bool, err error)) (interrupted bool, err error) {
	for {
		datagram, err := r.receive()
		if err != nil {
			return false, err
		}
		if len(datagram) == 0 {
			return false, errEmpty
		}
		for len(datagram) > 0 {
			var m message
			if m, datagram, err = cutMessage(datagram); err != nil {
				return false, err
			}
			switch {
			case m.seq != r.seq || m.port != r.port:
				continue
			case m.flags&unix.NLM_F_DUMP_INTR != 0:
				return true, nil
			case m.kind == unix.NLMSG_DONE || m.kind == unix.NLMSG_ERROR:
				return false, m.end()
			case m.kind != r.kind:
				return false, fmt.Errorf("the kernel's answer has a message of type %d instead of %d", m.kind, r.kind)
			}
			if more, err := each(m.content); err != nil || !more {
				return false, err
			}
		}
	}
}

// message is a netlink message; see struct nlmsghdr in linux/netlink.h.
type message struct {
	kind, flags uint16
	seq, port   uint32
	content     []byte
}

var (
	errEmpty = errors.New("the kernel's answer is empty")
	errCut   = errors.New("the kernel's answer is cut short")
	errSize  = errors.New("the kernel's answer has a field of an unknown size")
)

// cutMessage takes the first message off a datagram.
func cutMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < unix.SizeofNlMsghdr {
		return message{}, nil, errCut
	}
	size := binary.NativeEndian.Uint32(b)
	if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
		return message{}, nil, errCut
	}
	m = message{
		kind:    binary.NativeEndian.Uint16(b[4:]),
		flags:   binary.NativeEndian.Uint16(b[6:]),
		seq:     binary.NativeEndian.Uint32(b[8:]),
		port:    binary.NativeEndian.Uint32(b[12:]),
		content: b[unix.SizeofNlMsghdr:size],
	}
	return m, b[min(aligned(int(size)), len(b)):], nil
}

// aligned is the size of a message or an attribute with its padding
// (NLMSG_ALIGN, NLA_ALIGN).
func aligned(size int) int { return (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// end is the error that a dump ended with: NLMSG_DONE carries one too. An error
// message without an error acknowledges a request, and is no end of a dump.
func (m message) end() error {
	if failed, err := m.failure(); failed || err != nil {
		return err
	}
	if m.kind == unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is no dump")
	}
	return nil
}

// failure is the error number in an NLMSG_ERROR or NLMSG_DONE message. Without
// failed, an error says that the message itself is no good.
func (m message) failure() (failed bool, err error) {
	if len(m.content) < 4 {
		return false, errCut
	}
	if code := int32(binary.NativeEndian.Uint32(m.content)); code < 0 {
		return true, unix.Errno(-code)
	}
	return false, nil
}

// cutAttribute takes the first attribute off b; see struct nlattr in
// linux/netlink.h.
func cutAttribute(b []byte) (kind uint16, value, rest []byte, err error) {
	if len(b) < unix.SizeofNlAttr {
		return 0, nil, nil, errCut
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < unix.SizeofNlAttr || size > len(b) {
		return 0, nil, nil, errCut
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return kind, b[unix.SizeofNlAttr:size], b[min(aligned(size), len(b)):], nil
}

// appendAttribute appends a struct nlattr with its padding to b.
func appendAttribute(b []byte, kind uint16, content []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(content)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, content...)
	return append(b, make([]byte, aligned(len(content))-len(content))...)
}
