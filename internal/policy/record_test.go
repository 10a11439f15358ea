package policy

import (
	"testing"
	"time"

	"wgkex/internal/address"
)

const boot = 24 * time.Hour

var wall = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// at is a reading that takes a second, when the wall clock is ahead by so much.
func at(began, ahead time.Duration) Reading {
	return Reading{Began: began, Ended: began + time.Second, Offset: time.Duration(wall.UnixNano()) + ahead}
}

// said is what the kernel says of a handshake at a time since boot, when the
// wall clock is ahead by so much.
func said(at, ahead time.Duration) time.Time { return wall.Add(at + ahead) }

func TestFollowHandshake(t *testing.T) {
	const last, now = 15 * time.Minute, 30 * time.Minute
	const end = now + time.Second
	const day, min10 = 24 * time.Hour, 10 * time.Minute
	for name, c := range map[string]struct {
		lastAhead, nowAhead time.Duration
		handshake           time.Time
		want                time.Duration
	}{
		"a steady clock":                       {0, 0, said(20*time.Minute, 0), 20 * time.Minute},
		"just before the last reading's end":   {0, 0, said(last, 0), last},
		"while it was read":                    {0, 0, said(end, 0), end},
		"a clock that is ahead all the time":   {day, day, said(20*time.Minute, day), 20 * time.Minute},
		"set a day ahead, then the handshake":  {0, day, said(20*time.Minute, day), 20 * time.Minute},
		"the handshake, then a day ahead":      {0, day, said(20*time.Minute, 0), 20 * time.Minute},
		"set a day back, then the handshake":   {0, -day, said(20*time.Minute, -day), 20 * time.Minute},
		"the handshake, then a day back":       {0, -day, said(20*time.Minute, 0), 20 * time.Minute},
		"ten minutes ahead, which may be both": {0, min10, said(28*time.Minute, min10), 28 * time.Minute},
		"ten minutes back, which may be both":  {0, -min10, said(17*time.Minute, -min10), 17 * time.Minute},
		"the handshake, then ten minutes back": {0, -min10, said(17*time.Minute, 0), 27 * time.Minute},
		"there and back":                       {0, 0, said(20*time.Minute, day), end},
		"back and there":                       {0, 0, said(20*time.Minute, -day), end},
		"slewed by 30 s":                       {0, 30 * time.Second, said(20*time.Minute, 10*time.Second), 20*time.Minute + 10*time.Second},
		"slewed, at the end":                   {0, -30 * time.Second, said(end, -29*time.Second), end},
		"the kernel's own 1970":                {0, 0, time.Unix(5, 0), end},
	} {
		before := Record{Key: key(1), LastHandshake: said(time.Minute, 0), Active: time.Minute, Registered: time.Second, Marked: 3}
		p := peer(address.RFC4291, key(1))
		p.LastHandshake = c.handshake
		got := Follow(&before, p, address.RFC4291, at(last, c.lastAhead), at(now, c.nowAhead))
		want := Record{Key: key(1), Kind: Managed, LastHandshake: c.handshake, Active: c.want, Registered: time.Second, Marked: 3}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestFollow(t *testing.T) {
	const last, now = 15 * time.Minute, 30 * time.Minute
	handshake := said(20*time.Minute, 0)
	with := func(at time.Time) Peer {
		p := peer(address.RFC4291, key(1))
		p.LastHandshake = at
		return p
	}
	record := func(at time.Time, active, registered, marked time.Duration) Record {
		return Record{Key: key(1), Kind: Managed, LastHandshake: at, Active: active, Registered: registered, Marked: marked}
	}
	none := time.Time{}
	known := record(handshake, 20*time.Minute, 5, 6)
	for name, c := range map[string]struct {
		before *Record
		last   Reading
		peer   Peer
		ahead  time.Duration
		want   Record
	}{
		"the same handshake":               {&known, at(last, 0), with(handshake), 0, known},
		"the same, the clock was set":      {&known, at(last, 0), with(handshake), 48 * time.Hour, known},
		"pending still":                    {new(record(none, 0, 5, 6)), at(last, 0), with(none), 0, record(none, 0, 5, 6)},
		"reset by others":                  {&known, at(last, 0), with(none), 0, record(none, 0, now, 6)},
		"new and pending":                  {nil, at(last, 0), with(none), 0, record(none, 0, now, 0)},
		"new and connected":                {nil, at(last, 0), with(handshake), 0, record(handshake, 20*time.Minute, now, 0)},
		"never read before":                {nil, Reading{}, with(handshake), 0, record(handshake, now+time.Second, now, 0)},
		"registered after the reading":     {new(record(none, 0, 25*time.Minute, 0)), at(last, 0), with(said(20*time.Minute, 0)), 0, record(said(20*time.Minute, 0), now+time.Second, 25*time.Minute, 0)},
		"connected after its registration": {new(record(none, 0, 18*time.Minute, 0)), at(last, 0), with(handshake), 0, record(handshake, 20*time.Minute, 18*time.Minute, 0)},
	} {
		if got := Follow(c.before, c.peer, address.RFC4291, c.last, at(now, c.ahead)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// Whatever is done to the wall clock between two readings and a handshake, the
// handshake is never taken for earlier than it was.
func FuzzFollow(f *testing.F) {
	f.Add(int64(900), int64(900), int64(100), int64(0), int64(0))
	f.Add(int64(900), int64(900), int64(899), int64(86400), int64(-86400))
	f.Add(int64(60), int64(900), int64(30), int64(-600), int64(3))
	f.Fuzz(func(t *testing.T, lastAt, between, after, ahead, step int64) {
		const most = 1 << 30
		for _, n := range []int64{lastAt, between, after, ahead, step} {
			if n < -most || n > most {
				t.Skip("no such time")
			}
		}
		if lastAt < 1 || between < 1 || after < 0 || after > between {
			t.Skip("not in order")
		}
		second := func(n int64) time.Duration { return time.Duration(n) * time.Second }
		last := at(second(lastAt), second(ahead))
		now := at(second(lastAt+between), second(ahead+step))
		truth := second(lastAt + after)
		// The clock is set once, before or after the handshake.
		for _, handshake := range []time.Time{said(truth, second(ahead)), said(truth, second(ahead+step))} {
			p := peer(address.RFC4291, key(1))
			p.LastHandshake = handshake
			r := Follow(nil, p, address.RFC4291, last, now)
			if r.Active < truth || r.Active > now.Ended {
				t.Errorf("a handshake at %s counts as one at %s, read until %s", truth, r.Active, now.Ended)
			}
		}
	})
}

func TestStep(t *testing.T) {
	last := at(15*time.Minute, 0)
	for ahead, want := range map[time.Duration]bool{
		0: false, time.Second: false, 75 * time.Second: false, -75 * time.Second: false,
		10 * time.Minute: true, -10 * time.Minute: true, 24 * time.Hour: true,
	} {
		got := at(30*time.Minute, ahead).Step(last)
		if want && got != ahead || !want && got != 0 {
			t.Errorf("ahead by %s: a step of %s", ahead, got)
		}
	}
}

func TestStates(t *testing.T) {
	active := func(ago time.Duration) Record {
		return Record{Kind: Managed, LastHandshake: wall, Active: boot - ago}
	}
	for name, c := range map[string]struct {
		record  Record
		want    State
		stale   bool
		overdue bool
	}{
		"now":               {active(0), StateLive, false, false},
		"nearly silent":     {active(LiveFor - 1), StateLive, false, false},
		"silent":            {active(LiveFor), StateIdle, false, false},
		"nearly stale":      {active(time.Hour), StateIdle, false, false},
		"stale":             {active(time.Hour + 1), StateStale, true, false},
		"new":               {Record{Kind: Managed, Registered: boot - PendingFor + 1}, StatePending, true, false},
		"overdue":           {Record{Kind: Managed, Registered: boot - PendingFor}, StatePending, true, true},
		"static":            {Record{Kind: Static, LastHandshake: wall, Active: boot}, StateStatic, false, false},
		"static and silent": {Record{Kind: Static}, StateStatic, true, false},
		"left over":         {Record{Kind: LeftOver}, StateLeftOver, true, false},
	} {
		if got := c.record.State(boot, time.Hour); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := c.record.Stale(boot, time.Hour); got != c.stale {
			t.Errorf("%s: stale %v", name, got)
		}
		if got := c.record.Overdue(boot); got != c.overdue {
			t.Errorf("%s: overdue %v", name, got)
		}
	}
}

func TestMarkedFor(t *testing.T) {
	for name, c := range map[string]struct {
		record Record
		want   time.Duration
	}{
		"no mark":               {Record{}, -1},
		"a mark":                {Record{Marked: boot - 5, Registered: 1, Active: 2}, 5},
		"just now":              {Record{Marked: boot}, 0},
		"registered with it":    {Record{Marked: boot - 5, Registered: boot - 5}, 5},
		"registered since":      {Record{Marked: boot - 5, Registered: boot - 4}, -1},
		"a handshake since":     {Record{Marked: boot - 5, Active: boot - 4}, -1},
		"a handshake just then": {Record{Marked: boot - 5, Active: boot - 5}, 5},
	} {
		if got := c.record.MarkedFor(boot); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestSame(t *testing.T) {
	r := Record{Key: key(1), Kind: Managed, LastHandshake: wall, Active: 1, Registered: 2, Marked: 3}
	if !r.Same(r) {
		t.Error("a record is not the same as itself")
	}
	for what, change := range map[string]func(*Record){
		"another key":       func(o *Record) { o.Key = key(2) },
		"static now":        func(o *Record) { o.Kind = Static },
		"another handshake": func(o *Record) { o.LastHandshake = wall.Add(1) },
		"registered anew":   func(o *Record) { o.Registered = 4 },
		"another mark":      func(o *Record) { o.Marked = 0 },
	} {
		other := r
		change(&other)
		if r.Same(other) {
			t.Errorf("%s: the same", what)
		}
	}
}
