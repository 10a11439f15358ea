// Package domain is one domain as it stands on the gateway: its lock, its
// interfaces, and what was last known of its peers. Exchange and cleanup both
// work through it.
package domain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/config"
	"wgkex/internal/kernel"
	"wgkex/internal/policy"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Domain is a domain whose lock is held and whose interfaces are open.
type Domain struct {
	config.Domain
	kernel.Devices
	Host
	lock *os.File
}

// Open takes the domain's lock, waiting for it until the context is done, and
// opens the interfaces. Close gives both back. The error is that of the context
// if the wait was in vain.
func (h Host) Open(ctx context.Context, c config.Domain) (*Domain, error) {
	lock, err := takeLock(ctx, filepath.Join(h.Dir, c.Name+".lock"))
	if err != nil {
		return nil, fmt.Errorf("locking domain %s: %w", c.Name, err)
	}
	devices, err := h.Devices(c.WireGuard, c.VXLAN)
	if err != nil {
		_ = lock.Close() // nothing was written to it
		return nil, err
	}
	return &Domain{Domain: c, Devices: devices, Host: h, lock: lock}, nil
}

// Close closes the interfaces and gives the lock back.
func (d *Domain) Close() error {
	return errors.Join(d.Devices.Close(), d.lock.Close())
}

// takeLock takes a flock(2). Read access suffices for one, so root and the user
// wgkex can use a file that the other made, whatever umask it had.
func takeLock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644); err == nil {
			_ = f.Chmod(0o644) // whose file it is then is no matter
		}
	}
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(int(f.Fd())) }()
	select {
	case err = <-locked:
	case <-ctx.Done():
		return nil, ctx.Err() // the goroutine still waits, with the file open
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Snapshot is what was known of the peers when they were last read, kept so
// that an exchange need not read them.
type Snapshot struct {
	// Index tells for which devices this is true.
	Index  kernel.Index  `json:"index"`
	Static []StaticPeer  `json:"static"`
	Counts policy.Counts `json:"counts"`
	// Read is when the peers were last read.
	Read time.Time `json:"read"`
	// Written is when it was saved, in nanoseconds, to tell one from another.
	Written int64 `json:"written"`
}

// StaticPeer is a peer that wgkex does not manage.
type StaticPeer struct {
	Key        address.Key    `json:"key"`
	AllowedIPs []netip.Prefix `json:"allowed_ips"`
}

// Peers is the static peers as policy takes them.
func (s Snapshot) Peers() []policy.Peer {
	peers := make([]policy.Peer, len(s.Static))
	for i, p := range s.Static {
		peers[i] = policy.Peer{Key: p.Key, AllowedIPs: p.AllowedIPs}
	}
	return peers
}

func (d *Domain) snapshotPath() string { return filepath.Join(d.Dir, d.Name+".json") }

// Snapshot reads the last snapshot. It is not ok when there is none that can
// be read, or when a device was made anew since: then Dump has to tell.
func (d *Domain) Snapshot() (s Snapshot, ok bool) {
	data, err := os.ReadFile(d.snapshotPath())
	if err != nil {
		return Snapshot{}, false
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return Snapshot{}, false
	}
	return s, s.Index == d.Index()
}

// Save replaces the snapshot and returns it as it was saved. The counts must
// never be lower than the truth, so they are saved before a peer is added and
// after one was removed.
func (d *Domain) Save(s Snapshot) (Snapshot, error) {
	s.Written = time.Now().UnixNano()
	return s, d.write(d.snapshotPath(), s)
}

func (d *Domain) write(path string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	// renameio puts the file in place whole or not at all.
	if err := renameio.WriteFile(path, data, 0o644, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("writing the state of domain %s: %w", d.Name, err)
	}
	return nil
}

// pending is since when (CLOCK_BOOTTIME) each pending peer has been seen so.
type pending map[address.Key]time.Duration

func (d *Domain) pendingPath() string { return filepath.Join(d.Dir, d.Name+".pending") }

func (d *Domain) readPending() pending {
	data, err := os.ReadFile(d.pendingPath())
	if err != nil {
		return nil
	}
	var since pending
	if err := json.Unmarshal(data, &since); err != nil {
		return nil // all of them get their time anew
	}
	return since
}

// Overdue is the managed peer among peers, as Dump returned them, that has been
// pending longest, if for so long that it may go. Otherwise it is nil.
func (d *Domain) Overdue(peers []policy.Peer) *policy.Peer {
	since := d.readPending()
	now := d.SinceBoot()
	var overdue *policy.Peer
	for i, p := range peers {
		at, seen := since[p.Key]
		if !seen || !p.Pending() || !p.Managed(d.Addresses) || now-at < policy.PendingFor {
			continue
		}
		if overdue == nil || at < since[overdue.Key] {
			overdue = &peers[i]
		}
	}
	return overdue
}

// Dump reads all peers and saves a new Snapshot of them. When the last one was
// not of these devices it also mends FDB entries: on a VXLAN interface made
// anew they are all gone, and an exchange concludes from a missing entry that
// there is no peer.
func (d *Domain) Dump() ([]policy.Peer, Snapshot, error) {
	peers, err := d.Peers()
	if err != nil {
		return nil, Snapshot{}, err
	}
	if _, ok := d.Snapshot(); !ok {
		if _, err := d.Mend(peers); err != nil {
			return nil, Snapshot{}, err
		}
	}
	s, err := d.Remember(peers)
	return peers, s, err
}

// Remember saves a new Snapshot of all peers, on an FDB without damage, and
// since when the pending have been pending.
func (d *Domain) Remember(peers []policy.Peer) (Snapshot, error) {
	s := Snapshot{Index: d.Index(), Static: []StaticPeer{}, Counts: policy.Count(peers, d.Addresses), Read: d.Now()}
	old, since := d.readPending(), pending{}
	for _, p := range peers {
		if !p.Managed(d.Addresses) {
			s.Static = append(s.Static, StaticPeer{Key: p.Key, AllowedIPs: p.AllowedIPs})
		} else if p.Pending() {
			at, seen := old[p.Key]
			if !seen {
				at = d.SinceBoot()
			}
			since[p.Key] = at
		}
	}
	if err := d.write(d.pendingPath(), since); err != nil {
		return s, err
	}
	return d.Save(s)
}

// SetEntries makes sure of both FDB entries of a managed peer.
func (d *Domain) SetEntries(key address.Key) error {
	mac, addr := d.Addresses.Of(key)
	if err := d.SetEntry(kernel.Flood, addr); err != nil {
		return err
	}
	return d.SetEntry(mac, addr)
}

// RemoveEntries removes both FDB entries of a managed peer.
func (d *Domain) RemoveEntries(key address.Key) error {
	mac, addr := d.Addresses.Of(key)
	via := d.Index().WireGuard
	return errors.Join(
		d.RemoveEntry(kernel.Entry{MAC: mac, Dst: addr, Via: via}),
		d.RemoveEntry(kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via}))
}

