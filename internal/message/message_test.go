package message

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/protocol"
)

const keyText = "Dw6zz5lr8K1KpwXOfnI1qHFqQ9sgXZuQmIPOn5cb5nA="

var key = func() address.Key {
	k, err := address.ParseKey(keyText)
	if err != nil {
		panic(err)
	}
	return k
}()

var reader = Reader{Gateway: "gw01", Serves: func(d string) bool { return d == "ffmuc_welt" || d == "ffww01" }}

// What Munich's worker and broker take, and how.
func TestMessage(t *testing.T) {
	link := netip.MustParseAddr("fe80::1")
	for _, c := range []struct {
		heard Heard
		want  Message
	}{
		{Key{"ffww01", key}, Message{Topic: "wireguard/ffww01/all", Payload: []byte(keyText), QoS: 1}},
		{Status{"gw02", true}, Message{Topic: "wireguard-worker/gw02/status", Payload: []byte("1"), QoS: 1, Retained: true}},
		{Status{"gw02", false}, Message{Topic: "wireguard-worker/gw02/status", Payload: []byte("0"), QoS: 1, Retained: true}},
		{
			Data{"gw02", "ffww01", Endpoint{"gw02.example.org", 51820, key, link}},
			Message{
				Topic: "wireguard-worker/gw02/ffww01/data", QoS: 1, Retained: true,
				Payload: []byte(`{"ExternalAddress":"gw02.example.org","Port":51820,"PublicKey":"` + keyText + `","LinkAddress":"fe80::1"}`),
			},
		},
		{Data{Gateway: "gw02", Domain: "ffww01"}, Message{Topic: "wireguard-worker/gw02/ffww01/data", QoS: 1, Retained: true}},
		{Live{"gw02", "ffww01", 4711}, Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("4711"), Retained: true}},
		{Live{"gw02", "ffww01", -1}, Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("-1"), Retained: true, QoS: 1}},
	} {
		if got := c.heard.Message(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: got  %+v, %s\nwant %+v, %s", c.heard, got, got.Payload, c.want, c.want.Payload)
		}
		if back, err := reader.Read(c.want); err != nil || back != c.heard {
			t.Errorf("%+v: read %+v, %v", c.heard, back, err)
		}
		// Those of the gateway itself come back.
		own := Reader{Gateway: "gw02", Serves: reader.Serves}
		c.want.Origin = "gw02"
		if _, err := own.Read(c.want); !errors.Is(err, ErrOwn) {
			t.Errorf("%+v is not the gateway's own: %v", c.heard, err)
		}
	}
}

