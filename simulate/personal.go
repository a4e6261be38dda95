package simulate

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/model"

	"golang.org/x/sync/errgroup"
)

// PersonalSettings measure nodes on examples of their own, after the last round.
type PersonalSettings struct {
	Holdout float64 `json:"holdout,omitempty" yaml:"holdout"` // share of each node's examples that it is measured on and does not train on; 0: none
	Epochs  int     `json:"epochs,omitempty" yaml:"epochs"`   // of local fine-tuning before, on the others; usually 0
}

// Personal is how well nodes do on examples of their own that they did not train on.
type Personal struct {
	Nodes  int    `json:"nodes"`  // that have such examples: all with two or more
	Global Spread `json:"global"` // accuracy of the last round's model
	Own    Spread `json:"own"`    // of the models that nodes predict with: with layers of their own, and after fine-tuning
}

// Spread is how a measure differs between nodes, each counting the same.
type Spread struct {
	Mean      float64 `json:"mean"`
	Deviation float64 `json:"deviation"` // root of the mean squared distance from the mean
	Worst     float64 `json:"worst"`     // the least
}

// spread is that of the values.
func spread(values []float64) Spread {
	s := Spread{Worst: math.Inf(1)}
	for _, v := range values {
		s.Mean += v / float64(len(values))
		s.Worst = min(s.Worst, v)
	}
	for _, v := range values {
		s.Deviation += (v - s.Mean) * (v - s.Mean) / float64(len(values))
	}
	s.Deviation = math.Sqrt(s.Deviation)
	return s
}

// personal measures every node, if the experiment asks for it.
func (e *engine) personal(ctx context.Context) error {
	held := e.trial.held
	if held == nil {
		return nil
	}
	global, own := make([]float64, len(held)), make([]float64, len(held))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range e.workers {
		g.Go(func() (err error) {
			for i := next.Add(1) - 1; i < int64(len(held)); i = next.Add(1) - 1 {
				if global[i], own[i], err = w.personal(ctx, e, int(i)); err != nil {
					return fmt.Errorf("personal accuracy of %s: %w", NodeName(int(i)), err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var both [2][]float64
	for i, examples := range held {
		if len(examples) > 0 {
			both[0], both[1] = append(both[0], global[i]), append(both[1], own[i])
		}
	}
	if len(both[0]) == 0 {
		return fmt.Errorf("personal accuracy: no node has two examples, one to train on and one to be measured on")
	}
	e.trial.result.Personal = &Personal{Nodes: len(both[0]), Global: spread(both[0]), Own: spread(both[1])}
	return nil
}

// personal is the accuracy of the global model and of the node's own on what the node holds out.
func (w *worker) personal(ctx context.Context, e *engine, node int) (global, own float64, err error) {
	t := w.trial
	if len(t.held[node]) == 0 {
		return 0, 0, nil
	}
	w.gather("train", node, t.parts[node])
	params, err := w.client.Personal(ctx, fedavg.Work{
		Global: e.global, Shared: t.algorithm.Shared(e.state), Memory: e.memories.of(node), X: w.x, Y: w.y,
		Seed: seeds.Derive("choir/personal/v1", t.cfg.Seed, NodeName(node), 0),
	}, t.x.Evaluation.Personal.Epochs)
	if err != nil {
		return 0, 0, err
	}
	w.gather("held", node, t.held[node])
	accuracy := func(params []float32) float64 {
		n := t.algorithm.Network
		classes := n.Outputs() / max(t.data.Train.Targets, 1)
		return measureChunk(model.NewPredictor(n, params), classes, n.Outputs(), w.x, w.y).Accuracy / float64(len(w.y))
	}
	return accuracy(e.global), accuracy(params), nil
}
