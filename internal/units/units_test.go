package units

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"wgkex/internal/config"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := Write(config.Config{Listen: config.Listen{Port: 10012}, Domains: map[string]config.Domain{
		"ffww02":     {Name: "ffww02", WireGuard: "wg-02", VXLAN: "vx2"},
		"ffww-01.de": {Name: "ffww-01.de", WireGuard: "wg+1", VXLAN: "vx1", Listen: listen("192.0.2.1:10013")},
		"ffww03":     {Name: "ffww03", WireGuard: "wg3", VXLAN: "vx3", Listen: listen("[fe80::1]:10013%eth0")},
	}, HTTP: config.HTTP{
		Listen: []config.Listen{listen("[fe80::1%wg3]:80"), {Port: 8080}, listen("[fe80::2%wg3]:80"), listen("192.0.2.1:80"), listen("[fe80::1%wg-02]:81")},
		Socket: "/run/wgkex/http.sock",
	}, Metrics: config.Metrics{Listen: []config.Listen{config.DefaultMetrics, listen("10.0.0.1:9587")}}, MQTT: config.MQTT{
		URL: "mqtts://b:8883", Username: "u", PasswordFile: "/etc/wgkex/p", CAFile: "/etc/ca.pem", CertificateFile: "/etc/c.pem", KeyFile: "/etc/k.pem",
	}}, dir); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || e.IsDir():
			return err
		case e.Type() == fs.ModeSymlink:
			got[name], err = os.Readlink(path)
			return err
		}
		data, err := os.ReadFile(path)
		_, got[name], _ = strings.Cut(string(data), "\n") // without the comment
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"wgkex.socket.d/" + DropIn:                                                        "[Socket]\nListenStream=\nListenStream=10012\nEnvironment=\"WGKEX_LISTEN=10012\"\n",
		"wgkex@ffww-01.de.socket.d/" + DropIn:                                             "[Socket]\nListenStream=\nListenStream=192.0.2.1:10013\nEnvironment=\"WGKEX_LISTEN=192.0.2.1:10013\"\nFreeBind=yes\n",
		"wgkex@ffww03.socket.d/" + DropIn:                                                 "[Socket]\nListenStream=\nListenStream=[fe80::1]:10013%%eth0\nEnvironment=\"WGKEX_LISTEN=[fe80::1]:10013%%eth0\"\nFreeBind=yes\n",
		"wgkex-http.socket.d/" + DropIn:                                                   "[Socket]\nListenStream=\nListenStream=8080\nListenStream=192.0.2.1:80\nListenStream=/run/wgkex/http.sock\nEnvironment=\"WGKEX_LISTEN=8080 192.0.2.1:80 /run/wgkex/http.sock\"\nFreeBind=yes\n",
		"wgkex-metrics.socket.d/" + DropIn:                                                "[Socket]\nListenStream=\nListenStream=[::1]:9587\nListenStream=10.0.0.1:9587\nEnvironment=\"WGKEX_LISTEN=[::1]:9587 10.0.0.1:9587\"\nFreeBind=yes\n",
		"wgkex-relay.service.d/" + DropIn:                                                 "[Service]\nLoadCredential=password:/etc/wgkex/p\nLoadCredential=ca:/etc/ca.pem\nLoadCredential=certificate:/etc/c.pem\nLoadCredential=key:/etc/k.pem\n",
		"wgkex.target.wants/wgkex-relay.service":                                          "/usr/lib/systemd/system/wgkex-relay.service",
		"wgkex.target.wants/wgkex-metrics.socket":                                         "/usr/lib/systemd/system/wgkex-metrics.socket",
		"wgkex-http@wg3.socket.d/" + DropIn:                                               "[Socket]\nListenStream=\nListenStream=[fe80::1]:80\nListenStream=[fe80::2]:80\nEnvironment=\"WGKEX_LISTEN=[fe80::1]:80%%wg3 [fe80::2]:80%%wg3\"\nBindToDevice=wg3\nFreeBind=yes\n",
		"wgkex-http@wg-02.socket.d/" + DropIn:                                             "[Socket]\nListenStream=\nListenStream=[fe80::1]:81\nEnvironment=\"WGKEX_LISTEN=[fe80::1]:81%%wg-02\"\nBindToDevice=wg-02\nFreeBind=yes\n",
		"wgkex.target.wants/wgkex-http.socket":                                            "/usr/lib/systemd/system/wgkex-http.socket",
		"wgkex.target.wants/wgkex-http-bind@wg3.service":                                  "/usr/lib/systemd/system/wgkex-http-bind@.service",
		"wgkex.target.wants/wgkex-http-bind@wg-02.service":                                "/usr/lib/systemd/system/wgkex-http-bind@.service",
		"sys-subsystem-net-devices-wg3.device.wants/wgkex-http-bind@wg3.service":          "/usr/lib/systemd/system/wgkex-http-bind@.service",
		`sys-subsystem-net-devices-wg\x2d02.device.wants/wgkex-http-bind@wg-02.service`:   "/usr/lib/systemd/system/wgkex-http-bind@.service",
		"wgkex-firewall.service.d/" + DropIn:                                              "[Unit]\nBefore=wgkex.socket wgkex@ffww-01.de.socket wgkex@ffww03.socket wgkex-http.socket wgkex-http@wg-02.socket wgkex-http@wg3.socket wgkex-metrics.socket\n[Service]\nEnvironment=\"WGKEX_PORTS={ 80, 81, 8080, 9587, 10012, 10013 }\" \"WGKEX_TUNNEL_PORTS={ 80, 81, 8080 }\" \"WGKEX_INTERFACES={ \\\"wg-02\\\", \\\"wg3\\\" }\"\n",
		"wgkex.target.wants/wgkex-cleanup@ffww02.timer":                                   "/usr/lib/systemd/system/wgkex-cleanup@.timer",
		"wgkex.target.wants/wgkex-cleanup@ffww-01.de.timer":                               "/usr/lib/systemd/system/wgkex-cleanup@.timer",
		"wgkex.target.wants/wgkex.socket":                                                 "/usr/lib/systemd/system/wgkex.socket",
		"wgkex.target.wants/wgkex@ffww03.socket":                                          "/usr/lib/systemd/system/wgkex@.socket",
		"wgkex.target.wants/wgkex-cleanup@ffww03.timer":                                   "/usr/lib/systemd/system/wgkex-cleanup@.timer",
		"wgkex.target.wants/wgkex@ffww-01.de.socket":                                      "/usr/lib/systemd/system/wgkex@.socket",
		"wgkex.target.wants/wgkex-local.socket":                                           "/usr/lib/systemd/system/wgkex-local.socket",
		"wgkex-restore@ffww02.service.d/" + DropIn:                                        "[Unit]\nAfter=wg-quick@wg-02.service\n",
		"wgkex-save@ffww02.service.d/" + DropIn:                                           "[Unit]\nAfter=wg-quick@wg-02.service\nPartOf=wg-quick@wg-02.service\n",
		"wgkex-restore@ffww03.service.d/" + DropIn:                                        "[Unit]\nAfter=wg-quick@wg3.service\n",
		"wgkex-save@ffww03.service.d/" + DropIn:                                           "[Unit]\nAfter=wg-quick@wg3.service\nPartOf=wg-quick@wg3.service\n",
		`sys-subsystem-net-devices-wg\x2d02.device.wants/wgkex-restore@ffww02.service`:    "/usr/lib/systemd/system/wgkex-restore@.service",
		"systemd-networkd.service.wants/wgkex-restore@ffww02.service":                     "/usr/lib/systemd/system/wgkex-restore@.service",
		"systemd-networkd.service.wants/wgkex-restore@ffww-01.de.service":                 "/usr/lib/systemd/system/wgkex-restore@.service",
		"systemd-networkd.service.wants/wgkex-restore@ffww03.service":                     "/usr/lib/systemd/system/wgkex-restore@.service",
		`sys-subsystem-net-devices-vx2.device.wants/wgkex-restore@ffww02.service`:         "/usr/lib/systemd/system/wgkex-restore@.service",
		`sys-subsystem-net-devices-wg\x2b1.device.wants/wgkex-restore@ffww-01.de.service`: "/usr/lib/systemd/system/wgkex-restore@.service",
		`sys-subsystem-net-devices-vx1.device.wants/wgkex-restore@ffww-01.de.service`:     "/usr/lib/systemd/system/wgkex-restore@.service",
		`sys-subsystem-net-devices-wg3.device.wants/wgkex-restore@ffww03.service`:         "/usr/lib/systemd/system/wgkex-restore@.service",
		`sys-subsystem-net-devices-vx3.device.wants/wgkex-restore@ffww03.service`:         "/usr/lib/systemd/system/wgkex-restore@.service",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// What systemd shows in the property Listen of a socket.
