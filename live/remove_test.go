//go:build linux

package live_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Three coordinators become two and then one. A removed one ends and says why, also when it was down while that
// happened; the last one decides alone, over a restart, and stays.
func TestRemoveToTheLast(t *testing.T) {
	t.Parallel()
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

// A node is ready while coordinators answer it. A revoked one says that it is, and what it takes to come back; a new token
// alone does not help.
func TestRevokedNode(t *testing.T) {
	t.Parallel()
	s := stopped(t)
	start := func() {
		for _, c := range []string{"c1", "c2"} {
			s.again(c)
		}
		for _, c := range []string{"c1", "c2"} {
			s.ready(c)
		}
	}
	notReady := func(text string) {
		t.Helper()
		eventually(t, 20*time.Second, "n1 is not ready: "+text, func() error {
			if code, body, err := s.health("n1", "/readyz"); err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, text) {
				return fmt.Errorf("%d %s %v", code, body, err)
			}
			return nil
		})
	}
	start()
	s.again("n1")
	s.ready("n1")
	s.procs["c1"].kill()
	s.procs["c2"].kill()
	notReady("no coordinator answers")
	start()
	s.ready("n1")

	s.choir("token", "create", "--out", "new.token")
	s.choir("cluster", "revoke", "n1", "--yes")
	notReady("has revoked this node")
	if out := s.choir("node", "status", "--config", "n1.yaml"); !strings.Contains(out, "is not ready: the federation has revoked this node") {
		t.Errorf("node status says\n%s", out)
	}
	s.procs["n1"].stop(t)
	p := s.start("n1", "node", "--join-file", "new.token", "--config", "n1.yaml")
	notReady("under another name, with an empty directory and a new token")
	for _, text := range []string{"the token is not used", "level=ERROR", "takes part no more"} {
		if !strings.Contains(p.log.String(), text) {
			t.Errorf("n1 does not say %q:\n%s", text, p.log)
		}
	}
}
