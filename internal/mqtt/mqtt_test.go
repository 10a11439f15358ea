package mqtt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/message"
	"wgkex/internal/mqtt/mqtttest"
	"wgkex/internal/relay"
)

const keyText = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="

func key(t *testing.T) message.Key {
	k, err := address.ParseKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	return message.Key{Domain: "d", Key: k}
}

// member is a gateway at a broker.
type member struct {
	t *testing.T
	*Broker
	leave func()

	mu        sync.Mutex
	connected int
	lost      []error
	failed    []error
	received  []message.Message
}

func (c *member) Connected(bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected++
}

func (c *member) Disconnected(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, why)
}

func (c *member) Received(m message.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = append(c.received, m)
}

// times is how often it was connected.
func (c *member) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// join connects a gateway.
func join(t *testing.T, s Settings) *member {
	t.Helper()
	c := &member{t: t}
	c.Broker = New(s, func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failed = append(c.failed, err)
	})
	ctx, cancel := context.WithCancel(context.Background())
	if err := c.Start(ctx, c); err != nil {
		t.Fatal(err)
	}
	c.leave = func() {
		closing, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		c.Close(closing)
		cancel()
	}
	t.Cleanup(c.leave)
	return c
}

// eventually waits until it is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (c *member) subscribe(domains ...string) {
	c.t.Helper()
	if err := c.Subscribe(c.t.Context(), message.Subscriptions(domains...)...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *member) publish(h message.Heard, origin string) {
	c.t.Helper()
	m := h.Message()
	m.Origin = origin
	if err := c.Publish(c.t.Context(), m); err != nil {
		c.t.Error(err)
	}
}

// heard is what was received with the topic.
func (c *member) heard(topic string) (all []message.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.received {
		if m.Topic == topic {
			all = append(all, m)
		}
	}
	return all
}

func (c *member) hears(topic, payload string) {
	c.t.Helper()
	eventually(c.t, topic+" "+payload, func() bool {
		all := c.heard(topic)
		return len(all) > 0 && string(all[len(all)-1].Payload) == payload
	})
}

func (c *member) errors() (lost, failed string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errorText(c.lost), errorText(c.failed)
}

func errorText(errs []error) string {
	if err := errors.Join(errs...); err != nil {
		return err.Error()
	}
	return ""
}

func at(m *mqtttest.Mosquitto, gateway string) Settings {
	return Settings{URL: "mqtt://" + m.Address, Gateway: gateway}
}

