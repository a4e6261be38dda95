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

// begin makes room and forgets what was before.
func (s *state) begin(size int, o Optimiser) {
	zeroed := func(buffer *[]float32, wanted bool) {
		if wanted && len(*buffer) != size {
			*buffer = make([]float32, size)
		} else if wanted {
			clear(*buffer)
		}
	}
	values := optimisers[o.Kind].state
	zeroed(&s.grad, true)
	zeroed(&s.part, o.Kind == "gd")
	zeroed(&s.first, values > 0)
	zeroed(&s.second, values > 1)
}

// gradient writes the mean gradient of the rows to grad, and returns their mean loss. Rows beyond a batch are taken in
// chunks, whose gradients add up.
func (t *Trainer) gradient(x, y []float32, rows []int32) (loss float64) {
	if len(rows) <= t.batch {
		return t.propagate(t.load(x, y, rows))
	}
	clear(t.part)
	for at := 0; at < len(rows); at += t.batch {
		chunk := rows[at:min(at+t.batch, len(rows))]
		share := float64(len(chunk)) / float64(len(rows))
		loss += share * t.propagate(t.load(x, y, chunk))
		kernel.Axpy(t.part, float32(share), t.grad)
	}
	copy(t.grad, t.part)
	return loss
}

// update makes a step of the gradient: adjusted, clipped, and by the optimiser's rule.
func (t *Trainer) update(params []float32, rate float64, number int, cfg *TrainConfig) {
	if cfg.Adjust != nil {
		cfg.Adjust(0, params, t.grad)
	}
	if cfg.Clip > 0 {
		if norm := math.Sqrt(kernel.SumSquares(t.grad)); norm > cfg.Clip {
			kernel.Scale(t.grad, float32(cfg.Clip/norm))
		}
	}
	optimisers[cfg.Optimiser.Kind].step(cfg.Optimiser, rate, number, params, t.grad, t.first, t.second)
}
