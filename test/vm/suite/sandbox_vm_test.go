//go:build vm

package suite

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// With the probe in the place of a program, in the very same units: what an attacker with
// code execution there cannot do.
func TestSandbox(t *testing.T) {
	// Whom it tries to signal is a process of another user.
	for program, c := range map[string]struct {
		other  string
		report func(t *testing.T) string
	}{
		"wgkex-handler": {"wgkex-cleanup", func(t *testing.T) string { return send(t, port1, "") }},
		"wgkex-cleanup": {"wgkex", func(t *testing.T) string {
			sh(t, "systemctl start wgkex-cleanup@ffww01.service")
			return sh(t, "cat /run/wgkex/domains/.probe-report; rm /run/wgkex/domains/.probe-report")
		}},
		"wgkex-http": {"wgkex", func(t *testing.T) string {
			serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
			return send(t, httpPort, "")
		}},
		"wgkex-relay": {"wgkex", func(t *testing.T) string {
			const report = "/run/wgkex/relay/.probe-report"
			sh(t, "systemctl start --no-block wgkex-relay.service") // it never says that it is ready
			eventually(t, "the report of the probe", func() bool { _, err := os.Stat(report); return err == nil })
			return sh(t, "systemctl stop wgkex-relay.service; cat %s; rm %[1]s", report)
		}},
	} {
		t.Run(program, func(t *testing.T) {
			if program == "wgkex-relay" {
				relayTo(t, "localhost")
				relayMounts(t)
				sh(t, "systemctl stop wgkex-relay.service")
			}
			sh(t, `for dir in /root /home/other /var/lib/wgkex /run/other; do mkdir -p $dir; echo x > $dir/secret; chmod 600 $dir/secret; done
				cd /usr/lib/wgkex; mv %s real; cp ~/suite-files/probe %[1]s; chmod 755 %[1]s`, program)
			sh(t, `setpriv --reuid %s --regid wgkex --clear-groups sleep 1000 > /dev/null 2>&1 & echo $! > /run/wgkex/.probe-pid; chmod 644 /run/wgkex/.probe-pid`, c.other)
			lines := strings.Split(strings.TrimSpace(c.report(t)), "\n")
			sh(t, "kill $(cat /run/wgkex/.probe-pid); rm /run/wgkex/.probe-pid")
			sh(t, "mv /usr/lib/wgkex/real /usr/lib/wgkex/%s; rm -f /home/other/secret /run/other/secret /var/lib/wgkex/secret /root/secret", program)
			if len(lines) < 60 {
				t.Errorf("only %d attempts", len(lines))
			}
			for _, line := range lines {
				name, outcome, _ := strings.Cut(line, ": ")
				if name == "allowed" {
					_, outcome, _ = strings.Cut(outcome, ": ")
					if outcome != "SUCCEEDED" {
						t.Error(line)
					}
				} else if outcome == "SUCCEEDED" {
					t.Errorf("in its place an attacker can %s", name)
				}
			}
			t.Log(strings.Join(lines, "\n"))
		})
	}
	accept(t, port1, "ffww01", newKey(t))
	cleanup(t, "ffww01", "")
}

// relayTo has the relay started, with the broker of relayed at the host of this name.
func relayTo(t *testing.T, host string) {
	t.Helper()
	relayed(t, newRelay)
	writeConf(t, "mqtt.toml", relayConfiguration("gw01", endpointAddress, host))
	t.Cleanup(func() { _, _ = try("rm -f /etc/wgkex/conf.d/mqtt.toml; wgkex apply") })
	_, _ = try("wgkex apply") // the shared configuration has domains that fail
}

