//go:build linux

package live_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every daemon tells that it lives, that it is ready, and its numbers, in the form that Prometheus reads.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := federation(t)
	sample := regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^}]*\})? [-+0-9.eEINa-n]+$`)
	for _, name := range []string{"c1", "n1"} {
		if code, body, err := s.health(name, "/healthz"); err != nil || code != http.StatusOK {
			t.Errorf("%s /healthz: %d %s %v", name, code, body, err)
		}
		code, body, err := s.health(name, "/metrics")
		if err != nil || code != http.StatusOK {
			t.Fatalf("%s /metrics: %d %v", name, code, err)
		}
		ours := 0
		for line := range strings.Lines(body) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "#") && !sample.MatchString(line) {
				t.Errorf("%s /metrics: not a sample: %q", name, line)
			}
			if strings.HasPrefix(line, "choir_") {
				ours++
			}
		}
		if ours == 0 {
			t.Errorf("%s /metrics has no sample of choir's own:\n%s", name, body)
		}
	}
	// Without a majority a coordinator lives, and is not ready.
	s.procs["c2"].kill()
	s.procs["c3"].kill()
	eventually(t, 10*time.Second, "c1 is not ready", func() error {
		if code, body, err := s.health("c1", "/readyz"); err != nil || code == http.StatusOK {
			return fmt.Errorf("%d %s %v", code, body, err)
		}
		return nil
	})
	if code, _, err := s.health("c1", "/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("c1 does not live without a majority: %d %v", code, err)
	}
}
