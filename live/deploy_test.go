//go:build linux

package live_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The units are what systemd understands, start a command that exists, and keep their hardening.
func TestUnits(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	for unit, command := range map[string]string{"choir-coordinator.service": "coordinator", "choir-node.service": "node"} {
		text, err := os.ReadFile(filepath.Join("..", "deploy", "systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		start := "/usr/local/bin/choir " + command + " "
		if strings.Count(string(text), "\nExecStart="+start) != 1 {
			t.Errorf("%s does not start %s", unit, start)
		}
		// verify looks for the program, which is not installed here.
		path := filepath.Join(t.TempDir(), unit)
		write(t, path, strings.ReplaceAll(string(text), "=/usr/local/bin/choir", "="+choir))
		if out, err := exec.Command(tool, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, out)
		}
		out, err := exec.Command(tool, "security", "--offline=yes", "--no-pager", path).Output()
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("systemd-analyze security %s: %v\n%s", unit, err, out)
		}
		if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2 {
			t.Errorf("%s is exposed at %s, want at most 2.0", unit, m[1])
		}
	}
}

// The container is built with the Go of go.mod, holds one static binary, and does not run as root.
func TestContainerfile(t *testing.T) {
	file, err := os.ReadFile("../deploy/container/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(module)
	for _, want := range []string{"\nFROM golang:" + string(version[1]) + " AS build\n", "\nFROM scratch\n", "\nUSER 65532:65532\n",
		"CGO_ENABLED=0 go build", "\nENTRYPOINT [\"/choir\"]\n"} {
		if !strings.Contains(string(file), want) {
			t.Errorf("the Containerfile lacks %q", strings.TrimSpace(want))
		}
	}
	binary, err := elf.Open(choir)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary names a loader: it is not static, and scratch has none")
		}
	}
}

// The schema in deploy/local is that of the shops that are made up.
func TestShopSchema(t *testing.T) {
	s := newSite(t)
	s.choir("data", "generate", "shop", "--to", "shop", "--sessions", "10")
	if read(t, s.path("shop", "shop.yaml")) != read(t, "../deploy/local/shop.yaml") {
		t.Error("deploy/local/shop.yaml is not the schema that choir data generate shop writes")
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
