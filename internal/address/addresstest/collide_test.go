package addresstest

import (
	"testing"

	"wgkex/internal/address"
)

func TestCollide(t *testing.T) {
	a, b := Collide(1)
	if knownA, knownB := Colliding(); a != knownA || b != knownB {
		t.Errorf("the seed 1 gives %s and %s", a, b)
	}
	for _, profile := range []address.Profile{address.RFC4291, address.FFMUC} {
		if a == b || profile.MAC(a) != profile.MAC(b) {
			t.Errorf("%s and %s do not collide in %s", a, b, profile)
		}
	}
	for _, key := range []address.Key{a, b} {
		if _, err := address.ParseKey(key.String()); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
