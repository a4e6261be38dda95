//go:build linux

package live_test

import (
	"testing"
	"time"
)

// Three coordinators become two and then one. A removed one ends and says why, also when it was down while that
// happened; the last one decides alone, over a restart, and stays.
func TestRemoveToTheLast(t *testing.T) {
	s := stopped(t)
	for _, c := range coordinators {
		s.again(c)
	}
	for _, c := range coordinators {
		s.ready(c)
	}
	s.procs["c3"].kill()
	s.choir("cluster", "remove", "c3", "--yes")
	s.fails(s.again("c3"), "was removed from the federation", "empty directory")

	second := s.procs["c2"]
	s.choir("cluster", "remove", "c2", "--yes")
	if code := second.wait(t, 15*time.Second); code != 1 {
		t.Errorf("c2 exits with %d", code)
	}
	s.choir("token", "create", "--out", "alone.token")
	s.procs["c1"].stop(t)
	s.again("c1")
	s.ready("c1")
	s.choir("token", "create", "--out", "again.token")
	s.refuses("it is the last one, which stays", "cluster", "remove", "c1", "--yes")
}
