//go:build linux

package live_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// root is the fingerprint of the federation's root as the cluster tells it.
func (s *site) root() string {
	s.t.Helper()
	return decode[struct {
		Root string `json:"root"`
	}](s.t, s.choir("cluster", "status", "-o", "json")).Root
}

// says waits until a process has logged a text.
func (s *site) says(name, text string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, name+" says "+text, func() error {
		if !strings.Contains(s.procs[name].log.String(), text) {
			return errors.New(last(s.procs[name].log.String(), 5))
		}
		return nil
	})
}

// The root is rotated while a job runs, a node is stopped and so is a coordinator. Rounds go on; both come back by
// themselves; a new coordinator is let in by the new root key and not by the old one; every receipt is counted once, and
// the proof holds from the first root and from the last.
func TestRootIsRotatedWhileAJobRuns(t *testing.T) {
	t.Parallel()
	s := federation(t)
	first := s.root()
	s.submit("long", small(25))
	s.uploading("long")
	for _, name := range []string{"n3", "c3"} {
		if code := s.procs[name].stop(t); code != 0 {
			t.Errorf("%s: exit %d", name, code)
		}
	}
	s.choir("cluster", "rotate-root", "--root-key", "root.key", "--new-root-key", "root-2.key", "--passphrase-file", "pass", "--yes")
	second := s.root()
	if second == first {
		t.Fatal("the root is the same")
	}
	for _, c := range []string{"c1", "c2"} {
		s.says(c, "this coordinator's certificates were replaced")
	}
	for _, n := range []string{"n1", "n2"} {
		s.says(n, "the federation has another root")
		s.says(n, "certificate renewed")
	}
	before, err := s.job("long")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "rounds go on", func() error {
		j, err := s.job("long")
		if err == nil && j.State == "running" && j.Round < before.Round+2 {
			err = fmt.Errorf("round %d, it was %d", j.Round, before.Round)
		}
		return err
	})
	s.again("c3")
	s.says("c3", "this coordinator's certificates were replaced")
	s.ready("c3")
	s.again("n3")
	s.says("n3", "the federation has another root")
	s.ready("n3")

	// A fourth coordinator; the old key is refused, with the reason.
	s.copyConfig("c3", "c4")
	s.choir("token", "create", "--role", "coordinator", "--out", "c4.token")
	s.start("c4", "coordinator", "--join", "c4.token", "--config", "c4.yaml")
	eventually(t, 20*time.Second, "c4 asks to join", func() error {
		if out, errs, code := s.try("cluster", "joins"); code != 0 || !strings.Contains(out, "c4") {
			return errors.New(errs)
		}
		return nil
	})
	s.refuses("which was replaced: the federation's root is "+second+" since", "cluster", "approve", "c4", "--root-key", "root.key", "--passphrase-file", "pass")
	s.choir("cluster", "approve", "c4", "--root-key", "root-2.key", "--passphrase-file", "pass")
	s.ready("c4")

	s.ended("long", 180*time.Second)
	s.exact("long")
	s.choir("audit", "verify", "run.bundle", "--root", first)
	s.choir("audit", "verify", "run.bundle", "--root", second)
}
