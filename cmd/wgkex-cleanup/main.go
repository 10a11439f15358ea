// wgkex-cleanup removes the stale peers of one domain.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"wgkex/internal/cleanup"
	"wgkex/internal/config"
	"wgkex/internal/logging"
	"wgkex/internal/version"
)

type options struct {
	dryRun     bool
	staleAfter time.Duration
	markAge    time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.dryRun, "dry-run", false, "change nothing, print what would be done")
	flag.DurationVar(&o.staleAfter, "stale-after", 0, "instead of stale_after in the configuration")
	flag.DurationVar(&o.markAge, "mark-age", cleanup.MarkAge, "how old a mark must be for its peer to be removed")
	printVersion := flag.Bool("version", false, "print the version")
	flag.Usage = func() { printUsage(flag.CommandLine.Output()) }
	flag.Parse()
	if *printVersion {
		fmt.Println(version.Version)
		return
	}
	if flag.NArg() != 1 || o.staleAfter < 0 || o.markAge < 0 {
		flag.Usage()
		os.Exit(2)
	}
	reporter := cleanup.Reporter{Domain: config.Domain{Name: flag.Arg(0)}, DryRun: o.dryRun, Log: logging.Log, Out: os.Stdout}
	if os.Getenv("INVOCATION_ID") == "" { // by hand (systemd.exec(5))
		reporter.Err = os.Stderr
	}
	if err := run(o, reporter); err != nil {
		reporter.Failed(err)
		os.Exit(1)
	}
}
