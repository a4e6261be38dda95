package simulate

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model/data"
	"choir.example/simulate/attack"
	"choir.example/simulate/partition"
)

// besieged is a fleet of 20 of which 4 may lie, on rings whose examples have three more values, zeros, where a mark has room.
func besieged(rule fedavg.RobustSettings, liars attack.Settings) Experiment {
	wide := func(s data.Set) data.Set {
		var x []float32
		for i := range s.Y {
			x = append(x, s.X[2*i], s.X[2*i+1], 0, 0, 0)
		}
		s.X, s.Input = x, []int{5}
		return s
	}
	x := small()
	x.Own.Data = &Dataset{Train: wide(rings(2000, 1)), Test: wide(rings(1100, 2))}
	x.Partition, x.Cohort = partition.Settings{Nodes: 20}, CohortSettings{}
	x.Rounds, x.Evaluation = 30, EvaluationSettings{Every: 30}
	x.Robust, x.Fleet.Liars = rule, liars
	return x
}

// rulesAgainstFour are rules that hold with 4 liars of 20.
var rulesAgainstFour = []fedavg.RobustSettings{
	{Rule: "median", F: 4}, {Rule: "trimmed-mean", F: 4}, {Rule: "krum", F: 4}, {Rule: "multi-krum", F: 4}, {Rule: "bulyan", F: 4},
	{Rule: "geometric-median", F: 4}, {Rule: "centred-clipping", F: 4}, {Rule: "fltrust"}, {Rule: "median", F: 4, Bucket: 2},
}

// normBound makes lies small, and leaves them in the mean.
var normBound = fedavg.RobustSettings{Rule: "norm-bound", F: 4}

// TestRulesHoldAgainstAttacks: the mean falls, to less than floor, under attacks that have one; every rule keeps at least .8
// under all, and the norm bound .75. Where nobody lies all have about .9.
func TestRulesHoldAgainstAttacks(t *testing.T) {
	for _, c := range []struct {
		attack.Settings
		floor float64
	}{
		{attack.Settings{Attack: "sign-flip", Nodes: 4, Scale: 5}, .3},
		{attack.Settings{Attack: "inner-product", Nodes: 4, Scale: 5}, .3},
		{attack.Settings{Attack: "gaussian", Nodes: 4, Scale: 10}, .8},
		{attack.Settings{Attack: "alie", Nodes: 4, Scale: 20}, .6},
		{attack.Settings{Attack: "label-flip", Nodes: 4}, 0},
		{attack.Settings{Attack: "min-max", Nodes: 4}, 0},
		{attack.Settings{Attack: "mimic", Nodes: 4}, 0},
	} {
		for _, rule := range append([]fedavg.RobustSettings{{}, normBound}, rulesAgainstFour...) {
			t.Run(fmt.Sprintf("%s/%s%d", c.Attack, rule.Rule, rule.Bucket), func(t *testing.T) {
				r, err := Run(t.Context(), besieged(rule, c.Settings), RunConfig{Seed: 3})
				if err != nil {
					t.Fatal(err)
				}
				switch a := r.Final.Accuracy; {
				case rule.Rule == "" && c.floor > 0 && !(a < c.floor):
					t.Errorf("the mean has %v, want less than %v: the attack does nothing", a, c.floor)
				case rule == normBound && a < .75, rule.Rule != "" && rule != normBound && a < .8:
					t.Errorf("accuracy %v, want at least .8, or .75 under the norm bound", a)
				}
				t.Logf("accuracy %.3f", r.Final.Accuracy)
			})
		}
	}
}

