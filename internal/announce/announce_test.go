package announce

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/message"
	"wgkex/internal/protocol"
)

func numbered(n int) (k address.Key) {
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	k[20] = 1
	return k
}

func listen(t testing.TB) (*net.UnixConn, string) {
	path := filepath.Join(t.TempDir(), "announce.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

func receive(t *testing.T, conn *net.UnixConn) []message.Key {
	t.Helper()
	buffer := make([]byte, MaxSize+1)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := Parse(buffer[:n])
	if err != nil || n > MaxSize {
		t.Fatalf("%d bytes: %v", n, err)
	}
	return keys
}

func TestSend(t *testing.T) {
	conn, path := listen(t)
	longest := strings.Repeat("d", protocol.MaxLine)
	var keys []address.Key
	var want []message.Key
	for i := range 2*MaxKeys + 1 {
		keys = append(keys, numbered(i))
		want = append(want, message.Key{Domain: longest, Key: numbered(i)})
	}
	Send(path, longest, keys...)
	var got []message.Key
	for _, n := range []int{MaxKeys, MaxKeys, 1} {
		received := receive(t, conn)
		if len(received) != n {
			t.Errorf("%d keys in a datagram, want %d", len(received), n)
		}
		got = append(got, received...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	Send(path, "d", numbered(1))
	if got := receive(t, conn); len(got) != 1 || got[0] != (message.Key{Domain: "d", Key: numbered(1)}) {
		t.Errorf("%v", got)
	}
}

// Nobody waits for a relay that is not there, or that does not listen.
func TestNobodyListens(t *testing.T) {
	Send(filepath.Join(t.TempDir(), "none"), "d", numbered(1))
	conn, path := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 10000 { // more than any queue takes (max_dgram_qlen in unix(7))
			Send(path, "d", numbered(i))
		}
	}()
	<-done
	if got := receive(t, conn); got[0].Key != numbered(0) {
		t.Errorf("%v", got)
	}
	conn.Close()
	Send(path, "d", numbered(1)) // the file is there, nobody has it open
}

func TestParseErrors(t *testing.T) {
	key := numbered(1).String() + "\n"
	for _, text := range []string{
		"", "d", key, "\n" + key, "a/b\n" + key, "d\n" + key[:44], "d\n\n", "d\n" + key + "x\n", "d\n" + key + " \n", "d\r\n" + key,
		"d\n" + strings.Repeat(key, MaxKeys+1), "d\n" + strings.Repeat("A", 43) + "=\n",
	} {
		if keys, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, keys)
		}
	}
	if keys, err := Parse([]byte("d\n")); err != nil || len(keys) != 0 {
		t.Errorf("no keys: %v, %v", keys, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text("ffww01", []address.Key{numbered(1), numbered(2)}))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		keys, err := Parse(datagram)
		if err != nil || len(keys) == 0 {
			return
		}
		plain := make([]address.Key, len(keys))
		for i, k := range keys {
			plain[i] = k.Key
		}
		if again := text(keys[0].Domain, plain); string(again) != string(datagram) {
			t.Errorf("%q was written as %q", datagram, again)
		}
	})
}

// What a handler pays where there is no relay.
func BenchmarkNobody(b *testing.B) {
	path := filepath.Join(b.TempDir(), "none")
	for b.Loop() {
		Send(path, "d", numbered(1))
	}
}

func BenchmarkSend(b *testing.B) {
	conn, path := listen(b)
	go func() {
		buffer := make([]byte, MaxSize)
		for {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		Send(path, "d", numbered(1))
	}
}
