// Package message is what gateways tell each other over an MQTT broker. Topics and
// payloads are those of Munich's worker and broker (github.com/freifunkMUC/wgkex), so
// that gateways of both kinds can use one broker. docs/mqtt.md describes them for those
// who write clients.
package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"wgkex/internal/address"
	"wgkex/internal/protocol"
)

const (
	// MaxPayload is the longest payload that is read, in bytes. The longest that a
	// gateway sends has some 400.
	MaxPayload = 1024
	// MaxTopic is the longest topic that is read, in bytes.
	MaxTopic = 256
	// MaxLive is the largest number of peers, far more than any gateway has.
	MaxLive = 1 << 30
)

// OriginProperty is the user property of MQTT 5 in which a gateway says its name, for
// topics that do not have it.
const OriginProperty = "wgkex-gateway"

// Message is a message of MQTT.
type Message struct {
	Topic   string
	Payload []byte
	// Retained says that the broker keeps the message or, of one that was received, that
	// it had kept it.
	Retained bool
	QoS      byte
	// Origin is the gateway that sent it, as OriginProperty says, empty if that is not
	// there.
	Origin string
}

// Heard is what a message says: a Key, Status, Data or Live.
type Heard interface {
	// Message is what says it.
	Message() Message
}

// Key is a public key that a gateway has accepted in a domain.
type Key struct {
	Domain string
	Key    address.Key
}

// Status says whether a gateway is on line. The broker says that it is not when the
// gateway has gone without a word.
type Status struct {
	Gateway string
	Online  bool
}

// Data is how routers of a domain reach a gateway.
type Data struct {
	Gateway, Domain string
	// Endpoint is the zero value for a gateway that does not serve the domain any more.
	Endpoint Endpoint
}

// Endpoint is a gateway's end of the tunnels of a domain.
type Endpoint struct {
	// Host is a name or an IP address.
	Host string
	// Port is a UDP port.
	Port uint16
	Key  address.Key
	// Link is the address of the gateway inside of the tunnel.
	Link netip.Addr
}

// Live is how many live peers a gateway has in a domain, -1 when it is going.
type Live struct {
	Gateway, Domain string
	Peers           int
}

// The parts of topics. Key messages go to all gateways; Munich's worker takes those to
// any other name, too.
const (
	keys      = "wireguard"
	everybody = "all"
	workers   = "wireguard-worker"
	status    = "status"
	data      = "data"
	metrics   = "wireguard-metrics"
	peers     = "connected_peers"
)

func topic(levels ...string) string { return strings.Join(levels, "/") }

// Message is that of Heard.
func (k Key) Message() Message {
	return Message{Topic: topic(keys, k.Domain, everybody), Payload: []byte(k.Key.String()), QoS: 1}
}

// Message is that of Heard.
func (s Status) Message() Message {
	payload := "0"
	if s.Online {
		payload = "1"
	}
	return Message{Topic: topic(workers, s.Gateway, status), Payload: []byte(payload), QoS: 1, Retained: true}
}

// payload is what is sent about an Endpoint.
type payload struct {
	ExternalAddress string
	Port            uint16
	PublicKey       string
	LinkAddress     string
}

// MarshalJSON is the payload of Data.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	return json.Marshal(payload{e.Host, e.Port, e.Key.String(), e.Link.String()})
}

// UnmarshalJSON reads what MarshalJSON has written, and nothing that no router could
// connect to.
func (e *Endpoint) UnmarshalJSON(text []byte) error {
	var p payload
	if json.Unmarshal(text, &p) != nil {
		return fmt.Errorf("%w: not JSON of its fields", ErrPayload)
	}
	key, err := address.ParseKey(p.PublicKey)
	if err != nil {
		return fmt.Errorf("%w: the public key is %w", ErrPayload, err)
	}
	link, err := netip.ParseAddr(p.LinkAddress)
	switch {
	case err != nil || link.Zone() != "" || link.IsUnspecified() || link.IsMulticast() || link.Is4In6():
		return fmt.Errorf("%w: LinkAddress is no address of a gateway", ErrPayload)
	case !validHost(p.ExternalAddress):
		return fmt.Errorf("%w: ExternalAddress is no host", ErrPayload)
	case p.Port == 0:
		return fmt.Errorf("%w: Port is no port", ErrPayload)
	}
	*e = Endpoint{p.ExternalAddress, p.Port, key, link}
	return nil
}

// Message is that of Heard. Nothing is what removes a retained message (MQTT 5 section
// 3.3.1.3).
func (d Data) Message() Message {
	m := Message{Topic: topic(workers, d.Gateway, d.Domain, data), QoS: 1, Retained: true}
	if d.Endpoint == (Endpoint{}) {
		return m
	}
	text, err := json.Marshal(d.Endpoint)
	if err != nil {
		panic(err) // the type is above
	}
	m.Payload = text
	return m
}

