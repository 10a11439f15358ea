package main

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wgkex": main})
}

// TestScript runs testdata/script/*.txtar. What needs a gateway is tested in the
// VM.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		// A script says itself where it expects a failure, and with which status.
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answer": answer,
			"fails":  fails,
		},
	})
}

// answer TEXT listens for one connection, to which it answers TEXT, in the
// spelling of a Go string, and sets $GATEWAY to where it listens.
func answer(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: answer TEXT")
	}
	text, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { listener.Close() })
	ts.Setenv("GATEWAY", listener.Addr().String())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1024))
		fmt.Fprint(conn, text)
	}()
}

// fails STATUS COMMAND... runs a command that exits with this status.
func fails(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: fails STATUS COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("got %v, want status %d", err, want)
	}
}
