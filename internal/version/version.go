// Package version holds the version that the build gives the programs, and the flag that
// prints it.
package version

// Version is that of the Debian package; the linker sets it.
var Version = "unknown"
