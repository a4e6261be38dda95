package simulate

import (
	"fmt"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/partition"
)

// fedproxSource is where the experiments with stragglers are from.
const fedproxSource = "Li et al. 2020, FedProx, §5.1: 30 devices, 10 a round, E = 20, B = 10, rate .01; FedAvg drops stragglers, FedProx with μ = 1 keeps what they did"

// fedproxFound is the accuracy in percent that a program in numpy found on the same data: the mean over every tenth of the
// last 40 of 100 rounds and seeds 0 to 2; 0: not measured. Shares of stragglers are 0, .5 and .9.
var fedproxFound = []struct {
	short, row string
	data       DataSettings
	fedavg     [3]float64
	fedprox    [3]float64
}{
	{"iid", "IID", DataSettings{IID: true}, [3]float64{88.3, 86.9, 80.7}, [3]float64{0, 64.9, 64.4}},
	{"0-0", "(0, 0)", DataSettings{}, [3]float64{65.8, 66.2, 56.6}, [3]float64{0, 74.8, 74.8}},
	{"1-1", "(1, 1)", DataSettings{Alpha: 1, Beta: 1}, [3]float64{80.8, 82.6, 62.8}, [3]float64{0, 86.6, 86.0}},
}

// fedproxBuiltins are devices that do not manage all epochs, with and without FedProx. Without data.path the data are made
// up by choir from the run's seed, by the recipe of the paper; other draws than numpy's. Devices and
// stragglers are those of the paper's program.
func fedproxBuiltins() (all []Builtin) {
	for _, row := range fedproxFound {
		for i, share := range []float64{0, .5, .9} {
			for _, s := range []fedavg.StrategySettings{{Name: "fedavg"}, {Name: "fedprox", Mu: 1}} {
				data := row.data
				data.Name = "fedprox-synthetic"
				percent, found := int(100*share), row.fedavg[i]
				if s.Name == "fedprox" {
					found = row.fedprox[i]
				}
				b := Builtin{
					Experiment: Experiment{
						Name: fmt.Sprintf("fedprox-synthetic-%s-%d-%s", row.short, percent, s.Name), Source: fedproxSource,
						Data: data, Partition: partition.Settings{Kind: "natural", Nodes: 30}, Architecture: model.Architecture{Name: "logistic"}, Strategy: s,
						Fleet:  FleetSettings{Stragglers: share, Partial: share > 0 && s.Name == "fedprox"},
						Local:  fedavg.LocalSettings{Epochs: 20, Batch: 10, LearningRate: .01},
						Cohort: CohortSettings{Nodes: 10, Draw: drawByNumPy}, Rounds: 100, Seeds: []uint64{0, 1, 2},
					},
					Table: "FedProx " + row.row, Row: fmt.Sprintf("%d %% stragglers", percent), Column: s.Name,
				}
				if found > 0 {
					b.Expected = []Expected{onAverage(found/100, []int{60, 70, 80, 90, 100}, "numpy, its own draws of data, seeds 0 to 2")}
				} else {
					b.Expected = []Expected{claim("nobody straggles here: it is for comparison with the rows that have stragglers")}
				}
				all = append(all, b)
			}
		}
	}
	return all
}
