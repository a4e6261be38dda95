//go:build linux

package live_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk puts a process's directory on a file system of its own that has little room.
func (s *site) smallDisk(name string, megabytes int) {
	s.t.Helper()
	if !*disks {
		s.t.Skip("needs -disks")
	}
	if os.Geteuid() != 0 {
		s.t.Skip("needs root, to mount a small file system")
	}
	dir := s.path(name)
	if err := os.Rename(dir, dir+".old"); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)); err != nil {
		s.t.Skipf("mount: %v", err)
	}
	s.t.Cleanup(func() {
		s.procs[name].kill()
		if err := syscall.Unmount(dir, 0); err != nil {
			s.t.Errorf("unmount: %v", err)
		}
	})
	if out, err := exec.Command("cp", "-a", dir+".old/.", dir).CombinedOutput(); err != nil {
		s.t.Fatalf("copy: %v\n%s", err, out)
	}
}

// fill leaves no room on a file system.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 12, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// first puts a coordinator's address before the others in the operator's context.
func (s *site) first(name string) {
	s.t.Helper()
	_, address, _ := strings.Cut(addressLine.FindString(read(s.t, s.path(name+".yaml"))), ":")
	path, line := s.path(".config", "choir", "context.yaml"), "  - \""+strings.TrimSpace(address)+"\"\n"
	rest := strings.Replace(read(s.t, path), line, "", 1)
	if !strings.Contains(read(s.t, path), line) {
		s.t.Fatalf("the context does not name %s", address)
	}
	write(s.t, path, strings.Replace(rest, "addresses:\n", "addresses:\n"+line, 1))
}

// A coordinator's disk is full in the middle of a job: the others go on, operators and nodes who ask it are sent to
// them, and it comes back when there is room.
func TestCoordinatorDiskFull(t *testing.T) {
	s := stopped(t)
	s.smallDisk("c3", 24)
	s.startAll()
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	fill(t, s.path("c3", "ballast"))
	s.first("c3") // and it is the one that everybody asks first
	s.submit("second", small(5))
	if seen := s.choir("job", "watch", "second"); !strings.Contains(seen, "second: finished after round 5") {
		s.t.Errorf("who watches is left alone with\n%s", seen)
	}
	if j, err := s.job("second"); err != nil || j.State != "finished" {
		t.Errorf("the job that finished is %s, %v", j.State, err)
	}
	s.choir("audit", "export", "while-full.bundle")
	eventually(t, 10*time.Second, "c3 says that it is not ready", func() error {
		code, body, err := s.health("c3", "/readyz")
		if err != nil || code == http.StatusServiceUnavailable && strings.Contains(body, "no space left on device") {
			return err
		}
		return fmt.Errorf("%d %s", code, body)
	})
	if st, err := s.status(); err != nil || st.Leader == "" || st.Leader == "c3" {
		t.Errorf("status names the leader %q, %v", st.Leader, err)
	}
	if err := os.Remove(s.path("c3", "ballast")); err != nil {
		t.Fatal(err)
	}
	if !s.procs["c3"].running() {
		t.Logf("c3 has ended: %s", last(s.procs["c3"].log.String(), 3))
		s.again("c3")
	}
	s.ready("c3")
	if said := s.procs["c3"].log.String(); !strings.Contains(said, "no space left on device") {
		t.Errorf("c3 never says that its disk is full:\n%s", last(said, 20))
	}
	// It is whole: with it there is a majority.
	s.procs["c1"].kill()
	s.submit("third", small(2))
	s.ended("third", 60*time.Second)
	s.again("c1")
	s.ready("c1")
	s.exact("third")
}

// A coordinator whose disk is full when it stops, and when it starts, loses nothing that it had promised.
func TestCoordinatorStartsOnAFullDisk(t *testing.T) {
	s := stopped(t)
	s.smallDisk("c2", 24)
	s.startAll()
	fill(t, s.path("c2", "ballast"))
	s.procs["c2"].kill()
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	p := s.again("c2")
	eventually(t, 20*time.Second, "c2 names its disk", func() error {
		if strings.Contains(p.log.String(), "no space left on device") {
			return nil
		}
		return errors.New(last(p.log.String(), 3))
	})
	if err := os.Remove(s.path("c2", "ballast")); err != nil {
		t.Fatal(err)
	}
	if !p.running() {
		s.again("c2")
	}
	s.ready("c2")
	s.exact("first")
}

// A node's disk is full during an import and during a round: it says so, holds what it held, and goes on with room.
func TestNodeDiskFull(t *testing.T) {
	s := stopped(t)
	s.smallDisk("n1", 24)
	s.startAll()
	before := s.examples("n1")
	s.choir("data", "generate", "shop", "--seed", "5", "--sessions", "5000", "--to", "more")
	fill(t, s.path("n1", "ballast"))
	s.refuses("disk is full", "data", "import", "--config", "n1.yaml", "--schema", "shop.yaml", "more/sessions.csv")
	if got := s.examples("n1"); got != before {
		t.Errorf("after the import that failed n1 holds %d examples, want %d", got, before)
	}
	s.submit("first", small(3))
	s.ended("first", 60*time.Second)
	if err := os.Remove(s.path("n1", "ballast")); err != nil {
		t.Fatal(err)
	}
	s.choir("data", "import", "--config", "n1.yaml", "--schema", "shop.yaml", "more/sessions.csv")
	if !s.procs["n1"].running() {
		t.Errorf("n1 has ended:\n%s", last(s.procs["n1"].log.String(), 5))
		return
	}
	s.submit("second", small(2))
	s.ended("second", 60*time.Second)
	found := false
	for _, u := range s.sent("n1") {
		found = found || u.Job == "second" && u.Outcome == "counted"
	}
	if !found {
		t.Error("with room again, n1 takes no part")
	}
	s.exact("second")
}
