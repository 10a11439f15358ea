package main

import (
	"fmt"
	"os"
	"testing"

	"wgkex/internal/config"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wgkex-generator": main})
}

// TestScript runs testdata/script/*.txtar. What needs a configuration is tested in
// package generator and in the VM.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Condition: func(condition string) (bool, error) {
			if condition != "gateway" {
				return false, fmt.Errorf("no such condition: %s", condition)
			}
			return exists(config.Dir) || exists(config.Effective), nil
		},
	})
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
