//go:build vm

package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wgkex/internal/address"
)

// cleanupDomain makes a domain of the test's own on the shared port.
func cleanupDomain(t *testing.T, name string, number int) {
	t.Helper()
	domainWithProfile(t, name, number, address.RFC4291)
}

func domainWithProfile(t *testing.T, name string, number int, profile address.Profile) {
	t.Helper()
	sh(t, "./suite-files/gateway %s %d %s", name, number, profile)
	profiles[name] = profile
	writeConf(t, name+".toml", fmt.Sprintf("[domains.%s]\nwireguard = 'wg-%[1]s'\nvxlan = 'vx-%[1]s'\naddresses = '%s'\n", name, profile))
	sh(t, "systemctl daemon-reload")
	t.Cleanup(func() {
		delete(profiles, name)
		sh(t, "systemctl stop wgkex-cleanup@%s.timer; ip link del vx-%[1]s; ip link del wg-%[1]s", name)
	})
}

// cleanupOptions are what the services have been given last.
var cleanupOptions = map[string]string{}

// cleanup runs the service with the given options, and returns its entry.
func cleanup(t *testing.T, domain, options string) map[string]string {
	t.Helper()
	if last, given := cleanupOptions[domain]; !given || last != options { // a daemon-reload takes seconds
		dir := fmt.Sprintf("/run/systemd/system/wgkex-cleanup@%s.service.d", domain)
		sh(t, "mkdir -p %s; printf '[Service]\\nEnvironment=\"WGKEX_CLEANUP_OPTIONS=%s\"\\n' > %[1]s/test.conf; systemctl daemon-reload", dir, options)
		cleanupOptions[domain] = options
	}
	// A test starts it more often than systemd lets anybody in so short a time.
	log := entries(t, "wgkex-cleanup", func() {
		sh(t, "systemctl reset-failed wgkex-cleanup@%s.service 2> /dev/null; systemctl start wgkex-cleanup@%[1]s.service", domain)
	})
	if len(log) == 0 {
		t.Fatal("the cleanup logged nothing")
	}
	t.Log(log[len(log)-1]["MESSAGE"])
	return log[len(log)-1]
}

// addPeers adds managed peers with their FDB entries, without any exchange.
func addPeers(t *testing.T, domain string, n int) []address.Key {
	t.Helper()
	keys := make([]address.Key, n)
	var wg, fdb strings.Builder
	for i := range keys {
		keys[i] = newKey(t)
		mac, addr := profiles[domain].Of(keys[i])
		fmt.Fprintf(&wg, "[Peer]\nPublicKey = %s\nAllowedIPs = %s/128\n", keys[i], addr)
		fmt.Fprintf(&fdb, "fdb append 00:00:00:00:00:00 dev vx-%s dst %s via wg-%[1]s\nfdb replace %[3]s dev vx-%[1]s dst %[2]s via wg-%[1]s\n", domain, addr, mac)
	}
	for file, text := range map[string]string{"peers.conf": wg.String(), "fdb.batch": fdb.String()} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, "wg addconf wg-%s peers.conf; bridge -batch fdb.batch", domain)
	return keys
}

// consistent checks that every managed peer has both FDB entries, that there
// are no other derived ones, and returns the managed peers.
func consistent(t *testing.T, domain string) []address.Key {
	t.Helper()
	profile := profiles[domain]
	entries := map[string]bool{}
	for line := range strings.Lines(sh(t, "bridge fdb show dev vx-%s", domain)) {
		entries[strings.TrimSpace(line)] = true
	}
	var keys []address.Key
	for line := range strings.Lines(sh(t, "wg show wg-%s allowed-ips", domain)) {
		f := strings.Fields(line)
		key, err := address.ParseKey(f[0])
		if err != nil {
			t.Fatal(err)
		}
		mac, addr := profile.Of(key)
		managed := len(f) == 2 && f[1] == addr.String()+"/128"
		if managed {
			keys = append(keys, key)
		}
		for _, m := range []string{"00:00:00:00:00:00", mac.String()} {
			entry := fdbEntry(domain, m, addr)
			if managed && !entries[entry] {
				t.Errorf("%s: %q is missing", domain, entry)
			}
			delete(entries, entry)
		}
	}
	for entry := range entries {
		if strings.Contains(entry, " via wg-"+domain+" self permanent") {
			t.Errorf("%s: an orphan: %q", domain, entry)
		}
	}
	return keys
}

