package model

import "choir.example/model/kernel"

// rnnCell is the simple recurrent network (Elman 1990): h = tanh(sum).
var rnnCell = cell{sums: 1, fed: 1, forget: -1, forward: rnnForward, backward: rnnBackward}

func newRNN(l LayerSpec, in [][]int) (layer, error) { return newRecurrent(rnnCell, l, in) }

func rnnForward(s step) { kernel.Activate(s.out, s.sums, kernel.Tanh) }

func rnnBackward(s step) {
	copy(s.sums, s.dout)
	kernel.ActivationGrad(s.sums, s.out, kernel.Tanh)
}
