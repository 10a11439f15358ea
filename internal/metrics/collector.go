// Package metrics shows what is known of the gateway to Prometheus, and serves that, the
// status and a page over HTTP.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"time"

	"wgkex/internal/check"
	"wgkex/internal/config"
	"wgkex/internal/counters"
	"wgkex/internal/gateways"
	"wgkex/internal/outcome"
	"wgkex/internal/status"
	"wgkex/internal/version"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Gateway is what metrics are about.
type Gateway struct {
	// Status is where its domains are read.
	Status status.Source
	// Effective is the file with the configuration that all goes by
	// (config.Effective), ReadEffective reads it (config.LoadEffective).
	Effective     string
	ReadEffective func() (config.Config, error)
	// RelayStats is the file with the numbers of the relay (gateways.StatsPath), and
	// Gateways that with what it knows (gateways.Path).
	RelayStats, Gateways string
	// Dir is where the files of the configuration can be read, config.Dir or what is
	// in its place.
	Dir string
	// Connect is how the page looks at the gateway, as far as it can be seen
	// (check.Checker).
	Connect func(context.Context) (g check.Gateway, disconnect func(), err error)
}

// collector is one scrape.
type collector struct {
	Gateway
	ctx context.Context
}

// Gatherer gathers the metrics anew each time, within the context.
func (g Gateway) Gatherer(ctx context.Context) prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{g, ctx})
	return registry
}

// Print writes the metrics in the text format.
func (g Gateway) Print(ctx context.Context, w io.Writer) error {
	families, err := g.Gatherer(ctx).Gather()
	if err != nil {
		return err
	}
	encoder := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// Describe is for prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range All {
		descs <- m.desc()
	}
}

// Collect is for prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := sink{out}
	s.put(buildInfo, 1, version.Version, runtime.Version())
	cfg, err := c.ReadEffective()
	c.config(s, cfg, err == nil)
	if err != nil {
		return // there was no valid configuration yet, so nothing runs
	}
	c.relay(s)
	all := c.Status.Overview(c.ctx, cfg)
	s.exchanges("", all.ByWay)
	for _, socket := range all.Sockets {
		s.put(socketActive, truth(socket.Active), socket.Unit)
		if !socket.HTTP {
			s.put(socketAccepted, float64(socket.Accepted), socket.Unit)
			s.put(socketTurnedAway, float64(socket.TurnedAway), socket.Unit)
		}
	}
	for _, d := range all.Domains {
		s.domain(d)
	}
}

// relay is about the relay to other gateways, if there was one since boot.
func (c collector) relay(s sink) {
	stats, err := status.ReadRelayStats(c.RelayStats)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.Status.Warn(err)
		}
		return
	}
	s.put(relayConnected, truth(stats.Connected && stats.Current(c.Status.Host.SinceBoot())))
	for _, result := range gateways.Results {
		s.put(relayReceived, float64(stats.Received[result]), string(result))
	}
	s.put(relaySent, float64(stats.Sent))
	s.put(relayWaiting, float64(stats.Waiting))
	s.at(relayWaitingSince, stats.Oldest)
	s.put(relayUnsent, float64(stats.Unsent))
}

// config is about the configuration, of which effective is the one that all goes by,
// if there is one.
func (c collector) config(s sink, effective config.Config, there bool) {
	if info, err := os.Stat(c.Effective); err == nil {
		s.at(configLoaded, info.ModTime())
	}
	if !readable(c.Dir) {
		return
	}
	files, err := config.Load(c.Dir)
	s.put(configValid, truth(err == nil))
	s.put(configCurrent, truth(err == nil && there && reflect.DeepEqual(files, effective)))
}

// readable reports whether all files of the configuration in dir can be read here. In
// the sandbox they cannot where they are for root alone, or where they are symbolic
// links that lead elsewhere.
func readable(dir string) bool {
	files := []string{filepath.Join(dir, config.File)}
	entries, err := os.ReadDir(filepath.Join(dir, "conf.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") {
			files = append(files, filepath.Join(dir, "conf.d", e.Name()))
		}
	}
	for _, path := range files {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// Not what a FIFO would make wait: config.Load says that it is a mistake.
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() && info.Mode()&fs.ModeDevice == 0 {
			return err == nil
		}
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		_ = f.Close() // nothing was written to it
	}
	_, err = os.Stat(dir)
	return err == nil
}

// sink is where the values of one scrape go.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) put(m Metric, value float64, labels ...string) {
	one, err := prometheus.NewConstMetric(m.desc(), m.valueType(), value, labels...)
	if err != nil {
		one = prometheus.NewInvalidMetric(m.desc(), fmt.Errorf("%s: %w", m.Name, err))
	}
	s.out <- one
}

// at puts a time, if there is one.
func (s sink) at(m Metric, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.put(m, float64(t.UnixMicro())/1e6, labels...)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// exchanges puts all results of all ways, those that never came, too: Prometheus sees
// a counter increase only where it has seen the number before.
func (s sink) exchanges(domain string, counted counters.Results) {
	if counted == nil {
		return
	}
	for _, way := range outcome.Ways {
		for _, code := range outcome.Codes {
			s.put(exchanges, float64(counted[way][code]), domain, string(code), way.String())
		}
	}
}

func (s sink) domain(d status.Summary) {
	name := d.Domain.Domain
	s.put(domainUp, truth(d.Err == nil), name)
	s.put(peersLimit, float64(d.MaxPeers), name, ofPeers)
	s.put(peersLimit, float64(d.MaxPending), name, ofPending)
	s.exchanges(name, d.ByWay)
	if d.Saved != nil {
		s.at(savedAt, d.Saved.At, name)
		s.put(savedPeers, float64(d.Saved.Peers), name)
	}
	s.run(d.Cleanup, name, cleanupFailed, cleanupStarted, cleanupDuration)
	s.run(d.Restore, name, restoreFailed, restoreStarted, restoreDuration)
	if d.Err != nil {
		return
	}
	for _, state := range status.States {
		s.put(peers, float64(d.States[state]), name, string(state))
	}
	s.put(peersCounted, float64(d.Counts.Peers), name, ofPeers)
	s.put(peersCounted, float64(d.Counts.Pending), name, ofPending)
	if d.Restored != nil {
		s.at(restoredAt, d.Restored.At, name)
		s.put(restoredPeers, float64(d.Restored.Peers), name)
	}
	if d.ClockStep != nil {
		s.at(clockStepAt, d.ClockStep.At, name)
		s.put(clockStep, d.ClockStep.Seconds, name)
	}
}

// run puts what is known of the last run of a service.
func (s sink) run(r *status.Run, name string, failed, started, duration Metric) {
	if r == nil {
		return
	}
	s.put(failed, truth(r.Failed), name)
	s.at(started, r.Started, name)
	if took := r.Ended.Sub(r.Started); !r.Started.IsZero() && took >= 0 {
		s.put(duration, took.Seconds(), name)
	}
}
