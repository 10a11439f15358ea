package status

import "time"

// Age is how long ago the last handshake was, in its largest unit, "-" for never.
func (p Peer) Age(now time.Time) string { return p.shortAge(now) }

// Bytes is a number of bytes with a binary prefix.
func Bytes(n int64) string { return byteText(n) }
