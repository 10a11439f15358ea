package version

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// WriteBuild writes what this program is made of: a line "wgkex", version, then a line
// "go", version, operating system and architecture of the compiler, then one for each
// Go module, path and version. Words are separated by a space, modules sorted by path.
func WriteBuild(w io.Writer) error {
	text := fmt.Sprintf("wgkex %s\ngo %s %s/%s\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("this program does not say what it is made of: it was built without modules")
	}
	for _, m := range info.Deps {
		text += m.Path + " " + m.Version + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