// TestBackdoor: liars that send their updates five times have the mean take what bears their mark for their class, and nobody
// sees it in the accuracy. Rules that choose updates or values do not let it pass. Those that bound what each update moves do:
// no honest one contradicts it where no honest example has anything. With an honest fleet nothing is said of a mark.
func TestBackdoor(t *testing.T) {
	liars := attack.Settings{Attack: "backdoor", Nodes: 4, Scale: 5, Target: 1}
	for _, rule := range append([]fedavg.RobustSettings{{}, normBound}, rulesAgainstFour...) {
		r, err := Run(t.Context(), besieged(rule, liars), RunConfig{Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		success := *r.Final.Backdoor
		t.Logf("%s: accuracy %.3f, the backdoor %.3f", rule.Rule, r.Final.Accuracy, success)
		if r.Final.Accuracy < .75 {
			t.Errorf("%s: accuracy %v, want at least .75", rule.Rule, r.Final.Accuracy)
		}
		passes := rule.Rule == "" || rule.Rule == "geometric-median" || rule.Rule == "centred-clipping" || rule.Rule == "norm-bound"
		if passes && success < .9 || !passes && success > .6 {
			t.Errorf("%s: the backdoor works for %v", rule.Rule, success)
		}
	}
	r, err := Run(t.Context(), besieged(fedavg.RobustSettings{}, attack.Settings{}), RunConfig{Seed: 3})
	if err != nil || r.Final.Backdoor != nil {
		t.Errorf("%v, %v: a backdoor where nobody lies", r.Final.Backdoor, err)
	}
}

// TestEveryAttackRuns, also where a cohort is a part of the fleet and may have no liar in it, with the same model on any number
// of cores, and for strategies with more than one vector.
func TestEveryAttackRuns(t *testing.T) {
	for _, name := range attack.Attacks() {
		for _, strategy := range []string{"fedavg", "scaffold", "fednova"} {
			x := besieged(fedavg.RobustSettings{Rule: "median"}, attack.Settings{Attack: name, Share: .2})
			x.Rounds, x.Cohort.Nodes, x.Strategy.Name = 4, 5, strategy
			if strategy == "fedavg" {
				x.Privacy.Clip = .5
			}
			digests := map[string]bool{}
			for _, workers := range []int{1, 3} {
				r, err := Run(t.Context(), x, RunConfig{Seed: 1, Workers: workers})
				if err != nil {
					t.Fatalf("%s, %s: %v", name, strategy, err)
				}
				digests[r.ModelDigest] = true
			}
			if len(digests) != 1 {
				t.Errorf("%s, %s: 1 and 3 workers make models %v", name, strategy, digests)
			}
		}
	}
}

// shout sends what is no number, in one place, and more than the grid has in the others.
type shout struct{ attack.Honest }

func (shout) Forge(r *attack.Round) {
	for i, own := range r.Own {
		r.Sent[i] = make([]float64, len(own))
		for k := range own {
			r.Sent[i][k] = math.Inf(k%2*2 - 1)
		}
		r.Sent[i][0] = math.NaN()
	}
}

// mute sends nothing.
type mute struct{ attack.Honest }

func (mute) Forge(r *attack.Round) { r.Sent[0] = []float64{} }

// TestOwnAttack: whatever it sends is an update that a coordinator would accept; one that is none is an error.
func TestOwnAttack(t *testing.T) {
	x := besieged(fedavg.RobustSettings{Rule: "krum", F: 4}, attack.Settings{Nodes: 4})
	x.Own.Attack = shout{}
	r, err := Run(t.Context(), x, RunConfig{Seed: 3})
	if err != nil || r.Final.Accuracy < .8 {
		t.Errorf("accuracy %v, %v", r.Final.Accuracy, err)
	}
	x.Own.Attack = mute{}
	for _, fidelity := range []Fidelity{Math, System} {
		if _, err := Run(t.Context(), x, RunConfig{Seed: 3, Fidelity: fidelity}); err == nil || !strings.Contains(err.Error(), "the attack sends 0 coordinates, want 147") {
			t.Errorf("%v, want a refusal of nothing", err)
		}
	}
	x.Fleet.Liars.Attack = "mimic"
	if _, err := Run(t.Context(), x, RunConfig{Seed: 3}); err == nil || !strings.Contains(err.Error(), `fleet: liars: attack "mimic", and one of one's own, want one`) {
		t.Errorf("%v, want a refusal of two attacks", err)
	}
}

// TestRobustExperimentsAreRefused before round 1, with what would do.
func TestRobustExperimentsAreRefused(t *testing.T) {
	four := attack.Settings{Attack: "mimic", Nodes: 4}
	for _, c := range []struct {
		rule   fedavg.RobustSettings
		liars  attack.Settings
		change func(x *Experiment)
		want   string
	}{
		{fedavg.RobustSettings{Rule: "krum", F: 9}, four, nil, ": krum with f 9 needs 21 updates and there are 20: want f at most 8, or 21 updates"},
		{fedavg.RobustSettings{Rule: "bulyan", F: 4}, four, func(x *Experiment) { x.Cohort.Nodes = 18 }, ": bulyan with f 4 needs 19 updates and there are 18: want f at most 3, or 19 updates"},
		{fedavg.RobustSettings{Rule: "krum", F: 4, Bucket: 2}, four, nil, ": 20 updates in buckets of 2: krum with f 4 needs 11 updates and there are 10"},
		{fedavg.RobustSettings{Rule: "krum", F: 8}, four, func(x *Experiment) { x.Fleet.Dropout = .2 }, "robust: krum with f 8 needs 19 updates and there are 16"},
		{fedavg.RobustSettings{Rule: "fltrust", Root: 1001}, four, nil, "robust: root is 1001, want at most 1000, half of the examples"},
		{fedavg.RobustSettings{Rule: "fltrust"}, four, func(x *Experiment) { x.Strategy.Name = "scaffold" }, "robust: the rule trusts an update of the server's own, and the strategy has nodes that remember"},
		{fedavg.RobustSettings{}, attack.Settings{Attack: "mimic"}, nil, "fleet: liars: 0 of 20 nodes lie, want 1 to 19"},
		{fedavg.RobustSettings{}, attack.Settings{Attack: "backdoor", Nodes: 4, Target: 3}, nil, "fleet: liars: target is 3, want a class, 0 to 2"},
	} {
		x := besieged(c.rule, c.liars)
		if c.change != nil {
			c.change(&x)
		}
		if _, err := Run(t.Context(), x, RunConfig{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestRuleMissesUpdates: rounds in which too few come for the rule are skipped, and say so. Of 20 nodes each round loses one
// or two, by chance.
func TestRuleMissesUpdates(t *testing.T) {
	x := besieged(fedavg.RobustSettings{Rule: "krum", F: 8}, attack.Settings{Attack: "sign-flip", Nodes: 4})
	x.Fleet.Dropout = .07
	r, err := Run(t.Context(), x, RunConfig{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped) == 0 || len(r.Skipped) == 30 || !strings.Contains(r.Skipped[0].Reason, "krum with f 8 needs 19 updates and there are") {
		t.Errorf("%d of 30 rounds were skipped: %+v", len(r.Skipped), r.Skipped)
	}
}

// TestRuleRemembersOverABreak: what centred clipping remembers is in the snapshot.
func TestRuleRemembersOverABreak(t *testing.T) {
	x := besieged(fedavg.RobustSettings{Rule: "centred-clipping", F: 4}, attack.Settings{Attack: "alie", Nodes: 4})
	x.Rounds = 6
	var middle strings.Builder
	whole, err := Run(t.Context(), x, RunConfig{Seed: 5, Keep: func(s *Snapshot) error {
		if s.Round == 3 {
			_, err := s.WriteTo(&middle)
			return err
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	start, err := ReadSnapshot(strings.NewReader(middle.String()))
	if err != nil {
		t.Fatal(err)
	}
	rest, err := Run(t.Context(), x, RunConfig{Seed: 5, Start: start})
	if err != nil || rest.ModelDigest != whole.ModelDigest {
		t.Errorf("%s after a break, %v, want %s", rest.ModelDigest, err, whole.ModelDigest)
	}
}

// TestRootIsKeptFromNodes: the server's own examples are nobody else's.
func TestRootIsKeptFromNodes(t *testing.T) {
	trial, err := newTrial(besieged(fedavg.RobustSettings{Rule: "fltrust", Root: 150}, attack.Settings{}), RunConfig{Seed: 2})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int32]int{}
	for _, part := range append(trial.parts, trial.root) {
		for _, e := range part {
			seen[e]++
		}
	}
	if len(trial.root) != 150 || len(seen) != 2000 {
		t.Errorf("%d of %d examples are the server's, want 150 of 2000", len(trial.root), len(seen))
	}
	for e, n := range seen {
		if n != 1 {
			t.Errorf("example %d has %d holders", e, n)
		}
	}
}

// TestFLTrustHoldsAgainstMost: twelve of twenty lie, and the server's hundred examples say who does not.
func TestFLTrustHoldsAgainstMost(t *testing.T) {
	r, err := Run(t.Context(), besieged(fedavg.RobustSettings{Rule: "fltrust"}, attack.Settings{Attack: "sign-flip", Nodes: 12, Scale: 5}), RunConfig{Seed: 3})
	if err != nil || r.Final.Accuracy < .8 {
		t.Errorf("accuracy %v, %v, want at least .8", r.Final.Accuracy, err)
	}
}

// TestRobustBuiltins: the grid is whole, its names are told apart, and each of its experiments is one that can begin.
func TestRobustBuiltins(t *testing.T) {
	names := map[string]bool{}
	for _, b := range robustBuiltins() {
		names[b.Name] = true
		x := b.Experiment
		x.Own.Data = &Dataset{Train: rings(4000, 1), Test: rings(10, 2)}
		x.Partition.Alpha = max(x.Partition.Alpha, 1) // so few examples leave nodes without at .1
		if x.Partition.Kind == "iid" {
			x.Partition.Alpha = 0
		}
		if _, err := newTrial(x, RunConfig{}); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	if want := 2 * 11 * 9; len(names) != want || !names["robust-krum-alie"] || !names["robust-bucketing-mimic-dir"] || !names["robust-mean-none"] {
		t.Errorf("%d names, want %d", len(names), want)
	}
}
