// Package mqtttest runs mosquitto for tests.
package mqtttest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Mosquitto is a broker on a loopback port, with files of its own.
type Mosquitto struct {
	t testing.TB
	// Dir is where its configuration is, and what it keeps.
	Dir string
	// Address is HOST:PORT.
	Address string
	cmd     *exec.Cmd
	ended   chan struct{}
}

// program is Debian's; its directory is not in the PATH of users.
const program = "/usr/sbin/mosquitto"

// Start runs a broker with these lines in its configuration, beside the listener, until
// the test ends. Without any, everybody may do everything.
func Start(t testing.TB, lines ...string) *Mosquitto {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: install the Debian package mosquitto, as `make deps` does", err)
	}
	m := &Mosquitto{t: t, Dir: t.TempDir()}
	if lines == nil {
		lines = []string{"allow_anonymous true"}
	}
	// Another program may take the port meanwhile.
	for try := range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m.Address = l.Addr().String()
		_ = l.Close()
		m.Configure(lines...)
		if m.run() {
			t.Cleanup(m.Kill)
			return m
		}
		t.Logf("try %d: mosquitto does not start:\n%s", try, m.Log())
	}
	t.Fatal("mosquitto does not start")
	return nil
}

// Configure gives the broker, which does not run, these lines in its configuration beside
// the listener. DIR in them is Dir.
func (m *Mosquitto) Configure(lines ...string) {
	m.t.Helper()
	host, port, _ := net.SplitHostPort(m.Address)
	own := []string{
		"user root", "persistence true", "persistence_location DIR/", "autosave_interval 1", "autosave_on_changes true",
		"log_dest file DIR/log", "listener " + port + " " + host,
	}
	m.Write("mosquitto.conf", strings.ReplaceAll(strings.Join(append(own, lines...), "\n")+"\n", "DIR", m.Dir))
}

// Write writes a file in Dir.
func (m *Mosquitto) Write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.Dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// Log is what the broker has logged.
func (m *Mosquitto) Log() string {
	text, _ := os.ReadFile(filepath.Join(m.Dir, "log"))
	return string(text)
}

// Restart runs the broker again that was killed.
func (m *Mosquitto) Restart() {
	m.t.Helper()
	if !m.run() {
		m.t.Fatalf("mosquitto does not start again:\n%s", m.Log())
	}
}

func (m *Mosquitto) run() bool {
	m.cmd = exec.Command(program, "-c", filepath.Join(m.Dir, "mosquitto.conf"))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	cmd, ended := m.cmd, make(chan struct{})
	m.ended = ended
	go func() {
		_ = cmd.Wait() // it was killed, or could not start
		close(ended)
	}()
	for {
		if c, err := net.Dial("tcp", m.Address); err == nil {
			_ = c.Close()
			select {
			case <-ended: // it was another program that answered
				return false
			default:
				return true
			}
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the broker at once.
func (m *Mosquitto) Kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.ended
}

// Hash makes what mosquitto takes of a file in Dir with lines NAME:PASSWORD.
func (m *Mosquitto) Hash(name string) {
	m.t.Helper()
	if out, err := exec.Command("mosquitto_passwd", "-U", filepath.Join(m.Dir, name)).CombinedOutput(); err != nil {
		m.t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
}

// Client runs mosquitto_pub or mosquitto_sub with the arguments, and returns what it
// prints.
func (m *Mosquitto) Client(name string, args ...string) string {
	m.t.Helper()
	host, port, _ := net.SplitHostPort(m.Address)
	out, err := exec.CommandContext(m.t.Context(), name, append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Errorf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}
