package fedavg

import (
	"cmp"
	"fmt"
	"slices"

	"choir.example/model"
	"choir.example/model/codec"
)

// Settings are an algorithm as job and experiment files write it, section by section. The zero value of a field is its
// usual value.
type Settings struct {
	Architecture model.Architecture `json:"architecture" yaml:"architecture"`
	Local        LocalSettings      `json:"local" yaml:"local"`
	Strategy     StrategySettings   `json:"strategy" yaml:"strategy"`
	Robust       RobustSettings     `json:"robust" yaml:"robust"`
	Compression  Compression        `json:"compression" yaml:"compression"`
	Privacy      Privacy            `json:"privacy" yaml:"privacy"`
}

// LocalSettings say how a node trains.
type LocalSettings struct {
	Epochs       int             `json:"epochs,omitempty" yaml:"epochs"`               // passes over its examples a round; usually 1
	Batch        int             `json:"batch,omitempty" yaml:"batch"`                 // examples of a step; usually 32
	LearningRate float64         `json:"learning_rate,omitempty" yaml:"learning_rate"` // usually 0.1
	Optimiser    model.Optimiser `json:"optimiser" yaml:"optimiser"`
	Schedule     model.Schedule  `json:"schedule" yaml:"schedule"`
	Clip         float64         `json:"clip,omitempty" yaml:"clip"` // L2 norm of a batch's gradient; 0: none
}

// Compression says how a delta becomes integers.
type Compression struct {
	Range    float64 `json:"range,omitempty" yaml:"range"`       // largest magnitude of a coordinate that is kept; usually 4
	Bits     int     `json:"bits,omitempty" yaml:"bits"`         // of a coordinate, 2 to 24; usually 24. It is sent in whole bytes
	Rounding string  `json:"rounding,omitempty" yaml:"rounding"` // nearest, the usual, or stochastic
}

// grid is the grid that the settings describe.
func (c Compression) grid() (codec.Grid, error) {
	g := codec.Grid{Range: cmp.Or(c.Range, 4), Bits: c.Bits}
	switch {
	case !(g.Range >= 1e-6 && g.Range <= 1e6):
		return g, fmt.Errorf("compression: range is %v, want 1e-06 to 1e+06", c.Range)
	case c.Bits != 0 && (c.Bits < 2 || c.Bits > 24):
		return g, fmt.Errorf("compression: bits is %d, want 2 to 24", c.Bits)
	case c.Rounding != "" && c.Rounding != "nearest" && c.Rounding != "stochastic":
		return g, fmt.Errorf("compression: rounding %.40q, want nearest or stochastic", c.Rounding)
	}
	return g, nil
}

// Privacy says what protects a node's update.
type Privacy struct {
	Mechanism string  `json:"mechanism,omitempty" yaml:"mechanism"` // none
	Clip      float64 `json:"clip,omitempty" yaml:"clip"`           // L2 norm of an update; 0: not clipped
}

func sorted[V any](table map[string]V) []string {
	var names []string
	for name := range table {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Algorithm makes the algorithm for examples of the input's shape and that many outputs; ids are as model.Named takes
// them. Its errors name the field as files write it.
func (s *Settings) Algorithm(input []int, outputs int, ids ...int) (*Algorithm, error) {
	spec, err := s.Architecture.Spec(input, outputs, ids...)
	if err != nil {
		return nil, err
	}
	a := &Algorithm{
		Batch: cmp.Or(s.Local.Batch, 32), Stochastic: s.Compression.Rounding == "stochastic", Clip: s.Privacy.Clip, WeightCap: MaxWeight,
		Local: model.TrainConfig{
			Epochs: cmp.Or(s.Local.Epochs, 1), Rate: cmp.Or(s.Local.LearningRate, 0.1), Optimiser: s.Local.Optimiser,
			Schedule: s.Local.Schedule, Clip: s.Local.Clip,
		},
	}
	if a.Network, err = spec.Compile(); err != nil {
		return nil, fmt.Errorf("architecture: %w", err)
	}
	if a.Grid, err = s.Compression.grid(); err != nil {
		return nil, err
	}
	if a.Strategy, err = s.Strategy.Strategy(); err != nil {
		return nil, err
	}
	if a.Rule, err = s.Robust.rule(a.Grid.Step()); err != nil {
		return nil, err
	}
	return a, a.Check()
}
