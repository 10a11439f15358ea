//go:build vm

package suite

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	sh(t, "systemctl stop wgkex@absent.socket")
	// A port that the configuration does not know (any more).
	sh(t, "mkdir -p /run/systemd/system/wgkex@ffww02.socket.d; printf '[Socket]\nListenStream=\nListenStream=10099\n' > /run/systemd/system/wgkex@ffww02.socket.d/99-test.conf")
	sh(t, "systemctl daemon-reload; systemctl restart wgkex@ffww02.socket")
	t.Cleanup(func() {
		sh(t, "rm -r /run/systemd/system/wgkex@ffww02.socket.d; systemctl daemon-reload; systemctl restart wgkex@ffww02.socket")
	})
	out, err := try("wgkex check")
	if err == nil {
		t.Error("no complaint about the broken and absent domains")
	}
	for _, want := range []string{
		"ok: domain ffww01: interfaces wg-ffww01 with public key ",
		"FAILED: /etc/wgkex/wgkex.toml:17: domain broken: ",
		"FAILED: /etc/wgkex/wgkex.toml:22: domain absent: interface wg-absent: no such interface",
		"ok: wgkex.socket: active on port 10012",
		"FAILED: wgkex@ffww02.socket listens elsewhere than on port 10014: run wgkex apply",
		"FAILED: wgkex@absent.socket is inactive: run wgkex apply",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// inOrder is a gateway with one domain, made as the guide has it, of which wgkex
// check has nothing but good to say.
func inOrder(t *testing.T) {
	t.Helper()
	sh(t, "./suite-files/gateway order 9 rfc4291; ip link set vx-order type vxlan nolearning")
	t.Cleanup(func() { _, _ = try("ip link del vx-order; ip link del wg-order") })
	configure(t, map[string]string{
		"conf.d/order.toml": "[domains.order]\nwireguard = \"wg-order\"\nvxlan = \"vx-order\"\nlisten = 10019\n",
	})
	apply(t, true)
	quiet(t)
}

// quiet wants wgkex check to have no complaint.
func quiet(t *testing.T) {
	t.Helper()
	out := sh(t, "wgkex check")
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "ok: ") {
			t.Errorf("wgkex check has something to say:\n%s", out)
		}
	}
}

// Each thing that keeps a router out, or may do so, is found, and doing what
// wgkex check says about it mends it. What it is silent about, serves.
func TestCheckFindsAndSaysHowToMend(t *testing.T)     { checkFinds(t, false) }
func TestLongCheckFindsAndSaysHowToMend(t *testing.T) { checkFinds(t, true) }

// similar are things that wgkex check finds in the same way as others: they take
// half of the time.
var similar = []string{
	"no link-local address", "small MTU", "no port", "address of another profile", "learning", "IPv4 local", "IPv4 remote",
	"another local", "bound to lo", "large MTU", "timer masked", "socket stopped", "target disabled", "no local", "external",
	"bound to nothing", "VXLAN interface down", "timer stopped", "what is not configured", "no port configured", "IPv6 off", "socket masked",
}

