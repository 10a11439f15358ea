package outcome

import (
	"errors"
	"testing"
)

func TestCodeOf(t *testing.T) {
	wrapped := errors.Join(errors.New("context"), Refuse(Busy, "full"))
	for _, c := range []struct {
		err  error
		want Code
	}{{nil, OK}, {wrapped, Busy}, {errors.New("other"), Internal}} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: got %s, want %s", c.err, got, c.want)
		}
	}
}
