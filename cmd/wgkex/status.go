package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/policy"
	"wgkex/internal/status"
	"wgkex/internal/systemd"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func statusCommand() *cobra.Command {
	var asJSON, watching bool
	var domains []string
	view := status.View{Sort: status.SortState}
	cmd := &cobra.Command{
		Use:   "status [DOMAIN...]",
		Short: "Show the peers of domains, or of all",
		Long: "Prints what is known of all domains, then of each of them, with a table of its peers.\n" +
			"STATE is live (a handshake within 3 minutes), idle (within stale_after), stale, pending\n" +
			"(never a handshake), restored (none since the peer was restored), static (not managed\n" +
			"by wgkex), or left-over (of another address profile, or without an address).\n" +
			"Exchanges then know of static peers that were added since.",
		Example:           "  wgkex status ffww01 --state stale,pending --sort received\n  wgkex status --watch",
		ValidArgsFunction: completeDomains,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := slices.Compact(slices.Sorted(slices.Values(append(args, domains...))))
			if watching && asJSON {
				return wrongUsage{errors.New("--watch and --json exclude each other")}
			}
			if watching {
				return watch(cmd, names, view)
			}
			all, err := readStatus(cmd.Context(), names, func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "wgkex: %v\n", err) })
			switch {
			case all == nil:
				return err
			case asJSON:
				// For programs, the order is the kernel's unless they ask for another.
				if !cmd.Flags().Changed("sort") {
					view.Sort = ""
				}
				return errors.Join(err, view.Select(*all).WriteJSON(cmd.OutOrStdout()))
			}
			return errors.Join(err, status.Print(cmd.OutOrStdout(), *all, time.Now(), view))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&view.Wide, "wide", false, "print all columns, wider than 80 characters")
	cmd.Flags().BoolVar(&watching, "watch", false, "show it on the terminal until Ctrl-C, and draw it each 2 seconds")
	cmd.Flags().StringSliceVar(&domains, "domain", nil, "the same as `DOMAIN`, may be a list with commas")
	cmd.Flags().Var((*states)(&view.States), "state", "show only peers in this `STATE`, or in a list with commas: "+strings.Join(words(status.States), ", "))
	cmd.Flags().TextVar(&view.Sort, "sort", view.Sort, "sort peers by this `ORDER`: "+strings.Join(words(status.Sorts), ", "))
	for name, complete := range map[string]cobra.CompletionFunc{
		"domain": completeList(completeDomains),
		"state":  completeList(cobra.FixedCompletions(words(status.States), cobra.ShellCompDirectiveNoFileComp)),
		"sort":   cobra.FixedCompletions(words(status.Sorts), cobra.ShellCompDirectiveNoFileComp),
	} {
		if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // the flag exists
		}
	}
	return cmd
}

// readStatus reads the named domains, or all. It returns nil if the configuration cannot
// be read or does not have them.
func readStatus(ctx context.Context, names []string, warn func(error)) (*status.Status, error) {
	cfg, domains, err := config.EffectiveDomains(names...)
	if errors.Is(err, config.ErrNoDomain) {
		return nil, wrongUsage{fmt.Errorf("%w: must be one of %s", err, strings.Join(cfg.Names(), ", "))}
	}
	if err != nil {
		return nil, err
	}
	all, err := status.Source{Host: domain.System, Units: systemd.Units, Warn: warn}.Collect(ctx, cfg, domains)
	return &all, err
}

// watch shows the status on the terminal until a signal ends it.
func watch(cmd *cobra.Command, names []string, view status.View) error {
	terminal := int(os.Stdout.Fd())
	if _, err := unix.IoctlGetWinsize(terminal, unix.TIOCGWINSZ); err != nil {
		return wrongUsage{errors.New("--watch needs a terminal as standard output")}
	}
	ctx, end := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer end()
	resized, stops := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	signal.Notify(stops, unix.SIGTSTP)
	ticker := time.NewTicker(status.WatchEvery)
	defer ticker.Stop()
	return status.Watch{
		Out: cmd.OutOrStdout(),
		Size: func() (rows, columns int) {
			size, err := unix.IoctlGetWinsize(terminal, unix.TIOCGWINSZ)
			if err != nil || size.Row == 0 || size.Col == 0 {
				return 24, 80 // as a terminal has that does not know it
			}
			return int(size.Row), int(size.Col)
		},
		Read: func(ctx context.Context) (status.Status, error) {
			// On the screen, since standard error is the same terminal.
			var warnings []error
			var mutex sync.Mutex
			all, err := readStatus(ctx, names, func(err error) {
				mutex.Lock()
				defer mutex.Unlock()
				warnings = append(warnings, err)
			})
			if all == nil {
				return status.Status{}, err
			}
			return *all, errors.Join(append(warnings, err)...)
		},
		Now:  time.Now,
		View: view,
		Stop: func() { _ = unix.Kill(os.Getpid(), unix.SIGSTOP) }, // a process may signal itself
	}.Run(ctx, ticker.C, resized, stops)
}

// states is the flag of states, which may be given more than once.
type states []policy.State

func (s *states) String() string { return strings.Join(words(*s), ",") }
func (*states) Type() string     { return "STATE" }

func (s *states) Set(text string) error {
	more, err := status.ParseStates(text)
	*s = append(*s, more...)
	return err
}

// words are the texts of names.
func words[S ~string](names []S) []string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = string(name)
	}
	return texts
}