func TestRead(t *testing.T) {
	const ourData, theirKey = "wireguard-worker/gw04.in.ffmuc.net/ffmuc_welt/data", `"PublicKey": "` + keyText + `"`
	worker := "gw04.in.ffmuc.net"
	endpoint := Endpoint{"gw04.ext.ffmuc.net", 40000, key, netip.MustParseAddr("fe80::28c:27ff:fe40:6ea1")}
	global := endpoint
	global.Host, global.Link = "2001:db8::4", netip.MustParseAddr("10.1.2.3")
	for name, c := range map[string]struct {
		message Message
		want    Heard
		err     error
	}{
		// As Munich's programs send them.
		"a key":        {Message{Topic: "wireguard/ffmuc_welt/all", Payload: []byte(keyText)}, Key{"ffmuc_welt", key}, nil},
		"to one":       {Message{Topic: "wireguard/ffmuc_welt/gw05", Payload: []byte(keyText)}, Key{"ffmuc_welt", key}, nil},
		"on line":      {Message{Topic: "wireguard-worker/" + worker + "/status", Payload: []byte("1"), Retained: true}, Status{worker, true}, nil},
		"off line":     {Message{Topic: "wireguard-worker/" + worker + "/status", Payload: []byte("0")}, Status{worker, false}, nil},
		"more than on": {Message{Topic: "wireguard-worker/" + worker + "/status", Payload: []byte("2")}, Status{worker, true}, nil},
		"removed":      {Message{Topic: "wireguard-worker/" + worker + "/status"}, Status{worker, false}, nil},
		"data":         {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "gw04.ext.ffmuc.net", "Port": 40000, ` + theirKey + `, "LinkAddress": "fe80::28c:27ff:fe40:6ea1"}`)}, Data{worker, "ffmuc_welt", endpoint}, nil},
		"other addresses, and more": {
			Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "2001:db8::4", "Port": 40000, ` + theirKey + `, "LinkAddress": "10.1.2.3", "more": [1]}`)},
			Data{worker, "ffmuc_welt", global},
			nil,
		},
		"data, removed": {Message{Topic: ourData}, Data{Gateway: worker, Domain: "ffmuc_welt"}, nil},
		"live":          {Message{Topic: "wireguard-metrics/ffmuc_welt/" + worker + "/connected_peers", Payload: []byte("0"), Retained: true}, Live{worker, "ffmuc_welt", 0}, nil},
		"going":         {Message{Topic: "wireguard-metrics/ffmuc_welt/" + worker + "/connected_peers", Payload: []byte("-1")}, Live{worker, "ffmuc_welt", -1}, nil},
		"live, removed": {Message{Topic: "wireguard-metrics/ffmuc_welt/" + worker + "/connected_peers"}, Live{worker, "ffmuc_welt", -1}, nil},
		"another's":     {Message{Topic: "wireguard/ffww01/all", Payload: []byte(keyText), Origin: "gw02"}, Key{"ffww01", key}, nil},

		"own key":    {Message{Topic: "wireguard/ffww01/all", Payload: []byte(keyText), Origin: "gw01"}, nil, ErrOwn},
		"own status": {Message{Topic: "wireguard-worker/gw01/status", Payload: []byte("0")}, nil, ErrOwn},
		// The name of a gateway that is known by its topic does not come from elsewhere.
		"own by word":       {Message{Topic: "wireguard-worker/gw02/status", Payload: []byte("1"), Origin: "gw01"}, Status{"gw02", true}, nil},
		"retained":          {Message{Topic: "wireguard/ffww01/all", Payload: []byte(keyText), Retained: true}, nil, ErrRetained},
		"unknown domain":    {Message{Topic: "wireguard/ffww02/all", Payload: []byte(keyText)}, nil, ErrDomain},
		"no domain":         {Message{Topic: "wireguard//all", Payload: []byte(keyText)}, nil, ErrDomain},
		"data, domain":      {Message{Topic: "wireguard-worker/gw02/ffww02/data"}, nil, ErrDomain},
		"data, no domain":   {Message{Topic: "wireguard-worker/gw02//data"}, nil, ErrDomain},
		"live, domain":      {Message{Topic: "wireguard-metrics//gw02/connected_peers", Payload: []byte("1")}, nil, ErrDomain},
		"no topic":          {Message{Payload: []byte(keyText)}, nil, ErrTopic},
		"one level":         {Message{Topic: "wireguard"}, nil, ErrTopic},
		"levels":            {Message{Topic: "wireguard/ffww01/all/more", Payload: []byte(keyText)}, nil, ErrTopic},
		"another metric":    {Message{Topic: "wireguard-metrics/ffww01/gw02/bytes", Payload: []byte("1")}, nil, ErrTopic},
		"no gateway":        {Message{Topic: "wireguard-worker//status", Payload: []byte("1")}, nil, ErrTopic},
		"a hostile gateway": {Message{Topic: "wireguard-worker/../status", Payload: []byte("1")}, nil, ErrTopic},
		"a long gateway":    {Message{Topic: "wireguard-worker/" + strings.Repeat("a", protocol.MaxLine+1) + "/status", Payload: []byte("1")}, nil, ErrTopic},
		"a long topic":      {Message{Topic: "wireguard/ffww01/" + strings.Repeat("a", MaxTopic), Payload: []byte(keyText)}, nil, ErrTopic},
		"256 KiB":           {Message{Topic: "wireguard/ffww01/all", Payload: make([]byte, 256<<10)}, nil, ErrTooLong},
		"long data":         {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1"}` + strings.Repeat(" ", MaxPayload))}, nil, ErrTooLong},
		"no key":            {Message{Topic: "wireguard/ffww01/all"}, nil, ErrPayload},
		"a newline":         {Message{Topic: "wireguard/ffww01/all", Payload: []byte(keyText + "\n")}, nil, ErrPayload},
		"a weak key":        {Message{Topic: "wireguard/ffww01/all", Payload: []byte(strings.Repeat("A", 43) + "=")}, nil, address.ErrKeyLowOrder},
		"status":            {Message{Topic: "wireguard-worker/gw02/status", Payload: []byte("on")}, nil, ErrPayload},
		"status, float":     {Message{Topic: "wireguard-worker/gw02/status", Payload: []byte("1.0")}, nil, ErrPayload},
		"live, sign":        {Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("+1")}, nil, ErrPayload},
		"live, below":       {Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("-2")}, nil, ErrPayload},
		"live, huge":        {Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("1073741825")}, nil, ErrPayload},
		"live, more":        {Message{Topic: "wireguard-metrics/ffww01/gw02/connected_peers", Payload: []byte("99999999999999999999")}, nil, ErrPayload},
		"data, no JSON":     {Message{Topic: ourData, Payload: []byte("{")}, nil, ErrPayload},
		"data, an array":    {Message{Topic: ourData, Payload: []byte("[]")}, nil, ErrPayload},
		"data, null":        {Message{Topic: ourData, Payload: []byte("null")}, nil, ErrPayload},
		"data, port text":   {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": "1", ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, port 0":      {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 0, ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, port 65536":  {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 65536, ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, no host":     {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, host":        {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a b", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, everywhere":  {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "::", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
		"data, link":        {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1/64"}`)}, nil, ErrPayload},
		"data, zone":        {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 1, ` + theirKey + `, "LinkAddress": "fe80::1%eth0"}`)}, nil, ErrPayload},
		"data, no key":      {Message{Topic: ourData, Payload: []byte(`{"ExternalAddress": "a", "Port": 1, "LinkAddress": "fe80::1"}`)}, nil, ErrPayload},
	} {
		got, err := reader.Read(c.message)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, err, c.want, c.err)
		}
	}
}

// Every topic of what is sent is one that the others subscribe to.
func TestSubscriptions(t *testing.T) {
	subscriptions := Subscriptions("ffww01", "ffmuc_welt")
	for _, h := range []Heard{
		Key{"ffww01", key}, Key{"ffmuc_welt", key}, Status{"gw02", true}, Data{Gateway: "gw02", Domain: "ffmuc_welt"}, Live{"gw02", "ffww01", 1},
	} {
		var matching []Subscription
		for _, s := range subscriptions {
			if matches(s.Filter, h.Message().Topic) {
				matching = append(matching, s)
			}
		}
		_, isKey := h.(Key)
		if len(matching) != 1 || matching[0].QoS != 1 || matching[0].Kept == isKey {
			t.Errorf("%s: %+v", h.Message().Topic, matching)
		}
	}
	if n := len(subscriptions); n != 7 {
		t.Errorf("%d subscriptions", n)
	}
}

// matches is for filters without a #.
func matches(filter, topic string) bool {
	want, got := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i := range want {
		if len(got) != len(want) || want[i] != "+" && want[i] != got[i] {
			return false
		}
	}
	return true
}

// Whatever comes, what is taken of it is as valid as what a gateway sends.
func FuzzRead(f *testing.F) {
	for _, h := range []Heard{
		Key{"ffww01", key},
		Status{"gw02", true},
		Live{"gw02", "ffww01", -1},
		Data{"gw02", "ffww01", Endpoint{"gw02.example.org", 51820, key, netip.MustParseAddr("fe80::1")}},
	} {
		m := h.Message()
		f.Add(m.Topic, m.Payload, m.Retained, "gw02")
	}
	f.Add("wireguard-worker/gw02/ffww01/data", []byte(`{"port": 1e2, "EXTERNALADDRESS": "::ffff:192.0.2.1"}`), false, "")
	f.Fuzz(func(t *testing.T, topic string, payload []byte, retained bool, origin string) {
		m := Message{Topic: topic, Payload: payload, Retained: retained, Origin: origin}
		heard, err := reader.Read(m)
		if (heard == nil) == (err == nil) {
			t.Fatalf("%+v: %+v, %v", m, heard, err)
		}
		if err != nil {
			return
		}
		again := heard.Message()
		again.Retained = false
		if back, err := reader.Read(again); err != nil || back != heard {
			t.Errorf("%+v, %s reads as %+v, which reads as %+v, %v", m, payload, heard, back, err)
		}
		var gateway, domain string
		switch h := heard.(type) {
		case Key:
			domain = h.Domain
		case Status:
			gateway = h.Gateway
		case Data:
			gateway, domain = h.Gateway, h.Domain
			if len(again.Payload) > 0 && !json.Valid(again.Payload) {
				t.Errorf("not JSON: %s", again.Payload)
			}
		case Live:
			gateway, domain = h.Gateway, h.Domain
		}
		if gateway == reader.Gateway || gateway != "" && !protocol.ValidName(gateway) || domain != "" && !reader.Serves(domain) {
			t.Errorf("%+v: gateway %q, domain %q", m, gateway, domain)
		}
	})
}
