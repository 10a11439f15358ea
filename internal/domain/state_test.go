package domain

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

func key(n int) address.Key { return address.Key{0: 9, 29: byte(n >> 8), 30: byte(n)} }

// sample is a state with a peer of each kind.
func sample(t testing.TB, path string, n int) (*State, []policy.Record) {
	t.Helper()
	var records []policy.Record
	for i := range n {
		r := policy.NewRecord(key(i), time.Duration(i+1))
		if i%2 == 1 {
			r.LastHandshake, r.Active, r.Marked = time.Unix(1700000000, int64(i)), time.Duration(i+2), time.Duration(i+3)
		}
		records = append(records, r)
	}
	others := []policy.Other{
		{Peer: policy.Peer{Key: key(1 << 12), AllowedIPs: prefixes("fd00::/64", "10.0.0.0/8")}},
		{Peer: policy.Peer{Key: key(1<<12 + 1)}, Kind: policy.LeftOver},
	}
	s, err := saveState(path, header{
		BootID: fixedBootID("boot1"), WireGuard: 7, VXLAN: 8, Profile: uint32(address.FFMUC),
		Began: 1, Ended: 2, Offset: 3, Step: 4, StepAt: 5,
	}, records, others)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if !reflect.DeepEqual(s.Others, others) {
		t.Errorf("others %v came back as %v", others, s.Others)
	}
	return s, records
}

// byKey is records in an order of their own.
func byKey(records []policy.Record) map[address.Key]policy.Record {
	m := map[address.Key]policy.Record{}
	for _, r := range records {
		m[r.Key] = r
	}
	return m
}

// wantRecords checks All and Find against what should be there.
func wantRecords(t *testing.T, s *State, want []policy.Record) {
	t.Helper()
	all, err := s.All()
	inOrder := slices.IsSortedFunc(all, func(a, b policy.Record) int {
		return byMAC(newRecord(a, address.FFMUC), newRecord(b, address.FFMUC))
	})
	if err != nil || len(all) != len(want) || !maps.Equal(byKey(all), byKey(want)) || !inOrder {
		t.Errorf("all records: %v, %v, want %v", all, err, want)
	}
	for _, r := range want {
		mac, _ := address.FFMUC.Of(r.Key)
		if found, err := s.Find(mac); err != nil || !slices.Contains(found, r) {
			t.Errorf("%s: found %v, %v", r.Key, found, err)
		}
	}
	mac, _ := address.FFMUC.Of(key(5000))
	if found, err := s.Find(mac); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v of a peer that is not there", found, err)
	}
}

