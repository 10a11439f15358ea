// Package exchange carries out one exchange: it gathers what the policy must
// know, as cheaply as can be, and does to the kernel what the policy says.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

// fullFor is how long after a reading of all peers a domain that was full then
// is taken to be full still: whoever fills it up must not make every refusal
// cost a reading.
const fullFor = 2 * time.Second

// Result is what was done to the peer, or the error that refused or failed it, of
// which outcome.CodeOf is the code.
type Result struct {
	Action policy.Action
	// Gateway is the end that an accepted router connects to.
	Gateway kernel.Gateway
	Err     error
}

// Run makes each key a peer of the domain, or makes sure that it is one, in their
// order; new peers are added together. After an error the kernel holds what it
// held before, or the whole router, or FDB entries without a peer.
func Run(d *domain.Domain, keys ...address.Key) []Result {
	b := batch{Domain: d, results: make([]Result, len(keys))}
	for i, key := range keys {
		r := &b.results[i]
		r.Action, r.Err = (&run{batch: &b, number: i, key: key}).run()
	}
	b.add()
	for i := range b.results {
		b.results[i].Gateway, b.results[i].Err = b.gateway, Classify(b.results[i].Err)
	}
	return b.results
}

// Classify turns errors that pass into BUSY: an interface that is missing or
// cannot serve, a lock that others hold for too long, peers that somebody
// changes too fast to be read.
func Classify(err error) error {
	for _, passing := range []error{kernel.ErrMissing, kernel.ErrUnfit, kernel.ErrInterrupted, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return outcome.Refuse(outcome.Busy, "%w", err)
		}
	}
	return err
}

// batch is exchanges of one domain under way.
type batch struct {
	*domain.Domain
	// gateway is its own end of the tunnels, zero as long as nobody has asked.
	gateway kernel.Gateway
	results []Result
	// new are the records of the peers that are promised, not yet added, and
	// numbers which results these are.
	new     []policy.Record
	numbers []int
}

// maxNew is how many peers are added together at most: as many as fit into one
// message to the kernel.
const maxNew = 256

// add adds the peers that were promised.
func (b *batch) add() {
	for i, err := range b.Add(b.new...) {
		b.results[b.numbers[i]].Err = err
	}
	b.new, b.numbers = nil, nil
}

// run is one exchange under way.
type run struct {
	*batch
	number int // of the result
	key    address.Key
	state  *domain.State
	// fresh says that the state is of a reading made for this exchange.
	fresh bool
	facts policy.Exchange
}

func (r *run) run() (policy.Action, error) {
	if err := r.gather(); err != nil {
		return 0, err
	}
	action, err := r.facts.Decide()
	if r.needsRoom(err) {
		action, err = r.makeRoom(action, err)
	}
	if err != nil {
		return 0, err
	}
	return r.apply(action)
}

// gather learns what the policy has to know, of which most is in the state.
//
// A key that a router has for the first time, and one that is sent again, must
// not cost a reading of all peers: that takes time in proportion to their
// number, and a stranger could ask for it over and over.
func (r *run) gather() error {
	c := r.Config
	r.facts = policy.Exchange{
		Key: r.key, Profile: c.Addresses, MaxPeers: c.MaxPeers, MaxPending: c.MaxPending,
		SinceBoot: r.Host.SinceBoot(),
	}
	mac, addr := c.Addresses.Of(r.key)
	var err error
	if r.gateway.Key.IsZero() {
		if r.gateway, err = r.Kernel.Gateway(); err != nil {
			return err
		}
	}
	r.facts.GatewayKey = r.gateway.Key
	if r.facts.GatewayOwns, err = r.Kernel.Owns(mac, addr); err != nil {
		return err
	}
	if r.state, err = r.State(); err != nil {
		return err
	}
	if r.state == nil {
		return r.refresh()
	}
	if err := r.consult(); err != nil {
		return err
	}
	// What is refused whatever the managed peers are needs no more questions.
	if len(r.facts.Managed) > 0 || r.facts.Refused() != nil {
		return nil
	}
	// MAC and address determine each other, and a managed peer stands after its
	// FDB entries: where neither the state nor the FDB has the MAC, no managed
	// peer has this key or address. One that others have added since is found
	// by its entry; one that leads elsewhere is what the interface learned, and
	// says nothing.
	known, err := r.Kernel.HasEntry(mac, addr)
	if err != nil || !known {
		return err
	}
	return r.refresh()
}

// refresh reads all peers.
func (r *run) refresh() error {
	r.add() // or they would not be among them
	survey, err := r.Refresh(nil)
	if err != nil {
		return err
	}
	r.fresh = true
	if r.state, err = r.State(); err != nil {
		return err
	}
	if err := r.consult(); err != nil || len(r.facts.Managed) > 0 || r.facts.Refused() != nil {
		return err
	}
	// Nobody has the address: entries that lead there are left over, as after
	// somebody removed all peers. Without them the next exchange costs no
	// reading again.
	mac, addr := r.Config.Addresses.Of(r.key)
	if left, err := r.Kernel.HasEntry(mac, addr); err != nil || !left {
		return err
	}
	_, err = r.Repair(survey.Peers)
	return err
}