// cleanupRouter makes a router of a domain made with cleanupDomain.
func cleanupRouter(t *testing.T, name string, number int, domain string, domainNumber int) address.Key {
	t.Helper()
	return makeRouter(t, name, number, domain, 4, sharedPort, 51820+domainNumber, 100+domainNumber)
}

// handshake makes the router forget its session, so that it begins another.
func handshake(t *testing.T, name string, domainNumber int) {
	t.Helper()
	sh(t, "ip netns exec %s sh -c 'set -- $(wg show wg0 dump | tail -n 1); wg set wg0 peer $1 remove; wg set wg0 peer $1 endpoint $3 allowed-ips $4 persistent-keepalive 5'", name)
	reach(t, name, 100+domainNumber)
}

type status struct {
	Domain    string         `json:"domain"`
	Results   map[string]int `json:"results"`
	ClockStep *struct {
		Seconds float64 `json:"seconds"`
	} `json:"clock_step"`
	Saved, Restored *struct {
		Peers int `json:"peers"`
	}
	Peers []struct {
		Key           string     `json:"public_key"`
		Address       string     `json:"address"`
		State         string     `json:"state"`
		LastHandshake *time.Time `json:"last_handshake"`
	} `json:"peers"`
}

func readStatus(t *testing.T, domain string) (s status, states map[string]string) {
	t.Helper()
	var all struct {
		Domains []status `json:"domains"`
	}
	if err := json.Unmarshal([]byte(sh(t, "wgkex status %s --json", domain)), &all); err != nil || len(all.Domains) != 1 {
		t.Fatalf("status --json: %v, %v", all, err)
	}
	states = map[string]string{}
	for _, p := range all.Domains[0].Peers {
		states[p.Key] = p.State
	}
	return all.Domains[0], states
}