// relayMounts compares what is mounted for the relay with what there is a reason for.
func relayMounts(t *testing.T) {
	t.Helper()
	reasons := map[string]string{
		"/":                                    "the root directory",
		"/etc/hosts":                           "addresses of hosts",
		"/etc/nsswitch.conf":                   "which of the others goes first",
		"/etc/resolv.conf":                     "name servers",
		"/etc/ssl/certs":                       "certificates that the system trusts",
		"/dev":                                 "inaccessible",
		"/sys":                                 "inaccessible",
		"/proc":                                "PrivateUsers= is set up in it",
		"/root":                                "ProtectHome= hides it",
		"/run":                                 "what is mounted in it",
		"/run/credentials":                     "systemd hides those of others",
		"/run/credentials/wgkex-relay.service": "LoadCredential=",
		"/run/host/.os-release-stage":          "of systemd 257, which mounts it into each root directory",
		"/run/systemd/incoming":                "systemd could mount something later",
		"/run/systemd/journal/dev-log":         "of systemd 257",
		"/run/systemd/journal/stdout":          "of systemd 257",
		"/run/systemd/journal/socket":          "the journal",
		"/run/systemd/notify":                  "READY=1 and the watchdog",
		"/run/wgkex":                           "the configuration and the local socket",
		"/run/wgkex/relay":                     "what it knows, for others",
		"/usr/lib/wgkex/wgkex-relay":           "the program",
		"/var/lib/wgkex-relay":                 "its ledger",
	}
	writable := []string{"/run/wgkex/relay", "/var/lib/wgkex-relay", "/proc"}
	var mounts string
	eventually(t, "the relay", func() bool {
		var err error
		mounts, err = try("cat /proc/$(pgrep -x wgkex-relay)/mountinfo")
		return err == nil
	})
	found := map[string]bool{}
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line) // proc_pid_mountinfo(5)
		at, options := fields[4], strings.Split(fields[5], ",")
		found[at] = true
		if reasons[at] == "" {
			t.Errorf("mounted at %s for no reason: %s", at, line)
		}
		if slices.Contains(options, "rw") && !slices.Contains(writable, at) {
			t.Errorf("it can write to %s: %s", at, line)
		}
		if slices.Contains(options, "rw") && !slices.Contains(options, "noexec") {
			t.Errorf("it can execute what it has written to %s: %s", at, line)
		}
	}
	for at, reason := range reasons {
		if _, err := os.Stat(at); err == nil && !found[at] && at != "/" && !strings.HasPrefix(reason, "of systemd 257") {
			t.Errorf("%s is not mounted: %s", at, reason)
		}
	}
}

// What is mounted for a handler is what its sandbox costs: where the root
// directory's links are not followed, there are more mounts. Its memory is what
// MaxConnections= and the slice's MemoryMax= go by.
func TestWaitingHandler(t *testing.T) {
	noHandlers(t)
	conn := dial(t, port1)
	defer conn.Close()
	var mounts, memory string
	eventually(t, "a handler", func() bool {
		var err error
		mounts, err = try("cat /proc/$(pgrep -x wgkex-handler)/mountinfo")
		if err == nil {
			memory, err = try("cat /sys/fs/cgroup$(cut -d: -f3- /proc/$(pgrep -x wgkex-handler)/cgroup)/memory.current")
		}
		return err == nil
	})
	for line := range strings.Lines(mounts) {
		at := strings.Fields(line)[4] // proc_pid_mountinfo(5)
		if at != "/" && at != "/run" && at != "/var/tmp" && !strings.HasPrefix(at, "/run/") {
			t.Errorf("mounted at %s", at)
		}
	}
	bytes, err := strconv.Atoi(memory)
	if err != nil || bytes > 2<<20 { // 256 of them in 512 MiB
		t.Errorf("it takes %s bytes, %v", memory, err)
	}
}

// reserve are system calls that the units allow though nothing here makes them,
// with the reason.
var reserve = map[string]string{
	"munmap": "the Go runtime gives memory back that it cannot use",
	"uname":  "wgkex-http asks for the host name where the configuration has neither gateway.name nor gateway.address",
}

// The system calls of each unit are what its program makes, and few more: each
// costs time at each start.
func TestSystemCalls(t *testing.T) { systemCalls(t, false) }

// TestLongSystemCallsOfRelay is about the relay, which takes minutes.
func TestLongSystemCallsOfRelay(t *testing.T) { systemCalls(t, true) }