// consult takes the facts from the state.
func (r *run) consult() (err error) {
	mac, _ := r.Config.Addresses.Of(r.key)
	r.facts.Others, r.facts.Counts = r.state.Others, r.state.Counts
	records, err := r.state.Find(mac)
	if err != nil {
		return err
	}
	r.facts.Managed = r.facts.Managed[:0]
	for _, record := range records {
		if record.Kind == policy.Managed {
			r.facts.Managed = append(r.facts.Managed, record)
		}
	}
	return nil
}

// needsRoom reports whether the decision, of which err is part, was made for want
// of a place in the domain.
func (r *run) needsRoom(err error) bool {
	return errors.Is(err, policy.ErrFull) || err == nil && r.facts.Starved()
}

// makeRoom decides about a key for which a domain has no place: peers may have
// left or had their first handshake since the reading, or one has had its time
// and goes. Otherwise the decision stays.
func (r *run) makeRoom(action policy.Action, full error) (policy.Action, error) {
	believed := r.fresh || r.facts.SinceBoot-r.state.Reading.Began < fullFor
	for {
		if !believed {
			if err := r.refresh(); err != nil {
				return 0, err
			}
			if action, err := r.facts.Decide(); !r.needsRoom(err) {
				return action, err
			}
		}
		overdue, err := r.overdue()
		if err != nil {
			return 0, err
		}
		r.facts.Overdue = overdue
		if instead, err := r.facts.Decide(); overdue == nil || r.needsRoom(err) {
			return action, full
		} else if gone, goneErr := r.stillOverdue(overdue.Key); gone || goneErr != nil {
			return instead, errors.Join(err, goneErr)
		}
		r.facts.Overdue = nil
		if r.fresh {
			return action, full
		}
		believed = false
	}
}

// stillOverdue asks the kernel about a peer that is to make room: it may have
// connected since the reading, or be gone or somebody else's.
func (r *run) stillOverdue(key address.Key) (bool, error) {
	p, there, err := r.Kernel.Peer(key)
	return there && p.Pending() && p.Managed(r.Config.Addresses), err
}

// overdue is the managed peer that has been pending longest, if it may go.
func (r *run) overdue() (*policy.Record, error) {
	records, err := r.state.All()
	if err != nil {
		return nil, err
	}
	var oldest *policy.Record
	for i, record := range records {
		if record.Overdue(r.facts.SinceBoot) && (oldest == nil || record.Registered < oldest.Registered) {
			oldest = &records[i]
		}
	}
	return oldest, nil
}

// apply does what was decided. The action that it returns is what was done in
// the end.
func (r *run) apply(action policy.Action) (policy.Action, error) {
	if action == policy.Add {
		return action, r.promise()
	}
	r.add() // what is done to a peer is done after what was done before
	switch action {
	case policy.Keep:
		return action, r.Ensure(r.key)
	case policy.Renew:
		return action, r.Renew(r.key)
	case policy.Reset:
		if r.facts.Overdue != nil {
			if _, err := r.Remove(*r.facts.Overdue); err != nil {
				return action, err
			}
		}
		err := r.Reset(r.key, func() (record policy.Record, still bool, err error) {
			action, err = r.lookAgain()
			return r.facts.Managed[0], action == policy.Reset, err
		})
		return action, err
	case policy.Replace:
		if _, err := r.Remove(*r.facts.Overdue); err != nil {
			return action, err
		}
		return action, r.promise()
	case policy.Readdress:
		_, err := r.Domain.Readdress(r.key)
		return action, err
	}
	return action, fmt.Errorf("no such action: %d", action)
}

// promise has the peer added with the others.
func (r *run) promise() error {
	record := policy.NewRecord(r.key, r.Host.SinceBoot())
	if err := r.Promise(record); err != nil {
		return err
	}
	r.new, r.numbers = append(r.new, record), append(r.numbers, r.number)
	if len(r.new) == maxNew {
		r.add()
	}
	return nil
}

// lookAgain asks the kernel about the peer that is to be reset, immediately
// before: its router may have connected since the reading, and a stranger may
// repeat its key at just that moment. What can still come between is a handshake
// in the time from the kernel's answer to the reset, which is the next thing that
// is done.
func (r *run) lookAgain() (policy.Action, error) {
	var reading policy.Reading
	reading.Offset, reading.Began = r.Host.Clocks()
	p, there, err := r.Kernel.Peer(r.key)
	if err != nil {
		return 0, err
	}
	reading.Ended = r.Host.SinceBoot()
	switch {
	case !there: // somebody has removed it: there is nothing to cut
		return policy.Reset, nil
	case !p.Managed(r.Config.Addresses):
		return 0, fmt.Errorf("peer %s was changed by others since the last reading: %w", r.key, r.overtaken())
	}
	before := r.facts.Managed[0]
	r.facts.Managed[0] = policy.Follow(&before, p, r.Config.Addresses, r.state.Reading, reading)
	r.facts.SinceBoot = reading.Ended
	action, err := r.facts.Decide()
	if err == nil && action == policy.Keep && !p.LastHandshake.Equal(before.LastHandshake) && !p.Pending() {
		// Or whoever repeats the key would cost a search each time.
		err = r.Seen(r.facts.Managed[0])
	}
	return action, err
}

// overtaken reads all peers for the next exchange to know what others have
// changed, and is the error of this one.
func (r *run) overtaken() error {
	r.add()
	_, err := r.Refresh(nil)
	return errors.Join(kernel.ErrInterrupted, err)
}
