package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

const usage = `usage: wgkex-cleanup [OPTION...] DOMAIN

Removes the stale peers of DOMAIN. systemd runs it as wgkex-cleanup@DOMAIN.service.
See wgkex-cleanup(8).

`

// printUsage names the options as the manual does, with two hyphens.
func printUsage(out io.Writer) {
	fmt.Fprint(out, usage)
	flag.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(out, "  %s\n\t%s", strings.TrimSpace("--"+f.Name+" "+value), text)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0s" {
			fmt.Fprintf(out, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(out)
	})
}
