package status

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// screen is a terminal and what a Watch is given. Each reading takes as long as took and
// tells its number.
type screen struct {
	strings.Builder
	rows, columns int
	now           time.Time
	took          time.Duration
	readings      int
	err           error
	stopped       int
	broken        error
}

func (s *screen) Write(p []byte) (int, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	return s.Builder.Write(p)
}

func (s *screen) watch() Watch {
	return Watch{
		Out:  s,
		Size: func() (rows, columns int) { return s.rows, s.columns },
		Read: func(context.Context) (Status, error) {
			s.readings++
			s.now = s.now.Add(s.took)
			if s.readings == 1 && s.err != nil {
				return Status{}, s.err
			}
			return Status{Domains: []Domain{{Domain: fmt.Sprintf("reading%d", s.readings)}}}, s.err
		},
		Now:  func() time.Time { return s.now },
		Stop: func() { s.stopped++; s.WriteString("[stopped]") },
	}
}

// run runs a Watch to which each of the events happens after what is drawn for the one
// before: "tick" after 2 seconds, "resize", "stop", and at last the end.
func (s *screen) run(t *testing.T, events ...string) error {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ticks, resized, stops := make(chan time.Time), make(chan os.Signal), make(chan os.Signal)
	done := make(chan error)
	go func() { done <- s.watch().Run(ctx, ticks, resized, stops) }()
	for _, event := range events {
		// Nobody takes from the channels but one who has drawn.
		switch event {
		case "tick":
			select {
			case ticks <- time.Time{}:
			case err := <-done:
				return err
			}
		case "resize":
			resized <- syscall.SIGWINCH
		case "stop":
			stops <- syscall.SIGTSTP
		}
	}
	// One more that changes nothing, so that what came before is drawn.
	select {
	case resized <- syscall.SIGWINCH:
	case err := <-done:
		return err
	}
	end()
	return <-done
}

// The screen is drawn in one piece, no larger than it is, and the terminal is as it was
// at the end and while the process is stopped.
func TestWatch(t *testing.T) {
	s := &screen{rows: 6, columns: 40, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)}
	if err := s.run(t, "stop"); err != nil || s.stopped != 1 {
		t.Errorf("%v, stopped %d times", err, s.stopped)
	}
	const drawn = "\x1b[Hwgkex status at 12:00:00, peers as of 12\r\n\x1b[K\r\n" +
		"exchanges without a domain since boot: u\r\n\x1b[K\r\n" +
		"domain reading1 on  and : 0 of 0 peers, \r\nexchanges since boot: unknown\x1b[K"
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	want := enter + drawn + leave + "[stopped]" + enter + drawn + drawn + leave
	if got := s.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	// What is left of a longer screen is cleared.
	s = &screen{rows: 50, columns: 90, now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)}
	if err := s.run(t); err != nil || !strings.HasSuffix(s.String(), "\x1b[K\r\npeers: none\x1b[K\r\n\x1b[J"+leave) {
		t.Errorf("%v, got %q", err, s.String())
	}
}

// It reads at each tick where that is cheap, and more seldom where it is not.
func TestWatchReadings(t *testing.T) {
	for _, c := range []struct {
		took time.Duration
		want int // of ten ticks, with the one before
	}{
		{WatchEvery / watchShare, 11},
		{2 * WatchEvery / watchShare, 6},
		{WatchEvery, 2}, // at the eighth, after OverviewAge
	} {
		s := &screen{took: c.took}
		w := s.watch()
		// It asks for the size once for each drawing, after which a tick comes.
		w.Size = func() (rows, columns int) {
			s.now = s.now.Add(WatchEvery)
			return 24, 80
		}
		ctx, end := context.WithCancel(t.Context())
		ticks, done := make(chan time.Time), make(chan error)
		go func() { done <- w.Run(ctx, ticks, nil, nil) }()
		for range 10 {
			ticks <- time.Time{}
		}
		end()
		if err := <-done; err != nil || s.readings != c.want {
			t.Errorf("%v: %v, %d readings, want %d", c.took, err, s.readings, c.want)
		}
	}
}

// What cannot be read is shown, unless nothing can be read from the beginning.
func TestWatchErrors(t *testing.T) {
	s := &screen{rows: 24, columns: 80, err: errors.New("no configuration")}
	if err := s.run(t, "tick"); !errors.Is(err, s.err) || s.Len() != 0 {
		t.Errorf("%v, drawn %q", err, s.String())
	}
	s.readings = 1
	if err := s.run(t, "tick"); err != nil || !strings.Contains(s.String(), "\r\nno configuration\x1b[K\r\n") || !strings.Contains(s.String(), "domain reading2 ") {
		t.Errorf("%v, drawn %q", err, s.String())
	}
	s = &screen{rows: 24, columns: 80, broken: syscall.EIO}
	if err := s.run(t, "tick"); !errors.Is(err, syscall.EIO) {
		t.Errorf("without a terminal: %v", err)
	}
}
