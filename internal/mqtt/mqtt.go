// Package mqtt is the connection to the MQTT broker that internal/relay uses. The library
// is paho.golang, that of the Eclipse project: its autopaho keeps the connection up, and it
// has MQTT 5, in which a broker does not give a client its own messages.
package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wgkex/internal/message"
	"wgkex/internal/relay"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

const (
	// keepAlive is how often the broker hears something, in seconds. It takes the gateway
	// for gone after one and a half of it.
	keepAlive = 30
	// sessionExpiry is for how long the broker keeps messages for a gateway that is away,
	// in seconds.
	sessionExpiry = 24 * 60 * 60
	// willDelay is how long a gateway may be away before the others are told, in seconds:
	// a relay that is started anew is not.
	willDelay = 10
	// maxPacket is the longest packet that the broker may send, in bytes: more than the
	// longest message that is read.
	maxPacket = 4096
	// maxUnanswered is how many keys the broker may send at a time.
	maxUnanswered  = 1000
	connectTimeout = 20 * time.Second
	packetTimeout  = 20 * time.Second
	maxBackoff     = time.Minute
	// shortLived is how long a connection lasts that is as good as a failed one.
	shortLived = 2 * maxBackoff
	// maxFile is more than a file of certificates, a key or a password has, in bytes.
	maxFile = 4 << 20
)

// Settings is how to reach the broker, and who the gateway is there.
type Settings struct {
	// URL is mqtt://HOST:PORT or mqtts://HOST:PORT.
	URL string
	// Gateway is the name of this gateway.
	Gateway string
	// Username is empty for none.
	Username string
	// PasswordFile, CAFile, CertificateFile and KeyFile are empty for none. Without CAFile
	// the system says which certificates are trusted.
	PasswordFile, CAFile, CertificateFile, KeyFile string
}

// Broker is a connection to a broker. It is a relay.Broker.
type Broker struct {
	settings Settings
	// failed is told why a connection could not be made, each time.
	failed  func(error)
	manager *autopaho.ConnectionManager
	// old says that the broker has said that it speaks an older MQTT alone.
	old atomic.Bool

	mu sync.Mutex
	// up is when the connection was made, and short how many in turn lasted no longer
	// than shortLived.
	up    time.Time
	short int
	// end is why the last connection has ended, if that was told.
	end error
}

// New makes a Broker that does nothing yet.
func New(s Settings, failed func(error)) *Broker { return &Broker{settings: s, failed: failed} }

// Start is that of relay.Broker.
func (b *Broker) Start(ctx context.Context, h relay.Handler) error {
	s := b.settings
	server, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	config := autopaho.ClientConfig{
		ServerUrls:            []*url.URL{server},
		KeepAlive:             keepAlive,
		SessionExpiryInterval: sessionExpiry,
		ReconnectBackoff:      b.pause,
		ConnectTimeout:        connectTimeout,
		ConnectUsername:       s.Username,
		AttemptConnection:     b.dial,
		ConnectPacketBuilder:  connect,
		OnConnectionUp: func(_ *autopaho.ConnectionManager, c *paho.Connack) {
			b.made()
			h.Connected(c.SessionPresent)
		},
		// The library tells of these two in turn. Why a connection has ended it tells at some
		// time, even before it tells of the connection.
		OnConnectionDown: func() bool {
			h.Disconnected(b.why())
			return true
		},
		OnConnectError: func(err error) { b.failed(b.explain(err)) },
		ClientConfig: paho.ClientConfig{
			// Munich's worker has the name of the host alone, and a broker has one client
			// of a name.
			ClientID:      "wgkex-relay-" + s.Gateway,
			PacketTimeout: packetTimeout,
			OnClientError: b.ended,
			OnServerDisconnect: func(d *paho.Disconnect) {
				b.ended(fmt.Errorf("the broker has ended it: %s", reason(d.ReasonCode)))
			},
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				h.Received(received(p.Packet))
				return true, nil
			}},
		},
	}
	if s.PasswordFile != "" {
		text, err := read(s.PasswordFile)
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		config.ConnectPassword = []byte(strings.TrimSuffix(line, "\r"))
	}
	if server.Scheme == "mqtts" {
		if config.TlsCfg, err = s.tls(server.Hostname()); err != nil {
			return err
		}
	}
	will := message.Status{Gateway: s.Gateway}.Message()
	config.WillMessage = &paho.WillMessage{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS, Retain: will.Retained}
	delay := uint32(willDelay)
	config.WillProperties = &paho.WillProperties{WillDelayInterval: &delay}
	b.manager, err = autopaho.NewConnection(ctx, config)
	return err
}

// connect bounds what the broker may send.
func connect(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	packet, unanswered := uint32(maxPacket), uint16(maxUnanswered)
	c.Properties.MaximumPacketSize, c.Properties.ReceiveMaximum = &packet, &unanswered
	c.Properties.RequestProblemInfo = true
	return c, nil
}

// received is a message as it came.
func received(p *paho.Publish) message.Message {
	m := message.Message{Topic: p.Topic, Payload: p.Payload, Retained: p.Retain, QoS: p.QoS}
	if p.Properties != nil {
		m.Origin = p.Properties.User.Get(message.OriginProperty)
	}
	return m
}

// made counts a connection. When two gateways have the same name, the broker ends that of
// one for that of the other, again and again.
func (b *Broker) made() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.short++; now.Sub(b.up) > shortLived { // as is the first, after the zero time
		b.short = 0
	}
	b.up = now
}

