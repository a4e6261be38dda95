//go:build linux

package live_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	kills = flag.Int("kills", 2, "how often the leader is killed")
	disks = flag.Bool("disks", false, "fill disks, which takes 40 seconds and root")
	big   = flag.Int("big", 0, "megabytes of a CSV file to import; 1000 take minutes, and three times the room in TMPDIR")
	keep  = flag.String("binary", "", "a choir binary to test instead of one built from this tree")
)

// choir is the binary under test.
var choir string

// Most tests here wait, for elections, retries and rounds: some run at once, each with a federation of its own, unless
// -parallel says otherwise. Those that measure time or memory run before them, one by one.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "3"); err != nil { // the command line is read afterwards
		panic(err)
	}
	flag.Parse()
	os.Exit(withBinary(m))
}

// withBinary builds the binary as a release is built, and runs the tests with it.
func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "choir-live-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	choir = filepath.Join(dir, "choir")
	if *keep != "" {
		if choir, err = filepath.Abs(*keep); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	build := exec.Command("go", "build", "-buildvcs=auto", "-trimpath", "-ldflags", "-s -w", "-o", choir, "choir.example/cmd/choir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build choir: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
