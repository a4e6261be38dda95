package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// recurrent is one or more layers of recurrent cells, each reading the sequence that the one below gives. It begins
// with zeros. Within, everything lies step by step, and within a step example by example: one product gives all steps
// what they take from the input, and each step adds what it takes from the one before.
type recurrent struct {
	cell
	shape    []int // of one example's output
	steps    int
	inputs   int // values of a step
	units    int
	depth    int
	sequence bool // every step is given, not the last alone
}

// cell is what one kind of recurrent layer computes in a step. A unit has a number of sums, for its gates and its
// candidate. The first of them take a share of the input, and all from a certain one on take a share of the output of
// the step before.
type cell struct {
	sums     int
	fed      int // sums that have a share of the input
	from     int // the first that has a share of the step before
	saved    int // values a unit that a step leaves for the next step and for backward, beside its output
	forget   int // the sum of the forget gate, whose bias begins at 1 (Jozefowicz et al. 2015, §2.2); -1: none
	forward  func(s step)
	backward func(s step)
}

// step is one step of one cell for a batch. Sums lie row by row, each of all its sums; all else is rows × units.
type step struct {
	rows, units int
	sums        []float32 // forward makes them what they stand for; backward makes these their gradient
	out         []float32
	saved       []float32 // cell.saved times rows × units
	lastOut     []float32 // of the step before; nil in the first
	lastSaved   []float32 // likewise
	dout        []float32
	lastDout    []float32 // backward adds what reaches the last output, but for what goes through sums; nil in the first
	carried     []float32 // gradient of what else the next step took from this one; backward makes it that of the last
}

func newRecurrent(c cell, l LayerSpec, in [][]int) (layer, error) {
	if len(in[0]) > 2 {
		return nil, fmt.Errorf("it reads a shape of %v, want steps × features, or the features of one step", in[0])
	}
	if err := between("units", l.Units, 1, 1<<14); err != nil {
		return nil, err
	}
	r := &recurrent{cell: c, steps: 1, inputs: in[0][len(in[0])-1], units: l.Units, depth: max(l.Depth, 1), sequence: l.Sequence}
	if err := between("depth", r.depth, 1, 8); err != nil || l.Depth < 0 {
		return nil, fmt.Errorf("depth %d, want 1 to 8", l.Depth)
	}
	if len(in[0]) == 2 {
		r.steps = in[0][0]
	}
	r.shape = []int{r.units}
	if r.sequence {
		r.shape = []int{r.steps, r.units}
	}
	if size := int64(r.depth) * int64(r.sums*r.units) * int64(max(r.inputs, r.units)+r.units+1); size > maxParameters {
		return nil, fmt.Errorf("up to %d parameters, at most 2^28", size)
	}
	if held := int64(r.steps) * int64(r.units) * int64(r.depth) * int64(r.sums+r.saved+1); held > maxExample {
		return nil, fmt.Errorf("%d steps of %d units hold %d values an example, at most 2^24", r.steps, r.units, held)
	}
	return r, nil
}

func (r *recurrent) output() []int { return r.shape }

// part is where the parameters of one of the layers lie.
type part struct {
	inputs                int // values of a step that it reads
	ih, hh, bias, end     int // offsets of weights and bias
	wide, fed, from, back int // columns: of the sums, with a share of the input, the first with one of the last step, these
}

func (r *recurrent) part(l int) part {
	h := r.units
	p := part{inputs: r.inputs, wide: r.sums * h, fed: r.fed * h, from: r.cell.from * h, back: (r.sums - r.cell.from) * h}
	if l > 0 {
		below := r.part(l - 1)
		p.inputs, p.ih = h, below.end
	}
	p.hh = p.ih + p.inputs*p.fed
	p.bias = p.hh + h*p.back
	p.end = p.bias + p.wide
	return p
}

func (r *recurrent) size() int { return r.part(r.depth - 1).end }

func (r *recurrent) flops() int64 {
	sum := int64(0)
	for l := range r.depth {
		p := r.part(l)
		sum += 2 * int64(r.steps) * int64(p.bias-p.ih)
	}
	return sum
}

