package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wgkex/internal/protocol"
)

var mqttKeys = []string{"url", "username", "password_file", "ca_file", "certificate_file", "key_file"}

// MQTT is the configuration of wgkex-relay.service: the broker that the gateways of a
// community have in common.
type MQTT struct {
	// URL is mqtt://HOST:PORT or, with TLS, mqtts://HOST:PORT. It is empty for no broker.
	URL string
	// Username is empty for none.
	Username string
	// PasswordFile has the password, empty for none.
	PasswordFile string
	// CAFile has the certificates that the broker's one must come from, empty for those
	// that the system trusts.
	CAFile string
	// CertificateFile and KeyFile are the client's, both or none.
	CertificateFile, KeyFile string
}

// On reports whether there is a broker.
func (m MQTT) On() bool { return m.URL != "" }

// Credential is a file that the relay gets by systemd (systemd.exec(5)), so that root
// alone need be able to read it.
type Credential struct{ Name, Path string }

// The names of credentials.
const (
	PasswordCredential    = "password"
	CACredential          = "ca"
	CertificateCredential = "certificate"
	KeyCredential         = "key"
)

// Credentials are those that there are.
func (m MQTT) Credentials() []Credential {
	return slices.DeleteFunc([]Credential{
		{PasswordCredential, m.PasswordFile}, {CACredential, m.CAFile}, {CertificateCredential, m.CertificateFile}, {KeyCredential, m.KeyFile},
	}, func(c Credential) bool { return c.Path == "" })
}

func (m MQTT) table() map[string]any {
	return notEmpty(map[string]string{
		"url": m.URL, "username": m.Username, "password_file": m.PasswordFile, "ca_file": m.CAFile,
		"certificate_file": m.CertificateFile, "key_file": m.KeyFile,
	})
}

// Relays reports whether the gateway tells others of keys: there is a broker, and a domain.
func (c Config) Relays() bool { return c.MQTT.On() && len(c.Domains) > 0 }

// defaultPorts are those of MQTT by the schemes of its URLs (IANA: mqtt, secure-mqtt).
var defaultPorts = map[string]string{"mqtt": "1883", "mqtts": "8883"}

const (
	defaultWeight = 1
	// maxWeight keeps products of weights and peers far from the limits of an int64.
	maxWeight = 1_000_000
)

// Weight is how many routers the gateway of the name gets, in proportion to others. 0 is
// none.
func (c Config) Weight(gateway string) int {
	if w, ok := c.Weights[gateway]; ok {
		return w
	}
	return defaultWeight
}

// mqtt checks how to reach the broker.
func (m *merge) mqtt() (c MQTT) {
	at := func(key string) place { return m.settings[keyPath("mqtt", key)].place }
	text, scheme := get(m, "mqtt.url", ""), ""
	if text != "" {
		c.URL, scheme = brokerURL(text)
	}
	if text != "" && c.URL == "" {
		m.fail(at("url"), `mqtt.url is %q: must be "mqtts://HOST:PORT" or, without TLS, "mqtt://HOST:PORT", with no path, user or password`, text)
	}
	c.Username = get(m, "mqtt.username", "")
	if len(c.Username) > maxUsername || strings.ContainsFunc(c.Username, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		m.fail(at("username"), "mqtt.username is %q: must be at most %d bytes without control characters", c.Username, maxUsername)
	}
	for _, f := range []struct {
		key  string
		file *string
	}{{"password_file", &c.PasswordFile}, {"ca_file", &c.CAFile}, {"certificate_file", &c.CertificateFile}, {"key_file", &c.KeyFile}} {
		*f.file = get(m, keyPath("mqtt", f.key), "")
		// The path goes into a unit, where it must need no quotation marks.
		if *f.file != "" && (!filepath.IsAbs(*f.file) || filepath.Clean(*f.file) != *f.file || !plain(*f.file, "/_.-+@")) {
			m.fail(at(f.key), "mqtt.%s is %q: must be an absolute path of A-Z a-z 0-9 _ . - + @ and /", f.key, *f.file)
		}
	}
	if len(m.unread) > 0 {
		return c // what is missing may be in a file that did not parse
	}
	for _, key := range mqttKeys {
		if s, ok := m.settings[keyPath("mqtt", key)]; ok && text == "" {
			m.fail(s.place, `mqtt has no url: set mqtt.url, such as "mqtts://broker.example.org"`)
			return c
		}
	}
	if c.On() && !get(m, "metrics.enabled", true) {
		m.fail(m.settings["metrics.enabled"].place, "metrics.enabled is false, but mqtt needs metrics: it asks there how many peers there are")
	}
	if c.PasswordFile != "" && c.Username == "" {
		m.fail(at("password_file"), "mqtt.password_file is of no use without mqtt.username")
	}
	if (c.CertificateFile == "") != (c.KeyFile == "") {
		key, other := "certificate_file", "key_file"
		if c.CertificateFile == "" {
			key, other = other, key
		}
		m.fail(at(key), "mqtt.%s is of no use without mqtt.%s", key, other)
	}
	for _, key := range []string{"ca_file", "certificate_file"} {
		if s, ok := m.settings[keyPath("mqtt", key)]; ok && scheme == "mqtt" {
			m.fail(s.place, "mqtt.%s is of no use without TLS: mqtt.url must begin with mqtts://", key)
		}
	}
	return c
}

// maxUsername is the longest string of MQTT (MQTT 5 section 1.5.4), in bytes, and
// much more than anybody is called.
const maxUsername = 1<<16 - 1

// brokerURL is the URL with its port, and its scheme. Both are empty for a URL of
// something else.
func brokerURL(text string) (withPort, scheme string) {
	u, err := url.Parse(text)
	if err != nil {
		return "", ""
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = defaultPorts[u.Scheme]
	}
	number, err := strconv.ParseUint(port, 10, 16)
	addr, addrErr := netip.ParseAddr(host)
	// Nothing else that may be in a URL is there.
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.Repeat("/", min(len(u.Path), 1))}
	if defaultPorts[u.Scheme] == "" || err != nil || number == 0 || addrErr != nil && !protocol.ValidHostName(host) || addr.Zone() != "" || *u != bare {
		return "", ""
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port), u.Scheme
}

// weigh takes the table "gateways" of a file.
func (m *merge) weigh(file string, value any, weights map[string]int) {
	table, _ := as[map[string]any](m, place{file, "gateways"}, value)
	for name, value := range table {
		at := place{file, keyPath("gateways", name)}
		if _, isTable := value.(map[string]any); isTable {
			m.fail(at, "%s is a table: a name with a dot in it must be in quotation marks", at.path)
			continue
		}
		m.set(at, name, value, []string{name})
		n, ok := as[int64](m, at, value)
		switch {
		case !ok:
		case !protocol.ValidName(name):
			m.fail(at, "gateway name %q: "+nameRule, name, protocol.MaxLine)
		case n < 0 || n > maxWeight:
			m.fail(at, "the weight %d is out of range: must be 0 to %d", n, maxWeight)
		default:
			weights[name] = int(n)
		}
	}
}
