package domain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
	"wgkex/internal/statefile"
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
	// RestoredAt is when saved peers were last restored, zero for never, and
	// RestoredPeers how many of them.
	RestoredAt    time.Duration
	RestoredPeers int

	// recount is when Restored ends for the first of the peers, and Counts are not
	// those of now any more; zero for never.
	recount time.Duration
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
	if fixed > size || others%eventSize != 0 {
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
	s.recount = time.Duration(h.Recount)
	log := make([]byte, len(s.events)*eventSize)
	if _, err := f.ReadAt(log, fixed); err != nil && len(log) > 0 {
		return nil, readError(err)
	}
	for i := range s.events {
		s.events[i] = decodeEvent(log[i*eventSize:])
		if e := s.events[i]; e.Key.IsZero() || e.Kind < registered || e.Kind > restored {
			return nil, ErrState
		}
		s.recount = recount(s.recount, s.events[i].record())
	}
	s.Reading = policy.Reading{Began: time.Duration(h.Began), Ended: time.Duration(h.Ended), Offset: time.Duration(h.Offset)}
	s.Step, s.StepAt = time.Duration(h.Step), time.Duration(h.StepAt)
	s.RestoredAt, s.RestoredPeers = time.Duration(h.RestoredAt), int(h.RestoredPeers)
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
	at := func(i int) fileRecord {
		if _, readErr := s.records.ReadAt(buffer, int64(i)*int64(recordSize)); readErr != nil {
			err = errors.Join(err, readErr)
		}
		return decodeRecord(buffer)
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
	for _, e := range s.events {
		if bytes.Equal(e.MAC[:], mac[1:]) {
			found = e.apply(found)
		}
	}
	return found, nil
}

// Load reads all records into memory, for many a Find.
func (s *State) Load() error {
	text, err := s.text()
	if err == nil {
		s.records = bytes.NewReader(text)
	}
	return err
}

// text is all records as they are in the file.
func (s *State) text() ([]byte, error) {
	text := make([]byte, int(s.header.Records)*recordSize)
	if n, err := s.records.ReadAt(text, 0); n < len(text) {
		return nil, fmt.Errorf("reading records: %w", err)
	}
	return text, nil
}

// apply makes the records what they are after the event.
func (e event) apply(records []policy.Record) []policy.Record {
	i := slices.IndexFunc(records, func(r policy.Record) bool { return r.Key == e.Key })
	switch {
	case (e.Kind == registered || e.Kind == restored) && i < 0:
		return append(records, e.record())
	case e.Kind == registered:
		records[i] = records[i].Renewed(time.Duration(e.At))
	case e.Kind == restored:
		records[i] = e.record()
	case e.Kind == removed && i >= 0:
		return slices.Delete(records, i, i+1)
	case e.Kind == seen && i >= 0:
		records[i].LastHandshake, records[i].Active, records[i].Restored = time.Unix(0, e.Handshake), time.Duration(e.At), 0
	}
	return records
}

// record is that of the peer of a registered or restored, no other event has one.
func (e event) record() policy.Record {
	r := policy.NewRecord(e.Key, time.Duration(e.At))
	if e.Kind == restored {
		r.Restored, r.Active = time.Duration(e.At), time.Duration(e.Handshake)
	}
	return r
}

// recount is the earlier of the time, zero for never, and the end of Restored of
// the record.
func recount(earliest time.Duration, r policy.Record) time.Duration {
	if ends := r.RestoredEnds(); r.Restored != 0 && (earliest == 0 || ends < earliest) {
		return ends
	}
	return earliest
}

// All is the records of all peers, in the order of their MACs.
func (s *State) All() ([]policy.Record, error) {
	table, err := s.table()
	if err != nil {
		return nil, err
	}
	records := make([]policy.Record, len(table))
	for i, r := range table {
		records[i] = r.record()
	}
	return records, nil
}

// table is all records, in their order, with what happened since.
func (s *State) table() ([]fileRecord, error) {
	text, err := s.text()
	if err != nil {
		return nil, err
	}
	// Those of the peers that something has happened to since.
	changed := make(map[address.Key][]policy.Record, len(s.events))
	for _, e := range s.events {
		changed[e.Key] = nil
	}
	table := make([]fileRecord, 0, int(s.header.Records)+len(changed))
	for ; len(text) > 0; text = text[recordSize:] {
		r := decodeRecord(text)
		if _, is := changed[r.Key]; is {
			changed[r.Key] = append(changed[r.Key], r.record())
		} else {
			table = append(table, r)
		}
	}
	for _, e := range s.events {
		changed[e.Key] = e.apply(changed[e.Key])
	}
	var news []fileRecord
	for _, now := range changed {
		for _, r := range now {
			news = append(news, newRecord(r, address.Profile(s.header.Profile)))
		}
	}
	return merge(table, news), nil
}

// merge puts records into a table, which is in order. To sort it all anew would
// take several times as long.
func merge(table, news []fileRecord) []fileRecord {
	slices.SortFunc(news, byMAC)
	merged := make([]fileRecord, 0, len(table)+len(news))
	for _, r := range news {
		n, _ := slices.BinarySearchFunc(table, r, byMAC)
		merged = append(append(merged, table[:n]...), r)
		table = table[n:]
	}
	return append(merged, table...)
}

// saveState writes a whole state without events, and opens it.
func saveState(path string, h header, records []policy.Record, others []policy.Other) (*State, error) {
	table := make([]fileRecord, len(records))
	for i, r := range records {
		table[i] = newRecord(r, address.Profile(h.Profile))
	}
	slices.SortFunc(table, byMAC)
	return saveTable(path, h, table, others)
}

// saveTable is saveState with the records as they are in the file, in order.
func saveTable(path string, h header, table []fileRecord, others []policy.Other) (*State, error) {
	copy(h.Magic[:], stateMagic)
	h.Version = stateVersion
	var counts policy.Counts
	h.Recount = 0
	for _, r := range table {
		counts.Add(r.record())
		h.Recount = int64(recount(time.Duration(h.Recount), r.record()))
	}
	text := encodeOthers(others)
	h.Peers, h.Pending = uint32(counts.Peers), uint32(counts.Pending)
	h.Others, h.OthersSize, h.Records = uint32(len(others)), uint32(len(text)), uint32(len(table))
	data := make([]byte, headerSize, headerSize+len(text)+len(table)*recordSize+eventSize)
	for range 2 { // the second time with the checksum of the first
		if _, err := binary.Encode(data, byteOrder, h); err != nil {
			return nil, err
		}
		h.Checksum = checksum(data, text)
	}
	data = append(data, text...)
	for _, r := range table {
		data = r.append(data)
	}
	data = append(data, make([]byte, padding(int64(len(data))))...)
	if err := statefile.Write(path, data, fileMode); err != nil {
		return nil, err
	}
	return openState(path)
}

// append notes events.
func (s *State) append(events ...event) error {
	var data []byte
	for i := range events {
		events[i].MAC = shortMAC(events[i].Key, address.Profile(s.header.Profile))
		data = events[i].append(data)
	}
	end := int64(headerSize) + int64(s.header.OthersSize) + int64(s.header.Records)*int64(recordSize)
	end += padding(end) + int64(len(s.events)*eventSize)
	if _, err := s.file.WriteAt(data, end); err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	s.events = append(s.events, events...)
	for _, e := range events {
		s.recount = recount(s.recount, e.record())
	}
	last := events[len(events)-1]
	s.Counts = policy.Counts{Peers: int(last.Peers), Pending: int(last.Pending)}
	return nil
}

// Close closes the file.
func (s *State) Close() error { return s.file.Close() }

// missing reports whether the error is that there is no usable state file,
// which reading the peers mends.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrState) || errors.Is(err, statefile.ErrForeign)
}
