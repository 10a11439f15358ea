package domain

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sort"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
	"wgkex/internal/statefile"
)

// The state file of a domain holds what was known of its peers when they were
// last read, so that an exchange need not read them, and which ones were added,
// reset and removed since:
//
//	header    of a fixed size
//	others    the peers that are not managed, with their allowed IPs
//	records   one for each peer, sorted by MAC, to be found without reading all
//	events    what happened since, in order
//
// A reading replaces the file. An event is one write to its end, which the
// kernel does whole, since no event crosses a page. All of it happens under the
// domain's lock. Numbers are in the byte order of the machine that alone reads
// them: the file is in /run.

const (
	stateMagic   = "wgkex state\n"
	stateVersion = 1
	// maxState is more than the records of a million peers.
	maxState = 256 << 20
	// maxEvents is how many are kept before they become part of the records:
	// enough to make the rewriting cheap, few enough to be looked through.
	maxEvents = 512
)

var byteOrder = binary.NativeEndian

type header struct {
	Magic   [len(stateMagic)]byte
	Version uint32
	// BootID, Index and Profile tell for what the file is true.
	BootID     [32]byte
	WireGuard  uint32 // interface index
	VXLAN      uint32 // interface index
	Profile    uint32
	Peers      uint32 // the counts when the file was written
	Pending    uint32
	OthersSize uint32 // bytes, a multiple of eventSize
	Records    uint32
	Began      int64
	Ended      int64
	Offset     int64
	// StepAt and Step are when the wall clock was last seen to be set, in
	// nanoseconds since boot, and by how much.
	StepAt   int64
	Step     int64
	Others   uint32 // how many
	_        [12]byte
	Checksum uint32 // CRC-32 of the header before it and of the others
	_        [4]byte
}

type fileRecord struct {
	MAC           [5]byte // without the 02 that all of them have
	Kind          uint8
	_             [2]byte
	Key           address.Key
	LastHandshake int64 // nanoseconds since 1970, 0 for none
	Active        int64 // nanoseconds since boot, like the rest
	Registered    int64
	Marked        int64
}

type event struct {
	Key address.Key
	// At is when it was registered or, of seen, its Active, in nanoseconds since
	// boot. Handshake is that of seen, in nanoseconds since 1970.
	At, Handshake int64
	Kind          uint8
	_             [3]byte
	// Peers and Pending are the counts after it.
	Peers, Pending uint32
	_              [4]byte
}

// The kinds of events.
const (
	registered = 1 // added, or reset
	removed    = 2
	seen       = 3 // a handshake since the reading
)

var (
	headerSize = binary.Size(header{})
	recordSize = binary.Size(fileRecord{})
	eventSize  = binary.Size(event{})
)

// ErrState is the error of a state file that is none of ours, of another
// version, or damaged.
var ErrState = errors.New("no state of a domain of this version")

// State is a domain's state file as it was when it was opened.
type State struct {
	// Reading is when the peers were last read.
	Reading policy.Reading
	// Others are the peers that were not managed then.
	Others []policy.Other
	// Counts are of the managed peers now. They are never too low but for what
	// others than wgkex add.
	Counts policy.Counts
	// Step is by how much the wall clock was set at the time StepAt since boot,
	// as seen by two readings; zero if never.
	Step, StepAt time.Duration

	file    *os.File
	header  header
	events  []event
	records io.ReaderAt // from the first record on
}

// openState opens a state file for reading and for appending events.
func openState(path string) (_ *State, err error) {
	f, err := statefile.Open(path, os.O_RDWR, maxState)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // nothing was written to it
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := parseState(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.file = f
	return s, nil
}

// parseState reads all of a state but its records. Whatever the file holds, it
// takes no more memory than the file has bytes.
func parseState(f io.ReaderAt, size int64) (*State, error) {
	s := new(State)
	head := make([]byte, headerSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, readError(err)
	}
	if _, err := binary.Decode(head, byteOrder, &s.header); err != nil {
		return nil, err
	}
	h := &s.header
	if string(h.Magic[:]) != stateMagic || h.Version != stateVersion {
		return nil, ErrState
	}
	others, records := int64(h.OthersSize), int64(h.Records)*int64(recordSize)
	fixed := int64(headerSize) + others + records
	fixed += padding(fixed)
	if others+records > size || fixed > size || others%int64(eventSize) != 0 {
		return nil, ErrState
	}
	text := make([]byte, others)
	if _, err := f.ReadAt(text, int64(headerSize)); err != nil && others > 0 {
		return nil, readError(err)
	}
	if h.Checksum != checksum(head, text) {
		return nil, ErrState
	}
	var err error
	if s.Others, err = decodeOthers(text, int(h.Others)); err != nil {
		return nil, err
	}
	s.records = io.NewSectionReader(f, int64(headerSize)+others, records)
	// A process that was killed may have left half an event.
	n := (size - fixed) / int64(eventSize)
	if n > maxEvents {
		return nil, ErrState
	}
	s.events = make([]event, n)
	log := make([]byte, len(s.events)*eventSize)
	if _, err := f.ReadAt(log, fixed); err != nil && len(log) > 0 {
		return nil, readError(err)
	}
	if _, err := binary.Decode(log, byteOrder, s.events); err != nil {
		return nil, err
	}
	for _, e := range s.events {
		if e.Key.IsZero() || e.Kind < registered || e.Kind > seen {
			return nil, ErrState
		}
	}
	s.Reading = policy.Reading{Began: time.Duration(h.Began), Ended: time.Duration(h.Ended), Offset: time.Duration(h.Offset)}
	s.Step, s.StepAt = time.Duration(h.Step), time.Duration(h.StepAt)
	s.Counts = policy.Counts{Peers: int(h.Peers), Pending: int(h.Pending)}
	if n := len(s.events); n > 0 {
		s.Counts = policy.Counts{Peers: int(s.events[n-1].Peers), Pending: int(s.events[n-1].Pending)}
	}
	return s, nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrState
	}
	return err
}

