package outcome

import "errors"

// Way is how an exchange came to the gateway.
type Way uint8

// The ways. Counters go by their numbers: new ones come at the end.
const (
	TCP   Way = iota // two lines on a connection of their own
	Local            // wgkex add, or another program of the gateway
	HTTP             // wgkex-http.service
	Relay            // another gateway
)

// Ways is all of them, in the order of their numbers.
var Ways = []Way{TCP, Local, HTTP, Relay}

var wayNames = [...]string{TCP: "tcp", Local: "local", HTTP: "http", Relay: "relay"}

// String is the name in logs, counters and the local protocol.
func (w Way) String() string { return wayNames[w] }

// ParseWay is the way of the name.
func ParseWay(name string) (Way, error) {
	for w, known := range wayNames {
		if known == name {
			return Way(w), nil
		}
	}
	return 0, errors.New("no such way")
}

// MarshalText is String.
func (w Way) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText is ParseWay.
func (w *Way) UnmarshalText(text []byte) (err error) {
	*w, err = ParseWay(string(text))
	return err
}
