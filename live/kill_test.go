//go:build linux

package live_test

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The leader is killed again and again while nodes upload: every round commits, and each receipt counts once.
func TestLeaderKilled(t *testing.T) {
	s := federation(t)
	rounds := 12 + 12**kills
	s.submit("stress", map[string]string{"rounds": fmt.Sprint(rounds), "architecture": "{name: mlp, hidden: [256, 128]}", "local": "{epochs: 1}", "wait": "20s"})
	var times []time.Duration
	var after uint64
	for i := range *kills {
		victim := s.leader()
		var round uint64
		eventually(t, 60*time.Second, "an update of a new round leaves", func() error {
			if round = s.spooled("stress"); round > after {
				return nil
			}
			if j, err := s.job("stress"); err == nil && j.State != "running" && j.State != "queued" {
				return fmt.Errorf("%w: the job is %s: %s", errEnded, j.State, j.Reason)
			}
			return fmt.Errorf("round %d", round)
		})
		s.procs[victim].kill()
		start := time.Now()
		eventually(t, 20*time.Second, fmt.Sprintf("round %d closes after %s was killed", round, victim), func() error {
			j, err := s.job("stress")
			if err == nil && j.Round < round {
				err = fmt.Errorf("round %d", j.Round)
			}
			return err
		})
		took := time.Since(start)
		times = append(times, took)
		t.Logf("kill %d: %s during the uploads of round %d, which closed after %v", i+1, victim, round, took.Round(time.Millisecond))
		if took > 3*time.Second {
			t.Errorf("round %d closed %v after the leader's death, want at most 3s", round, took)
		}
		s.again(victim)
		s.ready(victim)
		if j, err := s.job("stress"); err == nil {
			after = max(round, j.Round)
		}
	}
	_, _, _ = s.try("job", "stop", "stress") // refused where it has finished meanwhile
	var j job
	eventually(t, 30*time.Second, "the job ends", func() (err error) {
		if j, err = s.job("stress"); err == nil && j.State != "finished" && j.State != "stopped" {
			err = fmt.Errorf("it is %s", j.State)
		}
		return err
	})
	s.nothingWaits("stress")
	got := s.recounted()
	slices.Sort(times)
	t.Logf("%d kills: median %v, maximum %v; job %s after round %d; %d rounds closed, %d receipts, %d counted, %d lost, %d twice", len(times),
		times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond), j.State, j.Round, got.rounds, got.receipts, got.counted, got.lost, got.twice)
	for _, p := range got.problems {
		t.Error(p)
	}
	if got.lost+got.twice > 0 || got.receipts != got.counted || uint64(got.rounds) < j.Round {
		t.Errorf("the recount: %+v", got)
	}
}

// nothingWaits waits until every node has an answer to everything it sent.
func (s *site) nothingWaits(job string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, "every update is answered", func() error {
		if r := s.spooled(job); r > 0 {
			return fmt.Errorf("one of round %d waits", r)
		}
		return nil
	})
}
