package cleanup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/policy"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is a model kernel with a domain on it, and a clock.
type bench struct {
	*kerneltest.Devices
	t       *testing.T
	dir     string
	now     time.Time
	boot    time.Duration
	removed []address.Key
	warned  []error
	fault   func(n int, method string) (error, bool)
	calls   []string
	Cleanup
}

func newBench(t *testing.T) *bench {
	b := &bench{
		Devices: &kerneltest.Devices{Number: kernel.Index{WireGuard: 7, VXLAN: 8}, Key: address.Key{1}},
		t:       t, dir: t.TempDir(), now: start, boot: time.Hour,
	}
	b.Cleanup = Cleanup{
		Domain: config.Domain{Name: "d"},
		Host: domain.Host{
			Dir: b.dir,
			Devices: func(string, string) (kernel.Devices, error) {
				if b.fault == nil {
					return b.Devices, nil
				}
				return &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
					b.calls = append(b.calls, method)
					return b.fault(len(b.calls)-1, method)
				}}, nil
			},
			Now:       func() time.Time { return b.now },
			SinceBoot: func() time.Duration { return b.boot },
		},
		Path: filepath.Join(b.dir, "marks.json"), BootID: "boot1", StaleAfter: time.Hour, MarkAge: MarkAge,
		Removed: func(p policy.Peer) { b.removed = append(b.removed, p.Key) },
		Warn:    func(err error) { b.warned = append(b.warned, err) },
	}
	return b
}

func key(n int) address.Key { return address.Key{29: byte(n >> 16), 30: byte(n >> 8), 31: byte(n)} }

// router adds a managed peer with both FDB entries, whose last handshake was
// age before start; a negative age is none.
func (b *bench) router(k address.Key, age time.Duration) {
	mac, addr := address.RFC4291.Of(k)
	p := policy.Peer{Key: k, AllowedIPs: []netip.Prefix{netip.PrefixFrom(addr, 128)}}
	if age >= 0 {
		p.LastHandshake = start.Add(-age)
	}
	b.PeerList = append(b.PeerList, p)
	if err := errors.Join(b.SetEntry(mac, addr), b.SetEntry(kernel.Flood, addr)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) static(k address.Key, prefixes ...string) {
	p := policy.Peer{Key: k}
	for _, s := range prefixes {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(s))
	}
	b.PeerList = append(b.PeerList, p)
}

func (b *bench) pass(d time.Duration) { b.now, b.boot = b.now.Add(d), b.boot+d }

func (b *bench) run(want Report) {
	b.t.Helper()
	got, err := b.Run()
	if err != nil {
		b.t.Error(err)
	}
	if got != want {
		b.t.Errorf("got %+v, want %+v", got, want)
	}
}

// consistent checks that every managed peer has both FDB entries, and that
// there are no others.
func (b *bench) consistent() {
	b.t.Helper()
	want := map[kernel.Entry]bool{}
	for _, p := range b.PeerList {
		if p.Managed(address.RFC4291) {
			mac, addr := address.RFC4291.Of(p.Key)
			want[kernel.Entry{MAC: mac, Dst: addr, Via: 7, Permanent: true}] = true
			want[kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: 7, Permanent: true}] = true
		}
	}
	for _, e := range b.FDB {
		if !want[e] {
			b.t.Errorf("entry %+v without a peer", e)
		}
		delete(want, e)
	}
	for e := range want {
		b.t.Errorf("entry %+v is missing", e)
	}
}

func TestStalePeersGoInTheSecondRun(t *testing.T) {
	b := newBench(t)
	b.router(key(1), time.Minute)
	b.router(key(2), 2*time.Hour)
	b.router(key(3), -1)
	b.static(key(4), "fd00::/64")
	b.static(key(5))
	b.run(Report{Seen: 3, Static: 2, Live: 1, Marked: 2})
	b.pass(time.Second)
	b.run(Report{Seen: 3, Static: 2, Live: 1}) // a second later: nobody
	b.pass(MarkAge - time.Second - 1)
	b.run(Report{Seen: 3, Static: 2, Live: 1})
	b.pass(1)
	b.run(Report{Seen: 3, Static: 2, Live: 1, Removed: 2})
	if !slices.Equal(b.removed, []address.Key{key(2), key(3)}) {
		t.Errorf("removed %v", b.removed)
	}
	b.consistent()
	b.pass(time.Minute)
	b.run(Report{Seen: 1, Static: 2, Live: 1})
	if data, _ := os.ReadFile(b.Path); strings.Contains(string(data), key(2).String()) {
		t.Errorf("marks of removed peers are left: %s", data)
	}
	if d, err := b.Host.Open(t.Context(), b.Domain); err != nil {
		t.Error(err)
	} else if s, ok := d.Snapshot(); !ok || s.Counts != (policy.Counts{Peers: 1}) || len(s.Static) != 2 {
		t.Errorf("the snapshot is %+v", s)
	}
}

