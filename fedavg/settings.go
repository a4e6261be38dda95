package fedavg

import (
	"cmp"
	"fmt"
	"math"
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
	Epochs       int             `json:"epochs,omitempty" yaml:"epochs" usual:"1"`                 // passes over its examples a round; usually 1
	Batch        int             `json:"batch,omitempty" yaml:"batch" usual:"32"`                  // examples of a step; usually 32
	LearningRate float64         `json:"learning_rate,omitempty" yaml:"learning_rate" usual:"0.1"` // usually 0.1
	Optimiser    model.Optimiser `json:"optimiser" yaml:"optimiser"`
	Schedule     model.Schedule  `json:"schedule" yaml:"schedule"`
	Clip         float64         `json:"clip,omitempty" yaml:"clip"` // L2 norm of a batch's gradient; 0: none
}

// Usual is s with the usual value in the place of each that is not given.
func (s LocalSettings) Usual() LocalSettings {
	s.Epochs, s.Batch, s.LearningRate = cmp.Or(s.Epochs, 1), cmp.Or(s.Batch, 32), cmp.Or(s.LearningRate, 0.1)
	return s
}

// check names the number that cannot be, with the bounds that files have: a 0 is the usual value there.
func (s LocalSettings) check() error {
	switch s = s.Usual(); {
	case s.Epochs < 1:
		return fmt.Errorf("epochs is %d, want at least 1", s.Epochs)
	case !(s.LearningRate > 0) || math.IsInf(s.LearningRate, 0):
		return fmt.Errorf("learning_rate is %v, want above 0 and finite", s.LearningRate)
	case !(s.Clip >= 0) || math.IsInf(s.Clip, 0):
		return fmt.Errorf("clip is %v, want a finite norm above 0, or 0 for none", s.Clip)
	}
	return nil
}

// Compression says how a delta becomes integers.
type Compression struct {
	Range    float64 `json:"range,omitempty" yaml:"range" usual:"4"` // largest magnitude of a coordinate that is kept; usually 4
	Bits     int     `json:"bits,omitempty" yaml:"bits" usual:"24"`  // of a coordinate, 2 to 24; usually 24. It is sent in whole bytes
	Rounding string  `json:"rounding,omitempty" yaml:"rounding"`     // nearest, the usual, or stochastic
}

// Usual is c with the usual value in the place of each that is not given.
func (c Compression) Usual() Compression {
	c.Range, c.Bits = cmp.Or(c.Range, 4), cmp.Or(c.Bits, 24)
	return c
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

// check names the setting that cannot be. No update but zero is within a clip norm below one step of the grid, and none at
// all would be the opposite of what was asked.
func (p Privacy) check(g codec.Grid) error {
	switch {
	case p.Mechanism != "" && p.Mechanism != "none":
		return fmt.Errorf("privacy: mechanism %.40q, want none", p.Mechanism)
	case !(p.Clip >= 0 && p.Clip <= 1e9):
		return fmt.Errorf("privacy: clip is %v, want 0, for none, to 1e+09", p.Clip)
	case p.Clip > 0 && p.Clip < g.Step():
		return fmt.Errorf("privacy: clip is %v, want at least one step of the grid, %v, or 0 for none", p.Clip, g.Step())
	}
	return nil
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
	local := s.Local.Usual()
	a := &Algorithm{
		Batch: local.Batch, Stochastic: s.Compression.Rounding == "stochastic", Clip: s.Privacy.Clip, WeightCap: MaxWeight,
		Local: model.TrainConfig{
			Epochs: local.Epochs, Rate: local.LearningRate, Optimiser: local.Optimiser, Schedule: local.Schedule, Clip: local.Clip,
		},
	}
	if a.Network, err = spec.Compile(); err != nil {
		return nil, fmt.Errorf("architecture: %w", err)
	}
	if a.Grid, err = s.Compression.grid(); err != nil {
		return nil, err
	}
	if err := s.Privacy.check(a.Grid); err != nil {
		return nil, err
	}
	if a.Strategy, err = s.Strategy.Strategy(); err != nil {
		return nil, err
	}
	if a.Rule, err = s.Robust.rule(a.Grid.Step()); err != nil {
		return nil, err
	}
	if err := cmp.Or(s.Local.check(), a.Network.CheckBatch(a.Batch), a.Local.Validate()); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	return a, a.Check()
}
