//go:build linux

package live_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// skewed is choir with a clock that is off.
func skewed(t *testing.T, off time.Duration) string {
	t.Helper()
	binary, err := skewable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "choir")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nCHOIR_TEST_CLOCK=%v exec '%s' \"$@\"\n", off, binary), 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}

// skewable builds choir anew: the same source, but for the one file that asks the machine for the time.
var skewable = sync.OnceValues(func() (binary string, err error) {
	path, err := filepath.Abs("../cmd/choir/clock.go")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(choir), "skewed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	file, overlay, binary := filepath.Join(dir, "clock.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "choir")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{path: file}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(file, []byte(skewedClock), 0o600), os.WriteFile(overlay, b, 0o600)); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-overlay", overlay, "-o", binary, "choir.example/cmd/choir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
})

// skewedClock takes the place of clock.go.
const skewedClock = `package main

import (
	"os"
	"time"
)

func now() time.Time {
	off, err := time.ParseDuration(os.Getenv("CHOIR_TEST_CLOCK"))
	if err != nil {
		panic(err)
	}
	return time.Now().Add(off)
}
`

const day = 24 * time.Hour

// with starts a daemon of another binary.
func (s *site) with(binary, name string, args ...string) *process {
	s.t.Helper()
	p := spawn(s.t, name, s.dir, s.env(), append([]string{binary}, args...)...)
	s.procs[name] = p
	return p
}

// clockSays is what a message about a clock that is off must show: the machine's time. The hour is left out;
// only a test that runs over midnight may see another day.
func clockSays(off time.Duration) string {
	return `clock says ` + time.Now().Add(off).UTC().Format("2006-01-02 ")
}

// refusesClock runs an operator's command with a wrong clock, which must say what the clock shows and what would be valid.
func (s *site) refusesClock(binary string, off time.Duration, args ...string) {
	s.t.Helper()
	out, errs, code := run(s.dir, s.env(), "", append([]string{binary}, args...)...)
	says := strings.Replace(clockSays(off), "clock says", "this machine's clock right? It says", 1)
	if code != 1 || !validFrom.MatchString(errs) || !strings.Contains(errs, says) {
		s.t.Errorf("choir %s: exit %d, want 1, the time of validity and %q\n%s%s", strings.Join(args, " "), code, says, out, errs)
	}
}

var validFrom = regexp.MustCompile(`valid from \d{4}-\d\d-\d\d \d\d:\d\d:\d\d to \d{4}-`)

// rightAgain starts everything with a right clock, what was refused among it, and sees that nothing was lost.
func (s *site) rightAgain(joined string) {
	s.t.Helper()
	for _, name := range append(coordinators, "n1", "n2", "n3") {
		if p := s.procs[name]; p.running() {
			p.stop(s.t)
		}
	}
	s.startAll()
	s.start(joined, "node", "--join-file", joined+".token", "--config", joined+".yaml") // the token still admits it
	s.ready(joined)
	s.submit("second", small(2))
	s.ended("second", 60*time.Second)
	s.exact("second")
}

// A machine whose clock is a day behind: where nothing is valid yet the message says so, with both times. A node with a
// certificate takes the certificate's time, says that, and goes on.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	s := federation(t)
	behind := skewed(t, -day)
	s.refusesClock(behind, -day, "cluster", "status")
	s.refusesClock(behind, -day, "token", "create", "--out", "never.token")

	s.choir("token", "create", "--out", "n8.token")
	s.copyConfig("n1", "n8")
	p := s.with(behind, "n8", "node", "--join-file", "n8.token", "--config", "n8.yaml")
	s.fails(p, "choir: error: enrol n8: ", clockSays(-day), "set it if that is wrong")
	if !validFrom.MatchString(p.log.String()) {
		t.Errorf("n8 does not say when the certificate is valid:\n%s", p.log)
	}

	s.procs["c3"].stop(t)
	p = s.with(behind, "c3", "coordinator", "--config", "c3.yaml")
	s.fails(p, "choir: error: open coordinator c3: ", "certificate of c3", clockSays(-day))
	if !validFrom.MatchString(p.log.String()) {
		t.Errorf("c3 does not say when its certificate is valid:\n%s", p.log)
	}

	s.procs["n1"].stop(t)
	p = s.with(behind, "n1", "node", "--config", "n1.yaml")
	s.ready("n1")
	if !strings.Contains(p.log.String(), "this machine's clock must be wrong, a later time is taken") {
		t.Errorf("n1 does not say that its clock is wrong:\n%s", p.log)
	}
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	s.counted("n1", "first")
	s.exact("first")
	s.rightAgain("n8")
}

// A machine whose clock is a day ahead: a token has expired for it, and it says so with both times. What has a
// certificate that lasts longer goes on.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	s := federation(t)
	ahead := skewed(t, day)
	if out, errs, code := run(s.dir, s.env(), "", ahead, "cluster", "status"); code != 0 {
		t.Errorf("an operator whose certificate lasts a year: exit %d\n%s%s", code, out, errs)
	}

	s.choir("token", "create", "--expiry", "1h", "--out", "n8.token")
	s.copyConfig("n1", "n8")
	p := s.with(ahead, "n8", "node", "--join-file", "n8.token", "--config", "n8.yaml")
	s.fails(p, "choir: error: enrol n8: ", clockSays(day), "set it if that is wrong")
	if !regexp.MustCompile(`expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).MatchString(p.log.String()) {
		t.Errorf("n8 does not say when the token expired:\n%s", p.log)
	}

	s.procs["c3"].stop(t)
	s.with(ahead, "c3", "coordinator", "--config", "c3.yaml")
	s.ready("c3")
	s.procs["n1"].stop(t)
	s.with(ahead, "n1", "node", "--config", "n1.yaml")
	s.ready("n1")
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	s.counted("n1", "first")
	s.exact("first")
	s.rightAgain("n8")
}

// counted wants an update of a node counted.
func (s *site) counted(node, job string) {
	s.t.Helper()
	s.nothingWaits(job)
	for _, u := range s.sent(node) {
		if u.Job == job && u.Outcome == "counted" {
			return
		}
	}
	s.t.Errorf("%s takes no part in job %s", node, job)
}