func checkFinds(t *testing.T, all bool) {
	inOrder(t)
	own := sh(t, "ip -6 -o address show dev wg-order | sed 's/.*inet6 \\([^/]*\\).*/\\1/'")
	munich := sh(t, "wg show wg-order public-key | wgkex derive --addresses ffmuc | cut -f3")
	vxlan := func(options string) string {
		return "ip link del vx-order; ip link add vx-order mtu 1350 type vxlan " + options + "; ip link set vx-order up"
	}
	good := vxlan("id 109 dstport 8472 local " + own + " dev wg-order nolearning")
	const with = "with" // make the VXLAN interface anew with what follows this word
	for _, c := range []struct {
		name, spoil, want string
		// mend is what to do where the line does not give a command that can be
		// taken as it is.
		mend string
		// others are how many lines more tell of consequences.
		others int
	}{
		{"WireGuard interface down", "ip link set wg-order down; ip address add " + own + "/64 dev wg-order nodad", "FAILED: .* wg-order is down: run (.*)", "", 0},
		{"no link-local address", "ip -6 address flush dev wg-order", "FAILED: .* wg-order has no link-local address: run (.*)", "", 1},
		{"IPv6 off", "sysctl -w net.ipv6.conf.wg-order.disable_ipv6=1", "FAILED: .* IPv6 is off on wg-order: run (sysctl [^,]*),", "ip address add " + own + "/64 dev wg-order", 1},
		{"small MTU", "ip link set wg-order mtu 1279", "FAILED: .* the MTU of wg-order is 1279, .*: run (ip link [^,]*),", "ip address add " + own + "/64 dev wg-order", 2},
		{"no private key", "cp wg-order.key FILE; wg set wg-order private-key /dev/null", "FAILED: .*/order.toml:1: domain order: wg-order has no private key: run (.*)", "", 0},
		{
			"no port", "ip link set wg-order down; wg set wg-order listen-port 0; ip address add " + own + "/64 dev wg-order nodad",
			"FAILED: .* wg-order has no UDP port: run wg set wg-order listen-port PORT", "wg set wg-order listen-port 51829; ip link set wg-order up", 1,
		},
		{
			"address of another profile", "ip address add " + munich + "/64 dev wg-order; ip address del " + own + "/64 dev wg-order; " + vxlan("id 109 dstport 8472 local "+munich+" dev wg-order nolearning"),
			`warning: .*order.toml:1: domain order: the address ` + munich + ` of wg-order is that of the address profile "ffmuc"`,
			"ip address add " + own + "/64 dev wg-order; ip address del " + munich + "/64 dev wg-order; " + good, 0,
		},

		{"VXLAN interface down", "ip link set vx-order down", "FAILED: .* vx-order is down: run (.*)", "", 0},
		{"learning", "ip link set vx-order type vxlan learning", "warning: .* vx-order learns, .*: run (.*)", "", 0},
		{"no local", vxlan("id 109 dstport 8472 dev wg-order nolearning"), "FAILED: .* vx-order has no local address, .* with (local .*)", with, 0},
		{"IPv4 local", vxlan("id 109 dstport 8472 local 127.0.0.1 dev wg-order nolearning"), "FAILED: .* vx-order is made for IPv4, .* with (local .*)", with, 0},
		{"IPv4 remote", vxlan("id 109 dstport 8472 remote 192.0.2.1 dev wg-order nolearning"), "FAILED: .* vx-order is made for IPv4, .* with (local .*)", with, 0},
		{"another local", vxlan("id 109 dstport 8472 local fe80::1 dev wg-order nolearning"), "FAILED: .* the local address fe80::1 of vx-order is no address of wg-order: .* with (local .*)", with, 0},
		{"bound to nothing", "ip address add fd00:9::9/64 dev wg-order; " + vxlan("id 109 dstport 8472 local fd00:9::9 nolearning"), "FAILED: .* vx-order is not bound to wg-order: .* with (local .*)", with, 0},
		{"bound to lo", vxlan("id 109 dstport 8472 local " + own + " dev lo nolearning"), "FAILED: .* vx-order is not bound to wg-order: .* with (local .*)", with, 0},
		{"external", vxlan("dstport 4789 external"), "FAILED: .* vx-order is external, .* with (local [^,]*),", with, 0},
		{"large MTU", "ip link set wg-order mtu 1400", "warning: .* the MTU of vx-order is 1350, .*: run (ip link set vx-order mtu 1330)", "", 0},

		{"timer stopped", "systemctl stop wgkex-cleanup@order.timer", "FAILED: wgkex-cleanup@order.timer is inactive, .*: run (.*)", "", 0},
		{"timer masked", "systemctl mask --now wgkex-cleanup@order.timer", "warning: wgkex-cleanup@order.timer is masked, .*: run ([^,]*), then (.*)", "", 0},
		{"socket stopped", "systemctl stop wgkex@order.socket", "FAILED: wgkex@order.socket is inactive: run ([^;]*);", "", 0},
		{"socket masked", "systemctl mask --now wgkex@order.socket", "FAILED: wgkex@order.socket is masked: run ([^,]*), then (.*)", "", 0},
		{"target disabled", "systemctl disable wgkex.target", "warning: wgkex.target is disabled, .*: run (.*)", "", 0},
		{"configuration not applied", "sed -i s/10019/10029/ /etc/wgkex/conf.d/order.toml", "FAILED: configuration in /etc/wgkex: changed since the last daemon-reload: run (.*)", "", 1},
		{"port changed and not restarted", "sed -i s/10029/10019/ /etc/wgkex/conf.d/order.toml; systemctl daemon-reload", `FAILED: wgkex@order.socket does not listen on \[::\]:10019: run (.*)`, "", 0},
		{"no port configured", "sed -i 's/^listen/#&/' /etc/wgkex/conf.d/order.toml", "FAILED: .*/order.toml:1: domain order has no port", "sed -i 's/^#//' /etc/wgkex/conf.d/order.toml", 0},
		{"what is not configured", "systemctl start wgkex-cleanup@gone.timer", "FAILED: wgkex-cleanup@gone.timer is active but not in the configuration: run (.*)", "", 0},
		{
			"another program's port", "systemctl stop wgkex@order.socket; systemd-run -u foreign nc -lk 10019; until ss -Hltn sport = :10019 | grep .; do sleep 0.2; done; systemctl start wgkex@order.socket; true",
			`FAILED: wgkex@order.socket is failed, since port 10019 is taken by nc \(process [0-9]+\) \(ss -ltnp 'sport = :10019'\): end that program`, "systemctl stop foreign; wgkex apply", 0,
		},
		{
			"cleanup failed", "mkdir -p /run/systemd/system/wgkex-cleanup@order.service.d; printf '[Service]\\nExecStartPre=/nowhere\\n' > /run/systemd/system/wgkex-cleanup@order.service.d/x.conf; systemctl daemon-reload; systemctl start wgkex-cleanup@order.service; true",
			"FAILED: the last cleanup of domain order failed: see journalctl", "rm /run/systemd/system/wgkex-cleanup@order.service.d/x.conf; systemctl daemon-reload; systemctl start wgkex-cleanup@order.service", 0,
		},

		{
			"firewall failed", "mkdir -p /run/systemd/system/wgkex-firewall.service.d; printf '[Service]\\nEnvironment=WGKEX_RULES=/nowhere\\n' > /run/systemd/system/wgkex-firewall.service.d/x.conf; systemctl daemon-reload; systemctl enable --now wgkex-firewall; true",
			"FAILED: wgkex-firewall.service is enabled and failed: run wgkex apply; if that does not help, see systemctl status wgkex-firewall.service", "rm /run/systemd/system/wgkex-firewall.service.d/x.conf; wgkex apply", 0,
		},
		{"firewall flushed", "nft flush ruleset", "FAILED: wgkex-firewall.service is active, but somebody has removed its nftables table: run (.*)", "", 0},
		{"firewall with another port", "nft add element inet wgkex ports '{ 22 }'", `FAILED: wgkex-firewall.service limits the ports \[22 10019\], not the ports \[10019\]: run (.*)`, "systemctl disable --now wgkex-firewall", 0},
	} {
		if slices.Contains(similar, c.name) && !all {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			sh(t, "%s", c.spoil)
			out, err := try("wgkex check")
			var complaints []string
			for line := range strings.Lines(out) {
				if !strings.HasPrefix(line, "ok: ") && !strings.HasPrefix(line, "wgkex: ") {
					complaints = append(complaints, strings.TrimSpace(line))
				}
			}
			var m []string
			for _, line := range complaints {
				if found := regexp.MustCompile("^" + c.want).FindStringSubmatch(line); found != nil {
					m = found
				}
			}
			// That there is no other also says that the one before was mended.
			if m == nil || len(complaints) != 1+c.others || (err != nil) != strings.HasPrefix(c.want, "FAILED") {
				t.Errorf("%v, want %q and %d more in\n%s", err, c.want, c.others, out)
			}
			if c.mend == with && m != nil {
				sh(t, "%s", vxlan("id 109 dstport 8472 "+m[1]))
				return
			}
			for _, command := range m[min(1, len(m)):] {
				sh(t, "%s", command)
			}
			sh(t, "%s", c.mend)
		})
	}
	t.Run("the sandbox cannot be built", checkTriesTheUnit)
	t.Run("nothing", func(t *testing.T) {
		quiet(t)
		// The address that the router pings went with the VXLAN interface.
		sh(t, "ip addr replace fd00:109::1/64 dev vx-order nodad")
		sh(t, "./suite-files/router order 40 order 4 10019 51829 109 rfc4291")
		t.Cleanup(func() { _, _ = try("ip netns del order") })
		reach(t, "order", 109)
	})
}

// Where the sandbox cannot be built, routers hear the silence of an acceptance:
// wgkex check tries the unit.
func checkTriesTheUnit(t *testing.T) {
	sh(t, "mkdir -p /run/systemd/system/wgkex@.service.d; printf '[Service]\nBindPaths=/nowhere\n' > /run/systemd/system/wgkex@.service.d/x.conf; systemctl daemon-reload")
	defer func() { sh(t, "rm /run/systemd/system/wgkex@.service.d/x.conf; systemctl daemon-reload") }()
	if got := send(t, 10019, ""); got != "" {
		t.Errorf("the handler answers %q", got)
	}
	if out, err := try("wgkex check"); err == nil || !strings.Contains(out, "\nFAILED: wgkex@order.socket accepts connections, but wgkex@.service does not start for them") {
		t.Errorf("%v\n%s", err, out)
	}
}
