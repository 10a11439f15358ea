package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"wgkex/internal/gateways"
	"wgkex/internal/message"

	"github.com/coreos/go-systemd/v22/journal"
)

// presenter tells the other gateways of this one.
type presenter struct {
	*Relay
	// anew says that the connection is a new one.
	anew atomic.Bool
	// data is what was said of each domain, absent how often in turn it could not be read.
	data   map[string]message.Data
	absent map[string]int
}

// present subscribes, if that is to be done anew, and says what there is to say.
func (p *presenter) present(ctx context.Context) {
	if !p.isConnected() {
		return // it is asked for again when there is a connection
	}
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	anew := p.anew.Swap(false)
	if err := p.try(ctx, anew); err != nil {
		if anew {
			p.anew.Store(true)
		}
		if ctx.Err() == nil {
			p.Log(journal.PriWarning, fmt.Sprintf("the broker could not be told or asked everything: %v", err))
		}
	}
}

func (p *presenter) try(ctx context.Context, anew bool) error {
	var deaf error // what it does not hear is no reason to say nothing
	if anew {
		p.data, p.absent = map[string]message.Data{}, map[string]int{}
		deaf = p.Broker.Subscribe(ctx, message.Subscriptions(p.Domains...)...)
	}
	own, err := p.Own(ctx)
	if err != nil && ctx.Err() == nil {
		p.Log(journal.PriWarning, fmt.Sprintf("this gateway's peers cannot be counted: %v", err))
	}
	found := map[string]gateways.Own{}
	for _, d := range own {
		found[d.Domain] = d
	}
	for _, name := range p.Domains {
		if d, ok := found[name]; ok {
			p.absent[name] = 0
			err = p.domain(ctx, d)
		} else if p.absent[name]++; p.absent[name] == absentAfter {
			err = p.say(ctx, message.Live{Gateway: p.Name, Domain: name, Peers: -1})
		} else {
			err = nil
		}
		if err != nil {
			return errors.Join(deaf, err)
		}
	}
	// Each time: Munich's worker of the same name, which is stopped when wgkex takes its
	// place, says at its end that the gateway is off line.
	return errors.Join(deaf, p.say(ctx, message.Status{Gateway: p.Name, Online: true}))
}

func (p *presenter) domain(ctx context.Context, d gateways.Own) error {
	if data := (message.Data{Gateway: p.Name, Domain: d.Domain, Endpoint: d.Endpoint(p.Address)}); data != p.data[d.Domain] {
		if err := p.say(ctx, data); err != nil {
			return err
		}
		p.data[d.Domain] = data
	}
	return p.say(ctx, message.Live{Gateway: p.Name, Domain: d.Domain, Peers: d.Live})
}

// say says it to the others and to this gateway itself.
func (r *Relay) say(ctx context.Context, h message.Heard) error {
	if err := r.Broker.Publish(ctx, h.Message()); err != nil {
		return err
	}
	return r.hear(h)
}

// leave says that this gateway goes. The broker says so if it is not told.
func (r *Relay) leave(ctx context.Context) {
	for _, name := range r.Domains {
		if r.say(ctx, message.Live{Gateway: r.Name, Domain: name, Peers: -1}) != nil {
			return
		}
	}
	_ = r.say(ctx, message.Status{Gateway: r.Name}) // the connection has ended
	r.write()
}
