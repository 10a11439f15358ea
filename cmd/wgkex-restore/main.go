// wgkex-restore puts the saved peers of one domain back, or saves them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"wgkex/internal/logging"
	"wgkex/internal/restore"
	"wgkex/internal/version"

	"golang.org/x/sys/unix"
)

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "usage: wgkex-restore [--save | --version] DOMAIN\n\n"+
			"Puts the saved peers of a domain back on its interfaces, when these are there.\n"+
			"systemd starts it as wgkex-restore@DOMAIN.service when they appear, and with\n"+
			"--save when wgkex-save@DOMAIN.service stops. By hand there are wgkex restore\n"+
			"and wgkex save. See wgkex-restore(8).\n")
	}
	save := flag.Bool("save", false, "save the peers instead")
	printVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *printVersion {
		fmt.Println(version.Version)
		return
	}
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	do := restoreDomain
	if *save {
		do = saveDomain
	}
	// A batch that was begun is ended.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	reporter := &restore.Reporter{Domain: flag.Arg(0), Log: logging.Log}
	if os.Getenv("INVOCATION_ID") == "" { // by hand (systemd.exec(5))
		reporter.Out = os.Stdout
	}
	if err := do(ctx, reporter); err != nil && reporter.Failed(err) {
		os.Exit(1)
	}
}
