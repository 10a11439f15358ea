// Package addresstest finds what tests about addresses need.
package addresstest

import (
	"encoding/binary"
	"math/rand/v2"

	"wgkex/internal/address"
)

// Colliding returns the two keys that Collide finds for the seed 1, without the
// time that it takes.
func Colliding() (a, b address.Key) {
	for key, text := range map[*address.Key]string{
		&a: "GJfkz+/nB6Qd3TFRNFdgwi4nqRJ6NmvlsWlEq9F0Sw4=",
		&b: "wIIV3Wt1tUKCuvrFqN55p6VZR/68JapuUWF403RNnng=",
	} {
		if err := key.UnmarshalText([]byte(text)); err != nil {
			panic(err) // they are keys
		}
	}
	return a, b
}

// Collide returns two valid keys with the same MAC and hence the same address
// in the profiles RFC4291 and FFMUC, found as anybody can find them: among 2^20
// random keys any two have the same 40 bits more likely than not.
func Collide(seed uint64) (a, b address.Key) {
	random := rand.New(rand.NewPCG(seed, 0))
	seen := make(map[address.MAC]address.Key, 1<<20)
	for {
		var key address.Key
		for i := 0; i < len(key); i += 8 {
			binary.LittleEndian.PutUint64(key[i:], random.Uint64())
		}
		key[31] &= 0x7f // a valid key has 255 bits
		mac := address.RFC4291.MAC(key)
		if other, found := seen[mac]; found {
			return other, key
		}
		seen[mac] = key
	}
}
