package kernel

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// BulkError is the error when some of many changes failed. All of them were
// tried.
type BulkError struct {
	// Errs has the error of each change in order, nil where it succeeded.
	Errs []error
}

// Error names the first failure only: there may be thousands.
func (e *BulkError) Error() string {
	failed := e.Unwrap()
	if len(failed) == 1 {
		return failed[0].Error()
	}
	return fmt.Sprintf("%d of %d failed, the first with: %v", len(failed), len(e.Errs), failed[0])
}

// Unwrap is all failures, for errors.Is.
func (e *BulkError) Unwrap() []error {
	var failed []error
	for _, err := range e.Errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// bulkError is nil when there is no error in errs.
func bulkError(errs []error) error {
	e := &BulkError{Errs: errs}
	if len(e.Unwrap()) == 0 {
		return nil
	}
	return e
}

// requestsPerSend is how many requests are sent in one go. The kernel works them
// off, in order, while they are sent, and puts its answers into the socket's
// receive buffer, below 1 KiB each with NETLINK_CAP_ACK. Debian's buffer has
// 208 KiB (net.core.rmem_default).
const requestsPerSend = 128

// sendAll sends requests, which must not ask for an acknowledgement, many in one
// go, and returns the error of each. After err the fate of some is not known.
//
// netlink_rcv_skb() in net/netlink/af_netlink.c answers a request that fails
// even if it did not ask for it, so that only the last one has to ask.
func sendAll(protocol int, requests []*nl.NetlinkRequest) (errs []error, err error) {
	s, err := openSocket(protocol, partDump)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return nil, fmt.Errorf("setting up a netlink socket: %w", err)
	}
	errs = make([]error, len(requests))
	for first := 0; first < len(requests); first += requestsPerSend {
		after := min(first+requestsPerSend, len(requests))
		some := requests[first:after]
		some[len(some)-1].Flags |= unix.NLM_F_ACK
		var messages []byte
		for _, req := range some {
			messages = append(messages, req.Serialize()...)
			messages = append(messages, make([]byte, aligned(len(messages))-len(messages))...)
		}
		if err := s.send(messages); err != nil {
			return nil, err
		}
		if err := readAnswers(s.receive, s.port, some, errs[first:after]); err != nil {
			return nil, err
		}
	}
	return errs, nil
}

// readAnswers reads the answers to requests of which the last asks for one.
func readAnswers(receive func() ([]byte, error), port uint32, requests []*nl.NetlinkRequest, errs []error) error {
	index := make(map[uint32]int, len(requests))
	for i, req := range requests {
		index[req.Seq] = i
	}
	for {
		datagram, err := receive()
		if err != nil {
			return err
		}
		if len(datagram) == 0 {
			return errEmpty
		}
		for len(datagram) > 0 {
			var m message
			if m, datagram, err = cutMessage(datagram); err != nil {
				return err
			}
			i, ours := index[m.seq]
			if !ours || m.port != port || m.kind != unix.NLMSG_ERROR {
				continue
			}
			failed, err := m.failure()
			if err != nil && !failed {
				return err
			}
			errs[i] = err
			if i == len(requests)-1 {
				return nil
			}
		}
	}
}
