// Package systemd asks the service manager about units and the ports that it
// holds, and starts and stops units.
package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Manager is a connection to systemd itself. It needs root and no D-Bus daemon.
type Manager struct{ conn *dbus.Conn }

// Connect connects to /run/systemd/private, where systemd serves root alone.
func Connect(ctx context.Context) (*Manager, error) {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking systemd: %w", err)
	}
	return &Manager{conn}, nil
}

// ConnectBus is Connect for who is not root: it connects over D-Bus, where there is one.
func ConnectBus(ctx context.Context) (*Manager, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking systemd: %w", err)
	}
	return &Manager{conn}, nil
}

// Close ends the connection.
func (m *Manager) Close() { m.conn.Close() }

// Unit is what systemd knows of a unit, in the words of
// org.freedesktop.systemd1(5).
type Unit struct {
	Name string
	// Load is "loaded", "masked", "not-found" and others.
	Load string
	// Active is "active", "inactive", "failed", "activating" and others.
	Active string
	// File is the state of the unit file, such as "enabled".
	File string
	// Result says of a failed unit what went wrong, such as "exit-code".
	Result string
	// NeedReload says that files of the unit have changed since the last
	// daemon-reload.
	NeedReload bool
	Wants      []string

	// What only sockets have.

	// Listen are the addresses that the unit listens on or would, such as
	// "[::]:10012".
	Listen []string
	// BindToDevice is the interface that it accepts connections from, empty
	// for all.
	BindToDevice string
	// Connections and MaxConnections are how many it has open and may have.
	Connections, MaxConnections uint32
	// Accepted are those that it accepted since systemd first loaded the unit,
	// Refused those above its limits, which it closed at once.
	Accepted, Refused uint32

	// Started and Ended are when the last process of a service did so, zero for never.
	Started, Ended time.Time
}

// Masked reports whether nobody can start the unit.
func (u Unit) Masked() bool { return u.Load == "masked" }

// Unit asks about one unit. A unit without a file is not an error but has
// another Load than "loaded".
func (m *Manager) Unit(ctx context.Context, name string) (Unit, error) {
	p, err := m.conn.GetAllPropertiesContext(ctx, name)
	if err != nil {
		return Unit{}, fmt.Errorf("asking systemd about %s: %w", name, err)
	}
	u := Unit{
		Name:           name,
		Load:           property[string](p, "LoadState"),
		Active:         property[string](p, "ActiveState"),
		File:           property[string](p, "UnitFileState"),
		Result:         property[string](p, "Result"),
		NeedReload:     property[bool](p, "NeedDaemonReload"),
		Wants:          property[[]string](p, "Wants"),
		BindToDevice:   property[string](p, "BindToDevice"),
		Connections:    property[uint32](p, "NConnections"),
		MaxConnections: property[uint32](p, "MaxConnections"),
		Accepted:       property[uint32](p, "NAccepted"),
		Refused:        property[uint32](p, "NRefused"),
		Started:        since1970(property[uint64](p, "ExecMainStartTimestamp")),
		Ended:          since1970(property[uint64](p, "ExecMainExitTimestamp")),
	}
	for _, pair := range property[[][]any](p, "Listen") { // type and address
		if len(pair) == 2 {
			u.Listen = append(u.Listen, fmt.Sprint(pair[1]))
		}
	}
	return u, nil
}

// since1970 is a time that systemd tells in microseconds, zero for none.
func since1970(microseconds uint64) time.Time {
	if microseconds == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(microseconds))
}

// Units asks about units on a connection of its own. They are in the order of the
// names.
func Units(ctx context.Context, names ...string) ([]Unit, error) { return ask(ctx, Connect, names) }

// UnitsOverBus is Units for who is not root.
func UnitsOverBus(ctx context.Context, names ...string) ([]Unit, error) {
	return ask(ctx, ConnectBus, names)
}

func ask(ctx context.Context, connect func(context.Context) (*Manager, error), names []string) ([]Unit, error) {
	manager, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer manager.Close()
	units := make([]Unit, len(names))
	for i, name := range names {
		if units[i], err = manager.Unit(ctx, name); err != nil {
			return nil, err
		}
	}
	return units, nil
}

// property is zero when the unit has no such property, as those of another type
// do not.
func property[T any](properties map[string]any, name string) T {
	value, _ := properties[name].(T)
	return value
}

// Active lists the names of the units that match one of the patterns and are active, or
// about to be: a service waits for its next start as "activating".
func (m *Manager) Active(ctx context.Context, patterns ...string) ([]string, error) {
	list, err := m.conn.ListUnitsByPatternsContext(ctx, []string{"active", "activating"}, patterns)
	if err != nil {
		return nil, fmt.Errorf("asking systemd for units: %w", err)
	}
	names := make([]string, len(list))
	for i, u := range list {
		names[i] = u.Name
	}
	return names, nil
}

// DaemonReload lets systemd read all units anew. It returns when it is done.
func (m *Manager) DaemonReload(ctx context.Context) error { return m.conn.ReloadContext(ctx) }

// Start starts a unit and waits until it has started or failed. A unit that
// failed earlier may be tried as often as anybody asks (systemctl reset-failed).
func (m *Manager) Start(ctx context.Context, name string) error {
	_ = m.conn.ResetFailedUnitContext(ctx, name) // a unit that is not loaded has not failed
	return m.job(ctx, m.conn.StartUnitContext, name)
}

// Stop stops a unit and waits until it has stopped.
func (m *Manager) Stop(ctx context.Context, name string) error {
	return m.job(ctx, m.conn.StopUnitContext, name)
}

// Restart is Stop and Start.
func (m *Manager) Restart(ctx context.Context, name string) error {
	return m.job(ctx, m.conn.RestartUnitContext, name)
}

// Reload reloads an active unit.
func (m *Manager) Reload(ctx context.Context, name string) error {
	return m.job(ctx, m.conn.ReloadUnitContext, name)
}

// job waits for a job that replaces jobs in its way, as those of systemctl(1).
func (m *Manager) job(ctx context.Context, enqueue func(context.Context, string, string, chan<- string) (int, error), name string) error {
	done := make(chan string, 1)
	if _, err := enqueue(ctx, name, "replace", done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("the job ended with %q", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
