//go:build vm

package suite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/address/addresstest"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/exchange"
	"wgkex/internal/kernel"
	"wgkex/internal/kernel/kerneltest"
	"wgkex/internal/policy"
)

// Two keys with one address, as an attacker finds them: the first has it.
func TestCollision(t *testing.T) {
	a, b := addresstest.Collide(uint64(time.Now().UnixNano()))
	for _, domain := range []string{"ffww01", "ffww02"} {
		accept(t, sharedPort, domain, a)
		before := state(t)
		refuse(t, sharedPort, domain+"\n"+b.String()+"\n", "ADDRESS_CONFLICT")
		if after := state(t); after != before {
			t.Errorf("the kernel changed from\n%s\nto\n%s", before, after)
		}
		wantRouter(t, domain, a)
		// Not even when somebody has flushed the FDB, whether the peers were read
		// since or not.
		for range 2 {
			flushFDB(t, domain)
			refuse(t, sharedPort, domain+"\n"+b.String()+"\n", "ADDRESS_CONFLICT")
			if ips := sh(t, "wg show wg-%s allowed-ips", domain); !strings.Contains(ips+"\n", fmt.Sprintf("%s\t%s/128\n", a, derived(domain, a))) {
				t.Errorf("%s: the first has lost its address:\n%s", domain, ips)
			}
			sh(t, "wgkex status %s", domain)
		}
		cleanup(t, domain, "")
		wantRouter(t, domain, a)
		if s, _ := readStatus(t, domain); s.Results["ADDRESS_CONFLICT"] == 0 {
			t.Errorf("%s: the refusal was not counted: %v", domain, s.Results)
		}
	}
}

// The limits hold while many ask at once, and a peer that has had its time
// makes room.
func TestLimitsUnderAttack(t *testing.T) {
	const name = "ffww09"
	cleanupDomain(t, name, 9)
	writeConf(t, "limits.toml", "[domains.ffww09]\nmax_peers = 8\nmax_pending = 5\n")
	sh(t, "systemctl daemon-reload")
	keys := make([]address.Key, 40)
	var mutex sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for i := range keys {
		keys[i] = newKey(t)
		wg.Go(func() {
			got := send(t, sharedPort, name+"\n"+keys[i].String()+"\n")
			mutex.Lock()
			defer mutex.Unlock()
			answers[got]++
		})
	}
	wg.Wait()
	if answers[""] != 5 || answers["ERR: BUSY\n"] != 35 {
		t.Errorf("answers: %v, want 5 accepted and 35 BUSY", answers)
	}
	peers := consistent(t, name)
	if len(peers) != 5 {
		t.Fatalf("%d peers, want max_pending", len(peers))
	}
	s, _ := readStatus(t, name)
	if s.Results["OK"] != 5 || s.Results["BUSY"] != 35 {
		t.Errorf("counted %v", s.Results)
	}
	// Nobody waits a quarter of an hour here: the gateway is said to be up for
	// longer.
	editState(t, name, func(records []policy.Record) {
		for i := range records {
			if records[i].Key == peers[0] {
				records[i].Registered -= time.Hour
			}
		}
	})
	time.Sleep(3 * time.Second) // for that long the domain is taken to be full
	newcomer := newKey(t)
	accept(t, sharedPort, name, newcomer)
	after := consistent(t, name)
	if len(after) != 5 || after[4] != newcomer || after[0] != peers[1] {
		t.Errorf("peers %v, then %v: want the first to have made room for %s", peers, after, newcomer)
	}
}

// Every step of an exchange fails on the real kernel, before or after it took
// effect: never half a router.
func TestEveryStepFails(t *testing.T) {
	const name = "ffww10"
	cleanupDomain(t, name, 10)
	c := config.Domain{Name: name, WireGuard: "wg-" + name, VXLAN: "vx-" + name, MaxPeers: 1000, MaxPending: 1000}
	var faulty *kerneltest.Faulty
	var fault func(n int, method string) (error, bool)
	host := domain.System
	host.Dir = t.TempDir()
	host.Devices = func(wireguard, vxlan string) (kernel.Devices, error) {
		d, err := kernel.Open(wireguard, vxlan)
		faulty = &kerneltest.Faulty{Devices: d, Fault: fault}
		return faulty, err
	}
	run := func(key address.Key, f func(int, string) (error, bool)) error {
		fault = f
		d, err := host.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}()
		return exchange.Run(d, key)[0].Err
	}
	never := func(int, string) (error, bool) { return nil, false }
	if err := run(newKey(t), never); err != nil { // the first one takes more steps
		t.Fatal(err)
	}
	for _, known := range []bool{false, true} {
		key := newKey(t)
		if known {
			if err := run(key, never); err != nil {
				t.Fatal(err)
			}
		}
		if err := run(key, never); err != nil {
			t.Fatal(err)
		}
		for step := range faulty.Calls {
			for _, errno := range []syscall.Errno{syscall.ENOBUFS, syscall.EINTR, syscall.EBUSY, syscall.ENODEV} {
				for _, afterwards := range []bool{false, true} {
					key := newKey(t)
					if known {
						if err := run(key, never); err != nil {
							t.Fatal(err)
						}
					}
					err := run(key, func(n int, _ string) (error, bool) {
						if n == step {
							return errno, afterwards
						}
						return nil, false
					})
					if err != nil && !errors.Is(err, errno) && !strings.Contains(err.Error(), errno.Error()) {
						t.Errorf("step %d, %v: %v", step, errno, err)
					}
					if err == nil || known {
						wantRouter(t, name, key)
					}
				}
			}
			// And the process is killed there: a peer has its entries, and the
			// router is whole after its next exchange.
			key := newKey(t)
			if known {
				if err := run(key, never); err != nil {
					t.Fatal(err)
				}
			}
			func() {
				defer func() { _ = recover() }() // the fault's panic
				_ = run(key, func(n int, _ string) (error, bool) {
					if n == step {
						panic("killed")
					}
					return nil, false
				})
			}()
			peers := sh(t, "wg show wg-%s peers", name)
			_, addr := address.RFC4291.Of(key)
			if out := sh(t, "bridge fdb show dev vx-%s | grep -c 'dst %s ' || true", name, addr); strings.Contains(peers, key.String()) && out != "2" {
				t.Errorf("killed at step %d: %s FDB entries", step, out)
			}
			if err := run(key, never); err != nil {
				t.Errorf("after a kill at step %d: %v", step, err)
			}
			wantRouter(t, name, key)
		}
		consistent(t, name)
	}
}