// Gateways hear each other, not themselves, and what was said before they came.
func TestTwo(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	a := join(t, at(m, "gw01"))
	a.subscribe("d")
	a.publish(message.Status{Gateway: "gw01", Online: true}, "")
	a.publish(message.Live{Gateway: "gw01", Domain: "d", Peers: 7}, "")
	b := join(t, at(m, "gw02"))
	b.subscribe("d", "e")
	b.hears("wireguard-worker/gw01/status", "1")
	b.hears("wireguard-metrics/d/gw01/connected_peers", "7")
	k := key(t)
	a.publish(k, "gw01")
	b.hears("wireguard/d/all", keyText)
	if got := b.heard("wireguard/d/all"); len(got) != 1 || got[0].Origin != "gw01" || got[0].Retained || got[0].QoS != 1 {
		t.Errorf("%+v", got)
	}
	if got := b.heard("wireguard-worker/gw01/status"); !got[0].Retained {
		t.Errorf("%+v", got)
	}
	b.publish(k, "gw02")
	a.hears("wireguard/d/all", keyText)
	if got := a.heard("wireguard/d/all"); len(got) != 1 || got[0].Origin != "gw02" {
		t.Errorf("%+v", got)
	}
	if got := a.heard("wireguard-worker/gw01/status"); len(got) != 0 {
		t.Errorf("its own: %+v", got)
	}
	// A key that somebody has made the broker retain is not sent to who comes.
	m.Client("mosquitto_pub", "-r", "-t", "wireguard/e/all", "-m", keyText)
	b.hears("wireguard/e/all", keyText)
	late := join(t, at(m, "gw03"))
	late.subscribe("e", "d")
	late.hears("wireguard-metrics/d/gw01/connected_peers", "7") // which is sent after it
	if got := late.heard("wireguard/e/all"); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// The clients of Munich's programs speak MQTT 3.1.1.
func TestMunich(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	a := join(t, at(m, "gw01"))
	a.subscribe("d")
	for topic, payload := range map[string]string{
		"wireguard-worker/gw04.in.ffmuc.net/status":             "1",
		"wireguard-worker/gw04.in.ffmuc.net/d/data":             `{"ExternalAddress": "gw04.ext.ffmuc.net", "Port": 40000, "PublicKey": "` + keyText + `", "LinkAddress": "fe80::1"}`,
		"wireguard-metrics/d/gw04.in.ffmuc.net/connected_peers": "12",
	} {
		m.Client("mosquitto_pub", "-V", "mqttv311", "-r", "-q", "1", "-t", topic, "-m", payload)
		a.hears(topic, payload)
	}
	m.Client("mosquitto_pub", "-V", "mqttv311", "-t", "wireguard/d/all", "-m", keyText)
	a.hears("wireguard/d/all", keyText)
	reader := message.Reader{Gateway: "gw01", Serves: func(d string) bool { return d == "d" }}
	a.mu.Lock()
	all := slices.Clone(a.received)
	a.mu.Unlock()
	for _, got := range all {
		if h, err := reader.Read(got); err != nil {
			t.Errorf("%+v: %+v, %v", got, h, err)
		}
	}
	// It hears us, those that are retained at once.
	a.publish(message.Status{Gateway: "gw01", Online: true}, "")
	if got := m.Client("mosquitto_sub", "-V", "mqttv311", "-C", "1", "-W", "30", "-t", "wireguard-worker/gw01/status"); got != "1\n" {
		t.Errorf("status %q", got)
	}
	heard := make(chan string)
	go func() {
		heard <- m.Client("mosquitto_sub", "-V", "mqttv311", "-C", "1", "-W", "30", "-t", "wireguard/d/+")
	}()
	for {
		a.publish(key(t), "gw01")
		select {
		case got := <-heard:
			if got != keyText+"\n" {
				t.Errorf("a key is %q", got)
			}
			return
		case <-time.After(100 * time.Millisecond): // until it has subscribed
		}
	}
}

// What is sent while a gateway is away is kept for it.
func TestAway(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	a, b := join(t, at(m, "gw01")), join(t, at(m, "gw02"))
	b.subscribe("d")
	b.leave()
	k := key(t)
	const n = 50
	for i := range n {
		k.Key[0] = byte(i)
		a.publish(k, "gw01")
	}
	b = join(t, at(m, "gw02")) // it need not ask for it again
	eventually(t, "all keys", func() bool { return len(b.heard("wireguard/d/all")) == n })
	// The broker is killed, and comes again.
	b.leave()
	k.Key[0] = n
	a.publish(k, "gw01")
	eventually(t, "the broker has saved it", func() bool { return strings.Count(m.Log(), "Saving in-memory database") > 0 })
	m.Kill()
	done := make(chan error)
	go func() {
		k.Key[0] = n + 1
		done <- a.Publish(t.Context(), k.Message())
	}()
	eventually(t, "the end is seen", func() bool { lost, _ := a.errors(); return lost != "" })
	m.Restart()
	for err := range done {
		if err == nil {
			break
		}
		// Half of it was out.
		go func() { done <- a.Publish(t.Context(), k.Message()) }()
	}
	if n := a.times(); n != 2 {
		t.Errorf("connected %d times", n)
	}
	b = join(t, at(m, "gw02"))
	b.subscribe("d")
	a.publish(k, "gw01")
	eventually(t, "the key", func() bool { return len(b.heard("wireguard/d/all")) > 0 })
}

// tunnel is a way to a broker that can be cut, by which nobody says good-bye.
func tunnel(t *testing.T, to string) (address string, cut func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, c, s)
			mu.Unlock()
			go func() { _, _ = io.Copy(s, c); _ = s.Close() }()
			go func() { _, _ = io.Copy(c, s); _ = c.Close() }()
		}
	}()
	cut = func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	}
	t.Cleanup(cut)
	return l.Addr().String(), cut
}

