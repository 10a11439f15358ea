package metrics

import "github.com/prometheus/client_golang/prometheus"

// Metric is one metric: what docs/metrics.md says of it, too.
type Metric struct {
	Name string
	// Type is "gauge" or "counter".
	Type   string
	Labels []string
	Help   string
}

// The types.
const (
	gauge   = "gauge"
	counter = "counter"
)

// The labels. None of them has more values than there are domains, sockets, states,
// ways or results.
const (
	labelDomain  = "domain"
	labelState   = "state"
	labelOf      = "of"
	labelResult  = "result"
	labelWay     = "way"
	labelUnit    = "unit"
	labelVersion = "version"
	labelGo      = "goversion"
)

// The values of labelOf.
const (
	ofPeers   = "peers"
	ofPending = "pending"
)

// All is every metric, in the order of the document.
var All = []Metric{
	buildInfo,
	configValid, configCurrent, configLoaded,
	domainUp, peers, peersCounted, peersLimit,
	exchanges,
	socketActive, socketAccepted, socketTurnedAway,
	cleanupFailed, cleanupStarted, cleanupDuration,
	savedAt, savedPeers,
	restoreFailed, restoreStarted, restoreDuration, restoredAt, restoredPeers,
	clockStepAt, clockStep,
	relayConnected, relayReceived, relaySent, relayWaiting, relayWaitingSince, relayUnsent,
}

var (
	buildInfo = Metric{"wgkex_build_info", gauge, []string{labelVersion, labelGo}, "The version of wgkex and that of Go it was built with. The value is always 1."}

	configValid = Metric{"wgkex_config_valid", gauge, nil, "1 if the configuration in the files has no mistake, 0 if it has. Missing if the files cannot be read."}
	// "Current" is what wgkex check calls it.
	configCurrent = Metric{"wgkex_config_current", gauge, nil, "1 if the configuration in the files is the one that all of wgkex goes by, 0 if the files have changed since the last daemon-reload. Missing if the files cannot be read."}
	configLoaded  = Metric{"wgkex_config_loaded_timestamp_seconds", gauge, nil, "When systemd was last reloaded with a valid configuration."}

	domainUp     = Metric{"wgkex_domain_up", gauge, []string{labelDomain}, "1 if the peers of the domain could be read, 0 if its interfaces are missing, something holds its lock, or reading failed."}
	peers        = Metric{"wgkex_peers", gauge, []string{labelDomain, labelState}, "Peers of the WireGuard interface by state: live, idle, stale, restored, pending, left-over or static."}
	peersCounted = Metric{"wgkex_peers_counted", gauge, []string{labelDomain, labelOf}, "Managed peers that count towards the limit: all of them (peers), and those that wait for a first handshake (pending)."}
	peersLimit   = Metric{"wgkex_peers_limit", gauge, []string{labelDomain, labelOf}, "The limits in the configuration: max_peers (peers) and max_pending (pending)."}

	exchanges = Metric{"wgkex_exchanges_total", counter, []string{labelDomain, labelResult, labelWay}, "Exchanges since boot by result and by the way on which they came. The domain is empty for those that ended before one was named."}

	socketActive     = Metric{"wgkex_socket_active", gauge, []string{labelUnit}, "1 if the socket that the configuration asks for is active, 0 if it is not. Missing if systemd cannot be asked."}
	socketAccepted   = Metric{"wgkex_socket_connections_accepted_total", counter, []string{labelUnit}, "Connections that systemd accepted on the socket since it first loaded the unit. Missing for HTTP."}
	socketTurnedAway = Metric{"wgkex_socket_connections_turned_away_total", counter, []string{labelUnit}, "Connections above the limits of the socket, which systemd closed at once. Missing for HTTP."}

	cleanupFailed   = Metric{"wgkex_cleanup_failed", gauge, []string{labelDomain}, "1 if the last cleanup of the domain failed, otherwise 0. Missing if systemd cannot be asked."}
	cleanupStarted  = Metric{"wgkex_cleanup_started_timestamp_seconds", gauge, []string{labelDomain}, "When the last cleanup of the domain began. Missing before the first one since boot."}
	cleanupDuration = Metric{"wgkex_cleanup_duration_seconds", gauge, []string{labelDomain}, "How long the last cleanup of the domain took. Missing while one runs."}

	savedAt    = Metric{"wgkex_saved_timestamp_seconds", gauge, []string{labelDomain}, "When the peers of the domain were last saved, which every cleanup does. Missing if there is no file that can be read."}
	savedPeers = Metric{"wgkex_saved_peers", gauge, []string{labelDomain}, "Peers in the file of saved peers, as its header says."}

	restoreFailed   = Metric{"wgkex_restore_failed", gauge, []string{labelDomain}, "1 if the last restore of the domain failed, otherwise 0. Missing if systemd cannot be asked."}
	restoreStarted  = Metric{"wgkex_restore_started_timestamp_seconds", gauge, []string{labelDomain}, "When the last restore of the domain began. Missing before the first one since boot."}
	restoreDuration = Metric{"wgkex_restore_duration_seconds", gauge, []string{labelDomain}, "How long the last restore of the domain took, with the wait for its interfaces. Missing while one runs."}
	restoredAt      = Metric{"wgkex_restored_timestamp_seconds", gauge, []string{labelDomain}, "When a restore last put peers back. Missing if none did since the WireGuard interface was made."}
	restoredPeers   = Metric{"wgkex_restored_peers", gauge, []string{labelDomain}, "Peers that this restore put back."}

	clockStepAt = Metric{"wgkex_clock_step_timestamp_seconds", gauge, []string{labelDomain}, "When the wall clock was last seen to be set, by two readings of the peers of the domain. Missing if it was not since boot."}
	clockStep   = Metric{"wgkex_clock_step_seconds", gauge, []string{labelDomain}, "By how much it was set then."}
)

// Those are missing where no relay runs.
var (
	relayConnected    = Metric{"wgkex_relay_connected", gauge, nil, "1 if the relay to other gateways is connected to the broker, 0 if it is not or has ended. Missing if none has run since boot."}
	relayReceived     = Metric{"wgkex_relay_received_total", counter, []string{labelResult}, "Messages from the broker since the relay was started, by result: that of the exchange, or own, gateway (not a key), repeated (within a minute), full (no room), invalid or domain (not served here)."}
	relaySent         = Metric{"wgkex_relay_sent_total", counter, nil, "Keys that the broker has taken since the relay was started."}
	relayWaiting      = Metric{"wgkex_relay_waiting", gauge, nil, "Keys of other gateways that wait to be added."}
	relayWaitingSince = Metric{"wgkex_relay_waiting_since_timestamp_seconds", gauge, nil, "Since when the first of them waits. Missing if none waits."}
	relayUnsent       = Metric{"wgkex_relay_unsent", gauge, nil, "Keys that wait to be sent to other gateways."}
)

func (m Metric) desc() *prometheus.Desc { return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil) }

func (m Metric) valueType() prometheus.ValueType {
	if m.Type == counter {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}
