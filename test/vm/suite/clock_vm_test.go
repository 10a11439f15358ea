//go:build vm

package suite

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/policy"
)

// setClock sets the wall clock by so many seconds. The monotonic clock stays,
// and with it what tests wait for.
func setClock(t *testing.T, seconds int) {
	t.Helper()
	sh(t, "date -s @$(( $(date +%%s) + %d )) > /dev/null", seconds)
}

// latestHandshake is what the kernel says, in seconds since 1970, 0 for none.
func latestHandshake(t *testing.T, domain string, key address.Key) string {
	t.Helper()
	return sh(t, "wg show wg-%s latest-handshakes | sed -n 's,^%s\t,,p'", domain, key)
}

// The wall clock is set, either way, before and after a handshake: a live tunnel
// is neither reset nor removed, a dead one is seen to be dead.
func TestClockIsSet(t *testing.T) {
	const domain, number = "ffww12", 12
	cleanupDomain(t, domain, number)
	live := cleanupRouter(t, "live", 30, domain, number)
	gone := cleanupRouter(t, "gone", 31, domain, number)
	sh(t, "ip netns del gone; wgkex status %s", domain)
	// It has been gone for two minutes more than a tunnel lives.
	age := func(key address.Key, by time.Duration) {
		editState(t, domain, func(records []policy.Record) {
			for i := range records {
				if records[i].Key == key {
					records[i].Active -= by
					records[i].Registered -= by
				}
			}
		})
	}
	age(gone, policy.LiveFor+2*time.Minute)
	for _, step := range []int{86400, -86400, -3600, 600} {
		setClock(t, step)
		what := fmt.Sprintf("the clock set by %d s", step)
		before := latestHandshake(t, domain, live)
		accept(t, sharedPort, domain, live)
		if after := latestHandshake(t, domain, live); after == "0" {
			t.Errorf("%s: a live tunnel was reset: %s, then %s", what, before, after)
		}
		s, states := readStatus(t, domain)
		if states[live.String()] != "live" || states[gone.String()] != "idle" {
			t.Errorf("%s: states %v", what, states)
		}
		if s.ClockStep == nil || s.ClockStep.Seconds < float64(step)-60 || s.ClockStep.Seconds > float64(step)+60 {
			t.Errorf("%s: status says %+v", what, s.ClockStep)
		}
		log := entries(t, "wgkex-cleanup", func() { sh(t, "/usr/lib/wgkex/wgkex-cleanup --mark-age=0s %s", domain) })
		if len(log) != 1 || log[0]["WGKEX_LIVE"] != "2" || log[0]["WGKEX_MARKED"] != "0" {
			t.Errorf("%s: %v", what, log)
		}
		// A handshake after the step.
		handshake(t, "live", number)
		accept(t, sharedPort, domain, live)
		if latestHandshake(t, domain, live) == "0" {
			t.Errorf("%s, then a handshake: a live tunnel was reset", what)
		}
	}
	// Who is gone comes back after its own reboot, whatever the clock did.
	setClock(t, -86400)
	log := entries(t, "wgkex-handler", func() { accept(t, sharedPort, domain, gone) })
	if len(log) != 1 || !strings.Contains(log[0]["MESSAGE"], "reset in domain") || latestHandshake(t, domain, gone) != "0" {
		t.Errorf("a router that is back: %v", log)
	}
	setClock(t, 86400)
	if table := sh(t, "wgkex status %s", domain); !strings.Contains(table, "the clock was set by") {
		t.Errorf("the status says nothing of it:\n%s", table)
	}
	// And who stays away goes.
	age(gone, 2*time.Hour)
	sh(t, "/usr/lib/wgkex/wgkex-cleanup --mark-age=0s %s", domain)
	if run := cleanup(t, domain, "--mark-age=0s"); run["WGKEX_REMOVED"] != "1" || run["WGKEX_LIVE"] != "1" {
		t.Errorf("who is gone: %v", run)
	}
	sh(t, "ip netns exec live ping -6 -c 2 -i 0.5 -W 10 fd00:%d::1", 100+number)
}

// A stranger repeats the keys of routers while they come up, over and over, with
// many peers beside: no tunnel that is up goes down.
func TestKeysRepeatedByStranger(t *testing.T)     { keysRepeated(t, 2, 10*time.Second) }
func TestLongKeysRepeatedByStranger(t *testing.T) { keysRepeated(t, 6, 30*time.Second) }

