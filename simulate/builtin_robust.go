package simulate

import (
	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/attack"
	"choir.example/simulate/partition"
)

// robustSource is where the grid of rules and attacks is from: settings of our own, rules and attacks of their papers.
const robustSource = "20 nodes of which 4 lie, as usual in comparisons of rules (such as Karimireddy et al. 2022, §6)"

// robustRules are the rows of the table: the mean, and rules that hold with 4 liars of 20.
func robustRules() []fedavg.RobustSettings {
	const f = 4
	rules := []fedavg.RobustSettings{{}}
	for _, name := range []string{
		"median", "trimmed-mean", "krum", "multi-krum", "bulyan", "geometric-median", "centred-clipping", "norm-bound",
	} {
		rules = append(rules, fedavg.RobustSettings{Rule: name, F: f})
	}
	return append(rules, fedavg.RobustSettings{Rule: "fltrust"}, fedavg.RobustSettings{Rule: "median", F: f, Bucket: 2})
}

// robustName is a row's name.
func robustName(s fedavg.RobustSettings) string {
	switch {
	case s.Bucket > 1:
		return "bucketing"
	case s.Rule == "":
		return "mean"
	}
	return s.Rule
}

// robustAttacks are the columns: an honest fleet, and four liars who do all the same. ALIE's deviations are those of its
// paper's experiments, which have more liars; the scale of sign-flip is such that four outweigh sixteen.
func robustAttacks() []attack.Settings {
	const liars = 4
	return []attack.Settings{
		{},
		{Attack: "label-flip", Nodes: liars},
		{Attack: "sign-flip", Nodes: liars, Scale: 5},
		{Attack: "alie", Nodes: liars, Scale: 1.5},
		{Attack: "inner-product", Nodes: liars, Scale: .5},
		{Attack: "min-max", Nodes: liars},
		{Attack: "gaussian", Nodes: liars},
		{Attack: "mimic", Nodes: liars},
		{Attack: "backdoor", Nodes: liars, Scale: 5},
	}
}

// robustBuiltins are all rules against all attacks, robust-RULE-ATTACK with examples dealt at random, and
// robust-RULE-ATTACK-dir where nodes have unlike labels. The attack of the honest fleet is none.
func robustBuiltins() []Builtin {
	var all []Builtin
	for _, deal := range []struct {
		suffix, table string
		partition     partition.Settings
	}{
		{"", "rules and attacks, IID", partition.Settings{Kind: "iid", Nodes: 20}},
		{"-dir", "rules and attacks, Dirichlet .1", partition.Settings{Kind: "dirichlet", Nodes: 20, Alpha: .1}},
	} {
		for _, rule := range robustRules() {
			for _, liars := range robustAttacks() {
				column := liars.Attack
				if column == "" {
					column = "none"
				}
				all = append(all, Builtin{
					Experiment: Experiment{
						Name: "robust-" + robustName(rule) + "-" + column + deal.suffix, Source: robustSource,
						Data: DataSettings{Name: "fashion-mnist"}, Partition: deal.partition, Fleet: FleetSettings{Liars: liars},
						Architecture: model.Architecture{Name: "mlp", Hidden: []int{100}},
						Local:        fedavg.LocalSettings{Epochs: 1, Batch: 32, LearningRate: .1},
						Robust:       rule, Rounds: 30, Evaluation: EvaluationSettings{Every: 5},
					},
					Expected: []Expected{claim("as far as the rule holds, nearly the accuracy of robust-mean-none" + deal.suffix + "; robust-mean-ATTACK shows what the attack does to the mean")},
					Table:    deal.table, Row: robustName(rule), Column: column,
				})
			}
		}
	}
	return all
}
