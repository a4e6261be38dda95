package simulate

import (
	"fmt"
	"strconv"
)

// Check refuses what Run would refuse before the first round, with the same errors. It reads the data, through cfg's loader.
func Check(x Experiment, cfg RunConfig) error {
	if _, err := newTrial(x, cfg); err != nil {
		return fmt.Errorf("experiment %s: %w", x.Name, err)
	}
	return nil
}

// mostRounds bounds a run: more is a slip of the fingers.
const mostRounds = 1_000_000

// check names the first setting of the run itself that cannot be. What the other sections hold is checked by those whom
// they belong to.
func (x *Experiment) check() error {
	switch e := &x.Evaluation; {
	case x.Rounds < 0 || x.Rounds > mostRounds:
		return fmt.Errorf("rounds: %d, want 1 to %d", x.Rounds, mostRounds)
	case !(x.Target.Accuracy >= 0 && x.Target.Accuracy <= 1):
		return fmt.Errorf("target: accuracy is %v, want 0 to 1", x.Target.Accuracy)
	case e.Every < 0 || e.Every > mostRounds:
		return fmt.Errorf("evaluation: every is %d, want 1 to %d", e.Every, mostRounds)
	case e.Average < 0 || e.Average > mostRounds:
		return fmt.Errorf("evaluation: average is %d, want 1 to %d", e.Average, mostRounds)
	}
	for _, a := range x.Evaluation.RoundsTo {
		if !(a > 0 && a <= 1) {
			return fmt.Errorf("evaluation: rounds_to has %v, want accuracies above 0 and at most 1", a)
		}
	}
	return nil
}

// levelKey is an accuracy as results write it: with two digits, or as many as it needs.
func levelKey(a float64) string {
	two := strconv.FormatFloat(a, 'f', 2, 64)
	if back, _ := strconv.ParseFloat(two, 64); back == a {
		return two
	}
	return strconv.FormatFloat(a, 'f', -1, 64)
}
