package gateways

import (
	"net/netip"

	"wgkex/internal/address"
	"wgkex/internal/message"
)

// Own is what a gateway tells others of a domain of its own.
type Own struct {
	Domain string `json:"domain"`
	// Live is how many live peers it has.
	Live int `json:"live"`
	// Port is the UDP port, 0 for none, Key the public key, and Link the address inside of
	// the tunnel, zero for none.
	Port uint16      `json:"port"`
	Key  address.Key `json:"public_key"`
	Link netip.Addr  `json:"link_address"`
}

// Endpoint is the end of the tunnels at a gateway with this address, the zero value where
// routers cannot connect to it.
func (o Own) Endpoint(host string) message.Endpoint {
	if o.Port == 0 || !o.Link.IsValid() {
		return message.Endpoint{}
	}
	return message.Endpoint{Host: host, Port: o.Port, Key: o.Key, Link: o.Link}
}
