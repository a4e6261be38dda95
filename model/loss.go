package model

import (
	"fmt"
	"math"
	"strings"
)

// loss is what training lowers: the mean over the examples, and over the positions of a sequence.
type loss interface {
	targets() int // values of y that belong to one example
	// accepts reports whether a target is one; wants says which are.
	accepts(y float32) bool
	wants() string
	// gradient writes the gradient of the mean loss of n examples with respect to out to dout, and returns that mean.
	gradient(n int, out, y, dout []float32) float64
}

// losses is the table of losses; each takes the shape of one example's output.
var losses = map[string]func(shape []int) (loss, error){
	"hinge":    newHinge,
	"logistic": newLogistic,
	"softmax":  newSoftmax,
	"squared":  newSquared,

	"soft-labels": newSoftLabels,

	"squared-hinge": newSquaredHinge,

	"bpr":             newBPR,
	"sampled-softmax": newSampledSoftmax,
}

// Losses lists the losses by name.
func Losses() []string { return sortedNames(losses) }

func newLoss(name string, shape []int) (loss, error) {
	build, ok := losses[name]
	if !ok {
		return nil, fmt.Errorf("%.40q, want one of %s", name, strings.Join(Losses(), ", "))
	}
	l, err := build(shape)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// classes is the table entry "whole numbers below the number of classes".
type classes int

func (c classes) accepts(y float32) bool {
	return y >= 0 && y < float32(c) && y == float32(math.Trunc(float64(y)))
}

func (c classes) wants() string { return fmt.Sprintf("a class, 0 to %d", int(c)-1) }
