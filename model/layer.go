package model

import (
	"math"
	"math/rand/v2"

	"choir.example/model/kernel"
)

// Tensor is a named part of the flat parameters.
type Tensor struct {
	Name   string // the layer's name, a dot and what it is there, as in dense1.weight
	Shape  []int  // as it lies in memory, row-major
	Offset int    // of its first value in the flat parameters
	// Weight says that the tensor is a matrix of weights, whose last axis counts outputs. Files hold such a tensor with
	// that axis first, as other programs do, and int8 gives each output its own scale.
	Weight bool
	// Table says that the tensor is a table of rows, one an id. Int8 gives each row its own scale.
	Table bool
}

// Len is the number of values.
func (t Tensor) Len() int { return values(t.Shape) }

// scales is how many scales the tensor has in int8; 0 if it stays float32.
func (t Tensor) scales() int {
	switch {
	case t.Weight:
		return t.Outputs()
	case t.Table:
		return t.Shape[0]
	}
	return 0
}

// Outputs is the length of the last axis: of weights, one for each output.
func (t Tensor) Outputs() int { return t.Shape[len(t.Shape)-1] }

// layer is one step of a network. It has no state and is shared: buffers belong to the Trainer or the Predictor. All
// that flows is float32, one example after the other; images are height × width × channels, sequences time × features.
type layer interface {
	output() []int         // shape of one example's output
	size() int             // number of parameters
	tensors() []Tensor     // that make up the parameters, in order, with names and offsets within the layer
	flops() int64          // of one example forward: two a multiplication and addition
	scratch(batch int) int // float32s that forward leaves for backward
	work(batch int) int    // float32s that forward and backward need while they run
	init(params []float32, rng *rand.Rand)
	forward(p *pass)
	backward(p *pass)
	// onnx adds the operators that forward is to a graph, with the layer's tensors g.own, and says what comes out.
	onnx(g *onnxGraph, in []onnxValue) onnxValue
}

// pass is what a layer works on: its part of the parameters and its buffers, each as long as the batch is.
type pass struct {
	n       int         // examples
	params  []float32   // of the layer
	in      [][]float32 // n examples of each input; not written
	out     []float32
	dout    []float32   // gradient with respect to out; backward may write over it
	din     [][]float32 // gradient with respect to each input; nil where nobody needs it
	add     []bool      // din[i] holds the gradient that another reader of the same input gave: add to it
	grad    []float32   // where backward writes the gradient of the parameters; nil: it takes the step itself
	rate    float32     // of that step: params += -rate · gradient
	scratch []float32   // kept from forward to backward; nil unless train
	rows    *rowSet     // of a lookup: where backward notes the rows that grad has a gradient for
	work    []float32   // shared by all layers: holds nothing when a layer begins
	bytes   []int8      // likewise, of layers with int8 weights
	words   []int32     // likewise
	train   bool        // dropout drops only then
	rng     *rand.Rand  // of dropout; nil unless train
}

// target is where the gradient of params[from:to] goes: dst = beta·dst + alpha·gradient. Without a gradient buffer that
// is a step of plain SGD on the parameters themselves, which then never makes a pass of its own over them.
func (p *pass) target(from, to int) (dst []float32, alpha, beta float32) {
	if p.grad != nil {
		return p.grad[from:to], 1, 0
	}
	return p.params[from:to], -p.rate, 1
}

// bias gives the bias of n values at params[at:] its gradient: the column sums of the rows of dout.
func (p *pass) bias(at, n int, dout []float32, rows int) {
	dst, alpha, beta := p.target(at, at+n)
	if beta == 0 {
		clear(dst)
	}
	kernel.AddColumnSums(dst, dout, rows, n, alpha)
}

// beta is the factor of what din[i] holds already.
func (p *pass) beta(i int) float32 {
	if p.add[i] {
		return 1
	}
	return 0
}

// bare is what a layer without parameters and buffers has.
type bare struct{}

func (bare) size() int                  { return 0 }
func (bare) tensors() []Tensor          { return nil }
func (bare) scratch(int) int            { return 0 }
func (bare) work(int) int               { return 0 }
func (bare) init([]float32, *rand.Rand) {}

// activations is the table of activations by name.
var activations = map[string]kernel.Activation{
	"": kernel.Identity, "relu": kernel.ReLU, "sigmoid": kernel.Sigmoid, "tanh": kernel.Tanh,
}

// glorot draws weights uniform in ±sqrt(6/(in+out)) (Glorot and Bengio 2010, §4.2) for fans of in and out, with
// operations that give the same bits on every processor. It draws output by output, the order in which files hold
// weights: seeds go on to mean what they meant when memory had that order too.
func glorot(weights []float32, in, out, outputs int, rng *rand.Rand) {
	bound := math.Sqrt(6 / float64(in+out))
	for o := range outputs {
		for i := o; i < len(weights); i += outputs {
			u := float64(rng.Float64()*2) - 1
			weights[i] = float32(u * bound)
		}
	}
}
