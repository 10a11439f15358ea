package addresstest

import (
	"testing"

	"wgkex/internal/address"
)

func TestCollide(t *testing.T) {
	a, b := Collide(1)
	if a == b || a.MAC() != b.MAC() {
		t.Errorf("%s and %s do not collide", a, b)
	}
	for _, key := range []address.Key{a, b} {
		if _, err := address.ParseKey(key.String()); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
