// wgkex-cleanup removes the stale peers of one domain.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"wgkex/internal/cleanup"
	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/logging"
	"wgkex/internal/policy"
	"wgkex/internal/version"

	"github.com/coreos/go-systemd/v22/journal"
)

const usage = `usage: wgkex-cleanup [OPTION...] DOMAIN

Removes the stale peers of DOMAIN. systemd runs it as wgkex-cleanup@DOMAIN.service.
See wgkex-cleanup(8).

`

// lockTimeout is how long a run waits for the domain each time that it needs it:
// longer than an exchange, since nobody waits for the run.
const lockTimeout = 2 * time.Minute

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
	if err := run(flag.Arg(0), o, os.Stdout); err != nil {
		message := fmt.Sprintf("cleanup of domain %s: %v", flag.Arg(0), err)
		if os.Getenv("INVOCATION_ID") == "" { // by hand (systemd.exec(5))
			fmt.Fprintln(os.Stderr, message)
		}
		if !o.dryRun {
			logging.Log(journal.PriErr, message, logging.Field{Name: "DOMAIN", Value: flag.Arg(0)})
		}
		os.Exit(1)
	}
}

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

func run(name string, o options, out io.Writer) error {
	cfg, err := config.LoadEffective()
	if err != nil {
		return err
	}
	d, ok := cfg.Domains[name]
	if !ok {
		return fmt.Errorf("not in the configuration as of the last daemon-reload, %s", config.Effective)
	}
	if o.staleAfter == 0 {
		o.staleAfter = d.StaleAfter
	}
	inDomain := logging.Field{Name: "DOMAIN", Value: d.Name}
	report, err := cleanup.Cleanup{
		Host:        domain.System,
		Domain:      d,
		LockTimeout: lockTimeout,
		StaleAfter:  o.staleAfter,
		MarkAge:     o.markAge,
		DryRun:      o.dryRun,
		Sleep:       time.Sleep,
		Removed: func(r policy.Record, now time.Duration) {
			_, addr := d.Addresses.Of(r.Key)
			age := "without a handshake"
			if !r.Pending() {
				age = "last handshake " + (now - r.Active).Round(time.Second).String() + " ago"
			}
			if o.dryRun {
				fmt.Fprintf(out, "would remove peer %s, address %s, %s\n", r.Key, addr, age)
				return
			}
			logging.Log(journal.PriNotice, fmt.Sprintf("removed peer %s of domain %s, address %s, %s", r.Key, d.Name, addr, age),
				inDomain, logging.Field{Name: "PUBLIC_KEY", Value: r.Key.String()}, logging.Field{Name: "ADDRESS", Value: addr.String()})
		},
	}.Run()
	err = domain.Privileged(err)
	if o.dryRun {
		if err == nil {
			fmt.Fprintf(out, "domain %s: %s\n", d.Name, summary(report))
		}
		return err
	}
	count := func(name string, n int) logging.Field { return logging.Field{Name: name, Value: strconv.Itoa(n)} }
	logging.Log(journal.PriNotice, fmt.Sprintf("cleanup of domain %s: %s", d.Name, summary(report)), inDomain,
		count("SEEN", report.Seen), count("LIVE", report.Live), count("MARKED", report.Marked), count("UNMARKED", report.Unmarked),
		count("REMOVED", report.Removed), count("STATIC", report.Static), count("LEFT_OVER", report.LeftOver), count("READDRESSED", report.Readdressed),
		count("REPAIRED", report.Repaired), count("ORPHANS", report.Orphans),
		logging.Field{Name: "DURATION_MS", Value: strconv.FormatInt(report.Duration.Milliseconds(), 10)})
	return err
}

func summary(r cleanup.Report) string {
	text := fmt.Sprintf("%d seen, %d live, %d marked, %d unmarked, %d removed, %d static, %d repaired, %d orphans",
		r.Seen, r.Live, r.Marked, r.Unmarked, r.Removed, r.Static, r.Repaired, r.Orphans)
	if r.LeftOver > 0 {
		text += fmt.Sprintf(", %d left over, %d of them readdressed", r.LeftOver, r.Readdressed)
	}
	return text + ", " + r.Duration.Round(time.Millisecond).String()
}
