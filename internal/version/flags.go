package version

import (
	"flag"
	"fmt"
	"os"
)

// ParseFlags reads the command line of a program that takes nothing but --version.
// It prints the version or how the program is used, and ends it, if it is asked to or
// is asked for something else.
func ParseFlags(usage string) {
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage) }
	printVersion := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *printVersion {
		fmt.Println(Version)
		os.Exit(0)
	}
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
}
