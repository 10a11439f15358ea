package gateways

import (
	"errors"
	"fmt"
	"time"

	"wgkex/internal/outcome"
)

const (
	// StatsPath is the file with the Stats, which wgkex-relay.service writes.
	StatsPath = "/run/wgkex/relay/stats.json"
	// MaxStatsSize is more than the file can have, in bytes.
	MaxStatsSize = 64 << 10

	statsVersion = 1
	// statsSilent is how old the numbers are of a relay that does not write them any more,
	// as it does several times a minute.
	statsSilent = time.Minute
)

// Stats is what there is to see of a relay.
type Stats struct {
	// At is when this was so, as time since boot.
	At time.Duration
	// Connected says that there is a connection to the broker.
	Connected bool
	// Received counts messages by what became of them, Sent is how many keys were sent,
	// both since the relay was started.
	Received map[Result]uint64
	Sent     uint64
	// Waiting is how many keys wait to be added here, Oldest since when the first of them
	// does, zero for none.
	Waiting int
	Oldest  time.Time
	// Unsent is how many keys wait to be sent.
	Unsent int
}

// Current reports whether a relay still writes them.
func (s Stats) Current(now time.Duration) bool { return now-s.At < statsSilent }

// Result is what became of a message that was received: the code of the exchange, or one
// of these.
type Result string

// The results.
const (
	ResultOwn      Result = "own"      // this gateway's
	ResultKnown    Result = "gateway"  // about a gateway, not a key
	ResultRepeated Result = "repeated" // a key that came in the last minute, too
	ResultFull     Result = "full"     // there is no room for it
	ResultInvalid  Result = "invalid"  // not what a gateway sends
	ResultDomain   Result = "domain"   // of a domain that is not served here
)

// Results is all of them, the codes of exchanges first.
var Results = func() (all []Result) {
	for _, code := range outcome.Codes {
		all = append(all, Result(code))
	}
	return append(all, ResultOwn, ResultKnown, ResultRepeated, ResultFull, ResultInvalid, ResultDomain)
}()

type statsFile struct {
	Version int   `json:"version"`
	Stats   Stats `json:"stats"`
}

// Text is the file as it is written.
func (s Stats) Text() []byte {
	return textOf(statsFile{statsVersion, s})
}

// ParseStats reads a Text.
func ParseStats(text []byte) (Stats, error) {
	var f statsFile
	if err := read(text, &f); err != nil {
		return Stats{}, fmt.Errorf("not a file of a relay's numbers: %w", err)
	}
	if f.Version != statsVersion {
		return Stats{}, errors.New("not a file of a relay's numbers of this version of wgkex")
	}
	return f.Stats, nil
}
