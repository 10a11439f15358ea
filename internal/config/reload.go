package config

import "wgkex/internal/statefile"

// EffectiveReloaded is a LoadEffective for who asks often: it reads the file again
// only when that was replaced. Several may call it at a time.
func EffectiveReloaded() func() (Config, error) {
	return statefile.Reloaded(Effective, LoadEffective)
}
