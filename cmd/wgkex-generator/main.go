// wgkex-generator is the systemd generator that turns the configuration into
// ports of sockets and wants of wgkex.target.
package main

import (
	"fmt"
	"os"

	"wgkex/internal/clock"
	"wgkex/internal/config"
	"wgkex/internal/generator"
	"wgkex/internal/version"
)

const usage = `usage: wgkex-generator NORMAL-DIR [EARLY-DIR LATE-DIR]

Writes the units that the configuration in ` + config.Dir + ` asks for to NORMAL-DIR.
systemd runs it at boot and at each daemon-reload. See wgkex-generator(8).
`

func main() {
	switch {
	case len(os.Args) == 2 && (os.Args[1] == "--help" || os.Args[1] == "-h"):
		fmt.Print(usage)
	case len(os.Args) == 2 && os.Args[1] == "--version":
		fmt.Println(version.Version)
	case len(os.Args) != 2 && len(os.Args) != 4:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		g := generator.Generator{
			Load: config.LoadOrEffective, Effective: config.Effective,
			Booted: clock.BootedFile, SinceBoot: clock.SinceBoot, Report: generator.System().Report,
		}
		if !g.Run(os.Args[1]) {
			os.Exit(1)
		}
	}
}
