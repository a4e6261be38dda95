package model

import (
	"math"
	"sync"
	"sync/atomic"
)

// Predictor computes a network's outputs. It is safe for concurrent use. After the first prediction it allocates nothing
// for one caller at a time; those beside it take workspaces that the garbage collector may have back when they lie idle.
type Predictor struct {
	network *Network
	params  []float32
	steps   []forwarder               // one a node: its layer, or what computes with its int8 weights
	kept    atomic.Pointer[workspace] // nil while it is in use
	free    sync.Pool                 // of *workspace: the others
}

// A Predictor works on as many examples at once as fit a core's cache, but no more than a product makes use of.
const (
	predictBatch  = 64
	predictValues = 1 << 18 // of the widest layer
)

// NewPredictor returns a predictor over params, of the network's Size, which it keeps and reads only.
func NewPredictor(network *Network, params []float32) *Predictor {
	return newPredictor(network, params[:network.Size()], make([]int8Layer, len(network.nodes)))
}

// forwarder is the half of a layer that predicts.
type forwarder interface {
	forward(p *pass)
	work(batch int) int
}

func newPredictor(network *Network, params []float32, replaced []int8Layer) *Predictor {
	p := &Predictor{network: network, params: params, steps: make([]forwarder, len(network.nodes))}
	for i := range network.nodes {
		p.steps[i] = network.nodes[i].layer
		if replaced[i] != nil {
			p.steps[i] = replaced[i]
		}
	}
	p.free.New = func() any { return p.workspace() }
	return p
}

// workspace is what one prediction at a time needs.
type workspace struct {
	batch  int
	passes []pass
	input  []*[]float32 // where nodes read the examples
}

// workspace allocates buffers for a batch.
func (p *Predictor) workspace() *workspace {
	n := p.network
	batch := max(1, min(predictBatch, predictValues/n.widestOutput()))
	w := &workspace{batch: batch, passes: make([]pass, len(n.nodes))}
	work, bytes, words := p.buffers(batch)
	for i := range n.nodes {
		at, q := &n.nodes[i], &w.passes[i]
		q.work, q.bytes, q.words, q.params = work, bytes, words, at.of(p.params)
		if at.root == i {
			q.out = make([]float32, batch*at.width)
		} else if at.root >= 0 {
			q.out = w.passes[at.root].out
		}
		q.in = make([][]float32, len(at.from))
		for k, from := range at.from {
			if n.root(from) < 0 {
				w.input = append(w.input, &q.in[k])
			} else {
				q.in[k] = w.passes[from].out
			}
		}
	}
	return w
}

// buffers is the temporary memory that all steps share.
func (p *Predictor) buffers(batch int) (work []float32, bytes []int8, words []int32) {
	var floats, int8s, int32s int
	for _, step := range p.steps {
		floats = max(floats, step.work(batch))
		if q, ok := step.(int8Layer); ok {
			b, w := q.integers(batch)
			int8s, int32s = max(int8s, b), max(int32s, w)
		}
	}
	return make([]float32, floats), make([]int8, int8s), make([]int32, int32s)
}

// Predict writes the outputs of each example of x to out: logits, scores or real numbers. len(out) says how many
// examples there are. It keeps neither and does not write to x.
func (p *Predictor) Predict(x, out []float32) {
	w := p.take()
	n := p.network
	inputs, outputs := n.Inputs(), n.Outputs()
	last := &w.passes[len(w.passes)-1]
	for left := len(out) / outputs; left > 0; {
		rows := min(left, w.batch)
		for _, in := range w.input {
			*in = x[:rows*inputs]
		}
		for i := range n.nodes {
			w.passes[i].n = rows
			p.steps[i].forward(&w.passes[i])
		}
		copy(out, last.out[:rows*outputs])
		x, out, left = x[rows*inputs:], out[rows*outputs:], left-rows
	}
	for _, in := range w.input {
		*in = nil // the caller's
	}
	p.giveBack(w)
}

// take is a workspace that nobody else has.
func (p *Predictor) take() *workspace {
	if w := p.kept.Swap(nil); w != nil {
		return w
	}
	return p.free.Get().(*workspace)
}

func (p *Predictor) giveBack(w *workspace) {
	if !p.kept.CompareAndSwap(nil, w) {
		p.free.Put(w)
	}
}

// Probability is the probability of the positive class for a logit.
func Probability(logit float32) float64 { return 1 / (1 + math.Exp(-float64(logit))) }