func TestCleanup(t *testing.T) {
	const domain, number = "ffww04", 4
	cleanupDomain(t, domain, number)

	// Made first, so that their handshakes are older than those of the live.
	silent := cleanupRouter(t, "silent", 10, domain, number)
	saved := cleanupRouter(t, "saved", 11, domain, number)
	staticSilent := cleanupRouter(t, "static", 12, domain, number)
	_, staticAddr := address.RFC4291.Of(staticSilent)
	sh(t, "wg set wg-%s peer %s allowed-ips %s/128,fd00:77::/64", domain, staticSilent, staticAddr)
	sh(t, "ip netns del silent; ip netns del static")
	// Without its uplink it has no handshake before its time, either.
	sh(t, "ip -n saved link set uplink down")
	handshakes := time.Now()
	staticNever := newKey(t)
	sh(t, "wg set wg-%s peer %s allowed-ips fd00:78::/64", domain, staticNever)
	never := addPeers(t, domain, 500)
	orphanMAC, orphanAddr := address.RFC4291.Of(newKey(t))
	sh(t, "bridge fdb append 00:00:00:00:00:00 dev vx-%s dst %s via wg-%[1]s; bridge fdb replace %[3]s dev vx-%[1]s dst %[2]s via wg-%[1]s", domain, orphanAddr, orphanMAC)
	// Between these handshakes and those of the live routers both runs must
	// have their place: the one is stale before, the other fresh after.
	time.Sleep(time.Until(handshakes.Add(75 * time.Second)))
	live := []address.Key{cleanupRouter(t, "live1", 13, domain, number), cleanupRouter(t, "live2", 14, domain, number)}
	var pings []*exec.Cmd
	var outputs [2]strings.Builder
	for i := range live {
		ping := exec.Command("ip", "netns", "exec", fmt.Sprintf("live%d", i+1), "ping", "-6", "-i", "0.5", fmt.Sprintf("fd00:%d::1", 100+number))
		ping.Stdout = &outputs[i]
		if err := ping.Start(); err != nil {
			t.Fatal(err)
		}
		pings = append(pings, ping)
	}

	options := fmt.Sprintf("--stale-after=%ds --mark-age=3s", int(time.Since(handshakes).Seconds()))
	time.Sleep(time.Second)
	first := cleanup(t, domain, options)
	for name, want := range map[string]string{
		"WGKEX_SEEN": "504", "WGKEX_LIVE": "2", "WGKEX_MARKED": "502", "WGKEX_UNMARKED": "0", "WGKEX_REMOVED": "0",
		"WGKEX_STATIC": "2", "WGKEX_ORPHANS": "2", "WGKEX_DOMAIN": domain,
	} {
		if first[name] != want {
			t.Errorf("the first run: %s=%s, want %s", name, first[name], want)
		}
	}
	_, states := readStatus(t, domain)
	for key, want := range map[address.Key]string{
		silent: "live", saved: "live", live[0]: "live", never[0]: "pending", staticNever: "static", staticSilent: "static",
	} {
		if states[key.String()] != want {
			t.Errorf("status of %s is %q, want %q", key, states[key.String()], want)
		}
	}
	sh(t, "ip -n saved link set uplink up")
	handshake(t, "saved", number)
	time.Sleep(4 * time.Second)
	dry := sh(t, "/usr/lib/wgkex/wgkex-cleanup --dry-run %s %s", options, domain)
	if !strings.Contains(dry, "would remove peer "+silent.String()) || strings.Contains(dry, "would remove peer "+live[0].String()) {
		t.Errorf("the dry run says\n%s", dry)
	}
	removals := entries(t, "wgkex-cleanup", func() {
		second := cleanup(t, domain, options)
		if second["WGKEX_REMOVED"] != "501" || second["WGKEX_UNMARKED"] != "1" || second["WGKEX_LIVE"] != "3" {
			t.Errorf("the second run: %v", second)
		}
	})
	if len(removals) != 502 {
		t.Errorf("%d entries for 501 removals and the run", len(removals))
	}
	for _, ping := range pings {
		if err := ping.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		_ = ping.Wait() // its output tells
	}
	for i := range outputs {
		if out := outputs[i].String(); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("live%d missed the gateway:\n%s", i+1, out[max(0, len(out)-300):])
		}
	}
	left := consistent(t, domain)
	if want := []address.Key{saved, live[0], live[1]}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
	wg := sh(t, "wg show wg-%s allowed-ips", domain)
	for _, want := range []string{staticSilent.String(), staticNever.String() + "\tfd00:78::/64"} {
		if !strings.Contains(wg, want) {
			t.Errorf("static peer %s is gone", want)
		}
	}
	if out := sh(t, "bridge fdb show dev vx-%s | grep -c 'dst %s '", domain, staticAddr); out != "2" {
		t.Errorf("%s FDB entries of the static peer", out)
	}

	// A FDB that somebody has flushed has its entries back in the next run, and the
	// routers notice nothing.
	flushFDB(t, domain)
	if run := cleanup(t, domain, ""); run["WGKEX_REPAIRED"] != "3" {
		t.Errorf("after the FDB was flushed: %v", run)
	}
	if got := consistent(t, domain); len(got) != 3 {
		t.Errorf("after the FDB was flushed: %v", got)
	}
	sh(t, "ip netns exec live1 ping -6 -c 2 -i 0.5 -W 10 fd00:%d::1", 100+number)

	table := sh(t, "wgkex status %s", domain)
	for _, want := range []string{"PUBLIC KEY", live[0].String(), " static ", "domain ffww04 on wg-ffww04 and vx-ffww04: 3 of 10000 peers"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if out, err := try("setpriv --reuid nobody --clear-groups wgkex status %s", domain); err == nil || !strings.Contains(out, "CAP_NET_ADMIN") {
		t.Errorf("without privileges: %v, %s", err, out)
	}
}

// Trouble with what is kept costs nobody the tunnel.
func TestCleanupState(t *testing.T) {
	const domain = "ffww05"
	cleanupDomain(t, domain, 5)
	keys := addPeers(t, domain, 3)
	all := func(when string) {
		t.Helper()
		if got := consistent(t, domain); !slices.Equal(got, keys) {
			t.Fatalf("%s: left are %v, want all", when, got)
		}
	}
	state := "/run/wgkex/domains/" + domain + ".state"
	for what, command := range map[string]string{
		"garbage": "printf garbage > %s", "gone": "rm %s", "sparse": "truncate -s 1T %s", "empty": ": > %s",
		"a FIFO": "rm %s; mkfifo %[1]s", "a link": "ln -sf /etc/passwd %s", "of root alone": "chown root: %s; chmod 600 %[1]s",
	} {
		cleanup(t, domain, "--mark-age=0s")
		sh(t, command, state)
		if run := cleanup(t, domain, "--mark-age=0s"); run["WGKEX_MARKED"] != "3" || run["WGKEX_REMOVED"] != "0" {
			t.Errorf("%s: %v", what, run)
		}
		all(what)
		// Exchanges go on all the same.
		accept(t, sharedPort, domain, keys[0])
		sh(t, "rm %s", state)
	}
	if out := sh(t, "cat /etc/passwd"); !strings.Contains(out, "root:") {
		t.Errorf("/etc/passwd holds %s", out)
	}
	for what, mount := range map[string]string{
		"full":      "mount -t tmpfs -o size=8k,uid=wgkex,gid=wgkex,mode=770 tmpfs /run/wgkex/domains; head -c 9000 /dev/zero > /run/wgkex/domains/zeros || true",
		"read-only": "mount --bind /run/wgkex/domains /run/wgkex/domains; mount -o remount,bind,ro /run/wgkex/domains",
	} {
		cleanup(t, domain, "--mark-age=0s")
		sh(t, "%s", mount)
		log := entries(t, "wgkex-cleanup", func() {
			if _, err := try("systemctl reset-failed wgkex-cleanup@%s.service; systemctl start wgkex-cleanup@%[1]s.service", domain); err == nil {
				t.Errorf("%s: the cleanup says that all is well", what)
			}
		})
		sh(t, "umount /run/wgkex/domains; systemctl reset-failed wgkex-cleanup@%s.service", domain)
		if text := fmt.Sprint(log); !strings.Contains(text, "no space left") && !strings.Contains(text, "read-only file system") {
			t.Errorf("%s: %v", what, log)
		}
		all(what)
		sh(t, "rm -f %s", state)
	}
	cleanup(t, domain, "--mark-age=0s")
	cleanup(t, domain, "--mark-age=0s")
	if got := consistent(t, domain); len(got) > 0 {
		t.Errorf("left are %v", got)
	}
}