func systemCalls(t *testing.T, relay bool) {
	const domain = "calls"
	cleanupDomain(t, domain, 22)
	noHandlers(t)
	const event = "/sys/kernel/tracing/events/raw_syscalls/sys_enter"
	sh(t, "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing")
	t.Cleanup(func() { sh(t, "umount /sys/kernel/tracing") })
	state := "/run/wgkex/domains/" + domain + ".state"
	for program, run := range map[string]func(t *testing.T){
		"wgkex-handler": func(t *testing.T) {
			sh(t, "rm -f %s", state)
			key := newKey(t)
			accept(t, sharedPort, domain, key)
			accept(t, sharedPort, domain, key)
			sh(t, "rm /run/wgkex/domains/%s.counters", domain)
			addPeers(t, domain, 300)
			refuse(t, sharedPort, domain+"\nnone\n", "INVALID_WGKEY")
			refuse(t, sharedPort, "nowhere\n", "INVALID_DOMAIN")
			refuse(t, sharedPort, "absent\n"+key.String()+"\n", "BUSY")
			sh(t, "rm %s", state)
			conn := dial(t, sharedPort) // in pieces
			defer conn.Close()
			for _, piece := range []string{domain + "\n", newKey(t).String(), "\n"} {
				time.Sleep(time.Second)
				if _, err := io.WriteString(conn, piece); err != nil {
					t.Error(err)
				}
			}
			answer(t, conn)
			withoutSpace(t, func() { refuse(t, sharedPort, domain+"\n"+newKey(t).String()+"\n", "INTERNAL") })
			conn = dial(t, sharedPort) // ended by the service manager
			defer conn.Close()
			eventually(t, "a handler", func() bool { _, err := try("pgrep -x wgkex-handler"); return err == nil })
			sh(t, "systemctl stop 'wgkex@*.service'")
		},
		"wgkex-cleanup": func(t *testing.T) {
			addPeers(t, domain, 300)
			sh(t, "rm -f %s; bridge fdb append 00:00:00:00:00:00 dev vx-%s dst fe80::1:2:3:4 via wg-%[2]s", state, domain)
			cleanup(t, domain, "--mark-age=0s")
			cleanup(t, domain, "--mark-age=0s")
			withoutSpace(t, func() { _, _ = try("systemctl start wgkex-cleanup@%s.service", domain) })
			sh(t, "systemctl reset-failed wgkex-cleanup@%s.service", domain)
		},
		"wgkex-local": func(t *testing.T) {
			sh(t, "rm -f %s; systemctl start wgkex-local.socket", state)
			addPeers(t, domain, 300)
			for range 2 {
				newKeys(t, 30)
				sh(t, "wgkex add %s < keys; wgkex add %[1]s < keys", domain)
			}
			sh(t, "rm /run/wgkex/domains/%s.counters; wgkex add %[1]s none || true; wgkex add absent none || true", domain)
			withoutSpace(t, func() { _, _ = try("wgkex add %s < keys", domain) })
			hold := exec.Command("bash", "-c", "exec sleep 1000 | nc -U /run/wgkex/local.sock")
			if err := hold.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a local handler", func() bool { _, err := try("pgrep -x wgkex-local"); return err == nil })
			sh(t, "systemctl stop 'wgkex-local@*.service'; pkill -f 'sleep 1000'")
			_ = hold.Wait()
		},
		"wgkex-http": func(t *testing.T) {
			serveHTTP(t, fmt.Sprintf("listen = %d", httpPort))
			for range 3 {
				askHTTP(t, v2Path, domain, newKey(t).String(), 200)
			}
			sh(t, "systemctl stop wgkex-local.socket 'wgkex-local@*'")
			askHTTP(t, v1Path, domain, newKey(t).String(), 503)
			sh(t, "systemctl start wgkex-local.socket; echo >> /run/wgkex/effective.toml")
			askHTTP(t, v1Path, domain, newKey(t).String(), 200)
			sh(t, "curl -s -d \"$(head -c 5000 /dev/zero | tr '\\0' ' ')\" http://127.0.0.1:%d%s; systemctl daemon-reload; systemctl stop wgkex-http.service", httpPort, v1Path)
		},
		"wgkex-metrics": func(t *testing.T) {
			sh(t, "wgkex save %s; rm -f %s; systemctl start wgkex-metrics.socket", domain, state)
			addPeers(t, domain, 300)
			for range 2 {
				sh(t, "curl -sfg 'http://[::1]:9587/metrics' | grep -q 'wgkex_domain_up{domain=\"%s\"} 1'", domain)
			}
			sh(t, "curl -sfg 'http://[::1]:9587/status.json' | grep -q %s; curl -sfg 'http://[::1]:9587/' 'http://[::1]:9587/?domain=%[1]s'", domain)
			sh(t, "echo nonsense | nc -N ::1 9587 | grep -q '400 Bad Request'")
			sh(t, "curl -sg -H \"X: $(head -c 20000 /dev/zero | tr '\\0' x)\" 'http://[::1]:9587/' | grep -q '431 '")
			sh(t, "rm %s", state)
			withoutSpace(t, func() {
				sh(t, "curl -sfg 'http://[::1]:9587/metrics' | grep -q 'wgkex_domain_up{domain=\"%s\"} 0'", domain)
			})
		},
		"wgkex-relay": func(t *testing.T) {
			relayTo(t, "localhost")
			listen(t)
			says := func() {
				t.Helper()
				key := newKey(t)
				accept(t, sharedPort, domain, key)
				hears(t, "/run/suite-listener", "wireguard/%s/all %s", domain, key)
			}
			says()
			theirs := newKey(t)
			other(t, "wireguard/"+domain+"/all", theirs.String())
			eventually(t, "their key is a peer", func() bool { return hasPeers(domain, theirs) })
			sh(t, "systemctl stop mosquitto; systemctl start mosquitto") // it connects anew
			says()
			sh(t, "kill -KILL $(systemctl show -P MainPID wgkex-relay.service)")
			says()
			noFiles(t, "/run/wgkex/relay", "what others read of the relay is not kept")
			noFiles(t, "/var/lib/wgkex-relay", "no space left on device")

			// A name that name servers alone know, and a certificate that the system trusts.
			const name = "broker.suite.test"
			nameServer(t)
			sh(t, `cd /etc/mosquitto/certs; cp ca.pem /usr/local/share/ca-certificates/suite.crt; update-ca-certificates
				openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -days 2 -extfile <(echo subjectAltName=DNS:localhost,DNS:%s) -out broker.pem
				sed -i '/ca_file/d; s/localhost/%[1]s/' /etc/wgkex/conf.d/mqtt.toml; systemctl restart mosquitto`, name)
			t.Cleanup(func() { sh(t, "rm /usr/local/share/ca-certificates/suite.crt; update-ca-certificates --fresh") })
			brokerListens(t)
			_, _ = try("wgkex apply")
			says()
			sh(t, "systemctl stop wgkex-relay.service")
		},
		"wgkex-restore": func(t *testing.T) {
			keys := addPeers(t, domain, 600)
			sh(t, "wgkex save %s; wg set wg-%[1]s $(wg show wg-%[1]s peers | sed 's/.*/peer & remove/'); rm -f %s", domain, state)
			sh(t, "systemctl start wgkex-restore@%s", domain)
			eventually(t, "the last peer", func() bool { return strings.Contains(sh(t, "wg show wg-%s peers", domain), keys[0].String()) })
			sh(t, "systemctl start wgkex-save@%s; systemctl stop wgkex-save@%[1]s", domain)
			withoutSpace(t, func() {
				sh(t, "systemctl start wgkex-restore@%s wgkex-save@%[1]s; systemctl stop wgkex-save@%[1]s; sleep 1", domain)
			})
			sh(t, "systemctl reset-failed 'wgkex-restore@*' 'wgkex-save@*' 2> /dev/null || true")
		},
	} {
		if relay != (program == "wgkex-relay") {
			continue
		}
		t.Run(program, func(t *testing.T) {
			// The peers of all of them would be more than max_pending.
			sh(t, "wg show wg-%s peers | sed 's/.*/peer & remove/' | xargs -rn 300 wg set wg-%[1]s; rm -f %s", domain, state)
			trigger := fmt.Sprintf(`hist:keys=id.syscall:size=1024 if comm == "%s"`, program)
			sh(t, "echo '%s' > %s/trigger", trigger, event)
			run(t)
			noHandlers(t)
			// The kernel's names are those of its functions, such as sys_newfstat.
			made := found(strings.NewReplacer("newfstat ", "fstat ", "newuname ", "uname ").Replace(sh(t, "cat %s/hist", event)), `id: (?:sys_)?(\w+)`)
			sh(t, "echo '!%s' > %s/trigger", trigger, event)
			unit := program + "@.service"
			switch program {
			case "wgkex-handler":
				unit = "wgkex@.service"
			case "wgkex-http":
				unit = "wgkex-http.service.d/20-http.conf"
			case "wgkex-relay":
				unit = program + ".service"
			}
			listed := strings.Fields(sh(t, "sed -n 's/^SystemCallFilter=//p' /lib/systemd/system/%s", unit))
			always := found(sh(t, "systemd-analyze --no-pager syscall-filter @default"), `(?m)^    (\w+)$`)
			t.Logf("%s makes %v", program, made)
			for _, call := range made {
				if !slices.Contains(listed, call) && !slices.Contains(always, call) {
					t.Errorf("%s makes the call %s, which its unit does not list", program, call)
				}
			}
			for _, call := range listed {
				if !slices.Contains(made, call) && reserve[call] == "" {
					t.Errorf("%s lists the call %s, which %s does not make", unit, call, program)
				}
			}
			if program == "wgkex-restore" {
				sh(t, "cd /lib/systemd/system; diff <(grep ^SystemCallFilter= wgkex-restore@.service) <(grep ^SystemCallFilter= wgkex-save@.service)")
			}
		})
	}
}

