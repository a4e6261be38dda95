package simulate

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/simulate/attack"
)

// digests are the models of a run, round by round.
func digests(t *testing.T, x Experiment, cfg RunConfig) (series []string, r *Result) {
	t.Helper()
	cfg.Log = testLog(t)
	r, err := Run(testContext(t), x, cfg)
	if err != nil {
		t.Fatalf("%s: %v", cfg.Fidelity, err)
	}
	for _, m := range r.Series {
		series = append(series, m.ModelDigest)
	}
	return series, r
}

// Real coordinators and nodes make the models that their arithmetic alone makes, to the last bit, round by round.
func TestFidelities(t *testing.T) {
	t.Parallel()
	for _, c := range strategySettings {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			x := c.experiment()
			x.Rounds, x.Evaluation = 3, EvaluationSettings{}
			sameModels(t, x, RunConfig{Seed: 5})
		})
	}
}

// The same of every robust rule, one of which remembers, one trusts an update of the server's own, and one has bucketed updates.
func TestFidelitiesOfRules(t *testing.T) {
	t.Parallel()
	tested := []string{"mean"} // by TestFidelities
	for _, rule := range append(rulesAgainstFour, fedavg.RobustSettings{Rule: "norm-bound", F: 1}) {
		if !slices.Contains(tested, rule.Rule) {
			tested = append(tested, rule.Rule)
		}
		t.Run(rule.Rule, func(t *testing.T) {
			t.Parallel()
			x := besieged(rule, attack.Settings{})
			x.Rounds, x.Evaluation = 2, EvaluationSettings{}
			sameModels(t, x, RunConfig{Seed: 5})
		})
	}
	slices.Sort(tested)
	if rules := fedavg.Rules(); !slices.Equal(tested, rules) {
		t.Errorf("rules %v, want all of %v", tested, rules)
	}
}

// The same of every attack, each against another rule, in rounds that not all liars are drawn for or heard in.
func TestFidelitiesOfLiars(t *testing.T) {
	for i, name := range attack.Attacks() {
		rule := rulesAgainstFour[i%len(rulesAgainstFour)]
		rule.F = min(rule.F, 2)
		t.Run(name+"/"+rule.Rule, func(t *testing.T) {
			x := besieged(rule, attack.Settings{Attack: name, Nodes: 4})
			x.Rounds, x.Cohort.Nodes, x.Fleet.Dropout, x.Evaluation = 3, 15, .2, EvaluationSettings{}
			sameModels(t, x, RunConfig{Seed: 5, Workers: 2}) // fewer than liars, who wait
		})
	}
}

// sameModels runs an experiment in both fidelities and compares everything that it says of models.
func sameModels(t *testing.T, x Experiment, cfg RunConfig) {
	t.Helper()
	cfg.Fidelity = Math
	want, math := digests(t, x, cfg)
	cfg.Fidelity = System
	got, system := digests(t, x, cfg)
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("models %v, want %v", got, want)
		}
	}
	if len(got) != len(want) || !reflect.DeepEqual(system.Final, math.Final) || system.Saturated != math.Saturated {
		t.Errorf("%d rounds to %+v, want %d to %+v", len(got), system.Final, len(want), math.Final)
	}
}

// Who is there, drops out, comes too late or does fewer epochs is the experiment's.
func TestFidelitiesOfAFleet(t *testing.T) {
	t.Parallel()
	for name, fleet := range map[string]FleetSettings{
		"dropout":      {Dropout: .3},
		"late":         {Stragglers: .5},
		"partial":      {Stragglers: .5, Partial: true},
		"oversampled":  {OverSelection: .6, Speed: SpeedSettings{Examples: 100, Spread: 1}},
		"availability": {Interval: 3600, Availability: AvailabilitySettings{Day: .5, Night: .9}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := small()
			x.Local.Epochs, x.Rounds, x.Fleet = 3, 4, fleet
			sameModels(t, x, RunConfig{Seed: 2})
		})
	}
	t.Run("numpy", func(t *testing.T) {
		t.Parallel()
		x := small()
		x.Local.Epochs, x.Rounds, x.Fleet, x.Cohort.Draw = 3, 4, FleetSettings{Stragglers: .5, Partial: true, Dropout: .2}, drawByNumPy
		sameModels(t, x, RunConfig{Seed: 2})
	})
}

// Three coordinators make the model that one makes.
func TestFidelityOfThreeCoordinators(t *testing.T) {
	t.Parallel()
	x := small()
	x.Rounds, x.Fleet.Dropout = 3, .2
	sameModels(t, x, RunConfig{Seed: 4, Coordinators: 3})
}

// A run ends where its target is reached, in both fidelities.
func TestTargetEndsASystem(t *testing.T) {
	t.Parallel()
	x := small()
	x.Rounds, x.Target.Accuracy = 30, .6
	_, math := digests(t, x, RunConfig{Fidelity: Math})
	_, system := digests(t, x, RunConfig{Fidelity: System})
	if math.Rounds >= 30 || system.Rounds != math.Rounds || system.ModelDigest != math.ModelDigest {
		t.Errorf("%d rounds to %s, want %d to %s", system.Rounds, system.ModelDigest, math.Rounds, math.ModelDigest)
	}
}

// roundsClosed is a log's handler that sees the rounds that coordinators close.
type roundsClosed struct {
	slog.Handler
	last uint64
	over chan struct{} // closed with the last round
}

func (h roundsClosed) Enabled(context.Context, slog.Level) bool { return true }

func (h roundsClosed) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h roundsClosed) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if r.Message == "round is closed" && a.Key == "round" && a.Value.Uint64() == h.last {
			close(h.over)
		}
		return true
	})
	return nil
}

// A run whose target is reached in a round ends with it, though the coordinators have finished all rounds by then.
func TestTargetIsReachedBehindTheCoordinators(t *testing.T) {
	t.Parallel()
	x := small()
	x.Rounds, x.Target.Accuracy = 3, .01
	ctx, h := testContext(t), roundsClosed{slog.DiscardHandler, 3, make(chan struct{})}
	r, err := Run(ctx, x, RunConfig{Fidelity: System, Log: slog.New(h), Progress: func(Point) {
		select {
		case <-h.over:
		case <-ctx.Done():
		}
	}})
	if err != nil || r.Rounds != 1 {
		t.Errorf("%d rounds, want 1: %v", r.Rounds, err)
	}
}

// Rounds that math skips are refused by system before there is anything of the run.
func TestSystemRefusesRoundsThatWouldBeSkipped(t *testing.T) {
	x := small()
	x.Fleet = FleetSettings{Interval: 3600, Least: 5, Availability: AvailabilitySettings{Day: .2, Night: .2}}
	if r, err := Run(t.Context(), x, RunConfig{}); err != nil || len(r.Skipped) == 0 {
		t.Fatalf("math skips %v: %v", r.Skipped, err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	r, err := Run(t.Context(), x, RunConfig{Fidelity: System, Dir: dir})
	if _, none := os.Stat(dir); r != nil || err == nil || !strings.Contains(err.Error(), "would be skipped: ") || !errors.Is(none, fs.ErrNotExist) {
		t.Errorf("%+v, %v; in the directory: %v", r, err, none)
	}
}
