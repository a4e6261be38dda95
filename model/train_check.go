package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"choir.example/model/kernel"
)

// What training refuses, for callers that branch on it.
var (
	ErrEmpty    = errors.New("there are no examples")
	ErrTarget   = errors.New("target out of range")
	ErrNaN      = errors.New("a value is not finite")
	ErrDiverged = errors.New("training diverged; lower the learning rate")
)

// divergedError says where numbers stopped being finite.
type divergedError struct{ text string }

func (e *divergedError) Error() string { return e.text + ": " + ErrDiverged.Error() }
func (e *divergedError) Unwrap() error { return ErrDiverged }

// check refuses what does not fit the network. Whether x and params are finite shows in the loss: looking costs a tenth
// of a small training, so it is done when that is not finite.
func (t *Trainer) check(params, x, y []float32, cfg *TrainConfig) (examples int, err error) {
	n := t.network
	examples = len(x) / n.Inputs()
	switch {
	case len(params) != n.Size():
		return 0, fmt.Errorf("%d parameters, want %d", len(params), n.Size())
	case len(x) != examples*n.Inputs() || len(y) != examples*n.Targets():
		return 0, fmt.Errorf("%d values and %d targets, want %d and %d an example", len(x), len(y), n.Inputs(), n.Targets())
	case examples == 0:
		return 0, ErrEmpty
	case examples > math.MaxInt32:
		return 0, fmt.Errorf("%d examples, at most 2^31-1", examples)
	}
	if err := cfg.Validate(); err != nil {
		return 0, err
	}
	for i, v := range y {
		if !n.loss.accepts(v) {
			return 0, fmt.Errorf("example %d: target %v, want %s: %w", i/n.Targets(), v, n.loss.wants(), ErrTarget)
		}
	}
	return examples, t.checkIDs(x)
}

// explain is why a training that ended with err, or with parameters that are not finite, did so: what was not finite
// before it began comes first. It is nil if nothing is wrong.
func (t *Trainer) explain(err error, params, x []float32, done Training) error {
	if err == nil && t.notFinite(params) < 0 {
		return nil
	}
	if i := t.notFinite(t.before); i >= 0 {
		return fmt.Errorf("%s is %v before the first step: %w", t.network.parameter(i), t.before[i], ErrNaN)
	}
	if i := notFinite(x); i >= 0 {
		w := t.network.Inputs()
		return fmt.Errorf("example %d: value %d is %v: %w", i/w, i%w, x[i], ErrNaN)
	}
	if err != nil {
		return err
	}
	i := t.notFinite(params)
	return &divergedError{fmt.Sprintf("%s is %v after %d steps", t.network.parameter(i), params[i], done.Steps)}
}

// notFinite is the index of the first touched parameter that is NaN or infinite; -1 if there is none.
func (t *Trainer) notFinite(params []float32) int {
	for _, r := range t.touched {
		if part := params[r.From:r.To]; !Finite(part) {
			return r.From + notFinite(part)
		}
	}
	return -1
}

// parameter names one of the flat parameters.
func (n *Network) parameter(i int) string {
	for _, t := range n.Tensors() {
		if i < t.Offset+t.Len() {
			return fmt.Sprintf("parameter %d of %s", i-t.Offset, t.Name)
		}
	}
	return fmt.Sprintf("parameter %d", i)
}

// Finite reports whether every value is a finite number.
func Finite(x []float32) bool {
	top := kernel.MaxAbs(x)
	return top-top == 0
}

// notFinite is the index of the first value that is NaN or infinite, -1 if there is none.
func notFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return v-v != 0 })
}
