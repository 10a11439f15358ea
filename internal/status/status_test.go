package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/domain"
	"wgkex/internal/domain/domaintest"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/outcome"
	"wgkex/internal/policy"
	"wgkex/internal/systemd"

	"golang.org/x/sys/unix"
)

// bench is a gateway and what its status warned of.
type bench struct {
	*domaintest.Gateway
	Source
	cfg    config.Config
	warned []string
}

// newBench makes a gateway with a shared port. Systemd says of each unit that it
// has turned away as many connections as its name is long, and taken one more.
func newBench(t *testing.T) *bench {
	b := &bench{Gateway: domaintest.New(t)}
	b.Gateway.Config.Listen.Port = 10013
	b.cfg = config.Config{Listen: config.Listen{Port: 10012}, Domains: map[string]config.Domain{"d": b.Gateway.Config}}
	b.Source = Source{
		Host: b.Gateway.Host,
		Units: func(_ context.Context, names ...string) ([]systemd.Unit, error) {
			var found []systemd.Unit
			for _, name := range names {
				found = append(found, systemd.Unit{Name: name, Accepted: uint32(len(name) + 1), Refused: uint32(len(name))})
			}
			return found, nil
		},
		Warn: func(err error) { b.warned = append(b.warned, err.Error()) },
	}
	return b
}

// collect collects all domains, which is to be without an error and a warning.
func (b *bench) collect() Status {
	b.T.Helper()
	all, err := b.Collect(b.T.Context(), b.cfg, b.cfg.Sorted())
	if err != nil || b.warned != nil {
		b.T.Errorf("%v, warned %q", err, b.warned)
	}
	return all
}

// count counts outcomes of a domain, or of none for "".
func (b *bench) count(name string, codes ...outcome.Code) {
	b.T.Helper()
	c, err := counters.Open(counters.Path(b.Gateway.Host.Dir, name))
	if err != nil {
		b.T.Fatal(err)
	}
	for _, code := range codes {
		c.Count(outcome.TCP, code)
	}
	if err := c.Close(); err != nil {
		b.T.Error(err)
	}
}

