package gateways

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStats(t *testing.T) {
	want := Stats{
		At: time.Hour, Connected: true, Received: map[Result]uint64{"OK": 3, ResultOwn: 1 << 40}, Sent: 7, Waiting: 2,
		Oldest: time.Date(2026, 11, 27, 12, 0, 0, 5, time.UTC), Unsent: 9,
	}
	good := string(want.Text())
	if got, err := ParseStats([]byte(good)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "{}", good + good, strings.Replace(good, ":1,", ":2,", 1), strings.Replace(good, "Sent", "Send", 1), strings.Replace(good, ":7", ":-7", 1)} {
		if got, err := ParseStats([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
	all := Stats{At: 1 << 62, Received: map[Result]uint64{}, Sent: 1 << 63, Oldest: time.Now()}
	for _, r := range Results {
		all.Received[r] = 1 << 63
	}
	if n := len(all.Text()); n > MaxStatsSize || len(all.Received) != len(Results) {
		t.Errorf("%d bytes, %d results", n, len(all.Received))
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add(Stats{At: 1, Received: map[Result]uint64{"OK": 3}}.Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseStats(text)
		if err != nil {
			return
		}
		if back, err := ParseStats(s.Text()); err != nil || back.Waiting != s.Waiting || !back.Oldest.Equal(s.Oldest) {
			t.Errorf("%s reads as %+v, which reads as %+v, %v", text, s, back, err)
		}
	})
}
