//go:build vm

package suite

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"wgkex/internal/address"
)

// remake makes interfaces of a domain that cleanupDomain has made anew, with what
// there was, but for the peers. What deletes them is a shell command.
func remake(t *testing.T, domain string, number int, remove string) {
	t.Helper()
	sh(t, "%s", remove)
	sh(t, "./suite-files/gateway %s %d %s", domain, number, profiles[domain])
}

// restored waits until the domain has so many peers, all of them whole.
func restored(t *testing.T, domain string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " peers of ", domain), func() bool {
		out, err := try("wg show wg-%s peers | wc -l; bridge fdb show dev vx-%[1]s | grep -c ' via wg-%[1]s '", domain)
		return err == nil && out == fmt.Sprintf("%d\n%d", n, 2*n)
	})
	if got := len(consistent(t, domain)); got != n {
		t.Errorf("%d peers of %s, want %d", got, domain, n)
	}
}

// newKeys writes public keys into the file keys.
func newKeys(t *testing.T, n int) {
	t.Helper()
	var text strings.Builder
	for range n {
		fmt.Fprintln(&text, newKey(t))
	}
	if err := os.WriteFile("keys", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// exchanges is how many connections the sockets have accepted.
func exchanges(t *testing.T) string {
	t.Helper()
	return sh(t, "systemctl show -P NAccepted 'wgkex*.socket'")
}

// restoreRun has saved peers restored by hand and returns the entry of the run.
func restoreRun(t *testing.T, domain string) map[string]string {
	t.Helper()
	log := entries(t, "wgkex", func() { _, _ = try("wgkex restore %s", domain) })
	if len(log) == 0 {
		return nil
	}
	return log[len(log)-1]
}

// Interfaces that are made anew have their peers back, without any exchange.
func TestRestore(t *testing.T) {
	const domain, number = "restored", 30
	cleanupDomain(t, domain, number)
	sh(t, "systemctl start wgkex-local.socket wgkex-cleanup@%s.timer", domain)
	var routers []string
	for i := range 3 {
		routers = append(routers, fmt.Sprint("again", i))
		cleanupRouter(t, routers[i], 30+i, domain, number)
	}
	newKeys(t, 197)
	sh(t, "wgkex add %s < keys", domain)
	cleanup(t, domain, "")
	restored(t, domain, 200)
	before := exchanges(t)
	both := fmt.Sprintf("ip link del vx-%s; ip link del wg-%[1]s", domain)
	for _, remove := range []string{
		both,
		fmt.Sprintf("%s; ./suite-files/gateway %s %d rfc4291; %[1]s", both, domain, number), // and again at once
	} {
		remake(t, domain, number, remove)
		restored(t, domain, 200)
		for _, router := range routers {
			reach(t, router, 100+number)
		}
	}
	// The VXLAN interface alone. The WireGuard interface is never alone: the other,
	// which is bound to it, goes with it.
	sh(t, `address=$(ip -6 addr show wg-%s | sed -n 's,.*inet6 \(fe80[^/]*\)/.*,\1,p'); ip link del vx-%[1]s
		ip link add vx-%[1]s type vxlan id %[2]d local $address dstport 8472 dev wg-%[1]s
		ip addr add fd00:%[2]d::1/64 dev vx-%[1]s nodad; ip link set vx-%[1]s mtu 1350 up`, domain, 100+number)
	restored(t, domain, 200)
	remake(t, domain, number, fmt.Sprintf("ip link del wg-%s; ! ip link show vx-%[1]s 2> /dev/null", domain))
	restored(t, domain, 200)
	for _, router := range routers {
		reach(t, router, 100+number)
	}
	// Nothing says that somebody has written the peers anew.
	sh(t, "wg showconf wg-%s | sed '/^.Peer/,$d' > interface.conf; wg syncconf wg-%[1]s interface.conf", domain)
	if out := sh(t, "wg show wg-%s peers", domain); out != "" {
		t.Fatalf("left are %s", out)
	}
	cleanup(t, domain, "") // which saves, but forgets nobody
	sh(t, "wgkex restore %s", domain)
	if got := consistent(t, domain); len(got) != 200 {
		t.Errorf("%d peers after wgkex restore", len(got))
	}
	if after := exchanges(t); after != before {
		t.Errorf("the sockets have accepted\n%s, before\n%s", after, before)
	}
	remake(t, domain, number, both)
	restored(t, domain, 200)
	s, states := readStatus(t, domain)
	count := map[string]int{}
	for _, state := range states {
		count[state]++
	}
	if count["live"]+count["restored"] != 3 || count["pending"] != 197 {
		t.Errorf("states %v", count)
	}
	if s.Restored == nil || s.Restored.Peers != 200 || s.Saved == nil || s.Saved.Peers != 200 {
		t.Errorf("status says restored %v, saved %v", s.Restored, s.Saved)
	}
	if out := sh(t, "wgkex status %s", domain); !strings.Contains(out, "restored: 200 peers at ") || !strings.Contains(out, "saved: 200 peers at ") {
		t.Errorf("status says\n%s", out)
	}
	// Removed is removed, and does not come back.
	gone := strings.Fields(sh(t, "head -n 2 keys"))
	if out := sh(t, "wgkex remove %s %s", domain, strings.Join(gone, " ")); strings.Count(out, "removed peer ") != 2 {
		t.Errorf("wgkex remove says %s", out)
	}
	remake(t, domain, number, both)
	restored(t, domain, 198)
	for _, key := range gone {
		if out := sh(t, "wg show wg-%s peers", domain); strings.Contains(out, key) {
			t.Errorf("peer %s is back", key)
		}
	}
	if out, err := try("wgkex remove %s %s", domain, gone[0]); err == nil || !strings.Contains(out, "no such peer") {
		t.Errorf("removing it once more: %v, %s", err, out)
	}
	// Saved when the gateway goes down.
	sh(t, "rm /var/lib/wgkex/%s.peers; systemctl stop wgkex-save@%[1]s", domain)
	if out := sh(t, "grep -c '^[^ ]*= ' /var/lib/wgkex/%s.peers", domain); out != "198" {
		t.Errorf("%s peers are saved", out)
	}
}

// What must not be restored is not, and the admin's peers are left alone.
func TestRestoreRules(t *testing.T) {
	const domain, number = "rules", 31
	cleanupDomain(t, domain, number)
	sh(t, "systemctl stop wgkex-save@%s; systemctl mask --runtime wgkex-restore@%[1]s", domain)
	t.Cleanup(func() { sh(t, "systemctl unmask --runtime wgkex-restore@%s", domain) })
	keys := addPeers(t, domain, 6)
	sh(t, "wgkex save %s", domain)
	remake(t, domain, number, fmt.Sprintf("ip link del vx-%s; ip link del wg-%[1]s", domain))
	other := newKey(t)
	addr := func(i int) string { return derived(domain, keys[i]).String() }
	sh(t, "wg set wg-%s peer %s allowed-ips fd00:90::/64 peer %s allowed-ips %s/128,fd00:91::/64 peer %s allowed-ips %s/128,fd00:92::/64",
		domain, keys[0], other, addr(1), keys[2], addr(2))
	writeConf(t, "prohibit-restore.toml", fmt.Sprintf("prohibited_keys = ['%s']\n", keys[3]))
	// The main file lists prohibited keys, too: one place alone may.
	sh(t, "sed -i 's/^prohibited_keys/# &/' /etc/wgkex/wgkex.toml; systemctl daemon-reload")
	t.Cleanup(func() {
		sh(t, "sed -i 's/^# prohibited_keys/prohibited_keys/' /etc/wgkex/wgkex.toml; rm -f /etc/wgkex/conf.d/prohibit-restore.toml; systemctl daemon-reload")
	})
	before := sh(t, "wg show wg-%s allowed-ips", domain)
	run := restoreRun(t, domain)
	if run["WGKEX_RESTORED"] != "2" || run["WGKEX_REFUSED"] != "4" {
		t.Errorf("the run: %v", run)
	}
	after := sh(t, "wg show wg-%s allowed-ips", domain)
	if !strings.HasPrefix(after, before) {
		t.Errorf("static peers were\n%s, are\n%s", before, after)
	}
	wantRouter(t, domain, keys[4], keys[5])
	if strings.Contains(after, keys[3].String()) {
		t.Error("a prohibited key is restored")
	}
}

// Whatever is in the place of the file, nobody loses anything, and the journal
// says what is wrong.
func TestRestoreFiles(t *testing.T)     { restoreFiles(t, 100000) }
func TestLongRestoreFiles(t *testing.T) { restoreFiles(t, 1000000) }

// restoreFiles has a file with so many lines among others.
func restoreFiles(t *testing.T, many int) {
	const domain = "files"
	cleanupDomain(t, domain, 32)
	keys := addPeers(t, domain, 3)
	sh(t, "wgkex save %s; cp -a /var/lib/wgkex/%[1]s.peers good", domain)
	file := "/var/lib/wgkex/" + domain + ".peers"
	sh(t, "wg set wg-%s peer %s remove", domain, keys[2])
	for what, c := range map[string]struct {
		make, entry string
		restored    bool
	}{
		"cut":             {"head -c -20 good > " + file, "damaged", false},
		"another domain":  {"sed 's/^domain .*/domain other/' good > " + file, "another domain", false},
		"another profile": {"sed 's/^addresses .*/addresses ffmuc/' good > " + file, "other addresses", false},
		"another version": {"sed 's/^wgkex-peers 1/wgkex-peers 9/' good > " + file, "not a file of saved peers", false},
		"a FIFO":          {"mkfifo " + file, "not a regular file", false},
		"a link":          {"ln -s ~/good " + file, "not a regular file", false},
		"a terabyte":      {"truncate -s 1T " + file, "not a regular file", false},
		"garbage":         {"head -c 1000000 /dev/urandom > " + file, "not a file of saved peers", false},
		"escapes":         {"(cat good; printf '\\033[2J\\033]0;x\\007\\n') > " + file, "1 of its lines are no peers", true},
		"many lines":      {fmt.Sprintf("(cat good; yes \"$(tail -n 1 good)\" | head -n %d) > %s", many, file), "says that it has 3", true},
		"missing":         {":", "no peers of domain files are saved", false},
	} {
		if c.restored {
			sh(t, "wg set wg-%s peer %s remove", domain, keys[2])
		}
		sh(t, "rm -f %s; %s; chown -h wgkex-cleanup: %[1]s 2> /dev/null || true", file, c.make)
		log := entries(t, "wgkex-restore", func() {
			sh(t, "systemctl start wgkex-restore@%s", domain)
			eventually(t, "the end of the run", func() bool {
				out, _ := try("systemctl is-active wgkex-restore@%s", domain)
				return out == "inactive" || out == "failed"
			})
		})
		var text strings.Builder
		for _, e := range log {
			text.WriteString(e["MESSAGE"] + "\n")
		}
		if !strings.Contains(text.String(), c.entry) || strings.Contains(text.String(), "\x1b") {
			t.Errorf("%s: the journal says %q", what, text.String())
		}
		peers := sh(t, "wg show wg-%s peers", domain)
		if !strings.Contains(peers, keys[0].String()) || !strings.Contains(peers, keys[1].String()) {
			t.Errorf("%s: left are %s", what, peers)
		}
		if c.restored && !strings.Contains(peers, keys[2].String()) {
			t.Errorf("%s: not restored", what)
		}
	}
	sh(t, "systemctl reset-failed wgkex-restore@%s 2> /dev/null || true", domain)
	consistent(t, domain)
}

// A disk that is full or read-only costs nothing that was saved, and the cleanup
// cleans all the same.
func TestSaveFails(t *testing.T) {
	const domain = "unsaved"
	cleanupDomain(t, domain, 33)
	addPeers(t, domain, 2)
	sh(t, "wgkex save %s; cp -a /var/lib/wgkex/%[1]s.peers before", domain)
	cleanup(t, domain, "--mark-age=0s")
	for what, mount := range map[string]string{
		"full":      "mount -t tmpfs -o size=8k,uid=wgkex-cleanup,mode=700 tmpfs /var/lib/wgkex; cp -a before /var/lib/wgkex/unsaved.peers; head -c 9000 /dev/zero > /var/lib/wgkex/zeros || true",
		"read-only": "mount --bind /var/lib/wgkex /var/lib/wgkex; mount -o remount,bind,ro /var/lib/wgkex",
	} {
		addPeers(t, domain, 1)
		sh(t, "%s", mount)
		log := entries(t, "wgkex-cleanup", func() {
			if _, err := try("systemctl reset-failed wgkex-cleanup@%s.service; systemctl start wgkex-cleanup@%[1]s.service", domain); err == nil {
				t.Errorf("%s: the cleanup says that all is well", what)
			}
		})
		if text := fmt.Sprint(log); !strings.Contains(text, "saving the peers") {
			t.Errorf("%s: %v", what, log)
		}
		if out, err := try("wgkex save %s", domain); err == nil {
			t.Errorf("%s: wgkex save says %s", what, out)
		}
		if out, err := try("grep -c '^[^ ]*= ' /var/lib/wgkex/unsaved.peers"); err != nil || out == "0" {
			t.Errorf("%s: %s peers are saved, %v", what, out, err)
		}
		sh(t, "umount /var/lib/wgkex; systemctl reset-failed wgkex-cleanup@%s.service", domain)
	}
	// Killed again and again, at whatever moment it is: a whole file stays.
	for n := range 9 {
		_, _ = try("timeout -s KILL 0.0%d wgkex save %s", 1+n, domain)
		sh(t, "wgkex restore %s | grep -v damaged", domain)
	}
	if out := sh(t, "stat -c '%%U %%a' /var/lib/wgkex/%s.peers", domain); out != "wgkex-cleanup 600" {
		t.Errorf("the file is %s", out)
	}
}

// Many keys at a time, of which some are bad.
func addMany(t *testing.T, domain string, n, bad int) {
	sh(t, "systemctl start wgkex-local.socket")
	var text strings.Builder
	good := make([]address.Key, n-bad)
	for i := range n {
		if i%(n/bad) == 0 && i/(n/bad) < bad {
			fmt.Fprintf(&text, "bad%d\n", i)
			continue
		}
		key := newKey(t)
		good[i-min(bad, i/(n/bad)+1)] = key
		fmt.Fprintln(&text, key)
	}
	if err := os.WriteFile("many", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	out, err := try("wgkex add %s < many", domain)
	t.Logf("%d keys in %s", n, time.Since(start).Round(time.Second))
	if err == nil {
		t.Error("wgkex add says that all is well")
	}
	lines := strings.Split(out, "\n")
	refused := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "bad") && strings.HasSuffix(line, ": ERR: INVALID_WGKEY") {
			refused++
		}
	}
	if want := fmt.Sprintf("domain %s: %d accepted, %d refused", domain, n-bad, bad); refused != bad || !strings.Contains(out, want) {
		t.Errorf("%d are named, want %d and %q: %.1000s", refused, bad, want, out)
	}
	wantRouter(t, domain, good...)
}

func TestAdd(t *testing.T) {
	const domain, number = "many", 34
	cleanupDomain(t, domain, number)
	writeConf(t, "many.toml", fmt.Sprintf("[domains.%s]\nwireguard = 'wg-%[1]s'\nvxlan = 'vx-%[1]s'\nmax_pending = 10000\n", domain))
	sh(t, "systemctl daemon-reload")
	addMany(t, domain, 1000, 10)
	// From another gateway, whose own peers are not routers.
	sh(t, "wg set wg-%s peer %s allowed-ips fd00:93::/64", domain, newKey(t))
	remake(t, domain, number, fmt.Sprintf("wg show wg-%s allowed-ips > allowed; ip link del vx-%[1]s; ip link del wg-%[1]s; rm -f /var/lib/wgkex/%[1]s.peers", domain))
	out, err := try("wgkex add %s < allowed", domain)
	if err == nil || !strings.Contains(out, "990 accepted, 1 refused") || !strings.Contains(out, "not a router's") {
		t.Errorf("from another gateway: %v, %s", err, out)
	}
	if got := len(consistent(t, domain)); got != 990 {
		t.Errorf("%d peers", got)
	}
	for _, c := range []struct{ command, want string }{
		{"wgkex add nosuch x", "not in the configuration"},
		{"setpriv --reuid nobody --regid nogroup --clear-groups wgkex add " + domain + " x", "permission denied"},
		{"systemctl stop wgkex-local.socket; wgkex add " + domain + " x", "has to be active"}, // the last
	} {
		if out, err := try("%s", c.command); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, %s", c.command, err, out)
		}
	}
	sh(t, "systemctl start wgkex-local.socket; useradd --system asks; usermod -G wgkex-relay asks")
	t.Cleanup(func() { sh(t, "userdel asks") })
	if out := sh(t, "su -s /bin/sh asks -c 'wgkex add %s %s'", domain, newKey(t)); !strings.Contains(out, "1 accepted, 0 refused") {
		t.Errorf("in the group: %s", out)
	}
}

