package kernel

import (
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// recording is a dump as the kernel answered it. The files of testdata were
// recorded by TestRecordings in record_vm_test.go, which says how, and which
// runs the same checks on what the kernel of the VM answers today.
type recording struct {
	seq, port uint32
	kind      uint16
	vxlan     int // the VXLAN interface's index
	datagrams [][]byte
}

//go:embed testdata/*.hex
var testdata embed.FS // the VM has the test program alone

const recordingHead = "seq %d port %d kind %d vxlan %d"

// String is the content of a file.
func (r recording) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, recordingHead+"\n", r.seq, r.port, r.kind, r.vxlan)
	for _, d := range r.datagrams {
		fmt.Fprintln(&b, hex.EncodeToString(d))
	}
	return b.String()
}

func load(t testing.TB, name string) recording {
	t.Helper()
	data, err := testdata.ReadFile("testdata/" + name + ".hex")
	ok(t, err)
	head, rest, _ := strings.Cut(string(data), "\n")
	var r recording
	_, err = fmt.Sscanf(head, recordingHead, &r.seq, &r.port, &r.kind, &r.vxlan)
	ok(t, err)
	for line := range strings.Lines(rest) {
		d, err := hex.DecodeString(strings.TrimSpace(line))
		ok(t, err)
		r.datagrams = append(r.datagrams, d)
	}
	return r
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reader reads the recording. After its end comes io.EOF, which no reader that
// saw the dump's end gets.
func (r recording) reader() dumpReader {
	left := r.datagrams
	return dumpReader{seq: r.seq, port: r.port, kind: r.kind, receive: func() ([]byte, error) {
		if len(left) == 0 {
			return nil, io.EOF
		}
		next := left[0]
		left = left[1:]
		return slices.Clone(next), nil
	}}
}

func (r recording) peers() (peers peerList, interrupted bool, err error) {
	interrupted, err = r.reader().read(peers.read)
	return peers, interrupted, err
}

func (r recording) search(key address.Key) (s peerSearch, interrupted bool, err error) {
	s.key = key
	interrupted, err = r.reader().read(s.read)
	return s, interrupted, err
}

func (r recording) entries() (entries []Entry, interrupted bool, err error) {
	l := entryList{vxlan: r.vxlan}
	interrupted, err = r.reader().read(l.read)
	return l.entries, interrupted, err
}

// each calls do for the offset of each message in each datagram.
func (r recording) each(do func(datagram []byte, offset int)) {
	for _, d := range r.datagrams {
		for offset := 0; offset < len(d); offset += aligned(int(binary.NativeEndian.Uint32(d[offset:]))) {
			do(d, offset)
		}
	}
}

func (r recording) clone() recording {
	datagrams := r.datagrams
	r.datagrams = nil
	for _, d := range datagrams {
		r.datagrams = append(r.datagrams, slices.Clone(d))
	}
	return r
}

// testKey is a peer's key in the recordings.
func testKey(n int) address.Key {
	key := address.Key{31: 0x40}
	binary.BigEndian.PutUint16(key[:], uint16(n))
	return key
}

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// manyPrefixes are addresses fd00::1 and on.
func manyPrefixes(n int) (out []netip.Prefix) {
	addr := netip.MustParseAddr("fd00::")
	for range n {
		addr = addr.Next()
		out = append(out, netip.PrefixFrom(addr, 128))
	}
	return out
}

// The devices that were recorded. splitPeers goes on over several messages.
var (
	devicePrivate = address.Key{0x40, 31: 0x40} // as wg genkey might make it
	fewPeers      = []policy.Peer{
		{Key: testKey(1), AllowedIPs: prefixes("fe80::1/128")},
		{Key: testKey(2), Endpoint: netip.MustParseAddrPort("192.0.2.7:99")},
		{Key: testKey(3), Endpoint: netip.MustParseAddrPort("[2001:db8::7]:65535"), AllowedIPs: prefixes("10.0.0.0/8", "fd00::/64", "::/0")},
	}
	splitPeers = []policy.Peer{
		{Key: testKey(1), AllowedIPs: prefixes("fe80::1/128")},
		{Key: testKey(2), AllowedIPs: manyPrefixes(600)},
		{Key: testKey(3), AllowedIPs: prefixes("fe80::3/128")},
	}
)

// What chance made of the recordings: the allowed IPs of the first peer of
// "bare", the only peer of "handshake", as wg(8) showed it, and the WireGuard
// interface's index in "fdb".
var (
	recordedBare     = 84
	recordedKey      = must(address.ParseKey("DOqeuUg/8uMpHkeQ1HkGbNx+RxZPZavG14Wury21US4="))
	recordedEndpoint = netip.MustParseAddrPort("127.0.0.1:55276")
	recordedTime     = time.Unix(1795594230, 648706510)
	recordedVia      = 9
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// manyPeers are more than fit into one message.
func manyPeers() (peers []policy.Peer) {
	for n := range 200 {
		peers = append(peers, policy.Peer{Key: testKey(n), AllowedIPs: prefixes(fmt.Sprintf("fe80::%x/128", n))})
	}
	return peers
}

// sortIPs puts the allowed IPs of peers in order: the kernel's order is its own.
func sortIPs(peers []policy.Peer) []policy.Peer {
	peers = slices.Clone(peers)
	for i := range peers {
		peers[i].AllowedIPs = slices.SortedFunc(slices.Values(peers[i].AllowedIPs), netip.Prefix.Compare)
	}
	return peers
}

// checkPeers checks that a recording gives these peers, all together and one by
// one, and no other.
func checkPeers(t *testing.T, r recording, want []policy.Peer) {
	t.Helper()
	got, interrupted, err := r.peers()
	if interrupted || err != nil || !reflect.DeepEqual(sortIPs(got), sortIPs(want)) {
		t.Errorf("interrupted %v, %v, got\n%+v\nwant\n%+v", interrupted, err, got, want)
	}
	for _, p := range want {
		s, interrupted, err := r.search(p.Key)
		if interrupted || err != nil || !s.found || !reflect.DeepEqual(sortIPs([]policy.Peer{s.peer}), sortIPs([]policy.Peer{p})) {
			t.Errorf("search: interrupted %v, %v, got\n%+v\nwant\n%+v", interrupted, err, s, p)
		}
	}
	if s, interrupted, err := r.search(testKey(0xffff)); interrupted || err != nil || s.found {
		t.Errorf("search for no peer: %+v, %v, %v", s, interrupted, err)
	}
}

func TestRecordedPeers(t *testing.T) {
	for name, want := range map[string][]policy.Peer{
		"none":  nil,
		"few":   fewPeers,
		"split": splitPeers,
		"bare":  barePeers(recordedBare),
		"handshake": {{
			Key: recordedKey, AllowedIPs: prefixes("fe80::1/128"), LastHandshake: recordedTime, Endpoint: recordedEndpoint,
			Received: 180, Sent: 92,
		}},
	} {
		t.Run(name, func(t *testing.T) { checkPeers(t, load(t, name), want) })
	}
	checkBare(t, load(t, "bare"))
	checkGateway(t, load(t, "few"), Gateway{Key: address.Key(wgtypes.Key(devicePrivate).PublicKey()), Port: 47178})
	checkGateway(t, load(t, "none"), Gateway{Port: 1111})
}

func checkGateway(t *testing.T, r recording, want Gateway) {
	t.Helper()
	var g Gateway
	interrupted, err := r.reader().read(func(content []byte) (more bool, err error) {
		g, err = parseGateway(content)
		return false, err
	})
	if interrupted || err != nil || g != want {
		t.Errorf("the gateway is %+v, %v, %v, want %+v", g, interrupted, err, want)
	}
}

// barePeers are two peers, the first with n allowed IPs.
func barePeers(n int) []policy.Peer {
	return []policy.Peer{{Key: testKey(1), AllowedIPs: manyPrefixes(n)}, {Key: testKey(2), AllowedIPs: prefixes("fe80::2/128")}}
}

// firstPeers are the peers of the first datagram alone.
func firstPeers(t *testing.T, r recording) peerList {
	t.Helper()
	r.datagrams = r.datagrams[:1]
	peers, _, err := r.peers()
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return peers
}

// checkBare checks that the second peer stands in the first message without any
// of its allowed IPs: whoever stops there takes it for a peer without.
func checkBare(t *testing.T, r recording) {
	t.Helper()
	if first := firstPeers(t, r); len(first) != 2 || len(first[1].AllowedIPs) != 0 {
		t.Errorf("in the first message: %+v", first)
	}
}

func lastPeer(peers []policy.Peer) policy.Peer { return peers[len(peers)-1] }

// A search ends with the peer, as early as it can know that it is whole.
func TestSearchStops(t *testing.T) {
	r := load(t, "split")
	for n, want := range map[int]int{1: 1, 2: len(r.datagrams), 3: len(r.datagrams)} {
		reader, received := r.reader(), 0
		receive := reader.receive
		reader.receive = func() ([]byte, error) { received++; return receive() }
		s := peerSearch{key: testKey(n)}
		if _, err := reader.read(s.read); err != nil || !s.found || received != want {
			t.Errorf("peer %d: found %v, %v, after %d datagrams, want %d", n, s.found, err, received, want)
		}
	}
}

// checkInterruption checks a recording of manyPeers, of which all but the first
// were removed meanwhile. An interruption after the peer is none of a search's
// business.
func checkInterruption(t *testing.T, r recording) {
	t.Helper()
	if peers, interrupted, err := r.peers(); !interrupted || err != nil {
		t.Errorf("%d peers, interrupted %v, %v", len(peers), interrupted, err)
	}
	first, last := manyPeers()[0], lastPeer(manyPeers())
	if s, interrupted, err := r.search(first.Key); interrupted || err != nil || !reflect.DeepEqual(s.peer, first) {
		t.Errorf("search for the first peer: %+v, interrupted %v, %v", s, interrupted, err)
	}
	if s, interrupted, err := r.search(last.Key); !interrupted || err != nil {
		t.Errorf("search for the last peer: %+v, interrupted %v, %v", s, interrupted, err)
	}
}

func TestRecordedInterruption(t *testing.T) {
	checkInterruption(t, load(t, "interrupted"))
}

// The kernel may flag any message, the last of all included.
func TestAnyInterruption(t *testing.T) {
	for _, name := range []string{"few", "split", "fdb"} {
		r := load(t, name)
		var messages int
		r.each(func([]byte, int) { messages++ })
		for flagged := range messages {
			r := r.clone()
			var n int
			r.each(func(d []byte, offset int) {
				if n == flagged {
					flags := binary.NativeEndian.Uint16(d[offset+6:])
					binary.NativeEndian.PutUint16(d[offset+6:], flags|unix.NLM_F_DUMP_INTR)
				}
				n++
			})
			interrupted, err := r.reader().read(func([]byte) (bool, error) { return true, nil })
			if !interrupted || err != nil {
				t.Errorf("%s with message %d flagged: interrupted %v, %v", name, flagged, interrupted, err)
			}
		}
	}
}

func TestRecordedEnds(t *testing.T) {
	checkEnd(t, load(t, "gone"), unix.NLMSG_ERROR, unix.ENODEV)
	checkEnd(t, load(t, "fdb-error"), unix.NLMSG_DONE, unix.EINVAL)
}

// checkEnd checks a dump that ends with its first message, of the kind and with
// the error.
func checkEnd(t *testing.T, r recording, kind uint16, want unix.Errno) {
	t.Helper()
	if got := binary.NativeEndian.Uint16(r.datagrams[0][4:]); got != kind {
		t.Errorf("the dump starts with a message of type %d, want %d", got, kind)
	}
	interrupted, err := r.reader().read(func([]byte) (bool, error) { return true, nil })
	if interrupted || !errors.Is(err, want) {
		t.Errorf("interrupted %v, %v, want %v", interrupted, err, want)
	}
}

// Messages for others, in between ours, are passed over.
func TestOthersMessages(t *testing.T) {
	whole := load(t, "few")
	for name, change := range map[string]func(m []byte){
		"another request": func(m []byte) { binary.NativeEndian.PutUint32(m[8:], whole.seq-1) },
		"another port":    func(m []byte) { binary.NativeEndian.PutUint32(m[12:], whole.port+1) },
	} {
		r := whole.clone()
		other := r.clone()
		other.each(func(d []byte, offset int) {
			change(d[offset:])
			d[offset+6] |= unix.NLM_F_DUMP_INTR
		})
		r.datagrams = append(other.datagrams, r.datagrams...)
		t.Run(name, func(t *testing.T) { checkPeers(t, r, fewPeers) })
	}
}

// Whatever is cut off, the rest is no dump.
func TestCutMessages(t *testing.T) {
	for _, name := range []string{"few", "fdb", "gone"} {
		r := load(t, name)
		for n := range r.datagrams {
			for size := range r.datagrams[n] {
				cut := r.clone()
				cut.datagrams = cut.datagrams[:n+1]
				cut.datagrams[n] = cut.datagrams[n][:size]
				_, interrupted, err := cut.peers()
				if name == "fdb" {
					_, interrupted, err = cut.entries()
				}
				if interrupted || err == nil {
					t.Fatalf("%s: datagram %d of %d bytes cut to %d: interrupted %v, %v", name, n, len(r.datagrams[n]), size, interrupted, err)
				}
			}
		}
	}
}

// attribute is a struct nlattr.
func attribute(kind uint16, content ...byte) []byte { return appendAttribute(nil, kind, content) }

func TestMalformedPeers(t *testing.T) {
	key := testKey(1)
	named := attribute(unix.WGPEER_A_PUBLIC_KEY, key[:]...)
	peer := func(attrs ...byte) []byte {
		return append([]byte{0, 1, 0, 0}, attribute(unix.WGDEVICE_A_PEERS|unix.NLA_F_NESTED, attribute(0, attrs...)...)...)
	}
	allowed := func(attrs ...byte) []byte {
		return peer(append(slices.Clone(named), attribute(unix.WGPEER_A_ALLOWEDIPS, attribute(0, attrs...)...)...)...)
	}
	with := func(kind uint16, size int) []byte {
		return peer(append(slices.Clone(named), attribute(kind, make([]byte, size)...)...)...)
	}
	s := peerSearch{key: key}
	if _, err := s.read(peer(named...)); err != nil || !s.found {
		t.Fatalf("a peer with a key alone: %+v, %v", s, err)
	}
	for name, content := range map[string][]byte{
		"attribute without head":   append([]byte{0, 1, 0, 0}, 3, 0, unix.WGDEVICE_A_PEERS, 0),
		"nothing":                  {},
		"half a header":            {0, 1},
		"no key":                   peer(attribute(unix.WGPEER_A_TX_BYTES, make([]byte, 8)...)...),
		"short key":                peer(attribute(unix.WGPEER_A_PUBLIC_KEY, key[:31]...)...),
		"zero key":                 peer(attribute(unix.WGPEER_A_PUBLIC_KEY, make([]byte, 32)...)...),
		"32-bit handshake":         with(unix.WGPEER_A_LAST_HANDSHAKE_TIME, 8),
		"32-bit sum received":      with(unix.WGPEER_A_RX_BYTES, 4),
		"32-bit sum sent":          with(unix.WGPEER_A_TX_BYTES, 4),
		"endpoint of another kind": with(unix.WGPEER_A_ENDPOINT, 20),
		"no address":               allowed(attribute(unix.WGALLOWEDIP_A_CIDR_MASK, 8)...),
		"no mask":                  allowed(attribute(unix.WGALLOWEDIP_A_IPADDR, 10, 0, 0, 0)...),
		"short address":            allowed(append(attribute(unix.WGALLOWEDIP_A_IPADDR, 10, 0), attribute(unix.WGALLOWEDIP_A_CIDR_MASK, 8)...)...),
		"long mask":                allowed(append(attribute(unix.WGALLOWEDIP_A_IPADDR, 10, 0, 0, 0), attribute(unix.WGALLOWEDIP_A_CIDR_MASK, 8, 0)...)...),
		"mask of 33 bits":          allowed(append(attribute(unix.WGALLOWEDIP_A_IPADDR, 10, 0, 0, 0), attribute(unix.WGALLOWEDIP_A_CIDR_MASK, 33)...)...),
	} {
		var list peerList
		if _, err := list.read(content); err == nil {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

// Messages that no kernel sends must not be taken for the end of a dump.
func TestOddMessages(t *testing.T) {
	m := func(kind uint16, content ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(content)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, 7)
		b = binary.NativeEndian.AppendUint32(b, 9)
		return append(b, content...)
	}
	for name, datagram := range map[string][]byte{
		"empty":            {},
		"done without sum": m(unix.NLMSG_DONE),
		"acknowledgement":  m(unix.NLMSG_ERROR, 0, 0, 0, 0),
		"overrun":          m(unix.NLMSG_OVERRUN),
		"another type":     m(21, 0, 1, 0, 0),
		"size below head":  append([]byte{15, 0, 0, 0}, m(unix.NLMSG_DONE, 0, 0, 0, 0)[4:]...),
	} {
		r := recording{seq: 7, port: 9, kind: 20, datagrams: [][]byte{datagram}}
		if peers, interrupted, err := r.peers(); interrupted || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %+v, %v, %v", name, peers, interrupted, err)
		}
	}
	r := recording{seq: 7, port: 9, kind: 20, datagrams: [][]byte{m(unix.NLMSG_DONE, 0, 0, 0, 0)}}
	if peers, interrupted, err := r.peers(); peers != nil || interrupted || err != nil {
		t.Errorf("an empty dump: %+v, %v, %v", peers, interrupted, err)
	}
}

func TestRecordedEntries(t *testing.T) {
	checkEntries(t, load(t, "fdb"), recordedVia)
}

// checkEntries checks a recording of the FDB that TestRecordings makes, with the
// index of the WireGuard interface.
func checkEntries(t *testing.T, r recording, via int) {
	t.Helper()
	entries, interrupted, err := r.entries()
	if interrupted || err != nil {
		t.Errorf("interrupted %v, %v", interrupted, err)
	}
	at, mac := netip.MustParseAddr, address.MAC{2, 1, 2, 3, 4, 5}
	want := []Entry{
		{Flood, at("fe80::77"), via, true}, // the interface's own remote
		{Flood, at("fe80::a"), via, true},
		{Flood, at("fd00::1"), 0, true},
		{mac, at("fe80::a"), via, true},
		{address.MAC{2, 1, 2, 3, 4, 6}, at("fe80::b"), via, false},
	}
	count := map[Entry]int{}
	for _, e := range entries {
		count[e]++
	}
	for _, e := range want {
		if count[e] != 1 {
			t.Errorf("%d entries %+v in %+v", count[e], e, entries)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d entries, want %d: %+v", len(entries), len(want), entries)
	}
	// Another interface's are none of ours, and that is where they are.
	r.vxlan++
	if entries, _, err := r.entries(); err != nil || len(entries) != 0 {
		t.Errorf("of another interface: %+v, %v", entries, err)
	}
}

// What Linux 6.1 answers to RTM_GETADDR, with ipv6.disable=1 and without.
func TestIPv6Off(t *testing.T) {
	err := ipv6Off(unix.EOPNOTSUPP)
	if !errors.Is(err, ErrUnfit) || !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("off: %v", err)
	}
	for _, err := range []error{nil, unix.EADDRNOTAVAIL, unix.EPERM} {
		if off := ipv6Off(err); off != nil {
			t.Errorf("%v: %v", err, off)
		}
	}
}

func TestParseEntry(t *testing.T) {
	const index = 7
	message := func(flags byte, attrs ...[]byte) []byte {
		b := []byte{unix.AF_BRIDGE, 0, 0, 0}
		b = binary.NativeEndian.AppendUint32(b, index)
		b = binary.NativeEndian.AppendUint16(b, netlink.NUD_PERMANENT)
		return slices.Concat(append(b, flags, unix.RTN_UNICAST), slices.Concat(attrs...))
	}
	addr := netip.MustParseAddr("fe80::a")
	mac, dst := attribute(netlink.NDA_LLADDR, 2, 0, 0, 0, 0, 1), attribute(netlink.NDA_DST, addr.AsSlice()...)
	for name, c := range map[string]struct {
		message []byte
		ours    bool
		err     error
	}{
		"ours":           {message(netlink.NTF_SELF, mac, dst), true, nil},
		"the bridge's":   {message(netlink.NTF_MASTER, mac, dst), false, nil},
		"IPv4":           {message(netlink.NTF_SELF, mac, attribute(netlink.NDA_DST, 192, 0, 2, 7)), false, nil},
		"nowhere":        {message(netlink.NTF_SELF, mac), false, nil},
		"short":          {message(netlink.NTF_SELF)[:11], false, errCut},
		"cut attribute":  {message(netlink.NTF_SELF, mac, dst[:19]), false, errCut},
		"long MAC":       {message(netlink.NTF_SELF, attribute(netlink.NDA_LLADDR, 2, 0, 0, 0, 0, 1, 0), dst), false, errSize},
		"short ifindex":  {message(netlink.NTF_SELF, mac, dst, attribute(netlink.NDA_IFINDEX, 1)), false, errSize},
		"odd, not to us": {message(netlink.NTF_MASTER, attribute(netlink.NDA_IFINDEX, 1)), false, nil},
	} {
		e, ours, err := parseEntry(c.message, index)
		if ours != c.ours || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v, %v", name, e, ours, err)
		}
		if want := (Entry{MAC: address.MAC{2, 5: 1}, Dst: addr, Permanent: true}); ours && e != want {
			t.Errorf("%s: %+v, want %+v", name, e, want)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	// struct sockaddr_in6: family, port, flow, address, scope.
	mapped := slices.Concat([]byte{unix.AF_INET6, 0, 0x1f, 0x90}, make([]byte, 14), []byte{0xff, 0xff, 192, 0, 2, 7}, make([]byte, 4))
	if at, err := parseEndpoint(mapped); err != nil || at != netip.MustParseAddrPort("192.0.2.7:8080") {
		t.Errorf("%s, %v", at, err)
	}
}

func TestUninterrupted(t *testing.T) {
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		interruptions int
		err           error // of the try after them
		want          error
		tries         int
		pause         time.Duration
	}{
		"at once":      {0, nil, nil, 1, 0},
		"an error":     {0, failed, failed, 1, 0},
		"the third":    {2, nil, nil, 3, 3 * time.Millisecond},
		"then failed":  {2, failed, failed, 3, 3 * time.Millisecond},
		"the last":     {dumpTries - 1, nil, nil, dumpTries, (1<<(dumpTries-1) - 1) * time.Millisecond},
		"one too many": {dumpTries, nil, ErrInterrupted, dumpTries, (1<<(dumpTries-1) - 1) * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			start, tries := time.Now(), 0
			err := Uninterrupted(func() (bool, error) {
				if tries++; tries <= c.interruptions {
					return true, nil
				}
				return false, c.err
			})
			if took := time.Since(start); !errors.Is(err, c.want) || tries != c.tries || took != c.pause {
				t.Errorf("%s: %v after %d tries and %s, want %v, %d, %s", name, err, tries, took, c.want, c.tries, c.pause)
			}
		})
	}
}

// The parsers take any bytes for a message: they read nothing outside it and
// give no peer without a key, no allowed IP that is none, and no entry without
// an IPv6 destination.
func FuzzPeers(f *testing.F) {
	for _, name := range []string{"few", "handshake", "none"} {
		r := load(f, name)
		r.each(func(d []byte, offset int) {
			m, _, err := cutMessage(d[offset:])
			ok(f, err)
			f.Add(m.content)
		})
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		var list peerList
		_, err := list.read(content)
		for _, p := range list {
			if p.Key.IsZero() {
				t.Error("a peer without a key")
			}
			for _, ip := range p.AllowedIPs {
				if !ip.IsValid() {
					t.Errorf("allowed IP %s", ip)
				}
			}
		}
		_, _ = parseGateway(content) // its error says what is wrong with the device
		if err != nil || len(list) == 0 {
			return
		}
		// What a search finds is what is in the list, unless the key comes
		// several times over.
		search := peerSearch{key: list[0].Key}
		if _, err := search.read(content); err != nil || !search.found {
			t.Errorf("search: %+v, %v", search, err)
		}
		if len(list) == 1 && !reflect.DeepEqual(search.peer, list[0]) {
			t.Errorf("search found %+v, the list has %+v", search.peer, list[0])
		}
	})
}

func FuzzEntries(f *testing.F) {
	r := load(f, "fdb")
	r.each(func(d []byte, offset int) {
		m, _, err := cutMessage(d[offset:])
		ok(f, err)
		f.Add(m.content, r.vxlan)
	})
	f.Fuzz(func(t *testing.T, content []byte, index int) {
		e, ours, err := parseEntry(content, index)
		if ours && (err != nil || !e.Dst.Is6()) {
			t.Errorf("%+v, %v", e, err)
		}
		if err != nil && e != (Entry{}) {
			t.Errorf("%+v with %v", e, err)
		}
	})
}

func FuzzDump(f *testing.F) {
	for _, name := range []string{"none", "handshake", "gone", "fdb", "fdb-error"} {
		r := load(f, name)
		for _, d := range r.datagrams {
			f.Add(d, r.seq, r.port, r.kind)
		}
	}
	f.Fuzz(func(t *testing.T, datagram []byte, seq, port uint32, kind uint16) {
		var read int
		r := recording{seq: seq, port: port, kind: kind, datagrams: [][]byte{datagram}}
		_, _ = r.reader().read(func(content []byte) (bool, error) {
			read += unix.SizeofNlMsghdr + len(content)
			return true, nil
		})
		if read > len(datagram) {
			t.Errorf("read %d bytes of %d", read, len(datagram))
		}
	})
}
