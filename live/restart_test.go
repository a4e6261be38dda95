//go:build linux

package live_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// small is a job whose rounds take less than two seconds.
func small(rounds int) map[string]string {
	return map[string]string{"rounds": fmt.Sprint(rounds), "architecture": "{name: mlp, hidden: [32]}", "local": "{epochs: 1}", "student_rows": "2000", "student_epochs": "2",
		"duration": "4s"}
}

// uploading waits until an update of a job is on its way.
func (s *site) uploading(job string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, "an update leaves", func() error {
		if s.spooled(job) > 0 {
			return nil
		}
		return errors.New("none")
	})
}

// exact wants every receipt counted once.
func (s *site) exact(job string) tally {
	s.t.Helper()
	s.nothingWaits(job)
	got := s.recounted()
	if got.lost+got.twice+len(got.problems) > 0 || got.receipts != got.counted || got.receipts == 0 {
		s.t.Errorf("the recount: %+v", got)
	}
	return got
}

// All processes die at once, in the middle of a round, and are started again with the same commands.
func TestEverythingDies(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.submit("again", small(6))
	s.uploading("again")
	for _, p := range s.procs {
		go p.kill()
	}
	for _, p := range s.procs {
		<-p.done
	}
	s.startAll()
	s.ended("again", 60*time.Second)
	s.exact("again")
}

// A node dies while it uploads and, later, while it imports. It goes on where it was; the import happened or did not.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.submit("again", small(6))
	eventually(t, 30*time.Second, "n1 uploads", func() error {
		if files, _ := os.ReadDir(s.path("n1", "spool")); len(files) == 0 {
			return errors.New("nothing is spooled")
		}
		return nil
	})
	s.procs["n1"].kill()
	s.again("n1")
	s.ready("n1")
	s.ended("again", 60*time.Second)
	s.exact("again")

	before := s.examples("n1")
	s.choir("data", "generate", "shop", "--seed", "77", "--sessions", "20000", "--to", "more")
	file := filepath.Join("more", "sessions.csv")
	importing := spawn(t, "import", s.dir, s.env(), choir, "data", "import", "--config", "n1.yaml", "--schema", "shop.yaml", file)
	time.AfterFunc(150*time.Millisecond, s.procs["n1"].kill) // in the middle of it
	if code := importing.wait(t, 20*time.Second); code == 0 {
		t.Log("the import was faster than the kill")
	}
	<-s.procs["n1"].done
	s.again("n1")
	s.ready("n1")
	if got := s.examples("n1"); got != before && got != before+20000 {
		t.Errorf("n1 holds %d examples after the kill, want %d or %d: an import happens or it does not", got, before, before+20000)
	}
	s.choir("data", "import", "--config", "n1.yaml", "--schema", "shop.yaml", file)
	if got := s.examples("n1"); got != before+20000 {
		t.Errorf("n1 holds %d examples after the second import, want %d", got, before+20000)
	}
}

// examples is how many a node holds.
func (s *site) examples(node string) int {
	s.t.Helper()
	list := decode[struct {
		Imports []struct {
			Rows int
		}
	}](s.t, s.choir("data", "list", "--config", node+".yaml", "-o", "json"))
	n := 0
	for _, f := range list.Imports {
		n += f.Rows
	}
	return n
}

// SIGTERM to the leader: it exits with 0, another leads at once, and the job goes on.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.submit("again", small(8))
	victim := s.leader()
	s.uploading("again")
	start := time.Now()
	if code := s.procs[victim].stop(t); code != 0 {
		t.Errorf("%s: exit %d after SIGTERM\n%s", victim, code, last(s.procs[victim].log.String(), 10))
	}
	stopped := time.Since(start)
	next := s.leader()
	t.Logf("%s stopped after %v, %s leads after %v", victim, stopped.Round(time.Millisecond), next, time.Since(start).Round(time.Millisecond))
	s.ended("again", 60*time.Second)
	for name, p := range s.procs {
		if p.running() {
			if code := p.stop(t); code != 0 {
				t.Errorf("%s: exit %d after SIGTERM\n%s", name, code, last(p.log.String(), 10))
			}
		}
	}
	s.startAll()
	s.exact("again")
}

// A coordinator whose disk is gone is removed, joins again with an empty directory, and counts.
func TestLostDisk(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	s.procs["c3"].kill()
	if err := os.RemoveAll(s.path("c3")); err != nil {
		t.Fatal(err)
	}
	// Started as it was, it cannot be what it was, and says so.
	p := s.again("c3")
	if code := p.wait(t, 10*time.Second); code != 1 || !strings.Contains(p.log.String(), "--join") {
		t.Errorf("without its disk c3 exits with %d and says\n%s", code, p.log)
	}
	s.choir("cluster", "remove", "c3", "--yes")
	_ = os.Remove(s.path("c3.token")) // of its first time
	s.join("c3")
	// It counts: with it and without c1 there is a majority, and it has what the next job needs.
	s.procs["c1"].kill()
	s.submit("second", small(2))
	s.ended("second", 60*time.Second)
	s.again("c1")
	s.ready("c1")
	s.exact("second")
}

// Any two of three coordinators go on, also from a cold start.
func TestTwoOfThreeStart(t *testing.T) {
	t.Parallel()
	for _, absent := range coordinators {
		t.Run("without "+absent, func(t *testing.T) {
			s := stopped(t)
			for _, c := range coordinators {
				if c != absent {
					s.again(c)
				}
			}
			for _, c := range coordinators {
				if c != absent {
					s.ready(c)
				}
			}
			s.choir("token", "create", "--out", "new.token") // something is decided
		})
	}
}
