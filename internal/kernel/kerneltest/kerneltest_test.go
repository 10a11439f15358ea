package kerneltest

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"wgkex/internal/address"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"
)

var (
	one, two  = address.Key{1}, address.Key{2}
	at, other = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
)

func peer(key address.Key, ips ...netip.Addr) policy.Peer {
	p := policy.Peer{Key: key}
	for _, ip := range ips {
		p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(ip, 128))
	}
	return p
}

func wantPeers(t *testing.T, d kernel.Devices, want ...policy.Peer) {
	t.Helper()
	got, err := d.Peers()
	if err != nil || !slices.EqualFunc(got, want, func(a, b policy.Peer) bool {
		return a.Key == b.Key && slices.Equal(a.AllowedIPs, b.AllowedIPs) && a.Sent == b.Sent
	}) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// As TestAddAndResetPeer of the kernel package has it with a real device.
func TestModelPeers(t *testing.T) {
	d := &Devices{Key: address.Key{9}}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(d.AddPeer(d.Key, at))
	wantPeers(t, d)
	ok(d.AddPeer(one, at))
	ok(d.AddPeer(one, other))
	wantPeers(t, d, peer(one, at, other))
	d.Find(one).Sent = 7
	ok(d.AddPeer(two, at))
	counted := peer(one, other)
	counted.Sent = 7
	wantPeers(t, d, counted, peer(two, at))
	ok(d.Readdress(one, at))
	counted = peer(one, at)
	counted.Sent = 7
	wantPeers(t, d, counted, peer(two))
	ok(d.Readdress(address.Key{3}, at))
	wantPeers(t, d, counted, peer(two))
	ok(d.ResetPeer(one, at))
	wantPeers(t, d, peer(two), peer(one, at))
	if p, found, err := d.Peer(one); err != nil || !found || !reflect.DeepEqual(p, peer(one, at)) {
		t.Errorf("%+v, %v, %v", p, found, err)
	}
	ok(d.RemovePeers([]address.Key{one, {3}}))
	if p, found, err := d.Peer(one); err != nil || found {
		t.Errorf("%+v, %v, %v", p, found, err)
	}
	wantPeers(t, d, peer(two))
}

// calls are all calls that ask the kernel, by the method's name.
func calls(d kernel.Devices) map[string]func() error {
	return map[string]func() error{
		"Gateway":       func() error { _, err := d.Gateway(); return err },
		"Owns":          func() error { _, err := d.Owns(address.MAC{2}, at); return err },
		"Peers":         func() error { _, err := d.Peers(); return err },
		"Peer":          func() error { _, _, err := d.Peer(one); return err },
		"AddPeer":       func() error { return d.AddPeer(one, at) },
		"AddPeers":      func() error { return d.AddPeers([]kernel.PeerAddress{{Key: one, Addr: at}}) },
		"ResetPeer":     func() error { return d.ResetPeer(one, at) },
		"Readdress":     func() error { return d.Readdress(one, at) },
		"RemovePeers":   func() error { return d.RemovePeers([]address.Key{one}) },
		"HasEntry":      func() error { _, err := d.HasEntry(address.MAC{2}, netip.Addr{}); return err },
		"Entries":       func() error { _, err := d.Entries(); return err },
		"SetEntries":    func() error { return d.SetEntries([]kernel.Destination{{MAC: address.MAC{2}, Addr: at}}) },
		"RemoveEntries": func() error { return d.RemoveEntries([]kernel.Entry{{MAC: address.MAC{2}, Dst: at}}) },
	}
}

// No method is left out when the interface grows.
func TestCallsAreAll(t *testing.T) {
	values := map[string]bool{"Index": true, "Remote": true, "Close": true} // these do not ask the kernel
	all := reflect.TypeFor[kernel.Devices]()
	for i := range all.NumMethod() {
		name := all.Method(i).Name
		if calls(nil)[name] == nil && !values[name] {
			t.Errorf("%s is not among the calls", name)
		}
	}
}

// Others act before the call takes effect, once, and are not in their own way.
func TestBetween(t *testing.T) {
	d := &Devices{}
	for name, call := range calls(d) {
		var between []string
		d.Between = func(method string) {
			between = append(between, method)
			if err := d.AddPeer(two, other); err != nil {
				t.Error(err)
			}
		}
		if err := call(); err != nil || !slices.Equal(between, []string{name}) {
			t.Errorf("%s: %v, between: %v", name, err, between)
		}
	}
	d = &Devices{Between: func(string) { d.PeerList = []policy.Peer{peer(one, at)} }}
	wantPeers(t, d, peer(one, at))
	if _, found, err := d.Peer(one); err != nil || !found {
		t.Errorf("%v, %v", found, err)
	}
	d = &Devices{Between: func(string) { d.FDB = []kernel.Entry{{Dst: at}} }}
	if entries, err := d.Entries(); err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestInterrupt(t *testing.T) {
	for name := range calls(nil) {
		tries := 0
		d := &Devices{Interrupt: 2, Between: func(string) { tries++ }}
		err := calls(d)[name]()
		dump := name == "Peers" || name == "Peer" || name == "Entries"
		if err != nil || dump != (tries == 3) || dump != (d.Interrupt == 0) {
			t.Errorf("%s: %v after %d tries, %d interruptions left", name, err, tries, d.Interrupt)
		}
		d.Interrupt = 1000
		if err := calls(d)[name](); errors.Is(err, kernel.ErrInterrupted) != dump {
			t.Errorf("%s, interrupted for ever: %v", name, err)
		}
	}
}

func TestFaulty(t *testing.T) {
	failed := errors.New("failed")
	for name := range calls(nil) {
		for _, afterwards := range []bool{false, true} {
			reached := false
			d := &Devices{Between: func(string) { reached = true }}
			f := &Faulty{Devices: d, Fault: func(n int, method string) (error, bool) {
				if n != 0 || method != name {
					t.Errorf("fault asked for %d, %s, want 0, %s", n, method, name)
				}
				return failed, afterwards
			}}
			if err := calls(f)[name](); !errors.Is(err, failed) || reached != afterwards || !slices.Equal(f.Calls, []string{name}) {
				t.Errorf("%s: %v, reached %v, calls %v", name, err, reached, f.Calls)
			}
			f.Fault = func(int, string) (error, bool) { panic(failed) }
			reached = false
			func() {
				defer func() {
					if got := recover(); got != failed {
						t.Errorf("%s: recovered %v", name, got)
					}
				}()
				_ = calls(f)[name]() // it does not return
			}()
			if reached || len(f.Calls) != 2 {
				t.Errorf("%s after a panic: reached %v, calls %v", name, reached, f.Calls)
			}
		}
	}
}
