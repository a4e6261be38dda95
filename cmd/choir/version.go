package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker in release builds: -X main.version=v1.2.3.
var version = "development"

// versionCommand is `choir version`.
type versionCommand struct {
	Output string `short:"o" help:"What to print: ${enum}." enum:"table,json" default:"table"`
}

// Run prints the version, the platform and, as JSON, the modules it was built from.
func (c *versionCommand) Run(t *terminal) error {
	if c.Output == "table" {
		_, err := fmt.Fprintf(t.out, "choir %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	}
	modules := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			modules[m.Path] = m.Version
		}
	}
	return json.NewEncoder(t.out).Encode(map[string]any{
		"version": version, "os": runtime.GOOS, "arch": runtime.GOARCH, "go": runtime.Version(), "modules": modules,
	})
}
