package simulate

import (
	"testing"

	"choir.example/fedavg"
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
	for name, change := range map[string]func(*Experiment){
		"fedavg":  func(x *Experiment) {},
		"fedprox": func(x *Experiment) { x.Strategy = fedavg.StrategySettings{Name: "fedprox", Mu: .1} },
	} {
		t.Run(name, func(t *testing.T) {
			x := small()
			x.Rounds = 3
			change(&x)
			want, math := digests(t, x, RunConfig{Seed: 5, Fidelity: Math})
			got, system := digests(t, x, RunConfig{Seed: 5, Fidelity: System})
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					t.Fatalf("models %v, want %v", got, want)
				}
			}
			if len(got) != 3 || system.Final != math.Final || system.Saturated != math.Saturated {
				t.Errorf("%d rounds to %+v, want 3 to %+v", len(got), system.Final, math.Final)
			}
		})
	}
}
