//go:build linux

package live_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// From a token in hand to the first receipt of a new node, its data imported, while a job runs.
func TestTokenToReceipt(t *testing.T) {
	s := federation(t)
	keys := small(500)
	keys["wait"] = "1s"
	s.submit("running", keys)
	eventually(t, 30*time.Second, "rounds are trained", func() error {
		j, err := s.job("running")
		if err == nil && j.Round < 1 {
			err = fmt.Errorf("round %d", j.Round)
		}
		return err
	})
	s.copyConfig("n1", "n4")
	s.choir("data", "generate", "shop", "--seed", "4", "--sessions", "1000", "--to", "n4-data")
	s.choir("token", "create", "--out", "n4.token")

	start := time.Now()
	s.start("n4", "node", "--join-file", "n4.token", "--config", "n4.yaml")
	s.ready("n4")
	enrolled := time.Since(start)
	s.choir("data", "import", "--config", "n4.yaml", "--schema", "shop.yaml", filepath.Join("n4-data", "sessions.csv"))
	imported := time.Since(start)
	eventually(t, 20*time.Second, "n4 holds a receipt", func() error {
		for _, u := range s.sent("n4") {
			if u.Outcome == "counted" {
				return nil
			}
		}
		return fmt.Errorf("%d updates sent", len(s.sent("n4")))
	})
	took := time.Since(start)
	t.Logf("token in hand, enrolled after %v, data imported after %v, first receipt after %v", enrolled.Round(time.Millisecond), imported.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("the first receipt took %v, want less than 10s", took)
	}
}
