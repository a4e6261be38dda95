package simulate

import (
	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/attack"
	"choir.example/simulate/partition"
)

// Experiment is a federation that need not exist: which data, dealt to which nodes, that learn together in which way. It is
// plain data, as experiment files write it; the zero value of a field is its usual value. The sections of the algorithm are
// those of a job file.
type Experiment struct {
	Name   string `json:"name" yaml:"name"`
	Source string `json:"source,omitempty" yaml:"source"` // where its settings come from

	Data      DataSettings       `json:"data" yaml:"data"`
	Partition partition.Settings `json:"partition" yaml:"partition"`
	Fleet     FleetSettings      `json:"fleet" yaml:"fleet"`

	Architecture model.Architecture      `json:"architecture" yaml:"architecture"`
	Local        fedavg.LocalSettings    `json:"local" yaml:"local"`
	Strategy     fedavg.StrategySettings `json:"strategy" yaml:"strategy"`
	Robust       fedavg.RobustSettings   `json:"robust" yaml:"robust"`
	Compression  fedavg.Compression      `json:"compression" yaml:"compression"`
	Privacy      fedavg.Privacy          `json:"privacy" yaml:"privacy"`

	Rounds     int                `json:"rounds,omitempty" yaml:"rounds" usual:"20"` // at most; usually 20
	Cohort     CohortSettings     `json:"cohort" yaml:"cohort"`
	Target     Target             `json:"target" yaml:"target"`
	Evaluation EvaluationSettings `json:"evaluation" yaml:"evaluation"`
	Seeds      []uint64           `json:"seeds,omitempty" yaml:"seeds"` // usually 0 alone

	// Own parts, in place of those that settings name: for programs, not for files.
	Own Own `json:"-" yaml:"-"`
}

// Own are parts of an experiment that choir does not have. A part that is nil is the one that the settings name.
type Own struct {
	Strategy  fedavg.Strategy
	Rule      fedavg.Rule
	Partition partition.Partitioner
	Attack    attack.Attack // of those that fleet: liars counts
	Data      *Dataset
}

// CohortSettings say how many nodes take part in a round, and how they are drawn.
type CohortSettings struct {
	Nodes int     `json:"nodes,omitempty" yaml:"nodes" usual:"the share's, or the whole fleet"`                                            // so many; usually by the share
	Share float64 `json:"share,omitempty" yaml:"share" usual:"the whole fleet (McMahan's C = 0, one node a round, is cohort: {nodes: 1})"` // of the fleet, at least one node; usually all of them
	Draw  string  `json:"draw,omitempty" yaml:"draw"`                                                                                      // seed: follows from the run's seed, as in a federation (usual); numpy: as the programs of FedProx and LEAF draw, the same nodes under every seed
}

// Target ends a run early.
type Target struct {
	Accuracy float64 `json:"accuracy,omitempty" yaml:"accuracy"` // on the test set; 0: none
}

// EvaluationSettings say when the model is measured on the test set.
type EvaluationSettings struct {
	Every    int       `json:"every,omitempty" yaml:"every" usual:"1"`     // rounds; usually 1. The last round is always measured
	RoundsTo []float64 `json:"rounds_to,omitempty" yaml:"rounds_to"`       // accuracies whose first round is told
	Average  int       `json:"average,omitempty" yaml:"average" usual:"1"` // last rounds over which reports average, where single ones jump; usually 1

	Personal PersonalSettings `json:"personal" yaml:"personal"`
}

// settings are the sections of the algorithm.
func (x *Experiment) settings() *fedavg.Settings {
	return &fedavg.Settings{
		Architecture: x.Architecture, Local: x.Local, Strategy: x.Strategy, Robust: x.Robust, Compression: x.Compression, Privacy: x.Privacy,
	}
}