func TestHandshakeBetweenSaves(t *testing.T) {
	b := newBench(t)
	b.router(key(1), 2*time.Hour)
	b.router(key(2), -1)
	b.router(key(3), 2*time.Hour)
	b.run(Report{Seen: 3, Marked: 3})
	b.pass(MarkAge)
	b.PeerList[0].LastHandshake = b.now.Add(-time.Minute)
	b.PeerList[1].LastHandshake = b.now.Add(24 * time.Hour) // the clock was set back since
	b.PeerList[2].LastHandshake = time.Time{}               // an exchange reset it
	b.run(Report{Seen: 3, Live: 2, Unmarked: 2, Marked: 1})
	b.pass(MarkAge)
	b.run(Report{Seen: 3, Live: 2, Removed: 1})
	b.consistent()
}

// A peer that was removed and registered again is not held to its old mark.
func TestRemovedAndBack(t *testing.T) {
	b := newBench(t)
	b.router(key(1), -1)
	b.run(Report{Seen: 1, Marked: 1})
	b.pass(MarkAge)
	b.run(Report{Seen: 1, Removed: 1})
	b.router(key(1), -1)
	b.pass(time.Second)
	b.run(Report{Seen: 1, Marked: 1})
}

func TestRebootForgetsMarks(t *testing.T) {
	b := newBench(t)
	b.router(key(1), -1)
	b.run(Report{Seen: 1, Marked: 1})
	b.BootID, b.boot = "boot2", time.Hour+MarkAge
	b.run(Report{Seen: 1, Marked: 1})
	// A mark from after now can only be of another clock.
	b.boot = time.Minute
	b.run(Report{Seen: 1, Marked: 1})
}

