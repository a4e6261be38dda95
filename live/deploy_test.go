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

// The units are what systemd understands, start a command that exists, and keep their hardening; also with one of the
// lines that hand over a credential.
func TestUnits(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze here; apt-get install systemd")
	}
	for unit, command := range map[string]string{"choir-coordinator.service": "coordinator", "choir-node.service": "node"} {
		text := read(t, filepath.Join("..", "deploy", "systemd", unit))
		start := "/usr/local/bin/choir " + command + " "
		if strings.Count(text, "\nExecStart="+start) != 1 {
			t.Errorf("%s does not start %s", unit, start)
		}
		text = strings.ReplaceAll(text, "=/usr/local/bin/choir", "="+choir) // verify looks for the program, which is not installed here
		for _, line := range []string{"", "LoadCredential=", "LoadCredentialEncrypted="} {
			t.Run(unit+" "+line, func(t *testing.T) {
				if line != "" && strings.Count(text, "\n#"+line+"choir-unseal:") != 1 {
					t.Fatalf("%s has no comment %s", unit, line)
				}
				verifyUnit(t, tool, unit, strings.ReplaceAll(text, "\n#"+line+"choir-unseal:", "\n"+line+"choir-unseal:"))
			})
		}
	}
}

func verifyUnit(t *testing.T, tool, unit, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), unit)
	write(t, path, text)
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

// The binary that goes into the container is static: scratch has no loader and no library.
func TestBinaryIsStatic(t *testing.T) {
	binary, err := elf.Open(choir)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary names a loader: it is not static")
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
