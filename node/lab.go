package node

import (
	"context"

	"choir.example/fedavg"
	choirv1 "choir.example/proto/choir/v1"
)

// Lab is where nodes of an experiment work, which hold no data of their own: many in one process, which take turns at a
// few places. It decides what real time and real data do in a deployment. Nodes call it at the same time.
type Lab interface {
	// Part tells what becomes of a node's part in a round: how many local epochs it manages, 0 for as many as the job
	// wants, or, if that is not empty, why it sends nothing.
	Part(node, job string, round uint64) (epochs int, absent string)
	// Take waits for a place and lays the node's training examples there. The place is the node's until it calls Return.
	Take(ctx context.Context, node string) (*Place, error)
	// Computed is told each update that a node has computed in a training round, or why there is none. It only reads u, until
	// it returns. A nil lie has the node send u. Otherwise the node gives its place back and sends what lie returns, which
	// may wait for other nodes.
	Computed(node string, round uint64, u *fedavg.Update, err error) (lie func(ctx context.Context) (*fedavg.Update, error))
	// Return gives a place back.
	Return(p *Place)
}

// Place is where a node trains: examples, and buffers that the next training uses again. The zero value has none.
type Place struct {
	X, Y []float32 // training examples, one after the other, and their targets; only to be read while a node has the place

	client *fedavg.Client
	made   string // which algorithm client was made for
}

// Saturated is how many coordinates of the last update made here lay outside the grid's range.
func (p *Place) Saturated() int {
	if p.client == nil {
		return 0
	}
	return p.client.Saturated()
}

// clientFor returns the place's client, made anew when the algorithm is another than before.
func (p *Place) clientFor(s *subject) (*fedavg.Client, error) {
	if p.client == nil || p.made != s.key {
		c, err := fedavg.NewClient(s.Algorithm)
		if err != nil {
			return nil, err
		}
		p.client, p.made = c, s.key
	}
	return p.client, nil
}

// told tells the lab what was computed, and returns how the node lies; nil: it does not.
func (w *workshop) told(t *choirv1.Task, u *fedavg.Update, err error) (lie func(ctx context.Context) (*fedavg.Update, error)) {
	if w.lab == nil || t.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN {
		return nil
	}
	return w.lab.Computed(w.name, t.Key.GetRound(), u, err)
}

// enter takes the place for a task, and returns what leaves it.
func (w *workshop) enter(ctx context.Context) (leave func(), err error) {
	w.place = &w.own
	if w.lab == nil {
		return func() {}, nil
	}
	if w.place, err = w.lab.Take(ctx, w.name); err != nil {
		return nil, err
	}
	return func() { w.lab.Return(w.place); w.place = nil }, nil
}
