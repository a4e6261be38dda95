package fedavg

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"choir.example/model"
)

// ErrServerDiverged is a step of the server that came to numbers which are not finite, whatever the nodes sent. Such an error is
// a model.ErrDiverged, too.
var ErrServerDiverged error = serverDiverged{}

type serverDiverged struct{}

func (serverDiverged) Error() string { return "the server's step diverged; lower its learning rate" }

func (serverDiverged) Is(target error) bool { return target == model.ErrDiverged }

// serverError is an error of Strategy.Server, who may train a model, too: its learning rate is another than the nodes'.
func serverError(err error) error {
	if !errors.Is(err, model.ErrDiverged) || errors.Is(err, ErrServerDiverged) {
		return err
	}
	return fmt.Errorf("%s: %w", strings.TrimSuffix(err.Error(), ": "+model.ErrDiverged.Error()), ErrServerDiverged)
}

// checkStep refuses a next model, or a state of the server's, that is not finite: nobody could train it, or keep it.
func (a *Algorithm) checkStep(next []float32, state [][]float32) error {
	if i := notFinite(next); i >= 0 {
		what := fmt.Sprintf("parameter %d", i)
		for _, t := range a.Network.Tensors() {
			if i >= t.Offset && i < t.Offset+t.Len() {
				what = fmt.Sprintf("parameter %d of %s", i-t.Offset, t.Name)
			}
		}
		return fmt.Errorf("%s would be %v: %w", what, next[i], ErrServerDiverged)
	}
	for k, v := range state {
		if i := notFinite(v); i >= 0 {
			return fmt.Errorf("coordinate %d of vector %d of the server's state would be %v: %w", i, k, v[i], ErrServerDiverged)
		}
	}
	return nil
}

// notFinite is the index of the first value that is NaN or infinite, -1 if there is none.
func notFinite(x []float32) int {
	if model.Finite(x) {
		return -1
	}
	return slices.IndexFunc(x, func(v float32) bool { return v-v != 0 })
}