// tensors have the names that PyTorch gives them; there is one bias where PyTorch has the sum of two. The order of the
// gates, each of units columns, stands at the cell.
func (r *recurrent) tensors() []Tensor {
	var ts []Tensor
	for l := range r.depth {
		p := r.part(l)
		ts = append(ts,
			Tensor{Name: fmt.Sprint("weight_ih_l", l), Shape: []int{p.inputs, p.fed}, Offset: p.ih, Weight: true},
			Tensor{Name: fmt.Sprint("weight_hh_l", l), Shape: []int{r.units, p.back}, Offset: p.hh, Weight: true},
			Tensor{Name: fmt.Sprint("bias_l", l), Shape: []int{p.wide}, Offset: p.bias})
	}
	return ts
}

func (r *recurrent) init(params []float32, rng *rand.Rand) {
	bound := float32(1 / math.Sqrt(float64(r.units)))
	for l := range r.depth {
		p := r.part(l)
		glorot(params[p.ih:p.hh], p.inputs, r.units, p.fed, rng)
		for i := range params[p.hh:p.bias] {
			params[p.hh+i] = float32((rng.Float32()*2 - 1) * bound)
		}
		bias := params[p.bias:p.end]
		clear(bias)
		if r.forget >= 0 {
			copy(bias[r.forget*r.units:][:r.units], slices.Repeat([]float32{1}, r.units))
		}
	}
}

// run is the memory of one layer's way through the sequence. What backward needs is kept of every step; a prediction
// keeps of sums one chunk, and of saved the last two steps.
type run struct {
	x     []float32 // steps × rows × inputs
	sums  []float32 // steps × rows × wide
	saved []float32 // steps × rows × units × saved
	out   []float32 // steps × rows × units
	train bool
}

// chunk is how many steps are fed from the input at once: as many as stay in the innermost caches, but enough rows for
// a good product.
func (r *recurrent) chunk(rows int) int {
	const near, least = 1 << 15, 32
	return min(r.steps, max(near/(rows*r.sums*r.units), (least+rows-1)/rows))
}

// scratch holds the input step by step, and of each layer sums, saved and out.
func (r *recurrent) scratch(batch int) int {
	return r.steps * batch * (r.inputs + r.depth*r.units*(r.sums+r.saved+1))
}

// work is the larger of what a prediction and what backward need.
func (r *recurrent) work(batch int) int {
	h := batch * r.units
	predict := r.steps*(batch*r.inputs+2*h) + h*(r.chunk(batch)*r.sums+2*r.saved)
	back := r.steps*batch*max(r.inputs, r.units) + h + r.units*r.sums*r.units + kernel.NTScratch
	return max(predict, back)
}

// cut takes n values off the front of a buffer.
func cut(buffer *[]float32, n int) []float32 {
	b := (*buffer)[:n:n]
	*buffer = (*buffer)[n:]
	return b
}

// multiplier multiplies with a layer's weights, as they are or as int8.
type multiplier interface {
	// feed makes the first sums of rows the share of the input, and adds the bias to all.
	feed(p *pass, l int, sums, x []float32, rows int)
	// recur adds the share of the output of the step before.
	recur(p *pass, l int, sums, last []float32, rows int)
}

func (r *recurrent) forward(p *pass) { r.through(p, r) }

// through goes forward through all layers.
func (r *recurrent) through(p *pass, m multiplier) {
	buffer := p.work
	if p.train {
		buffer = p.scratch
	}
	x := r.stepMajor(cut(&buffer, r.steps*p.n*r.inputs), p.in[0], p.n, r.inputs)
	if p.train {
		for l := range r.depth {
			at := r.kept(p, l, x)
			r.layerForward(p, m, l, at)
			x = at.out
		}
	} else {
		h := p.n * r.units
		outs := [2][]float32{cut(&buffer, r.steps*h), cut(&buffer, r.steps*h)}
		sums, saved := cut(&buffer, r.chunk(p.n)*h*r.sums), cut(&buffer, 2*h*r.saved)
		for l := range r.depth {
			r.layerForward(p, m, l, run{x: x, sums: sums, saved: saved, out: outs[l%2]})
			x = outs[l%2]
		}
	}
	r.give(p, x)
}

