package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// rings is a small problem that a perceptron learns and a line does not: three classes by the distance from the middle.
func rings(n int, seed uint64) data.Set {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := data.Set{Input: []int{2}, Targets: 1, Classes: 3}
	for range n {
		x, y := 2*rng.Float64()-1, 2*rng.Float64()-1
		s.X = append(s.X, float32(x), float32(y))
		s.Y = append(s.Y, float32(min(int(3*math.Hypot(x, y)/1.2), 2)))
	}
	return s
}

// small is an experiment of a second's tenth.
func small() Experiment {
	return Experiment{
		Name: "small", Architecture: model.Architecture{Name: "mlp", Hidden: []int{16}}, Rounds: 5,
		Local: fedavg.LocalSettings{Epochs: 2, Batch: 10, LearningRate: .2}, Partition: partition.Settings{Nodes: 8},
		Cohort: CohortSettings{Nodes: 5}, Evaluation: EvaluationSettings{RoundsTo: []float64{.1, .99}},
		Own: Own{Data: &Dataset{Train: rings(800, 1), Test: rings(1100, 2)}},
	}
}

func TestRunLearns(t *testing.T) {
	x := small()
	x.Rounds = 40
	r, err := Run(t.Context(), x, RunConfig{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if r.Final.Accuracy < .85 || r.Final.Loss > .5 {
		t.Errorf("accuracy %v and loss %v after 40 rounds, want at least .85 and at most .5", r.Final.Accuracy, r.Final.Loss)
	}
	if first := r.Series[0]; len(r.Series) != 40 || r.RoundsTo["0.10"] != 1 || first.Round != 1 || first.Accuracy >= r.Final.Accuracy {
		t.Errorf("%d rounds, .1 at %d, first %+v, final %+v", len(r.Series), r.RoundsTo["0.10"], first, r.Final)
	}
	if last := r.Series[39]; last.ModelDigest != r.ModelDigest || last.Measured != r.Final {
		t.Errorf("last round %+v, result %s %+v", last, r.ModelDigest, r.Final)
	}
}

// How many cores there are decides how long it takes, and nothing else.
func TestSameSeedSameModel(t *testing.T) {
	digests := map[string]int{}
	for _, c := range []RunConfig{{Seed: 1, Workers: 1}, {Seed: 1, Workers: 2}, {Seed: 1, Workers: 7}, {Seed: 2}} {
		r, err := Run(t.Context(), small(), c)
		if err != nil {
			t.Fatal(err)
		}
		digests[r.ModelDigest]++
	}
	if len(digests) != 2 {
		t.Errorf("two seeds gave models %v", digests)
	}
}

// The test set is measured in chunks by many cores; the metrics over all of it at once say the same.
func TestMeasured(t *testing.T) {
	for _, classes := range []int{1, 3} {
		x := small()
		if classes == 1 {
			for _, s := range []*data.Set{&x.Own.Data.Train, &x.Own.Data.Test} {
				s.Classes = 1
				for i := range s.Y {
					s.Y[i] = min(s.Y[i], 1)
				}
			}
		}
		trial, err := newTrial(x, RunConfig{})
		if err != nil {
			t.Fatal(err)
		}
		network, test := trial.algorithm.Network, &trial.data.Test
		params := network.Initial(5)
		out := make([]float32, test.Len()*classes)
		model.NewPredictor(network, params).Predict(test.X, out)
		accuracy, err := model.Accuracy(out, classes, test.Y)
		if err != nil {
			t.Fatal(err)
		}
		loss, err := model.LogLoss(out, classes, test.Y)
		if err != nil {
			t.Fatal(err)
		}
		got := trial.measure(params)
		if math.Abs(got.Accuracy-accuracy) > 1e-12 || math.Abs(got.Loss-loss) > 1e-6 {
			t.Errorf("%d classes: %+v, want accuracy %v and loss %v", classes, got, accuracy, loss)
		}
	}
}

func TestTargetEndsARun(t *testing.T) {
	x := small()
	x.Rounds, x.Target.Accuracy = 100, .7
	r, err := Run(t.Context(), x, RunConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds >= 100 || r.Final.Accuracy < .7 {
		t.Errorf("%d rounds to %v, want fewer than 100 to .7", r.Rounds, r.Final.Accuracy)
	}
}

// Every third round is measured, and the last.
func TestEvaluationEvery(t *testing.T) {
	x := small()
	x.Evaluation.Every = 3
	r, err := Run(t.Context(), x, RunConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var rounds []int
	for _, m := range r.Series {
		rounds = append(rounds, m.Round)
	}
	if !reflect.DeepEqual(rounds, []int{3, 5}) {
		t.Errorf("rounds %v were measured, want 3 and 5", rounds)
	}
}

func TestExperimentsAreRefused(t *testing.T) {
	for _, c := range []struct {
		change func(*Experiment)
		want   string
	}{
		{func(x *Experiment) { x.Rounds = -1 }, "rounds: -1, want 1 to 1000000"},
		{func(x *Experiment) { x.Target.Accuracy = 80 }, "target: accuracy is 80, want 0 to 1"},
		{func(x *Experiment) { x.Evaluation.Every = -2 }, "evaluation: every is -2, want 1 to"},
		{func(x *Experiment) { x.Evaluation.RoundsTo = []float64{.5, 75} }, "evaluation: rounds_to has 75, want accuracies"},
		{func(x *Experiment) { x.Cohort.Nodes = 9 }, "cohort: nodes is 9, want 1 to 8, the fleet"},
		{func(x *Experiment) { x.Cohort.Share = .5 }, "cohort: both nodes, 5, and share, 0.5: want one of them"},
		{func(x *Experiment) { x.Cohort = CohortSettings{Share: 2} }, "cohort: share is 2, want above 0 and at most 1"},
		{func(x *Experiment) { x.Cohort.Draw, x.Fleet.Stragglers = "numpy", .9 }, "stragglers of 0.9 leave nobody of 5 who is heard"},
		{func(x *Experiment) { x.Cohort.Draw = "lots" }, `cohort: draw is "lots", want seed or numpy`},
		{func(x *Experiment) { x.Partition.Nodes = 801 }, "801 nodes for 800 examples, want 1 to 800"},
		{func(x *Experiment) { x.Partition.Kind = "fair" }, `kind "fair": want one of`},
		{func(x *Experiment) { x.Own.Data, x.Data.Name = nil, "imagenet" }, `name "imagenet": want one of`},
		{func(x *Experiment) { x.Architecture = model.Architecture{} }, "want a name or layers"},
	} {
		x := small()
		c.change(&x)
		_, err := Run(t.Context(), x, RunConfig{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if before := Check(x, RunConfig{}); fmt.Sprint(before) != fmt.Sprint(err) {
			t.Errorf("%v when it is run, %v before", err, before)
		}
	}
}

// A level is written with two digits, and two that differ never alike.
func TestLevels(t *testing.T) {
	for a, want := range map[float64]string{.8: "0.80", .97: "0.97", 1: "1.00", .875: "0.875", .8001: "0.8001", .29: "0.29"} {
		if got := levelKey(a); got != want {
			t.Errorf("%v is written %s, want %s", a, got, want)
		}
	}
}