// noFiles has the relay find its directory full when it starts, and say so.
func noFiles(t *testing.T, dir, complaint string) {
	t.Helper()
	sh(t, "systemctl stop wgkex-relay.service; mount -t tmpfs -o size=4k,uid=wgkex-relay,gid=wgkex-relay,mode=755 tmpfs %s; head -c 9000 /dev/zero > %[1]s/zeros || true", dir)
	sh(t, "systemctl start --no-block wgkex-relay.service")
	eventually(t, complaint, func() bool {
		_, err := try("journalctl -b -u wgkex-relay.service -o cat | grep -qF '%s'", complaint)
		return err == nil
	})
	sh(t, "systemctl stop wgkex-relay.service; umount %s; systemctl start wgkex-relay.service", dir)
}

// nameServer answers that each name is that of this machine, until the test ends.
func nameServer(t *testing.T) {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53), Port: 53})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := server.ReadFromUDP(query)
			if err != nil {
				return // the end of the test
			}
			if answer := resolve(query[:n]); answer != nil {
				_, _ = server.WriteToUDP(answer, from)
			}
		}
	}()
	sh(t, "cp --preserve=all /etc/resolv.conf resolv.conf 2>/dev/null || touch no-resolv.conf; rm -f /etc/resolv.conf; echo nameserver 127.0.0.53 > /etc/resolv.conf")
	t.Cleanup(func() { sh(t, "rm -f /etc/resolv.conf; rm no-resolv.conf 2>/dev/null || mv resolv.conf /etc") })
}

// resolve answers a query with 127.0.0.1, and one for something else than an IPv4 address
// with nothing (RFC 1035 section 4.1). It is nil for what is no query.
func resolve(query []byte) []byte {
	const header, typeA = 12, 1
	if len(query) < header {
		return nil
	}
	end := header
	for end < len(query) && query[end] != 0 { // labels of the name
		end += 1 + int(query[end])
	}
	end += 5 // the root, type and class
	if end > len(query) {
		return nil
	}
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[header:end]...)
	if query[end-3] != typeA {
		return answer
	}
	answer[7] = 1
	return append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
}