func TestIn(t *testing.T) {
	for shown, l := range map[string]config.Listen{
		"[::]:10012": {Port: 10012}, "192.0.2.1:10012": listen("192.0.2.1:10012"), "0.0.0.0:10012": listen("0.0.0.0:10012"),
		"[2001:db8::1]:10012": listen("[2001:db8::1]:10012"), "[fe80::1]:10012%eth0": listen("[fe80::1]:10012%eth0"),
	} {
		if s := (Socket{Listen: []config.Listen{l}}); !s.In([]string{"@other", shown}) || s.In([]string{"[::1]:10012", "[::]:10013", "10012"}) {
			t.Errorf("%s: not exactly in %s", l, shown)
		}
	}
}

func listen(s string) config.Listen {
	l, err := config.ParseListen(s)
	if err != nil {
		panic(err)
	}
	return l
}

func TestLimits(t *testing.T) {
	// A UNIX socket alone leaves the firewall nothing to limit.
	none := Limits{Ports: []uint16{0}, TunnelPorts: []uint16{0}, Interfaces: []string{"lo"}}
	if got := LimitsOf(config.Config{HTTP: config.HTTP{Socket: "/run/h"}}); !got.Equal(none) || got.String() != "ports [0]" {
		t.Errorf("without ports: %s", got)
	}
	if got := LimitsOf(config.Config{Metrics: config.Metrics{Listen: []config.Listen{config.DefaultMetrics}}}); !got.Equal(none) {
		t.Errorf("metrics of the gateway alone: %s", got)
	}
	got := LimitsOf(config.Config{Listen: config.Listen{Port: 2}, HTTP: config.HTTP{Listen: []config.Listen{{Port: 1}, listen("[::1]:2"), listen("[fe80::1%w]:3"), listen("[fe80::1%v]:3")}}})
	if want := "ports [1 2 3], in tunnels [1 3] of [v w]"; got.String() != want || got.Equal(none) {
		t.Errorf("got %s, want %s", got, want)
	}
	// At all addresses is in all tunnels, too.
	got = LimitsOf(config.Config{
		Listen: config.Listen{Port: 2}, HTTP: config.HTTP{Listen: []config.Listen{{Port: 80}, listen("0.0.0.0:81")}},
		Domains: map[string]config.Domain{"a": {Name: "a", WireGuard: "wg-a"}, "b": {Name: "b", WireGuard: "wg+b"}},
	})
	if want := "ports [2 80 81], in tunnels [80] of [wg-a]"; got.String() != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWriteNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Write(config.Config{}, dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("an empty configuration made %v, %v", entries, err)
	}
}
