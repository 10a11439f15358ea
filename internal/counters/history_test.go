package counters

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"wgkex/internal/outcome"
)

type totals = map[outcome.Code]uint64

func TestHistoryText(t *testing.T) {
	h := History{{At: time.Hour, Totals: totals{}}, {At: 2 * time.Hour, Totals: totals{outcome.Busy: 2, outcome.OK: 1 << 63}}}
	const text = "wgkex-history 1\n3600\n7200 OK 9223372036854775808 BUSY 2\n"
	if got := string(h.Text()); got != text {
		t.Errorf("got %q", got)
	}
	if got, err := ParseHistory([]byte(text)); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ParseHistory(History(nil).Text()); err != nil || len(got) != 0 {
		t.Errorf("of none: %v, %v", got, err)
	}
}

// What was cut or made by others is no history.
func TestHistoryHostile(t *testing.T) {
	var long strings.Builder
	long.WriteString(historyHead)
	for i := range maxEntries + 1 {
		fmt.Fprintf(&long, "%d\n", i)
	}
	for name, text := range map[string]string{
		"nothing": "", "another version": "wgkex-history 2\n", "cut": historyHead + "3600 OK 1\n7200 OK",
		"no time": historyHead + "OK 1\n", "no number": historyHead + "1 OK x\n", "half a pair": historyHead + "1 OK\n",
		"no code": historyHead + "1 NOSUCH 1\n", "twice": historyHead + "1 OK 1 OK 2\n", "backwards": historyHead + "2\n1\n", "the same time": historyHead + "2\n2\n",
		"for ever": historyHead + "18446744073709551615\n", "negative": historyHead + "-1\n", "an empty line": historyHead + "\n",
		"a huge file": historyHead + strings.Repeat("x", MaxHistory), "too many": long.String(), "a zero": historyHead + "1 OK 0\n",
	} {
		if got, err := ParseHistory([]byte(text)); !errors.Is(err, ErrNoHistory) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte(historyHead+"3600 OK 1\n7200 OK 2 BUSY 3\n"), int64(8000))
	f.Add([]byte(historyHead+"8589934592\n"), int64(1))
	f.Fuzz(func(t *testing.T, text []byte, seconds int64) {
		h, err := ParseHistory(text)
		if err != nil {
			return
		}
		if again, err := ParseHistory(h.Text()); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%q reads back as %v, %v", h.Text(), again, err)
		}
		now := time.Duration(uint64(seconds)%maxUptime) * time.Second
		series, known := h.Series(now, totals{outcome.OK: 5}, 24)
		if known < 0 || known > HistorySpan {
			t.Errorf("known for %s", known)
		}
		for code, counts := range series {
			if len(counts) != 24 {
				t.Errorf("%s has %d parts", code, len(counts))
			}
		}
		longer := h.Add(now, totals{outcome.OK: 5})
		if again, err := ParseHistory(longer.Text()); err != nil || !bytes.Equal(again.Text(), longer.Text()) {
			t.Errorf("with one more %q, %v", longer.Text(), err)
		}
	})
}

// A week of runs fills no more than a day of entries, however often somebody runs a
// cleanup by hand, and the oldest one still tells how far the counters were a day ago.
func TestHistoryBounded(t *testing.T) {
	for _, step := range []time.Duration{time.Second * 7, 14 * time.Minute, 17 * time.Minute} {
		var h History
		var now time.Duration
		for now = 0; now < 4*HistorySpan; now += step {
			h = h.Add(now, totals{outcome.OK: uint64(now)})
			if len(h) > maxEntries {
				t.Fatalf("each %s: %d entries", step, len(h))
			}
		}
		if span := h[len(h)-1].At - h[0].At; span < HistorySpan-historyStep || span > HistorySpan+20*time.Minute {
			t.Errorf("each %s: %s in %d entries", step, span, len(h))
		}
		if n := len(h.Text()); n > MaxHistory {
			t.Errorf("%d bytes", n)
		}
	}
	full := make(History, maxEntries)
	for i := range full {
		full[i] = Entry{At: time.Duration(maxUptime+i-maxEntries) * time.Second, Totals: totals{}}
		for _, code := range outcome.Codes {
			full[i].Totals[code] = 1<<64 - 1
		}
	}
	if got, err := ParseHistory(full.Text()); err != nil || len(got) != maxEntries {
		t.Errorf("the longest file of %d bytes: %v", len(full.Text()), err)
	}
}

func TestHistorySeries(t *testing.T) {
	const day, now = HistorySpan, 30 * time.Hour
	at := func(hours float64, counts totals) Entry {
		return Entry{At: time.Duration(hours * float64(time.Hour)), Totals: counts}
	}
	ok := func(n uint64) totals { return totals{outcome.OK: n} }
	boot := at(0.25, totals{})
	for _, c := range []struct {
		name  string
		h     History
		at    time.Duration
		now   totals
		want  map[outcome.Code][]uint64
		known time.Duration
	}{
		{"just booted", nil, time.Minute, ok(5), map[outcome.Code][]uint64{outcome.OK: {0, 0, 0, 5}}, time.Minute},
		{"no history", nil, now, ok(5), map[outcome.Code][]uint64{}, 0},
		{"no history until lately", History{at(29, ok(5))}, now, ok(6), map[outcome.Code][]uint64{outcome.OK: {0, 0, 0, 1}}, time.Hour},
		{"nothing came", History{at(1, totals{})}, now, totals{}, map[outcome.Code][]uint64{}, day},
		{"before the day", History{at(1, ok(3)), at(5, ok(7))}, now, ok(7), map[outcome.Code][]uint64{}, day},
		{"in each part", History{at(5, ok(7)), at(7, ok(8)), at(14, ok(10)), at(20, ok(13)), at(29, ok(17))}, now, ok(18), map[outcome.Code][]uint64{outcome.OK: {1, 2, 3, 5}}, day},
		{"another code", History{boot, at(13, ok(7))}, now, totals{outcome.OK: 7, outcome.Busy: 2}, map[outcome.Code][]uint64{outcome.OK: {0, 7, 0, 0}, outcome.Busy: {0, 0, 0, 2}}, day},
		{"began anew", History{boot, at(7, ok(100)), at(13, ok(3))}, now, ok(4), map[outcome.Code][]uint64{outcome.OK: {100, 3, 0, 1}}, day},
		{"gone", History{boot, at(7, ok(100)), at(13, totals{})}, now, ok(4), map[outcome.Code][]uint64{outcome.OK: {100, 0, 0, 4}}, day},
		{"of the future", History{boot, at(13, ok(1)), at(31, ok(100))}, now, ok(4), map[outcome.Code][]uint64{outcome.OK: {0, 1, 0, 3}}, day},
	} {
		if got, known := c.h.Series(c.at, c.now, 4); !reflect.DeepEqual(got, c.want) || known != c.known {
			t.Errorf("%s: got %v for %s, want %v for %s", c.name, got, known, c.want, c.known)
		}
	}
	if h := (History{at(31, ok(1))}).Add(now, ok(2)); len(h) != 1 || h[0].At != now {
		t.Errorf("after another boot %v", h)
	}
}
