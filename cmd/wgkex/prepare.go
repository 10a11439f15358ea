package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"wgkex/internal/config"
	"wgkex/internal/domain"
	"wgkex/internal/kernel"
	"wgkex/internal/systemd"
	"wgkex/internal/units"

	"github.com/spf13/cobra"
)

func prepareCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "prepare [DOMAIN]",
		Short: "Check that a socket may listen (run by the sockets)",
		Long: "Run by wgkex@DOMAIN.socket, without DOMAIN by wgkex.socket, before it listens:\n" +
			"fails unless the configuration as of the last daemon-reload makes the socket\n" +
			"listen where it is about to, and reads the domain's peers for the first exchange.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			cfg, err := config.LoadEffective()
			if err != nil {
				return err
			}
			if err := mayListen(cfg, name, listen); err != nil {
				return err
			}
			if at, _ := configured(cfg, name); taken(at) {
				complain("%s is taken by another program or unit (ss -ltnp 'sport = :%d')", at.Where(), at.Port)
			}
			prepare(cfg, name)
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "the port or address and port that the socket was given, empty for none")
	return cmd
}

// mayListen says what stands in the way of the socket of domain name, of the
// shared socket for "". What runs goes by the effective configuration; the files
// only help to say what to do.
func mayListen(effective config.Config, name, listen string) error {
	want, err := configured(effective, name)
	switch {
	case err == nil && want.String() == listen:
		return nil
	case err != nil:
		if files, loadErr := config.Load(config.Dir); loadErr != nil {
			return err
		} else if _, inFiles := configured(files, name); inFiles != nil {
			return err
		}
	}
	return fmt.Errorf("the configuration in %s has changed since the last daemon-reload: run systemctl daemon-reload, then start %s again", config.Dir, units.SocketName(name))
}

// configured is where a configuration makes the socket listen.
func configured(cfg config.Config, name string) (config.Listen, error) {
	what, key, listen := "the shared port", "listen", cfg.Listen
	if name != "" {
		d, ok := cfg.Domains[name]
		if !ok {
			return listen, fmt.Errorf("domain %s is not in the configuration: add [domains.%s] to %s/%s or a file in %[3]s/conf.d", name, name, config.Dir, config.File)
		}
		what, key, listen = "domain "+name, "domains."+name+".listen", d.Listen
	}
	if listen.IsZero() {
		return listen, fmt.Errorf("%s has no port of its own: set %s in %s/%s or a file in %[3]s/conf.d", what, key, config.Dir, config.File)
	}
	return listen, nil
}

// complain writes a line for the journal. It does so on standard error: of what
// the sockets say by other ways, LogLevelMax= of their units lets nothing through.
func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "wgkex: "+format+"\n", args...)
}

// taken reports whether something seems to listen there already. It is no more
// than a hint, for when systemd fails to listen: an IPv6 socket may leave IPv4
// alone, and one that is bound to an interface others.
func taken(at config.Listen) bool {
	listeners, err := systemd.AnyListeners()
	return err == nil && slices.ContainsFunc(listeners, func(l systemd.Listener) bool {
		other := config.Listen{Addr: l.Addr.Addr().Unmap(), Port: l.Addr.Port()}
		if other.Addr == netip.IPv6Unspecified() {
			other.Addr = netip.Addr{}
		}
		return at.Overlaps(other)
	})
}

// prepareTimeout is how long the start of a socket waits for a domain that others
// use: its first exchange reads the peers if need be.
const prepareTimeout = 3 * time.Second

// prepare reads the peers of each domain that the socket serves. What fails here
// is for the exchanges to find out again; that interfaces come up later than
// sockets is not worth a word. No domain makes another wait.
func prepare(cfg config.Config, name string) {
	var wg sync.WaitGroup
	for _, c := range cfg.Sorted() {
		if name != "" && c.Name != name {
			continue
		}
		wg.Go(func() {
			err := refresh(c)
			if err == nil || errors.Is(err, kernel.ErrMissing) {
				return
			}
			complain("domain %s cannot serve yet: %v", c.Name, err)
		})
	}
	wg.Wait()
}

func refresh(c config.Domain) error {
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	d, err := domain.System.Open(ctx, c)
	if err != nil {
		return err
	}
	_, err = d.Refresh(nil)
	return errors.Join(err, d.Close())
}
