package status

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// WatchEvery is how often a Watch is drawn.
	WatchEvery = 2 * time.Second
	// watchShare bounds what a Watch costs: it reads the peers again when this many
	// times as long has passed as the last reading took, or OverviewAge, which is
	// enough for the largest gateway and for a domain that others use.
	watchShare = 20
)

// The sequences of ECMA-48 and xterm that a Watch needs. The screen is another one, so
// that the terminal shows what it did before when the watch ends.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // to the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	endOfLine   = "\x1b[K" // clears what is left of a line
	endOfScreen = "\x1b[J" // clears what is left of the screen
)

// Watch shows a Status on a terminal again and again.
type Watch struct {
	// Out is the terminal, Size its rows and columns.
	Out  io.Writer
	Size func() (rows, columns int)
	// Read reads what is shown. Its error is shown, too.
	Read func(context.Context) (Status, error)
	// Now is the wall clock.
	Now  func() time.Time
	View View
	// Stop stops this process, as Ctrl-Z does, and returns when it goes on.
	Stop func()
}

// Run shows a Status until the context ends, which is no error. It draws at each of the
// ticks and of the resized. At each of the stops it gives the terminal back and stops.
// The error is that of the first reading, if that had nothing to show, or of the
// terminal, which is as it was before in any case.
func (w Watch) Run(ctx context.Context, ticks <-chan time.Time, resized, stops <-chan os.Signal) (err error) {
	last := w.read(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if last.err != nil && len(last.all.Domains) == 0 {
		return last.err
	}
	if _, err := io.WriteString(w.Out, enterScreen); err != nil {
		return err
	}
	defer func() {
		if _, e := io.WriteString(w.Out, leaveScreen); err == nil {
			err = e
		}
	}()
	for {
		if err := w.draw(last); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
			continue
		case <-stops:
			if _, err := io.WriteString(w.Out, leaveScreen); err != nil {
				return err
			}
			w.Stop()
			if _, err := io.WriteString(w.Out, enterScreen); err != nil {
				return err
			}
			continue
		case <-ticks:
		}
		if w.Now().Sub(last.ended) < min(watchShare*last.took, OverviewAge) {
			continue
		}
		// What was interrupted is not drawn.
		if last = w.read(ctx); ctx.Err() != nil {
			return nil
		}
	}
}

// reading is what was read, when that was done and how long it took.
type reading struct {
	all   Status
	err   error
	ended time.Time
	took  time.Duration
}

func (w Watch) read(ctx context.Context) reading {
	began := w.Now()
	all, err := w.Read(ctx)
	ended := w.Now()
	return reading{all, err, ended, ended.Sub(began)}
}

// draw draws over what is there, in one write, so that nothing flickers.
func (w Watch) draw(last reading) error {
	rows, columns := w.Size()
	now, text := w.Now(), new(strings.Builder)
	fmt.Fprintf(text, "wgkex status at %s, peers as of %s, Ctrl-C ends\n\n", now.Local().Format(time.TimeOnly), last.ended.Local().Format(time.TimeOnly))
	if last.err != nil {
		fmt.Fprintf(text, "%v\n\n", last.err)
	}
	view := w.View
	view.Limit = rows
	_ = Print(text, last.all, now, view) // a builder takes all
	screen := bytes.NewBufferString(toTop)
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	for i, line := range lines[:min(len(lines), rows)] {
		if i > 0 {
			screen.WriteString("\r\n")
		}
		// Behind a full line the cursor is still on its last character, which would be
		// cleared.
		runes := []rune(line)
		if len(runes) < columns {
			screen.WriteString(line + endOfLine)
		} else {
			screen.WriteString(string(runes[:columns]))
		}
	}
	if len(lines) < rows {
		screen.WriteString("\r\n" + endOfScreen)
	}
	_, err := screen.WriteTo(w.Out)
	return err
}
