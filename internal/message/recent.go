package message

import "time"

const (
	// RecentFor is for how long a key is not sent or taken again.
	RecentFor = time.Minute
	// maxRecent is how many keys are remembered. They take some 4 MiB.
	maxRecent = 1 << 15
)

// Recent remembers the keys of the last minute, in bounded memory: when there are too
// many, the oldest are forgotten, which at worst lets a key be sent twice. Its zero
// value remembers none.
type Recent struct {
	since map[Key]time.Time
	// order is the keys in the order of their times, from first on.
	order []Key
	first int
}

// Add reports whether the key is a new one: was not added in the minute before now. A
// key that was counts from when it was added first, so that what is repeated all the
// time is a new one each minute. The times must not go back.
func (r *Recent) Add(k Key, now time.Time) bool {
	r.expire(now)
	if _, known := r.since[k]; known {
		return false
	}
	if len(r.since) == maxRecent {
		r.drop()
	}
	if r.since == nil {
		r.since = map[Key]time.Time{}
	}
	r.since[k] = now
	r.order = append(r.order, k)
	return true
}

func (r *Recent) expire(now time.Time) {
	for r.first < len(r.order) && now.Sub(r.since[r.order[r.first]]) >= RecentFor {
		r.drop()
	}
	if r.first == len(r.order) {
		*r = Recent{} // neither maps nor slices become smaller
	}
}

// drop forgets the oldest key.
func (r *Recent) drop() {
	delete(r.since, r.order[r.first])
	r.first++
	if r.first >= maxRecent {
		r.order = append([]Key(nil), r.order[r.first:]...)
		r.first = 0
	}
}
