package exchange

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
)

// batchOn makes many exchanges at a time through devices.
func (b *bench) batchOn(devices kernel.Devices, keys ...address.Key) (results []Result) {
	b.T.Helper()
	b.Through = func(kernel.Devices) kernel.Devices { return devices }
	defer func() { b.Through = nil }()
	b.Use(func(d *domain.Domain) { results = Run(d, keys...) })
	return results
}

func codes(results []Result) (list []outcome.Code) {
	for _, r := range results {
		list = append(list, outcome.CodeOf(r.Err))
	}
	return list
}

// Each key of a batch is treated as if it came alone after those before it.
func TestBatch(t *testing.T) {
	b := newBench(t)
	b.AddStatic(key(50), "fd00::/64")
	b.AddRouter(key(1)) // pending
	b.Read()
	b.Dumps = 0
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(int, string) (error, bool) { return nil, false }}
	results := b.batchOn(faulty, key(2), key(3), key(50), key(2), b.Key, key(1), key(4))
	want := []outcome.Code{outcome.OK, outcome.OK, outcome.ProhibitedKey, outcome.OK, outcome.ProhibitedKey, outcome.OK, outcome.OK}
	if got := codes(results); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	actions := []policy.Action{policy.Add, policy.Add, 0, policy.Keep, 0, policy.Keep, policy.Add}
	for i, r := range results {
		if r.Err == nil && r.Action != actions[i] {
			t.Errorf("%d: %s, want %s", i, r.Action, actions[i])
		}
	}
	for n := 1; n <= 4; n++ {
		b.WantRouter(key(n), true)
	}
	b.Consistent()
	if got := b.Counts(); got != (policy.Counts{Peers: 4, Pending: 4}) || b.Dumps > 0 {
		t.Errorf("counted %+v, %d dumps", got, b.Dumps)
	}
	calls := map[string]int{}
	for _, c := range faulty.Calls {
		calls[c]++
	}
	// 2 and 3 together, then 2 once more, 1, and at the end 4.
	if calls["AddPeers"] != 1 || calls["AddPeer"] != 3 || calls["Gateway"] != 1 {
		t.Errorf("calls %v", calls)
	}
}

// Limits hold within a batch, and two keys with one address are a conflict.
func TestBatchLimits(t *testing.T) {
	b := newBench(t)
	var keys []address.Key
	for n := range 8 {
		keys = append(keys, key(n))
	}
	results := b.batchOn(b.Devices, keys...)
	for i, code := range codes(results) {
		if want := map[bool]outcome.Code{true: outcome.OK, false: outcome.Busy}[i < b.Config.MaxPending]; code != want {
			t.Errorf("%d: %s, want %s", i, code, want)
		}
	}
	if got := b.Counts(); got.Peers != b.Config.MaxPending || len(b.PeerList) != b.Config.MaxPending {
		t.Errorf("counted %+v, there are %d", got, len(b.PeerList))
	}
}

// A reading of all peers in the middle knows of those that were promised before.
func TestBatchWithAReading(t *testing.T) {
	b := newBench(t)
	b.AddRouter(key(9)) // by others: its entry makes the exchange read all peers
	results := b.batchOn(b.Devices, key(1), key(2), key(9), key(3))
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	if got := b.Counts(); got != (policy.Counts{Peers: 4, Pending: 4}) || b.Dumps != 1 {
		t.Errorf("counted %+v, %d dumps", got, b.Dumps)
	}
	b.Consistent()
}

// One that cannot be added does not keep the others from it.
func TestBatchWithAFailure(t *testing.T) {
	b := newBench(t)
	faulty := &kerneltest.Faulty{Devices: b.Devices, Fault: func(_ int, method string) (error, bool) {
		if method == "AddPeers" {
			return syscall.EINVAL, false
		}
		return nil, false
	}}
	results := b.batchOn(faulty, key(1), key(2))
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	b.Consistent()
	// Nothing works any more: nothing of them is left.
	faulty.Fault = func(_ int, method string) (error, bool) {
		if method == "AddPeers" || method == "AddPeer" {
			return syscall.ENOBUFS, false
		}
		return nil, false
	}
	for i, r := range b.batchOn(faulty, key(3), key(4)) {
		if !errors.Is(r.Err, syscall.ENOBUFS) {
			t.Errorf("%d: %v", i, r.Err)
		}
	}
	b.Consistent()
	if got := b.Counts(); got.Peers != 2 {
		t.Errorf("counted %+v", got)
	}
}

// Killed at every step, a batch leaves whole routers or none, and counts that are
// not too low.
func TestBatchKilled(t *testing.T) {
	keys := []address.Key{key(1), key(2), key(3)}
	for step := 0; ; step++ {
		b := newBench(t)
		b.Devices.PeerList, b.FDB = nil, nil
		died := b.Kill(step, func() {
			d := b.Open()
			defer d.Close() // the kernel gives the lock back
			Run(d, keys...)
		})
		if !died {
			if step < 6 {
				t.Errorf("only %d steps", step)
			}
			return
		}
		b.Use(func(d *domain.Domain) {
			state, err := d.State()
			if err != nil || state.Counts.Peers < len(b.PeerList) {
				t.Errorf("step %d: counted %+v of %d, %v", step, state.Counts, len(b.PeerList), err)
			}
		})
		for _, p := range b.PeerList {
			b.WantRouter(p.Key, true)
		}
		for i, r := range b.batchOn(b.Devices, keys...) {
			if r.Err != nil {
				t.Errorf("step %d: %s: %v", step, keys[i], r.Err)
			}
		}
		b.Consistent()
	}
}

// A renewal by repeating its key takes nothing from a restored peer: a stranger
// could make it go earlier.
func TestRestoredKeyRepeated(t *testing.T) {
	b := newBench(t)
	b.Use(func(d *domain.Domain) {
		if _, err := d.State(); err != nil {
			t.Fatal(err)
		}
		r := policy.RestoredRecord(policy.Saved{Key: key(1), Silent: time.Minute}, b.Boot)
		if err := errors.Join(d.Promise(r), errors.Join(d.Add(r)...)); err != nil {
			t.Fatal(err)
		}
	})
	state := func() policy.Record {
		var found []policy.Record
		b.Use(func(d *domain.Domain) {
			s, err := d.State()
			if err == nil && s == nil {
				_, err = d.Refresh(nil)
				s, _ = d.State()
			}
			if err != nil {
				t.Fatal(err)
			}
			mac, _ := b.Config.Addresses.Of(key(1))
			found, _ = s.Find(mac)
		})
		if len(found) != 1 {
			t.Fatalf("records %v", found)
		}
		return found[0]
	}
	active := state().Active
	for _, pass := range []time.Duration{time.Minute, policy.PendingFor, time.Minute} {
		b.Pass(pass)
		if r := b.batchOn(b.Devices, key(1))[0]; r.Err != nil {
			t.Error(r.Err)
		}
		got := state()
		if got.Active != active || got.Stale(b.Boot, time.Hour) {
			t.Errorf("after %s: %s", pass, fmt.Sprintf("%+v", got))
		}
		if got := b.Counts(); got.Peers != 1 || got.Pending > 1 {
			t.Errorf("counted %+v", got)
		}
	}
	if !state().Stale(b.Boot+time.Hour, time.Hour) {
		t.Error("it is never stale")
	}
}
