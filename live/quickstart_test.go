//go:build linux

package live_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// block matches the code blocks of the quickstart that are meant to be typed.
var block = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// quickstart is all commands of docs/quickstart.md, in order, as one script.
func quickstart(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// The commands of docs/quickstart.md do what it says, on ports that are free, in one shell.
func TestQuickstart(t *testing.T) {
	s := newSite(t)
	blocks := quickstart(t)
	if len(blocks) < 5 {
		t.Fatalf("the quickstart has %d blocks of commands", len(blocks))
	}
	// Each block ends with a mark, so that a failure names its block; the daemons end with the shell's process group.
	script := "set -eu -o pipefail\n"
	for i, b := range blocks {
		script += s.move(b) + "\necho \"done $((" + strconv.Itoa(i+1) + ")) $(date +%s.%N)\"\n"
	}
	script += "\nkill $(jobs -p)\nwait\n"
	write(t, s.path("quickstart.sh"), script)
	p := spawn(t, "quickstart", s.dir, s.env(), "bash", "quickstart.sh")
	if code := p.wait(t, 45*time.Second); code != 0 {
		t.Fatalf("the quickstart ended with exit code %d", code)
	}
	said := p.log.String()
	for _, want := range []string{`"model_name":"purchase"`, "coordinators signed the head", "1 example kept"} {
		if !strings.Contains(said, want) {
			t.Errorf("the quickstart never prints %q", want)
		}
	}
}
