// Package announce tells wgkex-relay.service which keys were accepted, by datagrams. Who
// tells does not wait, and does not mind whether anybody listens: the relay compares now
// and then, and finds what it was not told.
package announce

import (
	"bytes"
	"errors"
	"fmt"

	"wgkex/internal/address"
	"wgkex/internal/message"
	"wgkex/internal/protocol"

	"golang.org/x/sys/unix"
)

const (
	// Socket is where the relay listens. systemd makes it.
	Socket = "/run/wgkex/announce.sock"
	// MaxSize is the longest datagram, in bytes: a domain and MaxKeys keys.
	MaxSize = protocol.MaxLine + 1 + MaxKeys*(keySize+1)
	// MaxKeys is as many as are accepted together.
	MaxKeys = 256
	// keySize is the length of a key's base64.
	keySize = 44
)

// System tells the relay of this gateway.
func System(domain string, keys ...address.Key) { Send(Socket, domain, keys...) }

// Send tells whoever listens at the path, if anybody does, of keys that were accepted in
// the domain. More than MaxKeys take several datagrams. It makes the system calls socket,
// sendto and close alone, since handlers may make few others.
func Send(path, domain string, keys ...address.Key) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for len(keys) > 0 {
		n := min(len(keys), MaxKeys)
		if unix.Sendto(fd, text(domain, keys[:n]), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path}) != nil {
			return
		}
		keys = keys[n:]
	}
}

// text is a line with the domain, and one with each key.
func text(domain string, keys []address.Key) []byte {
	t := append([]byte(domain), '\n')
	for _, k := range keys {
		t = append(append(t, k.String()...), '\n')
	}
	return t
}

// Parse reads a datagram.
func Parse(datagram []byte) ([]message.Key, error) {
	domain, rest, ok := bytes.Cut(datagram, []byte("\n"))
	if !ok || !protocol.ValidName(string(domain)) {
		return nil, errors.New("no datagram of a handler: there is no domain")
	}
	var keys []message.Key
	for len(rest) > 0 {
		line, more, ended := bytes.Cut(rest, []byte("\n"))
		key, err := address.ParseKey(string(line))
		switch {
		case !ended || err != nil:
			return nil, errors.New("no datagram of a handler: a line is no public key")
		case len(keys) == MaxKeys:
			return nil, fmt.Errorf("no datagram of a handler: there are more than %d keys", MaxKeys)
		}
		keys, rest = append(keys, message.Key{Domain: string(domain), Key: key}), more
	}
	return keys, nil
}