// Message is that of Heard. One that is sent each minute may be lost, not the last one.
func (l Live) Message() Message {
	m := Message{Topic: topic(metrics, l.Domain, l.Gateway, peers), Payload: []byte(strconv.Itoa(l.Peers)), Retained: true}
	if l.Peers < 0 {
		m.QoS = 1
	}
	return m
}

// Subscription is topics that a gateway subscribes to.
type Subscription struct {
	Filter string
	QoS    byte
	// Kept says that retained messages are wanted, too. A key that was retained is none
	// that a gateway has just accepted.
	Kept bool
}

// Subscriptions is what a gateway with these domains has to hear.
func Subscriptions(domains ...string) []Subscription {
	all := []Subscription{{topic(workers, "+", status), 1, true}}
	for _, d := range domains {
		all = append(
			all,
			Subscription{topic(keys, d, "+"), 1, false},
			Subscription{topic(workers, "+", d, data), 1, true},
			Subscription{topic(metrics, d, "+", peers), 1, true},
		)
	}
	return all
}

// What is wrong with a message, for errors.Is. None has what the sender wrote in its
// text.
var (
	ErrOwn      = errors.New("a message of this gateway itself")
	ErrTopic    = errors.New("a topic that is none of ours")
	ErrDomain   = errors.New("a domain that is not served here")
	ErrTooLong  = errors.New("a payload that is too long")
	ErrPayload  = errors.New("a payload that is not what the topic is for")
	ErrRetained = errors.New("a key that the broker has retained")
)

// Reader reads messages for one gateway.
type Reader struct {
	// Gateway is its name.
	Gateway string
	// Serves reports whether the gateway has a domain of the name.
	Serves func(domain string) bool
}

// Read reads a message. Anybody who may publish at the broker can have sent it.
func (r Reader) Read(m Message) (Heard, error) {
	if len(m.Topic) > MaxTopic {
		return nil, ErrTopic
	}
	levels := strings.Split(m.Topic, "/")
	var gateway, domain string
	var read func() (Heard, error)
	ofDomain := true
	text := string(m.Payload[:min(len(m.Payload), MaxPayload+1)])
	switch {
	case len(levels) == 3 && levels[0] == keys:
		gateway, domain = m.Origin, levels[1] // Munich's does not say who it is
		read = func() (Heard, error) { return readKey(domain, text, m.Retained) }
	case len(levels) == 3 && levels[0] == workers && levels[2] == status:
		gateway, ofDomain = levels[1], false
		read = func() (Heard, error) { return readStatus(gateway, text) }
	case len(levels) == 4 && levels[0] == workers && levels[3] == data:
		gateway, domain = levels[1], levels[2]
		read = func() (Heard, error) { return readData(gateway, domain, text) }
	case len(levels) == 4 && levels[0] == metrics && levels[3] == peers:
		domain, gateway = levels[1], levels[2]
		read = func() (Heard, error) { return readLive(gateway, domain, text) }
	default:
		return nil, ErrTopic
	}
	switch {
	case gateway == r.Gateway:
		return nil, ErrOwn
	case levels[0] != keys && !protocol.ValidName(gateway):
		return nil, ErrTopic
	case ofDomain && !r.Serves(domain):
		return nil, ErrDomain
	case len(m.Payload) > MaxPayload:
		return nil, ErrTooLong
	}
	return read()
}

func readKey(domain, text string, retained bool) (Heard, error) {
	if retained {
		return nil, ErrRetained
	}
	key, err := address.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return Key{domain, key}, nil
}

// readStatus takes what Munich's broker takes, and nothing for a gateway that is no more.
func readStatus(gateway, text string) (Heard, error) {
	if text == "" {
		return Status{gateway, false}, nil
	}
	n, err := readNumber(text)
	if err != nil {
		return nil, err
	}
	return Status{gateway, n >= 1}, nil
}

func readLive(gateway, domain, text string) (Heard, error) {
	if text == "" {
		return Live{gateway, domain, -1}, nil
	}
	n, err := readNumber(text)
	if err != nil {
		return nil, err
	}
	return Live{gateway, domain, n}, nil
}

// readNumber reads a number that is at least -1 and written as usual.
func readNumber(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < -1 || n > MaxLive || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%w: not a number from -1 on", ErrPayload)
	}
	return int(n), nil
}

func readData(gateway, domain, text string) (Heard, error) {
	d := Data{Gateway: gateway, Domain: domain}
	if text == "" {
		return d, nil
	}
	if err := json.Unmarshal([]byte(text), &d.Endpoint); err != nil {
		if !errors.Is(err, ErrPayload) { // of what is no JSON at all
			err = fmt.Errorf("%w: not JSON", ErrPayload)
		}
		return nil, err
	}
	return d, nil
}

// validHost reports whether the text may be a host's name or its IP address.
func validHost(text string) bool {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Zone() == "" && !addr.IsUnspecified() && !addr.IsMulticast()
	}
	return protocol.ValidHostName(text)
}