func checksum(head, others []byte) uint32 {
	sum := crc32.NewIEEE()
	_, _ = sum.Write(head[:headerSize-8]) // it never fails
	_, _ = sum.Write(others)
	return sum.Sum32()
}

// padding is how many bytes lead from n to the next multiple of an event's size.
func padding(n int64) int64 {
	return (int64(eventSize) - n%int64(eventSize)) % int64(eventSize)
}

// describes reports whether the state is of this boot, these devices and this
// address profile. Where nobody knows which boot this is, it is of none.
func (s *State) describes(bootID string, index kernel.Index, profile address.Profile) bool {
	return s.follows(bootID, index) && s.header.VXLAN == uint32(index.VXLAN) && s.header.Profile == uint32(profile)
}

// follows reports whether the state is of this boot and WireGuard interface, so
// that its records have a history of peers that may still be there.
func (s *State) follows(bootID string, index kernel.Index) bool {
	return bootID != "" && s.header.BootID == fixedBootID(bootID) && s.header.WireGuard == uint32(index.WireGuard)
}

func fixedBootID(id string) (fixed [32]byte) {
	copy(fixed[:], id)
	return fixed
}

// Find is the records of all peers with the MAC: of one, as a rule, or none.
func (s *State) Find(mac address.MAC) ([]policy.Record, error) {
	var found []policy.Record
	var err error
	buffer := make([]byte, recordSize)
	at := func(i int) (r fileRecord) {
		if _, readErr := s.records.ReadAt(buffer, int64(i)*int64(recordSize)); readErr != nil {
			err = errors.Join(err, readErr)
		}
		if _, decodeErr := binary.Decode(buffer, byteOrder, &r); decodeErr != nil {
			err = errors.Join(err, decodeErr)
		}
		return r
	}
	total := int(s.header.Records)
	first := sort.Search(total, func(i int) bool {
		r := at(i)
		return err != nil || bytes.Compare(r.MAC[:], mac[1:]) >= 0
	})
	for i := first; i < total && err == nil; i++ {
		r := at(i)
		if !bytes.Equal(r.MAC[:], mac[1:]) {
			break
		}
		found = append(found, r.record())
	}
	if err != nil {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	profile := address.Profile(s.header.Profile)
	for _, e := range s.events {
		if m, _ := profile.Of(e.Key); m == mac {
			found = e.apply(found)
		}
	}
	return found, nil
}

// apply makes the records what they are after the event.
func (e event) apply(records []policy.Record) []policy.Record {
	i := slices.IndexFunc(records, func(r policy.Record) bool { return r.Key == e.Key })
	switch {
	case e.Kind == registered && i < 0:
		return append(records, policy.NewRecord(e.Key, time.Duration(e.At)))
	case e.Kind == registered:
		records[i] = policy.NewRecord(e.Key, time.Duration(e.At))
	case e.Kind == removed && i >= 0:
		return slices.Delete(records, i, i+1)
	case e.Kind == seen && i >= 0:
		records[i].LastHandshake, records[i].Active = time.Unix(0, e.Handshake), time.Duration(e.At)
	}
	return records
}

// All is the records of all peers, in no order.
func (s *State) All() ([]policy.Record, error) {
	text := make([]byte, int(s.header.Records)*recordSize)
	if _, err := s.records.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	in := make([]fileRecord, s.header.Records)
	if _, err := binary.Decode(text, byteOrder, in); err != nil {
		return nil, err
	}
	// Those of the peers that something has happened to since.
	changed := make(map[address.Key][]policy.Record, len(s.events))
	for _, e := range s.events {
		changed[e.Key] = nil
	}
	records := make([]policy.Record, 0, len(in)+len(changed))
	for _, r := range in {
		if _, is := changed[r.Key]; is {
			changed[r.Key] = append(changed[r.Key], r.record())
		} else {
			records = append(records, r.record())
		}
	}
	for _, e := range s.events {
		changed[e.Key] = e.apply(changed[e.Key])
	}
	for _, now := range changed {
		records = append(records, now...)
	}
	return records, nil
}

func (r fileRecord) record() policy.Record {
	record := policy.Record{
		Key: r.Key, Kind: policy.Kind(r.Kind), Active: time.Duration(r.Active),
		Registered: time.Duration(r.Registered), Marked: time.Duration(r.Marked),
	}
	if r.LastHandshake != 0 {
		record.LastHandshake = time.Unix(0, r.LastHandshake)
	}
	return record
}

// saveState writes a whole state without events, and opens it.
func saveState(path string, h header, records []policy.Record, others []policy.Other) (*State, error) {
	copy(h.Magic[:], stateMagic)
	h.Version = stateVersion
	profile := address.Profile(h.Profile)
	out := make([]fileRecord, len(records))
	for i, r := range records {
		out[i] = fileRecord{
			Kind: uint8(r.Kind), Key: r.Key, Active: int64(r.Active),
			Registered: int64(r.Registered), Marked: int64(r.Marked),
		}
		if !r.Pending() {
			out[i].LastHandshake = r.LastHandshake.UnixNano()
		}
		mac, _ := profile.Of(r.Key)
		copy(out[i].MAC[:], mac[1:])
	}
	slices.SortFunc(out, func(a, b fileRecord) int {
		return cmp.Or(bytes.Compare(a.MAC[:], b.MAC[:]), bytes.Compare(a.Key[:], b.Key[:]))
	})
	text := encodeOthers(others)
	counts := policy.Count(records)
	h.Peers, h.Pending = uint32(counts.Peers), uint32(counts.Pending)
	h.Others, h.OthersSize, h.Records = uint32(len(others)), uint32(len(text)), uint32(len(out))
	data := make([]byte, headerSize, headerSize+len(text)+len(out)*recordSize+eventSize)
	for range 2 { // the second time with the checksum of the first
		if _, err := binary.Encode(data, byteOrder, h); err != nil {
			return nil, err
		}
		h.Checksum = checksum(data, text)
	}
	data = append(data, text...)
	data, err := binary.Append(data, byteOrder, out)
	if err != nil {
		return nil, err
	}
	data = append(data, make([]byte, padding(int64(len(data))))...)
	if err := statefile.Write(path, data, fileMode); err != nil {
		return nil, err
	}
	return openState(path)
}

// append notes events.
func (s *State) append(events ...event) error {
	data, err := binary.Append(nil, byteOrder, events)
	if err != nil {
		return err
	}
	end := int64(headerSize) + int64(s.header.OthersSize) + int64(s.header.Records)*int64(recordSize)
	end += padding(end) + int64(len(s.events)*eventSize)
	if _, err := s.file.WriteAt(data, end); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	s.events = append(s.events, events...)
	last := events[len(events)-1]
	s.Counts = policy.Counts{Peers: int(last.Peers), Pending: int(last.Pending)}
	return nil
}

// Close closes the file.
func (s *State) Close() error { return s.file.Close() }

// encodeOthers writes peers with their allowed IPs.
func encodeOthers(peers []policy.Other) []byte {
	var out []byte
	for _, p := range peers {
		out = append(out, p.Key[:]...)
		out = append(out, byte(p.Kind))
		out = byteOrder.AppendUint32(out, uint32(len(p.AllowedIPs)))
		for _, prefix := range p.AllowedIPs {
			text, err := prefix.MarshalBinary() // address and length
			if err != nil {
				panic(err) // netip says that it never fails
			}
			out = append(out, byte(len(text)))
			out = append(out, text...)
		}
	}
	return append(out, make([]byte, padding(int64(len(out))))...)
}

func decodeOthers(in []byte, n int) ([]policy.Other, error) {
	whole := true
	take := func(n int) []byte {
		if n > len(in) {
			n, whole = 0, false
		}
		part := in[:n]
		in = in[n:]
		return part
	}
	var peers []policy.Other
	for len(peers) < n && whole {
		var p policy.Other
		copy(p.Key[:], take(address.KeySize))
		if kind := take(1); whole {
			p.Kind = policy.Kind(kind[0])
		}
		prefixes := uint32(0)
		if text := take(4); whole {
			prefixes = byteOrder.Uint32(text)
		}
		for ; prefixes > 0 && whole; prefixes-- {
			var prefix netip.Prefix
			size := take(1)
			if whole {
				whole = prefix.UnmarshalBinary(take(int(size[0]))) == nil && prefix.IsValid()
			}
			p.AllowedIPs = append(p.AllowedIPs, prefix)
		}
		peers = append(peers, p)
	}
	if !whole {
		return nil, ErrState
	}
	return peers, nil
}

// missing reports whether the error is that there is no usable state file,
// which reading the peers mends.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrState) || errors.Is(err, statefile.ErrForeign)
}
