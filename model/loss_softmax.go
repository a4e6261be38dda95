package model

import (
	"fmt"

	"choir.example/model/kernel"
)

// softmax is the cross entropy of one class among many, at every position; a target is the class's index.
type softmax struct {
	classes
	positions int
}

func newSoftmax(shape []int) (loss, error) {
	last := len(shape) - 1
	if shape[last] < 2 {
		return nil, fmt.Errorf("%d output, want at least two classes", shape[last])
	}
	return softmax{classes(shape[last]), values(shape[:last])}, nil
}

func (l softmax) targets() int { return l.positions }

func (l softmax) gradient(n int, out, y, dout []float32) float64 {
	copy(dout, out)
	rows := n * l.positions
	return kernel.SoftmaxCrossEntropy(dout, y, rows, int(l.classes), 1/float32(rows)) / float64(rows)
}
