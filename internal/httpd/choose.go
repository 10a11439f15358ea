package httpd

import (
	"errors"
	"io/fs"
	"strconv"
	"sync"

	"wgkex/internal/address"
	"wgkex/internal/gateways"
	"wgkex/internal/httpapi"
	"wgkex/internal/message"
)

// chooser sends routers to the gateways of the community.
type chooser struct {
	Gateway
	// failed is told of what is not known for another reason than that nobody has told.
	failed func(error)

	mu   sync.Mutex
	sent gateways.Sent
}

// elsewhere is that of httpapi.API.
func (c *chooser) elsewhere(domain, keyText string, usable bool) (e httpapi.Endpoint, ok bool) {
	cfg, err := c.Config()
	if err != nil || !cfg.Relays() {
		return e, false
	}
	own, err := cfg.Gateway.OwnName()
	if err != nil {
		c.failed(err)
		return e, false
	}
	known, err := c.Known()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // there was no relay yet
			c.failed(err)
		}
		return e, false
	}
	key, err := address.ParseKey(keyText)
	if err != nil {
		return e, false // it was not accepted
	}
	router, now := message.Key{Domain: domain, Key: key}, c.SinceBoot()
	c.mu.Lock()
	defer c.mu.Unlock()
	chosen := gateways.Choice{
		Known: known, Now: now, Own: own, Usable: usable, Domain: domain,
		Weight: cfg.Weight, Sent: c.sent.Since, Before: c.sent.Before(router, now),
	}.Gateway()
	there := known[chosen].Domains[domain]
	c.sent.Add(router, chosen, there.Counted, now)
	if chosen == own {
		return e, false
	}
	return httpapi.Endpoint{
		Address: there.Endpoint.Host, Port: strconv.Itoa(int(there.Endpoint.Port)),
		AllowedIPs: []string{there.Endpoint.Link.String()}, PublicKey: there.Endpoint.Key.String(),
	}, true
}
