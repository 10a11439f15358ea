// Package suite is the tests of the installed package: they run as root in a
// Debian VM (test/vm/run) and look at the result with wg, bridge, ping,
// systemctl and journalctl. They are behind the build tag vm.
package suite