func TestMarksThatCannotBeRead(t *testing.T) {
	good := fmt.Sprintf(`{"boot_id":"boot1","marks":{"%s":{"at":1,"last_handshake":"0001-01-01T00:00:00Z"}}}`, key(1))
	for name, c := range map[string]struct {
		text string
		warn bool
		dead bool
	}{
		"good":                {good, false, true},
		"empty":               {"", true, false},
		"truncated":           {good[:len(good)-5], true, false},
		"another boot":        {strings.Replace(good, "boot1", "boot0", 1), false, false},
		"not JSON":            {"\x00\xff", true, false},
		"another type":        {"[]", true, false},
		"marks missing":       {`{"boot_id":"boot1"}`, false, false},
		"a hostile key":       {`{"boot_id":"boot1","marks":{"../x":{"at":1}}}`, true, false},
		"from the far future": {strings.Replace(good, `"at":1`, `"at":9000000000000000000`, 1), false, false},
		"a huge number":       {strings.Replace(good, `"at":1`, `"at":1e99`, 1), true, false},
	} {
		b := newBench(t)
		b.router(key(1), -1)
		if err := os.WriteFile(b.Path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if (len(b.warned) > 0) != c.warn {
			t.Errorf("%s: warned of %v", name, b.warned)
		}
		if (len(b.removed) > 0) != c.dead {
			t.Errorf("%s: removed %v", name, b.removed)
		}
		if b.pass(MarkAge); len(b.PeerList) > 0 {
			b.run(Report{Seen: 1, Removed: 1})
		}
	}
	// And no file that was made to block or to fill the memory.
	b := newBench(t)
	b.router(key(1), -1)
	if err := syscall.Mkfifo(b.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(Report{Seen: 1, Marked: 1})
	if len(b.warned) != 1 {
		t.Errorf("warned of %v", b.warned)
	}
}

func TestMarksThatCannotBeWritten(t *testing.T) {
	b := newBench(t)
	b.router(key(1), -1)
	b.run(Report{Seen: 1, Marked: 1})
	b.pass(MarkAge)
	good := b.Path
	b.Path = filepath.Join(b.dir, "none", "marks.json") // as with a full disk: nothing can be created
	for range 2 {
		if r, err := b.Run(); err == nil || r.Removed > 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if len(b.PeerList) != 1 {
		t.Error("a peer was removed")
	}
	b.Path = good
	b.run(Report{Seen: 1, Removed: 1})
}

func TestMend(t *testing.T) {
	b := newBench(t)
	b.router(key(1), 0)
	b.router(key(2), 0)
	b.router(key(3), 0)
	_, gone := address.RFC4291.Of(key(4))
	b.static(key(5), "fd00::/64")
	_, static := address.RFC4291.Of(key(5))
	b.static(key(6), "fe80::99/128")
	learned := address.MAC{0x52, 1}
	foreign := []kernel.Entry{
		{MAC: kernel.Flood, Dst: static, Via: 7, Permanent: true},                          // of a static peer
		{MAC: kernel.Flood, Dst: netip.MustParseAddr("fe80::99"), Via: 7, Permanent: true}, // likewise
		{MAC: kernel.Flood, Dst: netip.MustParseAddr("fd00::1"), Permanent: true},          // an admin's own
		{MAC: learned, Dst: gone, Via: 7},                                                  // behind a router
	}
	_, addr2 := address.RFC4291.Of(key(2))
	b.FDB = slices.DeleteFunc(b.FDB, func(e kernel.Entry) bool {
		return e.MAC == key(1).MAC() || e.MAC == kernel.Flood && e.Dst == addr2
	})
	b.FDB = append(b.FDB, foreign...)
	b.FDB = append(b.FDB,
		kernel.Entry{MAC: kernel.Flood, Dst: gone, Via: 7, Permanent: true},
		kernel.Entry{MAC: key(4).MAC(), Dst: gone, Via: 7, Permanent: true},
		kernel.Entry{MAC: key(4).MAC(), Dst: gone, Via: 3, Permanent: true}) // of a device that is no more
	dry := b.Cleanup
	dry.DryRun = true
	before := fmt.Sprint(b.FDB)
	if r, err := dry.Run(); err != nil || r != (Report{Seen: 3, Static: 2, Live: 3, Mended: 2, Orphans: 3}) || fmt.Sprint(b.FDB) != before {
		t.Errorf("a dry run: %+v, %v, FDB %v", r, err, b.FDB)
	}
	b.run(Report{Seen: 3, Static: 2, Live: 3, Mended: 2, Orphans: 3})
	for _, e := range foreign {
		if !slices.Contains(b.FDB, e) {
			t.Errorf("%+v was removed", e)
		}
	}
	b.FDB = slices.DeleteFunc(b.FDB, func(e kernel.Entry) bool { return slices.Contains(foreign, e) })
	b.consistent()
}

func TestDryRun(t *testing.T) {
	b := newBench(t)
	b.router(key(1), -1)
	b.run(Report{Seen: 1, Marked: 1})
	b.pass(MarkAge)
	dry := b.Cleanup
	dry.DryRun = true
	before, _ := os.ReadFile(b.Path)
	if r, err := dry.Run(); err != nil || r.Removed != 1 || len(b.PeerList) != 1 {
		t.Errorf("%+v, %v, peers %v", r, err, b.PeerList)
	}
	if after, _ := os.ReadFile(b.Path); string(after) != string(before) {
		t.Error("a dry run wrote the marks")
	}
}

// Many peers go in many batches. A handshake between two of them saves the
// router if it came with an exchange or the reading has grown old.
func TestBatches(t *testing.T) {
	const many = 3*batchSize + 7
	for name, c := range map[string]struct {
		meanwhile func(*bench)
		removed   int
		dumps     int
	}{
		"nothing": {func(*bench) {}, many, 1},
		"an exchange": {func(b *bench) {
			data := fmt.Sprintf(`{"index":{"wireguard":7,"vxlan":8},"static":[],"counts":{"peers":%d,"pending":%[1]d},"written":1}`, many-batchSize)
			if err := os.WriteFile(filepath.Join(b.dir, "d.json"), []byte(data), 0o644); err != nil {
				t.Error(err)
			}
		}, many - 1, 2},
		"time":         {func(b *bench) { b.pass(maxReadingAge + 1) }, many - 1, 2},
		"not too much": {func(b *bench) { b.pass(maxReadingAge) }, many, 1},
	} {
		b := newBench(t)
		for n := range many {
			b.router(key(n+1), -1)
		}
		b.run(Report{Seen: many, Marked: many})
		b.pass(MarkAge)
		last := key(many)
		opened := 0
		devices := b.Host.Devices
		b.Host.Devices = func(w, v string) (kernel.Devices, error) {
			if opened++; opened == 3 { // the survey's, the first batch's, this
				c.meanwhile(b)
				b.Find(last).LastHandshake = b.now
			}
			return devices(w, v)
		}
		b.Dumps = 0
		if r, err := b.Run(); err != nil || r.Removed != c.removed {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if len(b.PeerList) != many-c.removed || c.removed < many && b.PeerList[0].Key != last {
			t.Errorf("%s: left are %v", name, b.PeerList)
		}
		if b.Dumps != c.dumps {
			t.Errorf("%s: %d dumps", name, b.Dumps)
		}
		b.consistent()
	}
}

type killed struct{}

// Every call fails once, before or after it took effect, or the process is
// killed there: the next run finishes the work.
func TestEveryStepFails(t *testing.T) {
	prepare := func() *bench {
		b := newBench(t)
		b.router(key(1), 0)
		for n := range 3 {
			b.router(key(2+n), -1)
		}
		b.run(Report{Seen: 4, Live: 1, Marked: 3})
		b.FDB = b.FDB[1:] // of key(1)
		mac, addr := address.RFC4291.Of(key(9))
		b.FDB = append(b.FDB, kernel.Entry{MAC: mac, Dst: addr, Via: 7, Permanent: true})
		b.pass(MarkAge)
		return b
	}
	b := prepare()
	b.fault = func(int, string) (error, bool) { return nil, false }
	b.run(Report{Seen: 4, Live: 1, Removed: 3, Mended: 1, Orphans: 1})
	steps := b.calls
	if len(steps) < 12 {
		t.Fatalf("only the steps %v", steps)
	}
	for step := range steps {
		for _, how := range []string{"before", "after", "kill"} {
			b := prepare()
			b.fault = func(n int, _ string) (error, bool) {
				if n != step {
					return nil, false
				}
				if how == "kill" {
					panic(killed{})
				}
				return syscall.ENOBUFS, how == "after"
			}
			func() {
				defer func() {
					if e := recover(); e != nil && e != (killed{}) {
						panic(e)
					}
				}()
				if _, err := b.Run(); !errors.Is(err, syscall.ENOBUFS) {
					t.Errorf("%s, %s: %v", steps[step], how, err)
				}
			}()
			for _, p := range b.PeerList {
				if p.Key != key(1) && !slices.ContainsFunc(b.FDB, func(e kernel.Entry) bool { return e.MAC == p.Key.MAC() }) {
					t.Errorf("%s, %s: peer %s is left without its FDB entry", steps[step], how, p.Key)
				}
			}
			b.fault = nil
			if _, err := b.Run(); err != nil {
				t.Errorf("%s, %s: the next run: %v", steps[step], how, err)
			}
			if len(b.PeerList) != 1 {
				t.Errorf("%s, %s: the next run left %d peers", steps[step], how, len(b.PeerList))
			}
			b.consistent()
		}
	}
}

// Whatever the file of marks holds, no peer goes that was not marked in it.
func FuzzMarks(f *testing.F) {
	f.Add([]byte(`{"boot_id":"b","marks":{"` + key(1).String() + `":{"at":1,"last_handshake":"0001-01-01T00:00:00Z"}}}`))
	f.Add([]byte(`{"boot_id":"b","marks":null}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "marks.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		marks, err := readMarks(path, "b")
		if marks == nil || err != nil && len(marks) > 0 {
			t.Errorf("%d marks, nil %v, %v", len(marks), marks == nil, err)
		}
		if err == nil {
			if err := writeMarks(path, "b", marks); err != nil {
				t.Fatal(err)
			}
			if back, err := readMarks(path, "b"); err != nil || len(back) != len(marks) {
				t.Errorf("%v came back as %v, %v", marks, back, err)
			}
		}
	})
}
