//go:build vm

package kernel

import (
	"flag"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/policy"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The files in testdata are what TestRecordings prints with -record, in a VM
// (test/vm) with Debian 12, Linux 6.1.
var printRecordings = flag.Bool("record", false, "print recordings, with RECORD and the file's name in front of each line")

func show(name string, r recording) recording {
	if *printRecordings {
		for line := range strings.Lines(r.String()) {
			fmt.Printf("RECORD %s %s", name, line)
		}
	}
	return r
}

// makeRecording makes a dump and keeps its datagrams as they come. after is
// called after each, with the number of those so far.
func makeRecording(t *testing.T, d *devices, protocol int, req *nl.NetlinkRequest, kind uint16, after func(n int)) recording {
	t.Helper()
	reader, err := startDump(protocol, req, kind, partDump)
	ok(t, err)
	defer reader.close()
	r := recording{seq: reader.seq, port: reader.port, kind: kind, vxlan: d.vxlan.Attrs().Index}
	receive := reader.receive
	reader.receive = func() ([]byte, error) {
		datagram, err := receive()
		if err == nil {
			r.datagrams = append(r.datagrams, slices.Clone(datagram))
			after(len(r.datagrams))
		}
		return datagram, err
	}
	_, _ = reader.read(func([]byte) (bool, error) { return true, nil }) // how it ends is checked on the recording
	return r
}

func recordPeers(t *testing.T, d *devices, after func(n int)) recording {
	t.Helper()
	req, family, err := d.deviceRequest()
	ok(t, err)
	return makeRecording(t, d, unix.NETLINK_GENERIC, req, family, after)
}

func recordEntries(t *testing.T, d *devices, req *nl.NetlinkRequest) recording {
	t.Helper()
	return makeRecording(t, d, unix.NETLINK_ROUTE, req, unix.RTM_NEWNEIGH, func(int) {})
}

// setPeers gives the device these peers and no others.
func setPeers(t testing.TB, d *devices, peers []policy.Peer) {
	t.Helper()
	config := wgtypes.Config{ReplacePeers: true}
	for _, p := range peers {
		c := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Key)}
		if p.Endpoint.IsValid() {
			c.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
		}
		for _, ip := range p.AllowedIPs {
			c.AllowedIPs = append(c.AllowedIPs, net.IPNet{IP: ip.Addr().AsSlice(), Mask: net.CIDRMask(ip.Bits(), ip.Addr().BitLen())})
		}
		config.Peers = append(config.Peers, c)
	}
	ok(t, d.wg.ConfigureDevice(d.wireguardName(), config))
}

// The kernel answers today as it did when it was recorded.
func TestRecordings(t *testing.T) {
	d := newDevices(t).(*devices)
	nothing := func(int) {}
	private := wgtypes.Key(devicePrivate)
	ok(t, d.wg.ConfigureDevice("wgtest", wgtypes.Config{PrivateKey: &private}))

	setPeers(t, d, fewPeers)
	few := show("few", recordPeers(t, d, nothing))
	checkPeers(t, few, fewPeers)
	port, err := strconv.Atoi(sh(t, "wg show wgtest listen-port"))
	ok(t, err)
	checkGateway(t, few, Gateway{Key: address.Key(private.PublicKey()), Port: uint16(port)})
	setPeers(t, d, splitPeers)
	checkPeers(t, show("split", recordPeers(t, d, nothing)), splitPeers)

	// As the first peer grows, the second one's allowed IP is pushed out of the
	// first message before the second itself is.
	n, bare := 0, recording{}
	for n == 0 || len(lastPeer(firstPeers(t, bare)).AllowedIPs) > 0 {
		n++
		setPeers(t, d, barePeers(n))
		bare = recordPeers(t, d, nothing)
	}
	checkBare(t, bare)
	checkPeers(t, show("bare", bare), barePeers(n))

	setPeers(t, d, manyPeers())
	checkInterruption(t, show("interrupted", recordPeers(t, d, func(n int) {
		if n == 1 { // the second is made already, and its last peer is one of these
			ok(t, d.RemovePeers(keysOf(manyPeers()[25:])))
		}
	})))

	gone := *d
	gone.wireguard = &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Index: 1 << 30}}
	checkEnd(t, show("gone", recordPeers(t, &gone, nothing)), unix.NLMSG_ERROR, unix.ENODEV)

	setPeers(t, d, nil)
	sh(t, `wg genkey > other && ip link add wgother type wireguard && ip link set wgother up
		wg set wgtest listen-port 1111 peer $(wg pubkey < other) allowed-ips fe80::1/128
		wg set wgother private-key other peer $(wg show wgtest public-key) endpoint 127.0.0.1:1111 persistent-keepalive 1 allowed-ips ::/0
		until [ "$(wg show wgtest transfer | cut -f 2)" -gt 0 ]; do sleep 0.1; done
		ip link del wgother`)
	handshake := show("handshake", recordPeers(t, d, nothing))
	peers, interrupted, err := handshake.peers()
	ok(t, err)
	if interrupted || len(peers) != 1 {
		t.Fatalf("interrupted %v, peers %+v", interrupted, peers)
	}
	p := peers[0]
	got := fmt.Sprintf("%s %s %d %d %d", p.Key, p.Endpoint, p.LastHandshake.Unix(), p.Received, p.Sent)
	if want := sh(t, "wg show wgtest dump | awk 'NF == 8 { print $1, $3, $5, $6, $7 }'"); got != want {
		t.Errorf("after a handshake: got %s, want %s", got, want)
	}

	ok(t, d.wg.ConfigureDevice("wgtest", wgtypes.Config{PrivateKey: &wgtypes.Key{}, ReplacePeers: true}))
	none := show("none", recordPeers(t, d, nothing))
	checkPeers(t, none, nil)
	checkGateway(t, none, Gateway{Port: 1111})

	sh(t, `ip link add vxrec type vxlan id 97 local fe80::1 remote fe80::77 dev wgtest dstport 8473
		ip link add brrec type bridge && ip link set vxrec master brrec
		bridge fdb append 00:00:00:00:00:00 dev vxrec dst fe80::a via wgtest
		bridge fdb append 00:00:00:00:00:00 dev vxrec dst fd00::1 port 99 vni 98
		bridge fdb add 02:01:02:03:04:05 dev vxrec dst fe80::a via wgtest
		bridge fdb add 02:01:02:03:04:06 dev vxrec dst fe80::b via wgtest dynamic
		bridge fdb add 02:01:02:03:04:07 dev vxrec master`)
	defer sh(t, "ip link del brrec; ip link del vxrec")
	opened, err := Open("wgtest", "vxrec")
	ok(t, err)
	defer opened.Close()
	d = opened.(*devices)
	checkEntries(t, show("fdb", recordEntries(t, d, d.entriesRequest())), d.Index().WireGuard)
	wrong := nl.NewRtAttr(unix.IFLA_MASTER, []byte{1}) // one byte is no index
	checkEnd(t, show("fdb-error", recordEntries(t, d, d.entriesRequest(wrong))), unix.NLMSG_DONE, unix.EINVAL)
	if *printRecordings {
		fmt.Printf("RECORD handshake: %+v, in nanoseconds %d; fdb: via %d\n", p, p.LastHandshake.UnixNano(), d.Index().WireGuard)
	}
}

func keysOf(peers []policy.Peer) (keys []address.Key) {
	for _, p := range peers {
		keys = append(keys, p.Key)
	}
	return keys
}