// Damage is how the FDB differs from what the peers ask for.
type Damage struct {
	// Peers are managed peers that lack an FDB entry.
	Peers []address.Key
	// Orphans are entries towards the address of a managed peer that does not
	// exist, or that lead to it the wrong way.
	Orphans []kernel.Entry
}

// Survey compares the FDB with the peers.
func (d *Domain) Survey(peers []policy.Peer) (Damage, error) {
	var damage Damage
	entries, err := d.Entries()
	if err != nil {
		return damage, err
	}
	found := make(map[kernel.Entry]bool, len(entries))
	for _, e := range entries {
		found[e] = true
	}
	via := d.Index().WireGuard
	var static []policy.Peer
	managed := make(map[netip.Addr]bool, len(peers))
	for _, p := range peers {
		if !p.Managed(d.Addresses) {
			static = append(static, p)
			continue
		}
		mac, addr := d.Addresses.Of(p.Key)
		managed[addr] = true
		unicast := kernel.Entry{MAC: mac, Dst: addr, Via: via, Permanent: true}
		flood := kernel.Entry{MAC: kernel.Flood, Dst: addr, Via: via, Permanent: true}
		if !found[unicast] || !found[flood] {
			damage.Peers = append(damage.Peers, p.Key)
		}
	}
	for _, e := range entries {
		// Entries for other MACs are what the VXLAN interface learned.
		mac, derived := d.Addresses.Derived(e.Dst)
		ours := derived && (e.MAC == mac || e.MAC == kernel.Flood)
		if !ours || managed[e.Dst] && e.Via == via || d.towardsAny(static, e.Dst) {
			continue
		}
		damage.Orphans = append(damage.Orphans, e)
	}
	return damage, nil
}

// Mend surveys the FDB and repairs all damage, which it returns.
func (d *Domain) Mend(peers []policy.Peer) (Damage, error) {
	damage, err := d.Survey(peers)
	if err != nil {
		return damage, err
	}
	for _, key := range damage.Peers {
		if err := d.SetEntries(key); err != nil {
			return damage, err
		}
	}
	for _, e := range damage.Orphans {
		if err := d.RemoveEntry(e); err != nil {
			return damage, err
		}
	}
	return damage, nil
}

// towardsAny reports whether addr leads to one of the peers.
func (d *Domain) towardsAny(peers []policy.Peer, addr netip.Addr) bool {
	return slices.ContainsFunc(peers, func(p policy.Peer) bool {
		_, derived := d.Addresses.Of(p.Key)
		return derived == addr || p.Owns(addr)
	})
}
