package model

import (
	"fmt"
	"math"
)

// Schedule says how the learning rate changes while training. The zero value leaves it.
type Schedule struct {
	Kind   string  `json:"kind,omitempty" yaml:"kind"`     // constant or empty, step, cosine
	Every  int     `json:"every,omitempty" yaml:"every"`   // of step: after so many epochs
	Factor float64 `json:"factor,omitempty" yaml:"factor"` // it is multiplied by this, in (0, 1]
	Warmup int     `json:"warmup,omitempty" yaml:"warmup"` // steps of the optimiser over which it rises evenly, with any kind
}

// Validate names the setting that is out of range.
func (s Schedule) Validate() error {
	switch {
	case s.Kind != "" && s.Kind != "constant" && s.Kind != "step" && s.Kind != "cosine":
		return fmt.Errorf("schedule %.40q, want constant, step or cosine", s.Kind)
	case s.Warmup < 0:
		return fmt.Errorf("schedule: warmup %d, want at least 0", s.Warmup)
	case s.Kind == "step" && s.Every < 1:
		return fmt.Errorf("schedule: every %d, want at least 1", s.Every)
	case s.Kind == "step" && !(s.Factor > 0 && s.Factor <= 1):
		return fmt.Errorf("schedule: factor %v, want above 0 and at most 1", s.Factor)
	case s.Kind != "step" && (s.Every != 0 || s.Factor != 0):
		return fmt.Errorf("schedule: every and factor belong to step")
	}
	return nil
}

// at is what the rate is multiplied by in a step, counted from 0, of all and of an epoch's.
func (s Schedule) at(step, all, perEpoch int) float64 {
	factor := 1.0
	switch s.Kind {
	case "step":
		factor = math.Pow(s.Factor, float64(step/perEpoch/s.Every))
	case "cosine": // to nearly 0 at the end (Loshchilov and Hutter 2017, §3, without restarts)
		done := float64(max(step-s.Warmup, 0)) / float64(max(all-s.Warmup, 1))
		factor = (1 + math.Cos(math.Pi*done)) / 2
	}
	if step < s.Warmup {
		factor *= float64(step+1) / float64(s.Warmup)
	}
	return factor
}
