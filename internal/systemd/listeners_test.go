package systemd

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Lines of a little-endian machine.
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 20480 1 0000000000000000 100 0 0 10 0
   1: 00000000:271D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1719 1 0000000000000000 100 0 0 10 0
   2: 0100007F:A1B2 0100007F:271D 01 00000000:00000000 00:00000000 00000000     0        0 1720 1 0000000000000000 20 4 30 10 -1
`

const table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:271C 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1718 1 0000000080c021da 100 0 0 10 0
   1: B80D0120000000000000000001000000:271E 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1721 1 0000000080c021da 100 0 0 10 0
`

func TestParseTable(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables are of a little-endian machine")
	}
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		text string
		want []Listener
	}{
		{"", nil},
		{table, []Listener{{Addr: at("127.0.0.1:53"), Inode: 20480}, {Addr: at("0.0.0.0:10013"), Inode: 1719}}},
		{table6, []Listener{{Addr: at("[::]:10012"), Inode: 1718}, {Addr: at("[2001:db8::1]:10014"), Inode: 1721}}},
	} {
		got, err := parseTable(c.text)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("got %v, %v, want %v", got, err, c.want)
		}
	}
	for _, line := range []string{
		"0: 0100007:0035 0:0 0A 0 0 0 0 0 1",
		"0: 0100:0035 0:0 0A 0 0 0 0 0 1",
		"0: 0100007F:10035 0:0 0A 0 0 0 0 0 1",
		"0: 0100007F 0:0 0A 0 0 0 0 0 1",
		"0: 0100007F:0035 0:0 0A 0 0 0 0 0 x",
	} {
		if got, err := parseTable(line); err == nil {
			t.Errorf("%q: got %v", line, got)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(table)
	f.Add(table6)
	f.Fuzz(func(t *testing.T, text string) {
		listeners, err := parseTable(text)
		if err != nil && listeners != nil {
			t.Errorf("%v and %v", listeners, err)
		}
		for _, l := range listeners {
			if !l.Addr.IsValid() {
				t.Errorf("invalid %v", l)
			}
		}
	})
}

// The tables of the running kernel have the listener that this test opens, and
// this process is its owner.
func TestOwnListener(t *testing.T) {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	var list []Listener
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		some, err := parseTable(string(data))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, some...)
	}
	i := slices.IndexFunc(list, func(l Listener) bool { return l.Addr == addr })
	if i < 0 {
		t.Fatalf("%s is not in %v", addr, list)
	}
	if owner := Owner(list[i].Inode); !strings.HasSuffix(owner, " (process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("%s belongs to %q", addr, owner)
	}
	if owner := Owner(0); owner != "" {
		t.Errorf("no socket belongs to %q", owner)
	}
}

func TestParseListen(t *testing.T) {
	for text, want := range map[string]string{
		"[::]:10012": "[::]:10012", "192.0.2.1:10012": "192.0.2.1:10012", "[fe80::1]:10012%eth0": "[fe80::1%eth0]:10012",
	} {
		if got, err := ParseListen(text); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	if got, err := ParseListen("@wgkex-not-configured"); err == nil {
		t.Errorf("got %s", got)
	}
}

func TestClosed(t *testing.T) {
	at := netip.MustParseAddrPort
	listeners := []Listener{
		{Addr: at("[::]:10012"), Systemd: true},
		{Addr: at("192.0.2.1:10013"), Systemd: true},
		{Addr: at("[fe80::1]:10014"), Systemd: true},
		{Addr: at("[::]:10015")}, // somebody else's
	}
	for _, c := range []struct{ listen, want []string }{
		{nil, nil},
		{[]string{"[::]:10012", "/run/wgkex/http.sock"}, nil},
		{[]string{"[::]:10012", "192.0.2.1:10013", "[fe80::1]:10014%eth0"}, nil},
		{[]string{"[::]:10013"}, []string{"[::]:10013"}},
		{[]string{"[::]:10012", "[::]:10015"}, []string{"[::]:10015"}},
		{[]string{"@wgkex-not-configured"}, []string{"@wgkex-not-configured"}},
	} {
		if got := (Unit{Listen: c.listen}).Closed(listeners); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.listen, got, c.want)
		}
	}
}