func TestLongAdd(t *testing.T) {
	const domain = "toomany"
	cleanupDomain(t, domain, 35)
	writeConf(t, domain+".toml", fmt.Sprintf("[domains.%s]\nwireguard = 'wg-%[1]s'\nvxlan = 'vx-%[1]s'\nmax_pending = 100000\nmax_peers = 100000\n", domain))
	sh(t, "systemctl daemon-reload")
	addMany(t, domain, 20000, 100)
}

// Routers come while 20,000 peers are restored: all are served.
func TestLongRestoreMany(t *testing.T) { restoreMany(t, "exchanging", 36, 20000) }

func TestRestoreMany(t *testing.T) { restoreMany(t, "exchanges", 37, 500) }

func restoreMany(t *testing.T, domain string, number, n int) {
	cleanupDomain(t, domain, number)
	writeConf(t, domain+".toml", fmt.Sprintf("[domains.%s]\nwireguard = 'wg-%[1]s'\nvxlan = 'vx-%[1]s'\nmax_pending = 100000\nmax_peers = 100000\n", domain))
	sh(t, "systemctl daemon-reload")
	addPeers(t, domain, n)
	sh(t, "wgkex save %s", domain)
	remake(t, domain, number, fmt.Sprintf("ip link del vx-%s; ip link del wg-%[1]s", domain))
	served, refused := 0, ""
	for {
		key := newKey(t)
		if got := send(t, sharedPort, domain+"\n"+key.String()+"\n"); got == "" {
			served++
		} else {
			refused = got
		}
		out, _ := try("wg show wg-%s peers | wc -l", domain)
		if count, _ := strconv.Atoi(out); count >= n+served {
			break
		}
	}
	t.Logf("%d exchanges meanwhile", served)
	if served == 0 || refused != "" {
		t.Errorf("%d were served, others were told %q", served, refused)
	}
	restored(t, domain, n+served)
}
