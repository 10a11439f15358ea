package domain

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
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
	stateVersion = 3
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
	// BootID to Profile tell for what the file is true.
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
	StepAt int64
	Step   int64
	// RestoredAt is when saved peers were last restored, in nanoseconds since
	// boot, zero for never, and RestoredPeers how many of them.
	RestoredAt    int64
	RestoredPeers uint32
	// Recount is when the earliest Restored of the records ends, in nanoseconds
	// since boot, zero for none.
	Recount  int64
	Others   uint32 // how many
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
	Restored      int64
}

type event struct {
	Key address.Key
	// At is when it was registered or restored or, of seen, its Active, in
	// nanoseconds since boot. Handshake is that of seen, in nanoseconds since 1970;
	// of restored it is its Active, in nanoseconds since boot.
	At, Handshake int64
	Kind          uint8
	MAC           [5]byte // of the key, as in a record
	_             [2]byte
	// Peers and Pending are the counts after it.
	Peers, Pending uint32
}

// The kinds of events.
const (
	registered = 1 // added, or reset
	removed    = 2
	seen       = 3 // a handshake since the reading
	restored   = 4
)

// What the structs above take in the file, in bytes.
const (
	recordSize = 80
	eventSize  = 64
)

var headerSize = binary.Size(header{})

// Records and events are read and written by hand: there may be many thousands,
// and package encoding/binary takes ten times as long for structs.

func (r fileRecord) append(b []byte) []byte {
	b = append(b, r.MAC[:]...)
	b = append(b, r.Kind, 0, 0)
	b = append(b, r.Key[:]...)
	for _, n := range [...]int64{r.LastHandshake, r.Active, r.Registered, r.Marked, r.Restored} {
		b = byteOrder.AppendUint64(b, uint64(n))
	}
	return b
}

// decodeRecord reads a record from the beginning of recordSize bytes or more.
func decodeRecord(b []byte) fileRecord {
	number := func(at int) int64 { return int64(byteOrder.Uint64(b[at:])) }
	return fileRecord{
		MAC: [5]byte(b), Kind: b[5], Key: address.Key(b[8:]),
		LastHandshake: number(40), Active: number(48), Registered: number(56), Marked: number(64), Restored: number(72),
	}
}

func (e event) append(b []byte) []byte {
	b = append(b, e.Key[:]...)
	b = byteOrder.AppendUint64(b, uint64(e.At))
	b = byteOrder.AppendUint64(b, uint64(e.Handshake))
	b = append(b, e.Kind)
	b = append(b, e.MAC[:]...)
	b = append(b, 0, 0)
	b = byteOrder.AppendUint32(b, e.Peers)
	return byteOrder.AppendUint32(b, e.Pending)
}

// decodeEvent reads an event from the beginning of eventSize bytes or more.
func decodeEvent(b []byte) event {
	return event{
		Key: address.Key(b), At: int64(byteOrder.Uint64(b[32:])), Handshake: int64(byteOrder.Uint64(b[40:])),
		Kind: b[48], MAC: [5]byte(b[49:]), Peers: byteOrder.Uint32(b[56:]), Pending: byteOrder.Uint32(b[60:]),
	}
}

// newRecord is the record in the file of a peer in a domain with the profile.
func newRecord(r policy.Record, profile address.Profile) fileRecord {
	f := fileRecord{
		MAC: shortMAC(r.Key, profile), Kind: uint8(r.Kind), Key: r.Key, Active: int64(r.Active),
		Registered: int64(r.Registered), Marked: int64(r.Marked), Restored: int64(r.Restored),
	}
	if !r.Pending() {
		f.LastHandshake = r.LastHandshake.UnixNano()
	}
	return f
}

// shortMAC is the MAC of a key as the file has it.
func shortMAC(key address.Key, profile address.Profile) [5]byte {
	mac := profile.MAC(key)
	return [5]byte(mac[1:])
}

// byMAC is the order of records.
func byMAC(a, b fileRecord) int {
	return cmp.Or(bytes.Compare(a.MAC[:], b.MAC[:]), bytes.Compare(a.Key[:], b.Key[:]))
}

func (r fileRecord) record() policy.Record {
	record := policy.Record{
		Key: r.Key, Kind: policy.Kind(r.Kind), Active: time.Duration(r.Active),
		Registered: time.Duration(r.Registered), Marked: time.Duration(r.Marked), Restored: time.Duration(r.Restored),
	}
	if r.LastHandshake != 0 {
		record.LastHandshake = time.Unix(0, r.LastHandshake)
	}
	return record
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
