package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionOf(t *testing.T) {
	info := func(v string) *debug.BuildInfo { return &debug.BuildInfo{Main: debug.Module{Version: v}} }
	for _, c := range []struct {
		release string
		info    *debug.BuildInfo
		ok      bool
		want    string
	}{
		{"v1.2.3", info("v0.0.0-20261127-abc"), true, "v1.2.3"},
		{"", info("v0.0.0-20261127-abc"), true, "v0.0.0-20261127-abc"},
		{"", info("(devel)"), true, "development"},
		{"", nil, false, "development"},
	} {
		release = c.release
		if got := versionOf(c.info, c.ok); got != c.want {
			t.Errorf("release %q: version %q, want %q", c.release, got, c.want)
		}
	}
	release = ""
}