// Killed again and again, at whatever moment it is: the next run finishes.
func TestCleanupKilled(t *testing.T) {
	const domain = "ffww06"
	cleanupDomain(t, domain, 6)
	addPeers(t, domain, 500)
	command := "/usr/lib/wgkex/wgkex-cleanup --mark-age=0s " + domain
	sh(t, "%s", command)
	for n := range 8 {
		_, _ = try("timeout -s KILL 0.%d %s", 1+n, command)
	}
	sh(t, "%s", command)
	if got := consistent(t, domain); len(got) > 0 {
		t.Errorf("%d are left", len(got))
	}
}

func TestCleanupTimer(t *testing.T) {
	const domain = "ffww07"
	cleanupDomain(t, domain, 7)
	addPeers(t, domain, 1)
	sh(t, "systemctl start wgkex.target")
	if out := sh(t, "systemctl is-active wgkex-cleanup@%s.timer", domain); out != "active" {
		t.Errorf("wgkex.target did not start the timer: %s", out)
	}
	sh(t, "systemctl stop wgkex-cleanup@%s.timer", domain)
	sh(t, `mkdir -p /run/systemd/system/wgkex-cleanup@%s.timer.d
		printf '[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnBootSec=1s\nOnUnitActiveSec=3s\nRandomizedDelaySec=0\nAccuracySec=100ms\n' > /run/systemd/system/wgkex-cleanup@%[1]s.timer.d/test.conf
		mkdir -p /run/systemd/system/wgkex-cleanup@%[1]s.service.d
		printf '[Service]\nEnvironment=WGKEX_CLEANUP_OPTIONS=--mark-age=1s\n' > /run/systemd/system/wgkex-cleanup@%[1]s.service.d/test.conf
		systemctl daemon-reload; systemctl start wgkex-cleanup@%[1]s.timer`, domain)
	eventually(t, "two runs by the timer", func() bool { return sh(t, "wg show wg-%s peers", domain) == "" })
	sh(t, "systemctl stop wgkex-cleanup@%s.timer", domain)
	eventually(t, "the end of the last run", func() bool {
		out, _ := try("systemctl is-active wgkex-cleanup@%s.service", domain)
		return out == "inactive"
	})
	consistent(t, domain)
}

// Exchange and cleanup against each other end in a consistent state.
func TestCleanupAgainstExchange(t *testing.T) {
	const domain = "ffww08"
	cleanupDomain(t, domain, 8)
	keys := make([]address.Key, 30)
	for i := range keys {
		keys[i] = newKey(t)
	}
	end := time.Now().Add(30 * time.Second)
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for n := worker; time.Now().Before(end); n++ {
				accept(t, sharedPort, domain, keys[n%len(keys)])
			}
		})
	}
	runs := 0
	wg.Go(func() {
		for ; time.Now().Before(end); runs++ {
			if _, err := try("/usr/lib/wgkex/wgkex-cleanup --mark-age=0s %s", domain); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	t.Logf("%d runs, %d peers are left", runs, len(consistent(t, domain)))
	if out := sh(t, "journalctl -b -t wgkex-cleanup --grep 'cleanup of domain %s: .* [1-9][0-9]* removed' || true", domain); out == "" {
		t.Error("no run removed anybody")
	}
}