func TestState(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 100} {
		path := filepath.Join(t.TempDir(), "state")
		s, records := sample(t, path, n)
		wantRecords(t, s, records)
		if s.Reading != (policy.Reading{Began: 1, Ended: 2, Offset: 3}) || s.Step != 4 || s.StepAt != 5 {
			t.Errorf("%+v", s)
		}
		if want := (policy.Counts{Peers: n, Pending: (n + 1) / 2}); s.Counts != want {
			t.Errorf("counts %+v, want %+v", s.Counts, want)
		}
		// One is added, one removed, one of the old ones reset.
		added, gone := key(2000), key(2001)
		for _, e := range []struct {
			kind uint8
			key  address.Key
			at   time.Duration
		}{{registered, added, 10}, {registered, gone, 11}, {removed, gone, 12}} {
			if err := s.append(event{Kind: e.kind, At: int64(e.at), Key: e.key, Peers: 50, Pending: 40}); err != nil {
				t.Fatal(err)
			}
		}
		records = append(records, policy.NewRecord(added, 10))
		if n > 1 {
			if err := s.append(event{Kind: registered, At: 13, Key: key(1), Peers: 51, Pending: 41}); err != nil {
				t.Fatal(err)
			}
			records[1] = policy.NewRecord(key(1), 13)
		}
		// One had a handshake since, and one of which nothing is known.
		for _, k := range []address.Key{added, key(3000)} {
			if err := s.append(event{Kind: seen, At: 14, Handshake: 1700000000000000015, Key: k, Peers: 50, Pending: 40}); err != nil {
				t.Fatal(err)
			}
		}
		records[len(records)-1].LastHandshake, records[len(records)-1].Active = time.Unix(1700000000, 15), 14
		wantRecords(t, s, records)
		again, err := openState(path)
		if err != nil {
			t.Fatal(err)
		}
		wantRecords(t, again, records)
		if again.Counts != s.Counts || again.Counts.Peers < 50 {
			t.Errorf("counts %+v, want %+v", again.Counts, s.Counts)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A process was killed, or the disk was full, in the middle of a write: what
// was there before counts.
func TestStateCutAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, records := sample(t, path, 5)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	fixed := int(info.Size())
	if err := s.append(event{Kind: registered, At: 10, Key: key(2000), Peers: 6, Pending: 4}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := range data {
		cut, err := parseState(bytes.NewReader(data[:size]), int64(size))
		switch {
		case size < fixed && err == nil:
			t.Errorf("%d of %d bytes are a state", size, len(data))
		case size >= fixed && err != nil:
			t.Errorf("%d of %d bytes: %v", size, len(data), err)
		case size >= fixed:
			wantRecords(t, cut, records)
			if cut.Counts.Peers != 5 {
				t.Errorf("%d bytes: counts %+v", size, cut.Counts)
			}
		}
	}
	// And the next event takes the place of half a one.
	if err := os.Truncate(path, int64(fixed+eventSize/2)); err != nil {
		t.Fatal(err)
	}
	half, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if err := half.append(event{Kind: registered, At: 11, Key: key(2001), Peers: 6, Pending: 4}); err != nil {
		t.Fatal(err)
	}
	whole, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	wantRecords(t, whole, append(records, policy.NewRecord(key(2001), 11)))
}

// A file of another version, or one that is damaged where nothing else would
// show it, is not believed.
func TestStateDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, _ := sample(t, path, 2)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range headerSize + int(s.header.OthersSize) {
		if at >= headerSize-4 && at < headerSize {
			continue // nothing is kept there
		}
		data := bytes.Clone(whole)
		data[at] ^= 1
		if _, err := parseState(bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrState) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	data := bytes.Clone(whole)
	byteOrder.PutUint32(data[len(stateMagic):], stateVersion+1)
	byteOrder.PutUint32(data[headerSize-8:], checksum(data[:headerSize], data[headerSize:headerSize+int(s.header.OthersSize)]))
	if _, err := parseState(bytes.NewReader(data), int64(len(data))); !errors.Is(err, ErrState) {
		t.Errorf("another version: %v", err)
	}
}

func TestEventsCrossNoPage(t *testing.T) {
	if os.Getpagesize()%eventSize != 0 {
		t.Errorf("an event of %d bytes", eventSize)
	}
	sizes := [...]int{headerSize, len(fileRecord{}.append(nil)), len(event{}.append(nil))}
	if sizes != [...]int{148, recordSize, eventSize} || recordSize != 80 || eventSize != 64 {
		t.Errorf("sizes %v, %d, %d: with another layout stateVersion has to change", sizes, recordSize, eventSize)
	}
}

// Two keys may have one MAC: both are found.
func TestSameMAC(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, _ := sample(t, path, 20)
	table, err := s.table()
	if err != nil {
		t.Fatal(err)
	}
	twin := table[7]
	twin.Key[5]++
	s, err = saveTable(path, s.header, slices.Insert(table, 8, twin), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found, err := s.Find(address.MAC{2, twin.MAC[0], twin.MAC[1], twin.MAC[2], twin.MAC[3], twin.MAC[4]})
	if err != nil || len(found) != 2 || found[0].Key != table[7].Key || found[1].Key != twin.Key {
		t.Errorf("found %v, %v", found, err)
	}
}

// What is written is what is read.
func TestLayout(t *testing.T) {
	r := fileRecord{MAC: [5]byte{1, 2, 3, 4, 5}, Kind: 1, Key: key(7), LastHandshake: 1 << 60, Active: 2 << 50, Registered: 3 << 40, Marked: 4 << 30, Restored: 5 << 20}
	if got := decodeRecord(r.append(nil)); got != r {
		t.Errorf("%+v came back as %+v", r, got)
	}
	e := event{Key: key(8), At: 5 << 50, Handshake: 6 << 40, Kind: seen, MAC: [5]byte{5, 4, 3, 2, 1}, Peers: 7 << 20, Pending: 8 << 10}
	if got := decodeEvent(e.append(nil)); got != e {
		t.Errorf("%+v came back as %+v", e, got)
	}
}

// Whatever the file holds, reading it ends, and takes no more than the file has.
func FuzzState(f *testing.F) {
	for _, n := range []int{0, 3} {
		path := filepath.Join(f.TempDir(), "state")
		s, _ := sample(f, path, n)
		if err := s.append(event{Kind: registered, At: 10, Key: key(2000), Peers: 6, Pending: 4}); err != nil {
			f.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
		f.Add(data[:len(data)-1], false)
	}
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		if fix && len(data) >= headerSize { // or nothing gets past the checksum
			others := min(int(byteOrder.Uint32(data[othersSizeAt:])), len(data)-headerSize)
			if others >= 0 {
				byteOrder.PutUint32(data[headerSize-8:], checksum(data[:headerSize], data[headerSize:headerSize+others]))
			}
		}
		s, err := parseState(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		all, err := s.All()
		if err != nil {
			t.Errorf("all records: %v", err)
		}
		if len(all) > len(data)/eventSize+1 || len(s.Others) > len(data) {
			t.Errorf("%d records and %d others out of %d bytes", len(all), len(s.Others), len(data))
		}
		mac, _ := address.FFMUC.Of(key(1))
		if _, err := s.Find(mac); err != nil {
			t.Errorf("finding a record: %v", err)
		}
	})
}

// othersSizeAt is where OthersSize is in a header.
const othersSizeAt = len(stateMagic) + 4 + 32 + 5*4