// Interfaces go, come back and are renamed while the sockets run.
func TestInterfacesComeAndGo(t *testing.T) {
	const name = "ffww11"
	cleanupDomain(t, name, 11)
	accept(t, sharedPort, name, newKey(t))
	busy := func(what string) {
		t.Helper()
		log := entries(t, "wgkex-handler", func() { refuse(t, sharedPort, name+"\n"+newKey(t).String()+"\n", "BUSY") })
		if len(log) != 1 || !strings.Contains(log[0]["MESSAGE"], what) {
			t.Errorf("the log does not name %s: %v", what, log)
		}
	}
	rename := "ip link set %s down; ip link set %[1]s name %s; ip link set %[2]s up"
	sh(t, rename, "vx-"+name, "vx-else")
	busy("vx-" + name)
	sh(t, rename, "vx-else", "vx-"+name)
	accept(t, sharedPort, name, newKey(t))
	consistent(t, name)
	sh(t, "ip link del vx-%s; ip link del wg-%[1]s", name)
	busy("wg-" + name)
	sh(t, "./suite-files/gateway %s 11 rfc4291", name)
	key := newKey(t)
	accept(t, sharedPort, name, key)
	if got := consistent(t, name); len(got) != 1 || got[0] != key {
		t.Errorf("peers on the new interfaces: %v", got)
	}
}

// withoutSpace does something while nothing can be written to the domains' files.
func withoutSpace(t *testing.T, do func()) {
	t.Helper()
	sh(t, "mount -t tmpfs -o size=4k,uid=wgkex,gid=wgkex,mode=770 tmpfs /run/wgkex/domains; head -c 9000 /dev/zero > /run/wgkex/domains/zeros || true")
	do()
	sh(t, "umount /run/wgkex/domains")
}

// Nothing can be written: a clear error, and no router at all.
func TestNoSpace(t *testing.T) {
	before := state(t)
	var log []map[string]string
	withoutSpace(t, func() {
		log = entries(t, "wgkex-handler", func() { refuse(t, port1, "ffww01\n"+newKey(t).String()+"\n", "INTERNAL") })
	})
	if text := fmt.Sprint(log); !strings.Contains(text, "no space left on device") {
		t.Errorf("the log does not say why: %s", text)
	}
	if after := state(t); after != before {
		t.Errorf("the kernel changed from\n%s\nto\n%s", before, after)
	}
	accept(t, port1, "ffww01", newKey(t))
}

