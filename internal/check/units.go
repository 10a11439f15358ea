package check

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"
)

// apply is the cure for whatever is only not as the configuration has it.
const apply command = "wgkex apply"

func target(u systemd.Unit) findings {
	var found findings
	switch {
	case u.Masked():
		found.add(Failed, "%s is masked: run %s, then %s", u.Name, run("systemctl unmask %s", u.Name), apply)
	case u.File == "disabled":
		found.add(Warning, "%s is disabled, so that nothing listens after a boot: run %s", u.Name, run("systemctl enable %s", u.Name))
	}
	return found
}

// relay is about what tells other gateways. Routers are served without it.
func relay(u systemd.Unit) findings {
	const deaf = "other gateways hear of no keys"
	var found findings
	if u.Load == "not-found" {
		found.add(Warning, "%s is not there, so that %s: install the package wgkex-relay", u.Name, deaf)
		return found
	}
	return running(u, Warning, deaf, "; if that does not help, see journalctl -u "+u.Name)
}

// running is about a unit that has to run. Inactive is how bad it is if it does not, but
// for one that an admin has masked, so is what comes of it, and more what else helps.
func running(u systemd.Unit, inactive Level, so, more string) findings {
	var found findings
	switch {
	case u.Masked():
		found.add(Warning, "%s is masked, so that %s: run %s, then %s", u.Name, so, run("systemctl unmask %s", u.Name), apply)
	case u.Active != "active":
		found.add(inactive, "%s is %s, so that %s: run %s%s", u.Name, u.Active, so, apply, more)
	default:
		found.add(OK, "%s: active", u.Name)
	}
	return found
}

// socket compares a socket with the configuration and with the ports that are
// open.
func socket(s units.Socket, u systemd.Unit, listeners []systemd.Listener, owner func(inode uint64) string) findings {
	var found findings
	switch closed := u.Closed(listeners); {
	case u.Masked():
		found.add(Failed, "%s is masked: run %s, then %s", u.Name, run("systemctl unmask %s", u.Name), apply)
	case !s.In(u.Listen):
		found.add(Failed, "%s listens elsewhere than on %s: run %s; if that does not help, look for a drop-in in systemctl cat %[1]s", u.Name, s.Where(), apply)
	case u.Active != "active":
		i := slices.IndexFunc(listeners, func(l systemd.Listener) bool {
			return slices.ContainsFunc(s.Listen, l.At().Overlaps)
		})
		if i < 0 {
			found.add(Failed, "%s is %s: run %s; if that does not help, see systemctl status %[1]s", u.Name, u.Active, apply)
			break
		}
		found.add(Failed, "%s is %s, since port %d is taken by %s: end that program, or choose another port", u.Name, u.Active, listeners[i].Addr.Port(), holder(listeners[i], owner))
	case len(closed) > 0:
		found.add(Failed, "%s does not listen on %s: run %s", u.Name, strings.Join(closed, " and "), apply)
	}
	return found
}

// holder is whose listener it is, in words.
func holder(l systemd.Listener, owner func(inode uint64) string) string {
	if l.Systemd {
		return fmt.Sprintf("another socket unit (systemctl list-sockets | grep :%d)", l.Addr.Port())
	}
	name := owner(l.Inode)
	if name == "" {
		name = "another program"
	}
	return fmt.Sprintf("%s (ss -ltnp 'sport = :%d')", name, l.Addr.Port())
}

// refusal is the answer to an exchange without a domain.
const refusal = "ERR: NO_DOMAIN\n"

// answer is about an exchange that was tried at a socket. Silence is how systemd
// closes connections above the limit, and how a router takes it for an
// acceptance when its handler cannot be started.
func answer(s units.Socket, u systemd.Unit, at netip.AddrPort, got string, err error) findings {
	var found findings
	switch {
	case err != nil:
		found.add(Failed, "%s: no answer at %s: %v: look at the gateway's firewall, and at journalctl -u 'wgkex@*'", s.Unit, at, err)
	case got == refusal:
		found.add(OK, "%s: active on %s", s.Unit, s.Where())
	case got == "" && u.Connections >= u.MaxConnections:
		found.add(Warning, "%s: all of its %d connections are taken: see Limits in the guide", s.Unit, u.MaxConnections)
	case got == "":
		found.add(Failed, "%s accepts connections, but wgkex@.service does not start for them, which routers take for an acceptance: see journalctl -u 'wgkex@*'; in a container, allow mounts and namespaces", s.Unit)
	default:
		found.add(Failed, "%s answers %q: see journalctl -t wgkex-handler", s.Unit, got)
	}
	return found
}

