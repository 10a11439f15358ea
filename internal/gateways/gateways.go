// Package gateways is what a gateway knows of all gateways of its community, itself
// among them, the file in which it keeps that, and to which of them a router is sent.
package gateways

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"wgkex/internal/message"
	"wgkex/internal/protocol"
)

const (
	// Path is the file, which wgkex-relay.service writes.
	Path = "/run/wgkex/relay/gateways.json"
	// MaxSize is more than the file can have, in bytes.
	MaxSize = 16 << 20

	version = 1
	// maxGateways and maxDomains are more than any community has. Who may publish at the
	// broker can name any number of gateways.
	maxGateways = 64
	maxDomains  = 256
)

// Known is the gateways by their names. Times are since boot (CLOCK_BOOTTIME).
type Known map[string]Gateway

// Gateway is what is known of one.
type Gateway struct {
	// Online says that it has said so, and that the broker has not said otherwise.
	Online bool `json:"online"`
	// Heard is when something was last heard of it.
	Heard time.Duration `json:"heard_ns"`
	// Domains are those that this gateway has, too.
	Domains map[string]Domain `json:"domains,omitempty"`
}

// Domain is what is known of a domain of a gateway.
type Domain struct {
	// Live is how many live peers it has, -1 for not known.
	Live int `json:"live"`
	// Counted is when the number was heard.
	Counted time.Duration `json:"counted_ns"`
	// Endpoint is how routers reach it, nil for not known.
	Endpoint *message.Endpoint `json:"endpoint,omitempty"`
}

// Counts reports whether Live is known, and not too old to go by.
func (d Domain) Counts(now time.Duration) bool { return d.Live >= 0 && now-d.Counted < SilentFor }

// ErrFull is the error of a gateway that there is no room for.
var ErrFull = errors.New("there are too many gateways")

// Hear takes what a gateway says. A Key says nothing of a gateway. There is always room for
// what own says, this gateway.
func (k Known) Hear(heard message.Heard, own string, now time.Duration) error {
	switch h := heard.(type) {
	case message.Status:
		return k.change(h.Gateway, own, now, func(g *Gateway) { g.Online = h.Online })
	case message.Data:
		return k.changeDomain(h.Gateway, h.Domain, own, now, func(d *Domain) {
			if d.Endpoint = nil; h.Endpoint != (message.Endpoint{}) {
				d.Endpoint = &h.Endpoint
			}
		})
	case message.Live:
		return k.changeDomain(h.Gateway, h.Domain, own, now, func(d *Domain) { d.Live, d.Counted = h.Peers, now })
	}
	return nil
}

func (k Known) change(name, own string, now time.Duration, do func(*Gateway)) error {
	g, known := k[name]
	if !known && name != own && len(k) >= maxGateways && !k.forgetOne(own) {
		return ErrFull
	}
	g.Heard = now
	do(&g)
	k[name] = g
	return nil
}

func (k Known) changeDomain(gateway, name, own string, now time.Duration, do func(*Domain)) error {
	full := false
	err := k.change(gateway, own, now, func(g *Gateway) {
		d, known := g.Domains[name]
		if full = !known && len(g.Domains) >= maxDomains; full {
			return
		}
		if !known {
			d.Live = -1
		}
		if g.Domains == nil {
			g.Domains = map[string]Domain{}
		}
		do(&d)
		g.Domains[name] = d
	})
	if full {
		return ErrFull
	}
	return err
}

// forgetOne forgets the gateway that was heard of longest ago, of those that are not on
// line, if there is one.
func (k Known) forgetOne(own string) bool {
	oldest := ""
	for name, g := range k {
		if !g.Online && name != own && (oldest == "" || g.Heard < k[oldest].Heard || g.Heard == k[oldest].Heard && name < oldest) {
			oldest = name
		}
	}
	delete(k, oldest)
	return oldest != ""
}

// Forget forgets the domains that this gateway does not have.
func (k Known) Forget(serves func(domain string) bool) {
	for _, g := range k {
		for name := range g.Domains {
			if !serves(name) {
				delete(g.Domains, name)
			}
		}
	}
}

// file is the content of the file.
type file struct {
	Version  int   `json:"version"`
	Gateways Known `json:"gateways"`
}

// Text is the file as it is written.
func (k Known) Text() []byte {
	return textOf(file{version, k})
}

func textOf(file any) []byte {
	text, err := json.Marshal(file)
	if err != nil {
		panic(err) // the types are those of this package
	}
	return append(text, '\n')
}

// read reads what textOf has made of such a file, and nothing else.
func read(text []byte, file any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(file); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is something behind it")
	}
	return nil
}

// Parse reads a Text. What is not one in each detail is an error.
func Parse(text []byte) (Known, error) {
	var f file
	if err := read(text, &f); err != nil {
		return nil, fmt.Errorf("not a file of known gateways: %w", err)
	}
	if f.Version != version || f.Gateways == nil {
		return nil, errors.New("not a file of known gateways of this version of wgkex")
	}
	if len(f.Gateways) > maxGateways+1 { // this one may have come last
		return nil, ErrFull
	}
	for name, g := range f.Gateways {
		ok := protocol.ValidName(name) && g.Heard >= 0 && len(g.Domains) <= maxDomains
		for domain, d := range g.Domains {
			ok = ok && protocol.ValidName(domain) && d.Live >= -1 && d.Live <= message.MaxLive && d.Counted >= 0
		}
		if !ok {
			return nil, errors.New("a file of known gateways with something in it that wgkex has not written")
		}
	}
	return f.Gateways, nil
}
