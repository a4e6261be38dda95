package state_test

import (
	"fmt"
	"strings"
	"testing"

	"choir.example/coordinator/state"
)

// What updates of the story's rounds are sealed to, and which private halves ada must keep.
func TestRoundKeysAreFixedAtTheOpening(t *testing.T) {
	for _, c := range []struct{ stage, one, two, keeps string }{
		{"named", "ada2 bob1", "ada3 bob1", "2 3 5"},
		{"one is over", "", "ada3 bob1", "3 5"},
		{"a coordinator is gone", "", "ada3", "3 5"},
		{"both are over", "", "ada5 cyd1", "5"},
	} {
		s, _ := stateAt(t, "epochs", c.stage)
		for job, want := range map[string]string{"one": c.one, "two": c.two} {
			var got []string
			if r := s.Jobs[job].Active(); r != nil {
				for _, k := range s.RoundKeys(r) {
					got = append(got, fmt.Sprint(k.Coordinator, k.Epoch))
					if v, _ := s.Coordinator(k.Coordinator); len(k.Chain) == 0 || &k.Chain[0] != &v.Chain[0] || !strings.HasPrefix(k.Recipient, "age1"+k.Coordinator) {
						t.Errorf("%s: %+v", c.stage, k)
					}
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s: job %s is sealed to %v, want %s", c.stage, job, got, want)
			}
		}
		var keeps []string
		for epoch := uint64(1); epoch < 7; epoch++ {
			if s.NeedsEpoch("ada", epoch) {
				keeps = append(keeps, fmt.Sprint(epoch))
			}
		}
		if strings.Join(keeps, " ") != c.keeps || s.NeedsEpoch("eve", 1) {
			t.Errorf("%s: ada keeps %v, want %s", c.stage, keeps, c.keeps)
		}
	}
}

// A round that opened before anybody had a key has those that come later.
func TestARoundWithoutKeysHasTheNewest(t *testing.T) {
	w := newWorld(t, 3)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" minimum_cohort: 2 hidden: 8 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for epoch := range 3 {
		keys := w.s.RoundKeys(w.job().Active())
		if len(keys) != min(epoch, 1) || epoch > 0 && keys[0].Epoch != uint64(epoch) {
			t.Errorf("after %d announcements: %+v", epoch, keys)
		}
		w.tell(fmt.Sprintf(`announce_epoch { key { coordinator: "ada" epoch: %d recipient: "age1" signature: "signed" } }`, epoch+1))
	}
}

// Shown is for people: what waits for its first round is queued.
func TestShown(t *testing.T) {
	for _, c := range []struct{ story, stage, want string }{
		{"job", "submitted", state.JobQueued},
		{"job", "training open", state.JobRunning},
		{"job", "released", state.JobFinished},
	} {
		s, _ := stateAt(t, c.story, c.stage)
		if got := s.Jobs["purchase"].Shown(); got != c.want {
			t.Errorf("%s: %s, want %s", c.stage, got, c.want)
		}
	}
}