// kept is where layer l of a training keeps its values, reading x.
func (r *recurrent) kept(p *pass, l int, x []float32) run {
	h := r.steps * p.n * r.units
	buffer := p.scratch[r.steps*p.n*r.inputs+l*h*(r.sums+r.saved+1):]
	return run{x: x, sums: cut(&buffer, h*r.sums), saved: cut(&buffer, h*r.saved), out: cut(&buffer, h), train: true}
}

// stepMajor is a batch of sequences step by step: x itself where that is its order already, or else buffer.
func (r *recurrent) stepMajor(buffer, x []float32, rows, width int) []float32 {
	if r.steps == 1 || rows == 1 {
		return x[:r.steps*rows*width]
	}
	for e := range rows {
		for t := range r.steps {
			copy(buffer[(t*rows+e)*width:][:width], x[(e*r.steps+t)*width:])
		}
	}
	return buffer
}

// give writes the output example by example.
func (r *recurrent) give(p *pass, out []float32) {
	h := r.units
	switch {
	case !r.sequence:
		copy(p.out[:p.n*h], out[(r.steps-1)*p.n*h:])
	case p.n == 1:
		copy(p.out[:r.steps*h], out)
	default:
		for e := range p.n {
			for t := range r.steps {
				copy(p.out[(e*r.steps+t)*h:][:h], out[(t*p.n+e)*h:])
			}
		}
	}
}

func (r *recurrent) layerForward(p *pass, m multiplier, l int, at run) {
	in, wide, chunk := r.part(l).inputs, r.part(l).wide, r.chunk(p.n)
	for t := range r.steps {
		s := r.step(at, t, p.n)
		if t%chunk == 0 {
			rows := min(chunk, r.steps-t) * p.n
			sums := at.sums[:rows*wide]
			if at.train {
				sums = at.sums[t*p.n*wide:][:rows*wide]
			}
			m.feed(p, l, sums, at.x[t*p.n*in:][:rows*in], rows)
		}
		if t > 0 {
			m.recur(p, l, s.sums, s.lastOut, p.n)
		}
		r.cell.forward(s)
	}
}

// step is the view of step t.
func (r *recurrent) step(at run, t, rows int) step {
	h := rows * r.units
	sums, saved, last := t, t, t-1
	if !at.train {
		sums, saved, last = t%r.chunk(rows), t%2, (t+1)%2
	}
	s := step{rows: rows, units: r.units, sums: at.sums[sums*h*r.sums:][:h*r.sums], saved: at.saved[saved*h*r.saved:][:h*r.saved],
		out: at.out[t*h:][:h]}
	if t > 0 {
		s.lastOut, s.lastSaved = at.out[(t-1)*h:][:h], at.saved[last*h*r.saved:][:h*r.saved]
	}
	return s
}

func (r *recurrent) feed(p *pass, l int, sums, x []float32, rows int) {
	at := r.part(l)
	bias := p.params[at.bias:at.end]
	kernel.NN(matrix(sums, at.wide), matrix(x, at.inputs), matrix(p.params[at.ih:at.hh], at.fed), rows, at.fed, at.inputs,
		kernel.Epilogue{Bias: bias[:at.fed]})
	r.unfed(sums, bias, rows)
}

// unfed gives the sums without a share of the input their bias.
func (r *recurrent) unfed(sums, bias []float32, rows int) {
	wide, fed := r.sums*r.units, r.fed*r.units
	if fed < wide {
		for i := range rows {
			copy(sums[i*wide+fed:(i+1)*wide], bias[fed:])
		}
	}
}

func (r *recurrent) recur(p *pass, l int, sums, last []float32, rows int) {
	at := r.part(l)
	kernel.NN(matrix(sums[at.from:], at.wide), matrix(last, r.units), matrix(p.params[at.hh:at.bias], at.back), rows, at.back,
		r.units, kernel.Epilogue{Beta: 1})
}

