package logging

import (
	"sync"
	"time"
)

// NowAndThen makes of do one that does nothing for so long after it was called. Several may
// call it at a time.
func NowAndThen(every time.Duration, do func(error)) func(error) {
	var mu sync.Mutex
	var last time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); last.IsZero() || now.Sub(last) >= every {
			last = now
			do(err)
		}
	}
}
