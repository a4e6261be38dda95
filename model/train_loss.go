package model

import "fmt"

// Loss is the mean loss of params on examples, without dropout and without a step. It refuses what Train refuses, and
// writes to neither.
func (t *Trainer) Loss(params, x, y []float32) (float64, error) {
	examples, err := t.check(params, x, y, &TrainConfig{})
	if err != nil {
		return 0, fmt.Errorf("loss: %w", err)
	}
	for i := range t.passes {
		t.passes[i].params, t.passes[i].train = t.network.nodes[i].of(params), false
	}
	sum, order := 0.0, t.inOrder(examples)
	for at := 0; at < examples; at += t.batch {
		rows := order[at:min(at+t.batch, examples)]
		sum += t.forward(t.load(x, y, rows)) * float64(len(rows))
	}
	for i := range t.passes {
		t.passes[i].train = true
	}
	if sum-sum != 0 {
		return 0, fmt.Errorf("loss: it is %v: %w", sum, ErrNaN)
	}
	return sum / float64(examples), nil
}

// forward is the mean loss of the n examples loaded, whose gradient it leaves at the top.
func (t *Trainer) forward(n int) (loss float64) {
	for i := range t.passes {
		t.passes[i].n = n
		t.network.nodes[i].forward(&t.passes[i])
	}
	top := &t.passes[len(t.passes)-1]
	k := n * t.network.Outputs()
	return t.network.loss.gradient(n, top.out[:k], t.y[:n*t.network.Targets()], top.dout[:k])
}