func (r *recurrent) backward(p *pass) {
	buffer := p.work
	douts := cut(&buffer, r.steps*p.n*max(r.inputs, r.units))
	r.receive(p, douts[:r.steps*p.n*r.units])
	for l := r.depth - 1; l >= 0; l-- {
		x := r.below(p, l)
		at := r.kept(p, l, x)
		r.layerBackward(p, l, at, douts, buffer)
		r.inputGradient(p, l, at, douts, buffer)
		r.weightGradient(p, l, at)
	}
}

// below is what layer l read.
func (r *recurrent) below(p *pass, l int) []float32 {
	if l > 0 {
		return r.kept(p, l-1, nil).out
	}
	if r.steps == 1 || p.n == 1 {
		return p.in[0][:r.steps*p.n*r.inputs]
	}
	return p.scratch[:r.steps*p.n*r.inputs]
}

// receive writes the gradient of the output step by step.
func (r *recurrent) receive(p *pass, douts []float32) {
	h := r.units
	if !r.sequence {
		last := (r.steps - 1) * p.n * h
		clear(douts[:last])
		copy(douts[last:], p.dout)
		return
	}
	if x := r.stepMajor(douts, p.dout, p.n, h); &x[0] != &douts[0] {
		copy(douts, x)
	}
}

// layerBackward goes back through time, and makes the sums their gradient.
func (r *recurrent) layerBackward(p *pass, l int, at run, douts, buffer []float32) {
	w, h := r.part(l), p.n*r.units
	carried, turned := cut(&buffer, h), cut(&buffer, w.back*r.units)
	clear(carried)
	if r.steps > 1 { // each step multiplies with them: turned around once they are read as they lie
		kernel.Transpose(matrix(turned, r.units), matrix(p.params[w.hh:w.bias], w.back), r.units, w.back)
	}
	for t := r.steps - 1; t >= 0; t-- {
		s := r.step(at, t, p.n)
		s.dout, s.carried = douts[t*h:][:h], carried
		if t > 0 {
			s.lastDout = douts[(t-1)*h:][:h]
		}
		r.cell.backward(s)
		if t > 0 {
			kernel.NN(matrix(s.lastDout, r.units), matrix(s.sums[w.from:], w.wide), matrix(turned, r.units), p.n, r.units, w.back,
				kernel.Epilogue{Beta: 1})
		}
	}
}

// inputGradient gives the layer below, or the input, its gradient: from the weights as they were before the step.
func (r *recurrent) inputGradient(p *pass, l int, at run, douts, buffer []float32) {
	w, rows, beta := r.part(l), r.steps*p.n, float32(0)
	dst, direct := douts, r.steps == 1 || p.n == 1
	if l == 0 && p.din[0] == nil {
		return
	}
	if l == 0 && direct {
		dst, beta = p.din[0], p.beta(0)
	}
	kernel.NT(matrix(dst, w.inputs), matrix(at.sums, w.wide), matrix(p.params[w.ih:w.hh], w.fed), rows, w.inputs, w.fed, beta,
		buffer[len(buffer)-kernel.NTScratch:])
	if l > 0 || direct {
		return
	}
	for e := range p.n {
		for t := range r.steps {
			from, to := dst[(t*p.n+e)*r.inputs:][:r.inputs], p.din[0][(e*r.steps+t)*r.inputs:][:r.inputs]
			if p.add[0] {
				kernel.Add(to, to, from)
			} else {
				copy(to, from)
			}
		}
	}
}

func (r *recurrent) weightGradient(p *pass, l int, at run) {
	w, rows := r.part(l), r.steps*p.n
	dst, alpha, beta := p.target(w.ih, w.hh)
	kernel.TN(matrix(dst, w.fed), matrix(at.x, w.inputs), matrix(at.sums, w.wide), w.inputs, w.fed, rows, alpha, beta)
	dst, alpha, beta = p.target(w.hh, w.bias)
	if r.steps > 1 {
		kernel.TN(matrix(dst, w.back), matrix(at.out, r.units), matrix(at.sums[p.n*w.wide+w.from:], w.wide), r.units, w.back,
			rows-p.n, alpha, beta)
	} else if beta == 0 { // one step has none before it
		clear(dst)
	}
	p.bias(w.bias, w.wide, at.sums, rows)
}