// httpRefusals are the codes for a request without a domain and a key, where there
// is no default domain and where there is one.
var httpRefusals = []string{"NO_DOMAIN", "NO_WGKEY"}

// httpAnswer is about an exchange that was tried over HTTP, of which code is the
// outcome.
func httpAnswer(s units.Socket, at, code string, err error) findings {
	var found findings
	switch {
	case err != nil:
		found.add(Failed, "%s: no answer at %s: %v: look at the gateway's firewall, and at journalctl -u %s", s.Unit, at, err, s.Service())
	case slices.Contains(httpRefusals, code):
		found.add(OK, "%s: active on %s", s.Unit, s.Where())
	case code == "BUSY":
		found.add(Failed, "%s answers, but cannot ask for exchanges: see journalctl -u %s, and systemctl status wgkex-local.socket", s.Unit, s.Service())
	default:
		found.add(Failed, "%s answers %q: see journalctl -u %s", s.Unit, code, s.Service())
	}
	return found
}

// warnings are the same findings where none keeps routers from being served.
func (f findings) warnings() findings {
	for i := range f {
		f[i].Level = min(f[i].Level, Warning)
	}
	return f
}

// metrics is about the metrics socket, which was asked at one of its places.
func metrics(s units.Socket, at netip.AddrPort, status int, err error) findings {
	var found findings
	switch {
	case err != nil:
		found.add(Warning, "%s: no answer at %s: %v: see journalctl -u 'wgkex-metrics@*'", s.Unit, at, err)
		return found
	case status != http.StatusOK:
		found.add(Warning, "%s answers with status %d: see journalctl -u 'wgkex-metrics@*'", s.Unit, status)
		return found
	}
	for _, l := range s.Listen {
		if !limited(l.Addr) {
			found.add(Warning, "%s: whoever reaches %s can read the keys and addresses of all routers: set metrics.listen to an address that the internet does not reach, or let the gateway's firewall close the port", s.Unit, l.Where())
		}
	}
	found.add(OK, "%s: active on %s", s.Unit, s.Where())
	return found
}

// limited reports whether the internet does not reach the address.
func limited(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() }

// noInterface is about a socket that is bound to an interface that is not there.
func noInterface(s units.Socket) findings {
	var found findings
	found.add(Failed, "%s: there is no interface %s: make it, or correct http.listen; the socket then starts by itself", s.Unit, s.Device)
	return found
}

func local(u systemd.Unit) findings {
	return running(u, Failed, "programs of the gateway and wgkex add cannot ask for exchanges", "")
}

func timer(d config.Domain, u systemd.Unit) findings {
	return running(u, Failed, "stale peers of domain "+d.Name+" are not removed", "")
}

func cleanup(d config.Domain, u systemd.Unit) findings {
	var found findings
	if u.Active == "failed" {
		found.add(Failed, "the last cleanup of domain %s failed: see journalctl -u %s", d.Name, u.Name)
	}
	return found
}

func restore(d config.Domain, u systemd.Unit) findings {
	var found findings
	if u.Active == "failed" {
		found.add(Failed, "the last restore of domain %s failed: see journalctl -u %s, then run %s", d.Name, u.Name, run("wgkex restore %s", d.Name))
	}
	return found
}

// firewallWanted reports whether the admin has the exchange limited.
func firewallWanted(u systemd.Unit) bool {
	return !u.Masked() && (u.Active != "inactive" || strings.HasPrefix(u.File, "enabled"))
}

// firewall compares what it limits with the configuration.
func firewall(u systemd.Unit, limits units.Limits, known bool, err error, want units.Limits) findings {
	var found findings
	switch {
	case u.Active != "active":
		found.add(Failed, "%s is enabled and %s: run %s; if that does not help, see systemctl status %[1]s", u.Name, u.Active, apply)
	case errors.Is(err, kernel.ErrNoTable):
		found.add(Failed, "%s is active, but somebody has removed its nftables table: run %s", u.Name, apply)
	case err != nil:
		found.add(Failed, "%s: %v", u.Name, err)
	case known && !limits.Equal(want):
		found.add(Failed, "%s limits the %s, not the %s: run %s", u.Name, limits, want, apply)
	default:
		found.add(OK, "%s: active", u.Name)
	}
	return found
}