func (b *Broker) ended(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = why
}

// why is why the connection has ended.
func (b *Broker) why() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := b.end
	b.end = nil
	if end == nil {
		return errors.New("it has ended")
	}
	return end
}

// pause is that before a try, the library having counted so many since the last connection.
func (b *Broker) pause(tries int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return backoff(tries + b.short)
}

// backoff is the pause before a try, of which there were so many. Gateways do not all
// come at a time when their broker is there again.
func backoff(tries int) time.Duration {
	pause := min(time.Second<<min(tries, 10), maxBackoff)
	return pause/2 + rand.N(pause/2)
}

// tls is the configuration for a host.
func (s Settings) tls(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		text, err := read(s.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM", s.CAFile)
		}
	}
	if s.CertificateFile != "" {
		certificate, err := tls.LoadX509KeyPair(s.CertificateFile, s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("the certificate %s and its key: %w", s.CertificateFile, err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// dial makes a connection for the library, and looks at how the broker begins.
func (b *Broker) dial(ctx context.Context, config autopaho.ClientConfig, server *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if config.TlsCfg != nil {
		conn, err = (&tls.Dialer{Config: config.TlsCfg}).DialContext(ctx, "tcp", server.Host)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", server.Host)
	}
	if err != nil {
		return nil, err
	}
	b.old.Store(false)
	return packets.NewThreadSafeConn(&firstBytes{Conn: conn, old: &b.old}), nil
}

// refusal is what a broker answers that does not know MQTT 5: a CONNACK of MQTT 3.1.1 for
// an unacceptable protocol version (MQTT 3.1.1 section 3.2.2.3). The library, which speaks
// MQTT 5 alone, takes it for a packet that is cut.
const refusal = "\x20\x02\x00\x01"

// firstBytes notes whether a connection begins with a refusal.
type firstBytes struct {
	net.Conn
	old   *atomic.Bool
	begun []byte
}

// Read is that of net.Conn. One goroutine reads at a time.
func (c *firstBytes) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if missing := len(refusal) - len(c.begun); missing > 0 && n > 0 {
		c.begun = append(c.begun, b[:min(n, missing)]...)
		if string(c.begun) == refusal {
			c.old.Store(true)
		}
	}
	return n, err
}

// explain says why a connection could not be made.
func (b *Broker) explain(err error) error {
	var refused *autopaho.ConnackError
	switch {
	case b.old.Load():
		return errors.New("the broker speaks MQTT 3.1.1 alone, and MQTT 5 is needed: mosquitto has it from version 1.6 on")
	case errors.As(err, &refused):
		return fmt.Errorf("the broker refuses the connection: %s", reason(refused.ReasonCode))
	}
	return err
}

// Subscribe is that of relay.Broker.
func (b *Broker) Subscribe(ctx context.Context, to ...message.Subscription) error {
	if err := b.manager.AwaitConnection(ctx); err != nil {
		return err
	}
	packet := &paho.Subscribe{}
	for _, s := range to {
		// Of a session that goes on, too, retained messages are wanted: the relay may be
		// a new one.
		o := paho.SubscribeOptions{Topic: s.Filter, QoS: s.QoS, NoLocal: true}
		if !s.Kept {
			o.RetainHandling = 2 // none
		}
		packet.Subscriptions = append(packet.Subscriptions, o)
	}
	answer, err := b.manager.Subscribe(ctx, packet)
	if answer == nil {
		return err
	}
	return refusals(to, answer.Reasons)
}

// refusals is an error for each topic that the broker does not send.
func refusals(to []message.Subscription, codes []byte) error {
	var refused []error
	for i, code := range codes {
		if code >= 0x80 && i < len(to) {
			refused = append(refused, fmt.Errorf("the broker refuses to send %s: %s", to[i].Filter, reason(code)))
		}
	}
	return errors.Join(refused...)
}

// Publish is that of relay.Broker.
func (b *Broker) Publish(ctx context.Context, m message.Message) error {
	if err := b.manager.AwaitConnection(ctx); err != nil {
		return err
	}
	packet := &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retained}
	if m.Origin != "" {
		packet.Properties = &paho.PublishProperties{User: paho.UserProperties{{Key: message.OriginProperty, Value: m.Origin}}}
	}
	answer, err := b.manager.Publish(ctx, packet)
	if answer != nil && answer.ReasonCode >= 0x80 {
		return fmt.Errorf("%w: %s: %s", relay.ErrRefused, m.Topic, reason(answer.ReasonCode))
	}
	return err
}

// Close is that of relay.Broker.
func (b *Broker) Close(ctx context.Context) {
	_ = b.manager.Disconnect(ctx) // the broker finds out
}

// reason is a code of MQTT 5 (section 2.4) in words, of those that an admin can do
// something about.
func reason(code byte) string {
	words := map[byte]string{
		0x84: "it does not speak MQTT 5", 0x85: "the name of the client is not valid", 0x86: "bad user name or password",
		0x87: "not authorized", 0x88: "it is not available", 0x89: "it is busy", 0x8a: "the client is banned",
		0x8b: "it is shutting down", 0x8d: "nothing was heard of the gateway", 0x8e: "another client has the same name",
		0x93: "too many messages at a time", 0x95: "a packet was too large", 0x96: "too many messages", 0x97: "a quota is exceeded",
	}
	if text, ok := words[code]; ok {
		return text
	}
	return fmt.Sprintf("reason 0x%02x of MQTT 5", code)
}
