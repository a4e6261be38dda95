package simulate

import "testing"

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
	for _, c := range strategySettings {
		t.Run(c.Name, func(t *testing.T) {
			x := c.experiment()
			x.Rounds, x.Evaluation = 3, EvaluationSettings{}
			sameModels(t, x, RunConfig{Seed: 5})
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
	if len(got) != len(want) || system.Final != math.Final || system.Saturated != math.Saturated {
		t.Errorf("%d rounds to %+v, want %d to %+v", len(got), system.Final, len(want), math.Final)
	}
}
