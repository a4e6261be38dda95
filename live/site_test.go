//go:build linux

package live_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// site is a directory with a copy of deploy/local on ports that are free, and what was started there.
type site struct {
	t     testing.TB
	dir   string
	ports map[string]string // port in deploy/local → port here
	procs map[string]*process
}

// loopback matches the ports that the files of deploy/local and the quickstart name.
var loopback = regexp.MustCompile(`\b(127\.0\.0\.1|localhost):([0-9]{4,5})\b`)

// newSite copies deploy/local.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), ports: map[string]string{}, procs: map[string]*process{}}
	from := filepath.Join("..", "deploy", "local")
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(s.dir, f.Name()), s.move(string(text)))
	}
	return s
}

// move replaces the ports of deploy/local by those of the site.
func (s *site) move(text string) string {
	return loopback.ReplaceAllStringFunc(text, func(address string) string {
		m := loopback.FindStringSubmatch(address)
		if s.ports[m[2]] == "" {
			s.ports[m[2]] = freePort(s.t)
		}
		return m[1] + ":" + s.ports[m[2]]
	})
}

// nextPort is where freePort looks next.
var nextPort atomic.Int32

// freePort is a port of loopback that nobody listens on. It lies below those that the kernel gives to outgoing connections,
// which might take it before its process listens, and is given out once.
func freePort(t testing.TB) string {
	t.Helper()
	const first, count = 20_000, 12_000
	for range count {
		port := strconv.Itoa(first + (os.Getpid()*97+int(nextPort.Add(1)))%count)
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", first, first+count-1)
	return ""
}

// env is a stranger's: a home of its own, and the binary on the path.
func (s *site) env() []string {
	return []string{"HOME=" + s.dir, "PATH=" + filepath.Dir(choir) + ":" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(),
		"CREDENTIALS_DIRECTORY=" + s.path("credentials")}
}

func (s *site) path(name ...string) string { return filepath.Join(append([]string{s.dir}, name...)...) }

// choir runs a command of choir that must succeed, and returns what it printed on stdout.
func (s *site) choir(args ...string) string {
	s.t.Helper()
	out, errs, code := s.try(args...)
	if code != 0 {
		s.t.Fatalf("choir %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// try runs a command of choir.
func (s *site) try(args ...string) (stdout, stderr string, code int) {
	return run(s.dir, s.env(), "", append([]string{choir}, args...)...)
}

// refuses runs a command of choir that must fail and say why.
func (s *site) refuses(text string, args ...string) {
	s.t.Helper()
	out, errs, code := s.try(args...)
	if code == 0 || !strings.Contains(errs, text) {
		s.t.Errorf("choir %s: exit %d, want a failure that says %q\n%s%s", strings.Join(args, " "), code, text, out, errs)
	}
}

// start starts a daemon of choir under a name.
func (s *site) start(name string, args ...string) *process {
	s.t.Helper()
	p := spawn(s.t, name, s.dir, s.env(), append([]string{choir}, args...)...)
	s.procs[name] = p
	return p
}

// status is what cluster status says, for scripts.
type status struct {
	Leader   string
	Term     uint64
	Applied  uint64
	Nodes    int
	Replicas []struct {
		Name, Address, State string
		Applied              uint64
	}
}

// decode reads the JSON that a command prints.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	return v
}

// job is what job show says, for scripts.
type job struct {
	Name, State string
	Reason      string
	Round       uint64
	Rounds      []struct {
		Round    uint64
		Attempt  int
		State    string
		Accepted int
		Rejected int
	}
}

func (s *site) job(name string) (job, error) {
	out, errs, code := s.try("job", "show", name, "-o", "json")
	if code != 0 {
		return job{}, fmt.Errorf("job show: %s", errs)
	}
	var j job
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		return job{}, fmt.Errorf("job show: %w", err)
	}
	return j, nil
}

// ended waits until a job has finished.
func (s *site) ended(name string, atMost time.Duration) job {
	s.t.Helper()
	var j job
	eventually(s.t, atMost, "job "+name+" finishes", func() (err error) {
		if j, err = s.job(name); err != nil {
			return err
		}
		switch j.State {
		case "finished":
			return nil
		case "failed", "stopped":
			return fmt.Errorf("%w: the job is %s: %s", errEnded, j.State, j.Reason)
		}
		return fmt.Errorf("state %s, round %d", j.State, j.Round)
	})
	return j
}