// The broker tells the others of a gateway that has gone without a word, after a while.
func TestWill(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	way, cut := tunnel(t, m.Address)
	a, b := join(t, Settings{URL: "mqtt://" + way, Gateway: "gw01"}), join(t, at(m, "gw02"))
	b.subscribe("d")
	a.publish(message.Status{Gateway: "gw01", Online: true}, "")
	b.hears("wireguard-worker/gw01/status", "1")
	cut()
	b.hears("wireguard-worker/gw01/status", "0")
	if got := m.Client("mosquitto_sub", "-C", "1", "-W", "30", "-t", "wireguard-worker/gw01/status"); got != "0\n" {
		t.Errorf("retained is %q", got)
	}
}

// Who may not is told so, and what is too long does not come.
func TestRefused(t *testing.T) {
	t.Parallel()
	m := mqtttest.Start(t)
	m.Kill()
	m.Configure("allow_anonymous false", "password_file DIR/passwords", "acl_file DIR/acl")
	m.Write("acl", "user gw01\ntopic read wireguard/d/+\ntopic readwrite wireguard-worker/gw01/#\nuser gw02\ntopic readwrite #\n")
	passwords(t, m, "gw01", "secret1", "gw02", "secret2")
	m.Restart()
	settings := func(name, password string) Settings {
		s := at(m, name)
		s.Username, s.PasswordFile = name, filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(s.PasswordFile, []byte(password+"\nand more\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for what, s := range map[string]Settings{"a wrong password": settings("gw01", "secret2"), "nobody": at(m, "gw03")} {
		c := join(t, s)
		eventually(t, what, func() bool {
			_, failed := c.errors()
			return strings.Contains(failed, "the broker refuses the connection: not authorized") || strings.Contains(failed, "bad user name or password")
		})
		c.leave()
	}
	a, b := join(t, settings("gw01", "secret1")), join(t, settings("gw02", "secret2"))
	if err := a.Publish(t.Context(), key(t).Message()); !errors.Is(err, relay.ErrRefused) || !strings.Contains(err.Error(), "wireguard/d/all: not authorized") {
		t.Errorf("a key: %v", err)
	}
	a.publish(message.Status{Gateway: "gw01", Online: true}, "")
	// What it may not hear does not come; mosquitto does not say so, as others do.
	a.subscribe("d", "e")
	if err := refusals(message.Subscriptions("d"), []byte{1, 0x87, 1, 0xa2}); err == nil || !strings.Contains(err.Error(), "wireguard/d/+: not authorized") || strings.Contains(err.Error(), "status") || !strings.Contains(err.Error(), "0xa2") {
		t.Errorf("subscriptions: %v", err)
	}
	b.publish(key(t), "gw02")
	a.hears("wireguard/d/all", keyText)
	long := key(t).Message()
	long.Payload = make([]byte, 256<<10)
	if err := b.Publish(t.Context(), long); err != nil {
		t.Error(err)
	}
	b.publish(key(t), "gw02")
	eventually(t, "the next key", func() bool { return len(a.heard("wireguard/d/all")) == 2 })
	if lost, _ := a.errors(); lost != "" {
		t.Errorf("the connection has ended: %s", lost)
	}
}

// passwords writes a file of names and passwords.
func passwords(t *testing.T, m *mqtttest.Mosquitto, pairs ...string) {
	t.Helper()
	text := ""
	for i := 0; i < len(pairs); i += 2 {
		text += pairs[i] + ":" + pairs[i+1] + "\n"
	}
	m.Write("passwords", text)
	m.Hash("passwords")
}

// With TLS each knows whom it talks to.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	other := newAuthority(t, dir, "other")
	ca.issue(t, dir, "broker")
	ca.issue(t, dir, "gw01")
	other.issue(t, dir, "stranger")
	m := mqtttest.Start(t, "allow_anonymous true", "cafile "+dir+"/ca.pem", "certfile "+dir+"/broker.pem", "keyfile "+dir+"/broker.key", "require_certificate true")
	file := func(name string) string { return filepath.Join(dir, name) }
	good := Settings{URL: "mqtts://" + m.Address, Gateway: "gw01", CAFile: file("ca.pem"), CertificateFile: file("gw01.pem"), KeyFile: file("gw01.key")}
	a := join(t, good)
	a.publish(key(t), "gw01")
	for what, change := range map[string]func(*Settings){
		"unknown authority":             func(s *Settings) { s.CAFile = file("other.pem") },
		"certificate signed by unknown": func(s *Settings) { s.CAFile = "" },
		"wanted to match localhost":     func(s *Settings) { s.URL = strings.Replace(s.URL, "127.0.0.1", "localhost", 1) },
	} {
		s := good
		change(&s)
		c := join(t, s)
		eventually(t, what, func() bool { _, failed := c.errors(); return strings.Contains(failed, what) })
		c.leave()
	}
	for what, change := range map[string]func(*Settings){
		"a stranger":     func(s *Settings) { s.CertificateFile, s.KeyFile = file("stranger.pem"), file("stranger.key") },
		"no certificate": func(s *Settings) { s.CertificateFile, s.KeyFile = "", "" },
		"no TLS":         func(s *Settings) { s.URL = "mqtt://" + m.Address },
	} {
		s := good
		change(&s)
		c := join(t, s)
		eventually(t, what, func() bool { _, failed := c.errors(); return failed != "" })
		if c.times() != 0 {
			t.Errorf("%s is let in", what)
		}
		c.leave()
	}
	for what, change := range map[string]func(*Settings){
		"no certificate in PEM":     func(s *Settings) { s.CAFile = file("gw01.key") },
		"no such file":              func(s *Settings) { s.CAFile = file("none") },
		"does not match public key": func(s *Settings) { s.KeyFile = file("broker.key") },
		"none: no such file":        func(s *Settings) { s.PasswordFile = file("none") },
	} {
		s := good
		change(&s)
		if err := New(s, nil).Start(t.Context(), &member{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A broker that knows no MQTT 5 is named as what it is.
func TestOldBroker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, refusal)
			_ = c.Close()
		}
	}()
	c := join(t, Settings{URL: "mqtt://" + l.Addr().String(), Gateway: "gw01"})
	eventually(t, "the reason", func() bool {
		_, failed := c.errors()
		return strings.Contains(failed, "the broker speaks MQTT 3.1.1 alone, and MQTT 5 is needed")
	})
}

func TestBackoff(t *testing.T) {
	for tries := range 100 {
		most := time.Minute
		if tries < 6 {
			most = time.Second << tries
		}
		if d := backoff(tries); d < most/2 || d > most {
			t.Errorf("after %d: %v", tries, d)
		}
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) authority {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := authority{c, k}
	a.write(t, dir, name, c, k)
	return a
}

func (a authority) issue(t *testing.T, dir, name string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, dir, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, k)
}

func (a authority) write(t *testing.T, dir, name string, c *x509.Certificate, k *ecdsa.PrivateKey) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.certificate, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Connections that do not last are as good as failed ones: the pauses become longer, and
// short again after one that has lasted.
func TestShortConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Settings{}, nil)
		for range 3 {
			for i := range 10 {
				b.made()
				if most, got := min(time.Second<<i, maxBackoff), b.pause(0); got < most/2 || got > most {
					t.Errorf("after %d short connections the pause is %s", i, got)
				}
				time.Sleep(time.Second)
			}
			time.Sleep(shortLived)
		}
	})
}
