// Package saved is the file in which a domain's managed peers outlive their
// interfaces, as text: a header, then one line for each peer, in the order of the
// keys.
//
//	# Managed peers as wgkex saved them, for wgkex-restore(8).
//	wgkex-peers 1
//	domain ffww01
//	addresses rfc4291
//	saved 2026-11-27T08:00:00Z
//	boot 5f1b7c0e8c3f4c9d8a2f6f0b1d2e3a4b
//	uptime 86400
//	peers 2
//	checksum e0cdff3c
//	Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA= handshake 2026-11-27T07:59:30Z
//	QeecXiuF2KZK94JbEhdpQpB7009R3ANbXsSaXAWyXFU= registered 2026-11-27T07:58:00Z
//
// A peer that never had a handshake has the time of its registration.
package saved

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

const (
	version = "1"
	comment = "# Managed peers as wgkex saved them, for wgkex-restore(8).\n"
	// maxPeers is how many are read of a file. The rest is left out.
	maxPeers = 1 << 20
	// MaxSize is that of a file with so many peers, in bytes.
	MaxSize = 96 << 20
	// maxSilent is more than any peer stays, and leaves room for adding to it.
	maxSilent = 10 * 365 * 24 * time.Hour
	// maxLine is more than the longest line takes, in bytes.
	maxLine = 256
)

// The words before a peer's time.
const (
	handshake  = "handshake"
	registered = "registered"
)

// File is the content of a file.
type File struct {
	Domain    string
	Addresses address.Profile
	// Saved is when it was written, by the wall clock.
	Saved time.Time
	// BootID and SinceBoot are of then, too.
	BootID    string
	SinceBoot time.Duration
	Peers     []policy.Saved
	// Damage says what is wrong with a file of which Parse could read the header,
	// nil for a file that is as it was written. The peers that it has are those
	// whose lines could be read.
	Damage error
}

// Elapsed is for how long the gateway has been on since the file was written. It has booted
// at the time booted, which like sinceBoot is one of CLOCK_BOOTTIME.
func (f File) Elapsed(bootID string, booted, sinceBoot time.Duration) time.Duration {
	if bootID == f.BootID {
		booted = f.SinceBoot
	}
	return max(sinceBoot-booted, 0)
}

// Text is the file as it is written.
func (f File) Text() []byte {
	peers := slices.Clone(f.Peers)
	slices.SortFunc(peers, func(a, b policy.Saved) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	var lines []byte
	for _, p := range peers {
		word := handshake
		if p.Pending {
			word = registered
		}
		at := f.Saved.Add(-p.Silent)
		lines = fmt.Appendf(lines, "%s %s %s\n", p.Key, word, at.UTC().Format(time.RFC3339))
	}
	head := fmt.Appendf([]byte(comment), "wgkex-peers %s\ndomain %s\naddresses %s\nsaved %s\nboot %s\nuptime %d\npeers %d\n",
		version, f.Domain, f.Addresses, f.Saved.UTC().Format(time.RFC3339), f.BootID, int64(f.SinceBoot.Seconds()), len(peers))
	sum := crc32.NewIEEE()
	_, _ = sum.Write(head) // it never fails
	_, _ = sum.Write(lines)
	head = fmt.Appendf(head, "checksum %08x\n", sum.Sum32())
	return append(head, lines...)
}

// Parse reads a file, whatever is in it. The error says that it is no file of
// ours, or of another version. A file that was cut or changed is no error: each
// line that can be read tells of a peer, and Damage of the others.
func Parse(r io.Reader) (File, error) {
	p := parser{lines: bufio.NewReaderSize(r, maxLine)}
	f, err := p.header()
	if err != nil {
		return File{}, err
	}
	for {
		line, err := p.line()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, errLine) {
			return File{}, err
		}
		if len(f.Peers) == maxPeers {
			f.Damage = fmt.Errorf("there are more than %d peers", maxPeers)
			return f, nil
		}
		peer, ok := parsePeer(line, f.Saved)
		if err != nil || !ok {
			p.bad++
			continue
		}
		f.Peers = append(f.Peers, peer)
	}
	f.Damage = p.damage(len(f.Peers))
	return f, nil
}

