package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"choir.example/model/kernel"
)

// release is set by the linker where a release is built from an archive without history: -X main.release=v1.2.3.
var release string

// version is the release, else what the build knows from the history: a tag, or v0.0.0-TIME-COMMIT.
var version = versionOf(debug.ReadBuildInfo())

func versionOf(info *debug.BuildInfo, ok bool) string {
	switch {
	case release != "":
		return release
	case ok && info.Main.Version != "" && info.Main.Version != "(devel)":
		return info.Main.Version
	}
	return "development"
}

// versionCommand is `choir version`.
type versionCommand struct {
	outputFlag
}

// Help is what --help explains.
func (versionCommand) Help() string {
	return `It names the kernels that compute here: go, avx2 or avx512. The environment variable CHOIR_KERNEL chooses others
than the fastest, for tests and reports of bugs. With -o json it lists the modules that the binary is built from, with
their checksums.

Example: choir version -o json`
}

// dependency is a module that the binary is built from.
type dependency struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

// Run prints the version, the platform, the kernels and, as JSON, the modules it was built from.
func (c *versionCommand) Run(t *terminal) error {
	if !c.json() {
		_, err := fmt.Fprintf(t.out, "choir %s %s/%s %s, kernels %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version(), kernel.Path())
		return err
	}
	deps := []dependency{}
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			deps = append(deps, dependency{m.Path, m.Version, m.Sum})
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return printJSON(t.out, map[string]any{
		"version": version, "commit": commit, "os": runtime.GOOS, "arch": runtime.GOARCH, "go": runtime.Version(), "kernels": kernel.Path(), "dependencies": deps,
	})
}