// keysRepeated has so many routers, and repeats for so long after the last came.
func keysRepeated(t *testing.T, routers int, after time.Duration) {
	const domain, number = "ffww13", 13
	cleanupDomain(t, domain, number)
	addPeers(t, domain, 900) // max_pending leaves room
	sh(t, "wgkex status %s > /dev/null", domain)
	keys := make([]address.Key, routers)
	pings := make([]*exec.Cmd, routers)
	outputs := make([]strings.Builder, routers)
	var repeating sync.WaitGroup
	end := make(chan struct{})
	for i := range routers {
		name := fmt.Sprintf("router%d", i)
		keys[i] = cleanupRouter(t, name, 40+i, domain, number)
		key := keys[i]
		repeating.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					accept(t, sharedPort, domain, key)
				}
			}
		})
		pings[i] = exec.Command("ip", "netns", "exec", name, "ping", "-6", "-i", "0.5", fmt.Sprintf("fd00:%d::1", 100+number))
		pings[i].Stdout = &outputs[i]
		if err := pings[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(after)
	close(end)
	repeating.Wait()
	for i := range routers {
		_ = pings[i].Process.Signal(os.Interrupt)
		_ = pings[i].Wait() // its output tells
		if out := outputs[i].String(); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("router %d missed the gateway:\n%s", i, out[max(0, len(out)-300):])
		}
	}
}

// Scripts change peers while cleanup reads them: what it does not see is not
// taken for gone.
func TestOthersChangePeers(t *testing.T) {
	const domain = "ffww14"
	cleanupDomain(t, domain, 14)
	keys := addPeers(t, domain, 2000)
	changes := exec.Command("bash", "-c", `while :; do k=$(wg genkey | wg pubkey)
		wg set wg-`+domain+` peer $k allowed-ips fd00:99::1/128; wg set wg-`+domain+` peer $k remove; done`)
	if err := changes.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = changes.Process.Kill()
		_ = changes.Wait()
	}()
	runs := 0
	for range 4 {
		// A run that is interrupted each time fails, and changes nothing.
		if _, err := try("systemctl start wgkex-cleanup@%s.service", domain); err == nil {
			runs++
		}
		_, _ = try("systemctl reset-failed wgkex-cleanup@%s.service", domain)
	}
	t.Logf("%d of 4 runs got through", runs)
	_ = changes.Process.Kill()
	_ = changes.Wait()
	if got := consistent(t, domain); len(got) != len(keys) {
		t.Errorf("%d of %d peers are left", len(got), len(keys))
	}
	if run := cleanup(t, domain, ""); run["WGKEX_REPAIRED"] != "0" || run["WGKEX_ORPHANS"] != "0" {
		t.Errorf("afterwards: %v", run)
	}
}

// A peer of another address profile, as after a correction, and one that lost
// its address are put right by their next exchange or by cleanup.
func TestLeftOver(t *testing.T) {
	const domain = "ffww15"
	cleanupDomain(t, domain, 15)
	byExchange, byCleanup, without := newKey(t), newKey(t), newKey(t)
	for _, key := range []address.Key{byExchange, byCleanup, without} {
		accept(t, sharedPort, domain, key)
	}
	sh(t, "wgkex status %s; wg set wg-%[1]s peer %s allowed-ips ''", domain, without)
	// What looks like them and was never managed is an admin's.
	gateway, bare := newKey(t), newKey(t)
	_, elsewhere := address.RFC4291.Of(gateway)
	sh(t, "wg set wg-%s peer %s allowed-ips %s/128; wg set wg-%[1]s peer %[4]s", domain, gateway, elsewhere, bare)
	sh(t, "sed -i s/rfc4291/ffmuc/ /etc/wgkex/conf.d/%s.toml", domain)
	sh(t, "systemctl daemon-reload")
	profiles[domain] = address.FFMUC
	if _, states := readStatus(t, domain); states[byExchange.String()] != "left-over" || states[without.String()] != "left-over" ||
		states[gateway.String()] != "static" || states[bare.String()] != "static" {
		t.Errorf("states: %v", states)
	}
	refuse(t, sharedPort, domain+"\n"+gateway.String()+"\n", "PROHIBITED_WGKEY")
	accept(t, sharedPort, domain, byExchange)
	wantRouter(t, domain, byExchange)
	if run := cleanup(t, domain, ""); run["WGKEX_LEFT_OVER"] != "2" || run["WGKEX_READDRESSED"] != "2" {
		t.Errorf("cleanup: %v", run)
	}
	wantRouter(t, domain, byCleanup)
	wantRouter(t, domain, without)
	consistent(t, domain)
	if out := sh(t, "wg show wg-%s allowed-ips", domain); !strings.Contains(out, fmt.Sprintf("%s\t%s/128", gateway, elsewhere)) || !strings.Contains(out, bare.String()+"\t(none)") {
		t.Errorf("an admin's peers were changed:\n%s", out)
	}
	if out := sh(t, "bridge fdb show dev vx-%s | wc -l", domain); out != "6" {
		t.Errorf("%s FDB entries of three routers", out)
	}
}