// Summary reads the header alone: when the file was written, and how many peers it
// says that it has.
func Summary(r io.Reader) (at time.Time, peers int, err error) {
	p := parser{lines: bufio.NewReaderSize(r, maxLine)}
	f, err := p.header()
	return f.Saved, p.peers, err
}

// errLine is the error of a line that is too long or has no end.
var errLine = errors.New("not a line")

// ErrForeign is the error of what is no file of ours.
var ErrForeign = errors.New("not a file of saved peers of this version of wgkex")

type parser struct {
	lines *bufio.Reader
	sum   uint32
	bad   int // lines that are no peers
	// peers and checksum are what the header says.
	peers    int
	checksum uint32
}

// line reads a line, without its end. One that is longer than maxLine or cut by
// the end of the file is errLine.
func (p *parser) line() (string, error) {
	line, err := p.read()
	if err == nil {
		p.sum = crc32.Update(p.sum, crc32.IEEETable, line)
		return string(line[:len(line)-1]), nil
	}
	return "", err
}

func (p *parser) read() ([]byte, error) {
	line, err := p.lines.ReadSlice('\n')
	switch {
	case err == nil, errors.Is(err, io.EOF) && len(line) == 0:
		return line, err
	case errors.Is(err, io.EOF):
		return nil, errLine
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = p.lines.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLine
}

func (p *parser) header() (f File, err error) {
	var text struct{ version, domain, addresses, saved, boot, uptime, peers, checksum string }
	if line, err := p.line(); err != nil || line+"\n" != comment {
		return f, foreign(err)
	}
	for _, field := range []struct {
		name  string
		value *string
	}{
		{"wgkex-peers", &text.version},
		{"domain", &text.domain},
		{"addresses", &text.addresses},
		{"saved", &text.saved},
		{"boot", &text.boot},
		{"uptime", &text.uptime},
		{"peers", &text.peers},
		{"checksum", &text.checksum},
	} {
		before := p.sum
		line, err := p.line()
		if err != nil {
			return f, foreign(err)
		}
		name, value, ok := strings.Cut(line, " ")
		if !ok || name != field.name {
			return f, ErrForeign
		}
		*field.value = value
		if name == "checksum" {
			p.sum = before // of all but this line
		}
	}
	if text.version != version {
		return f, ErrForeign
	}
	f.Domain, f.BootID = text.domain, text.boot
	uptime, uptimeErr := strconv.ParseUint(text.uptime, 10, 32)
	f.SinceBoot = time.Duration(uptime) * time.Second
	peers, peersErr := strconv.ParseUint(text.peers, 10, 31)
	p.peers = int(peers)
	checksum, checksumErr := strconv.ParseUint(text.checksum, 16, 32)
	p.checksum = uint32(checksum)
	var savedErr error
	f.Saved, savedErr = time.Parse(time.RFC3339, text.saved)
	if errors.Join(uptimeErr, peersErr, checksumErr, savedErr, f.Addresses.UnmarshalText([]byte(text.addresses))) != nil {
		return f, ErrForeign
	}
	return f, nil
}

// foreign keeps errors of reading apart from what was read.
func foreign(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, errLine) {
		return ErrForeign
	}
	return err
}

func (p *parser) damage(peers int) error {
	switch {
	case p.bad > 0:
		return fmt.Errorf("%d of its lines are no peers", p.bad)
	case peers != p.peers:
		return fmt.Errorf("it has %d peers and says that it has %d", peers, p.peers)
	case p.sum != p.checksum:
		return errors.New("its checksum is wrong")
	}
	return nil
}

func parsePeer(line string, saved time.Time) (peer policy.Saved, ok bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 3 || fields[1] != handshake && fields[1] != registered {
		return peer, false
	}
	key, err := address.ParseKey(fields[0])
	if err != nil {
		return peer, false
	}
	at, err := time.Parse(time.RFC3339, fields[2])
	if err != nil {
		return peer, false
	}
	// A time after that of the file is one of a clock that was set.
	silent := min(max(saved.Sub(at), 0), maxSilent)
	return policy.Saved{Key: key, Pending: fields[1] == registered, Silent: silent}, true
}
