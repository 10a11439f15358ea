package relay

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/message"
)

func key(n int) (k address.Key) {
	binary.LittleEndian.PutUint32(k[:], uint32(n))
	k[20] = 1
	return k
}

func numbered(n int) message.Key { return message.Key{Domain: "d", Key: key(n)} }

func open(t testing.TB, path string) *ledger {
	t.Helper()
	l, err := openLedger(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() })
	return l
}

func (l *ledger) knows(k message.Key) bool {
	_, ok := l.known[k]
	return ok
}

// What was noted is there after a relay was killed, and nothing else.
func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	for _, n := range []int{3, 1, 4, 5, 9, 2} {
		l.note(heard, numbered(n))
	}
	l.note(added, numbered(4))
	l.note(dropped, numbered(1))
	l.note(told, numbered(6))
	l.note(told, numbered(6))
	l.note(heard, numbered(3)) // it keeps its place
	check := func(what string, l *ledger) {
		t.Helper()
		want := []message.Key{numbered(3), numbered(5), numbered(9), numbered(2)}
		if got := l.inOrder(); !slices.Equal(got, want) {
			t.Errorf("%s: %v wait, want %v", what, got, want)
		}
		for n, known := range []bool{6: true, 4: true, 9: false} {
			if l.knows(numbered(n)) != known {
				t.Errorf("%s: %d is known: %v", what, n, !known)
			}
		}
	}
	check("at first", l)
	again := open(t, path) // without a close
	check("once more", again)
	if _, err := again.file.WriteString("heard d " + key(7).String()); err != nil { // cut
		t.Fatal(err)
	}
	third := open(t, path)
	check("after a cut line", third)
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "\n") != 7 || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestLedgerForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	for _, text := range []string{"", "wgkex-relay 2\n", "\x00\x01", "told d " + key(1).String() + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var failed []error
		l, err := openLedger(path, func(err error) { failed = append(failed, err) })
		if err != nil || len(failed) != 1 || len(l.known)+len(l.waiting) != 0 {
			t.Errorf("%q: %v, %v, %+v", text, err, failed, l)
			continue
		}
		l.note(told, numbered(1))
		_ = l.close()
		if !open(t, path).knows(numbered(1)) {
			t.Errorf("%q: the new one is not kept", text)
		}
	}
	// Lines that are none are left out.
	text := ledgerHeader + "told d x\ntold ../d " + key(1).String() + "\nnothing d " + key(2).String() + "\n\ntold d " + key(3).String() + "\n" + strings.Repeat("x", 10000) + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := open(t, path); len(l.known) != 1 || !l.knows(numbered(3)) {
		t.Errorf("%v", l.known)
	}
}

// The file does not grow with what happens, only with what there is.
func TestLedgerSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	for i := range 3 * spareLines {
		l.note(heard, numbered(i%10))
		l.note(added, numbered(i%10))
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "\n") > spareLines+20 {
		t.Errorf("%d lines, %v", strings.Count(string(text), "\n"), err)
	}
	if got := open(t, path).known; len(got) != 10 {
		t.Errorf("%d keys", len(got))
	}
}

func TestLedgerBound(t *testing.T) {
	l := &ledger{known: map[message.Key]mark{}, waiting: map[message.Key]uint64{}}
	for i := range maxKnown + 1 {
		l.apply(told, numbered(i))
		l.apply(heard, numbered(i))
	}
	if len(l.known) != maxKnown || len(l.waiting) != maxWaiting || l.knows(numbered(maxKnown)) {
		t.Errorf("%d known, %d waiting", len(l.known), len(l.waiting))
	}
}

func TestCompare(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger"))
	other := message.Key{Domain: "e", Key: key(1)}
	l.note(told, numbered(1))
	l.note(told, numbered(2)) // no peer any more
	l.note(told, other)
	l.note(heard, numbered(3)) // waits
	begun := l.begin()
	l.note(told, numbered(4)) // after the peers were read
	got := l.compare(begun, "d", []address.Key{key(1), key(3), key(5), key(6)})
	if want := []message.Key{numbered(5), numbered(6)}; !slices.Equal(got, want) {
		t.Errorf("unknown are %v, want %v", got, want)
	}
	if want := map[message.Key]mark{numbered(1): {1, true}, numbered(4): {1, true}, other: {0, true}}; !reflect.DeepEqual(l.known, want) {
		t.Errorf("known are %v, want %v", l.known, want)
	}
	l.forget(func(domain string) bool { return domain == "d" })
	if l.knows(other) || !l.knows(numbered(1)) {
		t.Errorf("known are %v", l.known)
	}
}

// Where nothing can be written, the relay goes on.
func TestLedgerFails(t *testing.T) {
	var failed []error
	l, err := openLedger(filepath.Join(t.TempDir(), "ledger"), func(err error) { failed = append(failed, err) })
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	l.note(told, numbered(1))
	if len(failed) != 1 || !l.knows(numbered(1)) {
		t.Errorf("%v, %v", failed, l.known)
	}
}

// A disk that was full for a time costs nothing: not what could be written, and not what
// came before there was room again.
func TestLedgerMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger")
		// The file in whose place a new one is written cannot be made.
		full := filepath.Join(filepath.Dir(path), ".ledger.new", "x")
		fill := func() {
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		empty := func() {
			if err := os.RemoveAll(filepath.Dir(full)); err != nil {
				t.Fatal(err)
			}
		}
		var failed int
		reopened := func(want ...int) *ledger {
			t.Helper()
			l, err := openLedger(path, func(error) { failed++ })
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range want {
				if _, waits := l.waiting[numbered(n)]; !waits {
					t.Errorf("%d does not wait", n)
				}
			}
			return l
		}
		fill()
		l := reopened()
		if failed != 1 || l.file != nil {
			t.Errorf("%d failures, file %v", failed, l.file)
		}
		l.note(heard, numbered(1))
		l.mend() // too early
		empty()
		time.Sleep(mendEvery)
		l.mend()
		l = reopened(1)

		// The old file is in use until there is a new one.
		l.note(told, numbered(2))
		fill()
		failed = 0
		l.doubt()
		l.note(heard, numbered(3))
		if failed != 1 {
			t.Errorf("%d failures", failed)
		}
		empty()
		l = reopened(1, 3)

		// A line that was cut does not take the next one with it.
		if _, err := l.file.WriteString("heard d AAAA"); err != nil {
			t.Fatal(err)
		}
		l.cut = true
		l.note(heard, numbered(4))
		l = reopened(1, 3, 4)

		// What was forgotten does not come back, be the relay killed or not.
		l.note(told, numbered(5))
		l.note(told, numbered(6))
		l.compare(l.begin(), "d", []address.Key{key(6)})
		time.Sleep(mendEvery)
		l.mend()
		l = reopened(1, 3, 4)
		if l.knows(numbered(5)) || !l.knows(numbered(6)) {
			t.Errorf("known are %v", l.known)
		}
		l.compare(l.begin(), "d", nil)
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if l = reopened(1, 3, 4); len(l.known) != 0 {
			t.Errorf("known are %v", l.known)
		}
	})
}

func FuzzLedger(f *testing.F) {
	f.Add("told d " + key(1).String() + "\nheard d " + key(2).String() + "\nadded d " + key(2).String() + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "ledger")
		if err := os.WriteFile(path, []byte(ledgerHeader+text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, path)
		again := open(t, path)
		if fmt.Sprint(l.inOrder()) != fmt.Sprint(again.inOrder()) || len(l.known) != len(again.known) {
			t.Errorf("%q: %v and %v, then %v and %v", text, l.known, l.inOrder(), again.known, again.inOrder())
		}
	})
}
