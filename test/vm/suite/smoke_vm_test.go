//go:build vm

package suite

import "testing"

// What Debian's own tests of the package (debian/tests) would run.
func TestSmoke(t *testing.T) {
	configure(t, nil)
	t.Log(sh(t, "./suite-files/smoke"))
}
