package model

import (
	"math"

	"choir.example/model/kernel"
)

// state is what a trainer keeps when a gradient is written before it becomes a step.
type state struct {
	grad          []float32 // mean over the rows of a step
	part          []float32 // of a chunk of them, where they are more than a batch
	first, second []float32 // of the optimiser
}

// begin makes room and forgets what was before, of the parameters that training may change.
func (s *state) begin(size int, touched []Range, o Optimiser) {
	zeroed := func(buffer *[]float32, wanted bool) {
		if wanted && len(*buffer) != size {
			*buffer = make([]float32, size)
		} else if wanted {
			zero(*buffer, touched)
		}
	}
	values := optimisers[o.Kind].state
	zeroed(&s.grad, true)
	zeroed(&s.part, o.Kind == "gd")
	zeroed(&s.first, values > 0)
	zeroed(&s.second, values > 1)
}

// zero clears the ranges.
func zero(x []float32, ranges []Range) {
	for _, r := range ranges {
		clear(x[r.From:r.To])
	}
}

// gradient writes the mean gradient of the examples to grad, in the ranges that it finds stepped, and returns their mean
// loss. Examples beyond a batch, all there are, are taken in chunks, whose gradients add up.
func (t *Trainer) gradient(x, y []float32, rows []int32) (loss float64) {
	if len(rows) <= t.batch {
		loss = t.propagate(t.load(x, y, rows))
		t.stepped = t.ranges(t.stepped[:0], batchRows)
		return loss
	}
	zero(t.part, t.touched)
	for at := 0; at < len(rows); at += t.batch {
		chunk := rows[at:min(at+t.batch, len(rows))]
		share := float64(len(chunk)) / float64(len(rows))
		loss += share * t.propagate(t.load(x, y, chunk))
		t.stepped = t.ranges(t.stepped[:0], batchRows)
		for _, r := range t.stepped {
			kernel.Axpy(t.part[r.From:r.To], float32(share), t.grad[r.From:r.To])
		}
	}
	t.stepped = append(t.stepped[:0], t.touched...)
	for _, r := range t.stepped {
		copy(t.grad[r.From:r.To], t.part[r.From:r.To])
	}
	return loss
}

// update makes a step of the gradient: adjusted, clipped, and by the optimiser's rule. Rows of embeddings that no example
// of the batch read have none: they are not adjusted and do not decay, and the optimiser does not see them (as in
// PyTorch's SparseAdam).
func (t *Trainer) update(params []float32, rate float64, number int, cfg *TrainConfig) {
	if cfg.Adjust != nil {
		for _, r := range t.stepped {
			cfg.Adjust(r.From, params[r.From:r.To], t.grad[r.From:r.To])
		}
	}
	if cfg.Clip > 0 {
		t.clip(cfg.Clip)
	}
	o := optimisers[cfg.Optimiser.Kind]
	for _, r := range t.stepped {
		var first, second []float32
		if o.state > 0 {
			first = t.first[r.From:r.To]
		}
		if o.state > 1 {
			second = t.second[r.From:r.To]
		}
		o.step(cfg.Optimiser, rate, number, params[r.From:r.To], t.grad[r.From:r.To], first, second)
	}
}

// clip scales the gradient down to the norm.
func (t *Trainer) clip(norm float64) {
	squares := 0.0
	for _, r := range t.stepped {
		squares += kernel.SumSquares(t.grad[r.From:r.To])
	}
	if is := math.Sqrt(squares); is > norm {
		for _, r := range t.stepped {
			kernel.Scale(t.grad[r.From:r.To], float32(norm/is))
		}
	}
}
