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
	if err := Write(config.Config{Listen: 10012, Domains: map[string]config.Domain{
		"ffww02":     {Name: "ffww02"},
		"ffww-01.de": {Name: "ffww-01.de", Listen: 10013},
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
		"wgkex.socket.d/" + DropIn:                          "[Socket]\nListenStream=\nListenStream=10012\nEnvironment=WGKEX_PORT=10012\n",
		"wgkex@ffww-01.de.socket.d/" + DropIn:               "[Socket]\nListenStream=\nListenStream=10013\nEnvironment=WGKEX_PORT=10013\n",
		"wgkex-firewall.service.d/" + DropIn:                "[Unit]\nBefore=wgkex.socket wgkex@ffww-01.de.socket\n[Service]\nEnvironment=\"WGKEX_PORTS={ 10012, 10013 }\"\n",
		"wgkex.target.wants/wgkex-cleanup@ffww02.timer":     "/usr/lib/systemd/system/wgkex-cleanup@.timer",
		"wgkex.target.wants/wgkex-cleanup@ffww-01.de.timer": "/usr/lib/systemd/system/wgkex-cleanup@.timer",
		"wgkex.target.wants/wgkex.socket":                   "/usr/lib/systemd/system/wgkex.socket",
		"wgkex.target.wants/wgkex@ffww-01.de.socket":        "/usr/lib/systemd/system/wgkex@.socket",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
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