func TestStates(t *testing.T) {
	b := newBench(t)
	const stale, idle, live, pending, static, bare, foreign = 1, 2, 3, 4, 5, 6, 7
	b.AddRouter(domaintest.Key(stale))
	b.Handshake(domaintest.Key(stale))
	b.Read()
	b.Pass(time.Hour)
	b.AddRouter(domaintest.Key(idle))
	b.Handshake(domaintest.Key(idle))
	b.Read()
	b.Pass(policy.LiveFor)
	b.AddRouter(domaintest.Key(live))
	b.Handshake(domaintest.Key(live))
	b.AddRouter(domaintest.Key(pending))
	b.AddStatic(domaintest.Key(static), "fd00::/64", "fd01::/64")
	b.AddLeftOver(domaintest.Key(bare))
	_, munich := address.FFMUC.Of(domaintest.Key(foreign))
	b.AddLeftOver(domaintest.Key(foreign), munich.String()+"/128")
	b.Find(domaintest.Key(live)).Received = 5
	b.Find(domaintest.Key(live)).Sent = 6
	all := b.collect()
	if len(all.Domains) != 1 {
		t.Fatalf("%d domains", len(all.Domains))
	}
	d := all.Domains[0]
	got := map[int]string{}
	for _, p := range d.Peers {
		ago := "never"
		if p.LastHandshake != nil {
			ago = b.Wall.Sub(*p.LastHandshake).String()
		}
		for n := range 10 {
			if p.Key == domaintest.Key(n) {
				got[n] = fmt.Sprintf("%s %s %s%v %d %d", p.State, ago, p.Address, p.AllowedIPs, p.Received, p.Sent)
			}
		}
	}
	own := func(n int) string {
		_, addr := b.Gateway.Config.Addresses.Of(domaintest.Key(n))
		return fmt.Sprintf("%s[%[1]s/128]", addr)
	}
	want := map[int]string{
		stale:   "stale 1h3m0s " + own(stale) + " 0 0",
		idle:    "idle 3m0s " + own(idle) + " 0 0",
		live:    "live 0s " + own(live) + " 5 6",
		pending: "pending never " + own(pending) + " 0 0",
		static:  "static never [fd00::/64 fd01::/64] 0 0",
		bare:    "left-over never [] 0 0",
		foreign: "left-over never [" + munich.String() + "/128] 0 0",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if d.Counts != (policy.Counts{Peers: 4, Pending: 1}) || d.MaxPeers != 10 || d.MaxPending != 5 || d.ClockStep != nil {
		t.Errorf("got %+v", d)
	}
}

// What programs read, null and absent fields included, stays as it is.
func TestJSON(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	b.AddStatic(domaintest.Key(2), "fd00::/64")
	b.AddLeftOver(domaintest.Key(3))
	b.Handshake(domaintest.Key(2))
	b.Find(domaintest.Key(2)).Endpoint = netip.MustParseAddrPort("192.0.2.1:5000")
	b.count("", outcome.InvalidDomain)
	b.count("d", outcome.OK, outcome.OK, outcome.Busy)
	text, err := json.MarshalIndent(b.collect(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
 "results": {
  "INVALID_DOMAIN": 1
 },
 "results_by_way": {
  "tcp": {
   "INVALID_DOMAIN": 1
  }
 },
 "sockets": [
  {
   "unit": "wgkex.socket",
   "accepted": 13,
   "turned_away": 12
  },
  {
   "unit": "wgkex@d.socket",
   "domain": "d",
   "accepted": 15,
   "turned_away": 14
  }
 ],
 "domains": [
  {
   "domain": "d",
   "wireguard": "w",
   "vxlan": "v",
   "managed": {
    "peers": 1,
    "pending": 1
   },
   "max_peers": 10,
   "max_pending": 5,
   "results": {
    "BUSY": 1,
    "OK": 2
   },
   "results_by_way": {
    "tcp": {
     "BUSY": 1,
     "OK": 2
    }
   },
   "peers": [
    {
     "public_key": "KEY1",
     "address": "ADDRESS1",
     "allowed_ips": [
      "ADDRESS1/128"
     ],
     "state": "pending",
     "received": 0,
     "sent": 0
    },
    {
     "public_key": "KEY2",
     "allowed_ips": [
      "fd00::/64"
     ],
     "state": "static",
     "last_handshake": "2026-11-22T12:00:00Z",
     "received": 0,
     "sent": 0,
     "endpoint": "192.0.2.1:5000"
    },
    {
     "public_key": "KEY3",
     "allowed_ips": [],
     "state": "left-over",
     "received": 0,
     "sent": 0
    }
   ]
  }
 ]
}`
	_, addr := b.Gateway.Config.Addresses.Of(domaintest.Key(1))
	values := strings.NewReplacer("ADDRESS1", addr.String(), "KEY1", domaintest.Key(1).String(), "KEY2", domaintest.Key(2).String(), "KEY3", domaintest.Key(3).String())
	if got := string(text); got != values.Replace(want) {
		t.Errorf("got\n%s\nwant\n%s", got, values.Replace(want))
	}

	b.Source.Units = noSystemd
	b.cfg.Domains = nil
	text, err = json.Marshal(b.collect())
	if want := `{"results":{"INVALID_DOMAIN":1},"results_by_way":{"tcp":{"INVALID_DOMAIN":1}},"sockets":null,"domains":[]}`; err != nil || string(text) != want {
		t.Errorf("without a domain got %s, %v, want %s", text, err, want)
	}
}

func noSystemd(context.Context, ...string) ([]systemd.Unit, error) {
	return nil, errors.New("asking systemd: no such file or directory")
}

// Systemd that cannot be asked costs the sockets alone.
func TestWithoutSystemd(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	b.Source.Units = noSystemd
	if all := b.collect(); all.Sockets != nil || len(all.Domains) != 1 || len(all.Domains[0].Peers) != 1 {
		t.Errorf("got %+v", all)
	}
}

// The sockets are the shared one and those of the domains that are asked for.
func TestSockets(t *testing.T) {
	b := newBench(t)
	other := b.Gateway.Config
	other.Name = "e"
	b.cfg.Domains["e"] = other
	all, err := b.Collect(t.Context(), b.cfg, []config.Domain{b.Gateway.Config})
	want := []SocketStatus{{"wgkex.socket", "", 13, 12}, {"wgkex@d.socket", "d", 15, 14}}
	if err != nil || !reflect.DeepEqual(all.Sockets, want) {
		t.Errorf("%+v, %v, want %+v", all.Sockets, err, want)
	}
}

// Counters that cannot be read are unknown, and the rest is shown without an
// error.
func TestUnreadableCounters(t *testing.T) {
	b := newBench(t)
	b.count("", outcome.NoDomain)
	if err := os.WriteFile(counters.Path(b.Gateway.Host.Dir, "d"), []byte("of another kind"), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := b.Collect(t.Context(), b.cfg, b.cfg.Sorted())
	if err != nil || len(all.Domains) != 1 || all.Domains[0].Results != nil || all.Domains[0].Peers == nil {
		t.Errorf("%+v, %v", all, err)
	}
	if want := map[outcome.Code]uint64{outcome.NoDomain: 1}; !reflect.DeepEqual(all.Results, want) {
		t.Errorf("without a domain %v, want %v", all.Results, want)
	}
	if len(b.warned) != 1 || !strings.HasPrefix(b.warned[0], "counters: "+counters.Path(b.Gateway.Host.Dir, "d")+": not a file of counters") {
		t.Errorf("warned %q", b.warned)
	}
}

// Domains that cannot be read cost themselves, and each has its error.
func TestUnreadableDomains(t *testing.T) {
	b := newBench(t)
	for name, wireguard := range map[string]string{"a": "missing", "z": "forbidden"} {
		b.cfg.Domains[name] = config.Domain{Name: name, WireGuard: wireguard}
	}
	b.Source.Host.Devices = func(wireguard, vxlan string) (kernel.Devices, error) {
		switch wireguard {
		case "missing":
			return nil, fmt.Errorf("interface %s: %w", wireguard, kernel.ErrMissing)
		case "forbidden":
			return nil, unix.EPERM
		}
		return b.Gateway.Host.Devices(wireguard, vxlan)
	}
	all, err := b.Collect(t.Context(), b.cfg, b.cfg.Sorted())
	if len(all.Domains) != 1 || all.Domains[0].Domain != "d" {
		t.Errorf("got %+v", all.Domains)
	}
	const want = "domain a: interface missing: no such interface\n" +
		"domain z: operation not permitted (it needs root, or the user wgkex with CAP_NET_ADMIN)"
	if err == nil || err.Error() != want || !errors.Is(err, kernel.ErrMissing) || !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A dump that fails is the domain's error, and its lock is given back.
func TestFailingDump(t *testing.T) {
	b := newBench(t)
	b.Through = func(d kernel.Devices) kernel.Devices {
		return &kerneltest.Faulty{Devices: d, Fault: func(int, string) (error, bool) { return unix.ENOBUFS, false }}
	}
	all, err := b.Collect(t.Context(), b.cfg, b.cfg.Sorted())
	if len(all.Domains) != 0 || !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("got %+v, %v", all.Domains, err)
	}
	b.Through = nil
	b.collect()
}

// Nobody is waited for without end.
func TestBusyDomain(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	b.Use(func(*domain.Domain) {
		if all, err := b.Collect(ctx, b.cfg, b.cfg.Sorted()); len(all.Domains) != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %+v, %v", all.Domains, err)
		}
	})
}

// An Overview has what is known without the peers of such a domain, and counts the
// peers of the others without listing them.
func TestOverview(t *testing.T) {
	b := newBench(t)
	b.AddRouter(domaintest.Key(1))
	b.AddStatic(domaintest.Key(2), "fd00::/64")
	b.count("d", outcome.OK)
	b.Pass(OverviewAge)
	all := b.Overview(t.Context(), b.cfg)
	d := all.Domains[0]
	if want := map[policy.State]int{policy.StatePending: 1, policy.StateStatic: 1}; d.Err != nil || !reflect.DeepEqual(d.States, want) || d.Peers != nil || d.Counts.Peers != 1 {
		t.Errorf("got %+v", d)
	}
	if n := len(all.Sockets); n != 3 || all.Sockets[2].Unit != "wgkex-local.socket" || d.Cleanup == nil || d.Restore == nil {
		t.Errorf("got %+v, %+v", all.Sockets, d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	b.Source.Units = noSystemd
	b.Use(func(*domain.Domain) {
		all := b.Overview(ctx, b.cfg)
		if d := all.Domains[0]; !errors.Is(d.Err, context.DeadlineExceeded) || d.States != nil || d.Results[outcome.OK] != 1 || d.MaxPeers != 10 || d.Cleanup != nil || all.Sockets != nil {
			t.Errorf("got %+v", all)
		}
	})
}

func TestClockStep(t *testing.T) {
	b := newBench(t)
	b.Pass(time.Minute)
	b.SetClock(time.Hour)
	b.Read()
	at := b.Wall
	b.Pass(time.Minute)
	if got, want := b.collect().Domains[0].ClockStep, (&ClockStep{at, 3600}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