// Who waits for a lock in vain is told so, even when the service manager ends
// the handler in between.
func TestLockHeld(t *testing.T) {
	noHandlers(t)
	before := state(t)
	lock := exec.Command("flock", "/run/wgkex/domains/ffww01.lock", "sleep", "infinity")
	lock.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := lock.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-lock.Process.Pid, syscall.SIGKILL)
		_ = lock.Wait()
	}()
	eventually(t, "the lock", func() bool {
		_, err := try("flock -n /run/wgkex/domains/ffww01.lock true")
		return err != nil
	})
	conn := dial(t, port1)
	defer conn.Close()
	fmt.Fprintf(conn, "ffww01\n%s\n", newKey(t))
	eventually(t, "a handler that waits", func() bool {
		_, err := try("grep -e '-> FLOCK' /proc/locks")
		return err == nil
	})
	sh(t, "pkill -TERM -x wgkex-handler")
	// Another that has given up, and whose client does not close.
	lingering := dial(t, port1)
	defer lingering.Close()
	fmt.Fprintf(lingering, "ffww01\n%s\n", newKey(t))
	if got := answer(t, conn); got != "ERR: BUSY\n" {
		t.Errorf("got %q", got)
	}
	if got := answer(t, lingering); got != "ERR: BUSY\n" {
		t.Errorf("got %q", got)
	}
	// The other domain of the shared port is served meanwhile, and so is the
	// socket's start, and each domain that is free has its status.
	accept(t, sharedPort, "ffww02", newKey(t))
	sh(t, "systemctl restart wgkex.socket wgkex@ffww01.socket")
	if out, err := try("wgkex status"); err == nil || !strings.Contains(out, "domain ffww01: locking") || !strings.Contains(out, "domain ffww02 on") {
		t.Errorf("status: %v\n%s", err, out)
	}
	if after := state(t); after == before {
		t.Error("the other domain's peer is not there")
	}
	sh(t, "wg set wg-ffww02 peer $(wg show wg-ffww02 peers | tail -n 1) remove; wgkex status ffww02; /usr/lib/wgkex/wgkex-cleanup ffww02")
	// Who has given up gives the lock back when it comes.
	waiting := dial(t, port1)
	defer waiting.Close()
	key := newKey(t)
	fmt.Fprintf(waiting, "ffww01\n%s\n", key)
	_ = syscall.Kill(-lock.Process.Pid, syscall.SIGKILL)
	if got := answer(t, waiting); got != "" {
		t.Errorf("after the lock was given back: %q", got)
	}
	wantRouter(t, "ffww01", key)
	if out := sh(t, "flock -w 60 /run/wgkex/domains/ffww01.lock echo free"); out != "free" {
		t.Errorf("the lock is held: %s", out)
	}
}

// Counters of another version, or no counters at all, are a line's trouble for
// status and none for an exchange.
func TestForeignCounters(t *testing.T) {
	const path = "/run/wgkex/domains/.counters"
	refuse(t, port1, "nowhere\n", "INVALID_DOMAIN") // so that the file is there
	sh(t, "cp -a %s counters.copy", path)
	const target = "/run/wgkex/domains/target"
	t.Cleanup(func() { sh(t, "rm -rf %s %s; cp -a counters.copy %[1]s", path, target) })
	sh(t, "echo untouched > %s; chmod 666 %[1]s", target)
	for _, c := range []struct {
		put, trouble, after string
	}{
		{"head -c 152 /dev/urandom > " + path + "; chown wgkex " + path, "not a file of counters of this version", "INVALID_DOMAIN 1"},
		{"mkfifo " + path, "not a file of counters of this version", "INVALID_DOMAIN 1"},
		{"ln -s " + target + " " + path, "not a file of counters of this version", "INVALID_DOMAIN 1"},
		{"mkdir " + path, "is a directory", "unknown"},
	} {
		sh(t, "rm -rf %s; %s", path, c.put)
		out := sh(t, "wgkex status ffww01")
		if want := "wgkex: counters: " + path + ": " + c.trouble; strings.Count(out, want) != 1 || !strings.Contains(out, "domain ffww01 on ") {
			t.Errorf("%s: no %q in\n%s", c.put, want, out)
		}
		if out := sh(t, "wgkex status ffww01 --json 2>/dev/null"); !strings.Contains(out, "\"results\": null") {
			t.Errorf("%s: %s", c.put, out)
		}
		refuse(t, port1, "nowhere\n", "INVALID_DOMAIN")
		accept(t, port1, "ffww01", newKey(t))
		out = sh(t, "wgkex status ffww01")
		if !strings.Contains(out, "exchanges without a domain since boot: "+c.after+"\n") || !strings.Contains(out, "\nexchanges since boot: OK ") {
			t.Errorf("%s: after an exchange\n%s", c.put, out)
		}
	}
	if got := sh(t, "cat %s", target); got != "untouched" {
		t.Errorf("what the link leads to is %q", got)
	}
}

// More entries than the log is to have are left out, and counted.
func TestLogIsBounded(t *testing.T) {
	path := "/run/wgkex/domains/.counters"
	refuse(t, port1, "nowhere\n", "INVALID_DOMAIN") // so that the file is there
	sh(t, "cp %s counters.copy", path)
	// As if this window had had more than its entries, and left out 1000: behind
	// 16 bytes of header and 16 results of 8 ways are window, logged and leftOut.
	data, err := os.ReadFile(path)
	if err != nil || len(data) != 1064 {
		t.Fatalf("%d bytes of counters, %v", len(data), err)
	}
	window := uint64(time.Now().Unix()/10 + 1)
	for i, v := range []uint64{window, 1 << 30, 1000} {
		binary.NativeEndian.PutUint64(data[16+8*(8*16+i):], v)
	}
	for time.Now().Unix()/10 < int64(window) {
		time.Sleep(100 * time.Millisecond)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	log := entries(t, "wgkex-handler", func() {
		accept(t, port1, "ffww01", newKey(t))
		for time.Now().Unix()/10 <= int64(window) {
			time.Sleep(100 * time.Millisecond)
		}
		accept(t, port1, "ffww01", newKey(t))
	})
	if len(log) != 2 || log[0]["WGKEX_LEFT_OUT"] != "1001" || log[1]["WGKEX_RESULT"] != "OK" {
		t.Errorf("the log has %v", log)
	}
	sh(t, "cat counters.copy > %s", path)
}
