package model

import "choir.example/model/kernel"

// recurrentInt8 is recurrent with int8 weights: each step's input and each output of the step before is quantised as it
// comes.
type recurrentInt8 struct {
	*recurrent
	ih, hh []int8Matrix
	bias   [][]float32
}

func (r *recurrent) int8(ts []Int8Tensor) int8Layer {
	q := &recurrentInt8{recurrent: r}
	for l := range r.depth {
		p, own := r.part(l), ts[3*l:]
		q.ih = append(q.ih, newInt8Matrix(own[0], p.inputs, p.fed))
		q.hh = append(q.hh, newInt8Matrix(own[1], r.units, p.back))
		q.bias = append(q.bias, own[2].Floats)
	}
	return q
}

// rows is how many rows are multiplied at once, at most.
func (q *recurrentInt8) rows(batch int) int { return q.chunk(batch) * batch }

// work has the scales of rows behind what the layer wants.
func (q *recurrentInt8) work(batch int) int { return q.recurrent.work(batch) + q.rows(batch) }

func (q *recurrentInt8) integers(batch int) (bytes, words int) {
	rows, wide := q.rows(batch), kernel.Int8Stride(max(q.inputs, q.units))
	return rows * wide, max(q.ih[0].words(rows), rows*q.sums*q.units)
}

func (q *recurrentInt8) forward(p *pass) { q.through(p, q) }

func (q *recurrentInt8) feed(p *pass, l int, sums, x []float32, rows int) {
	wide, m := q.sums*q.units, &q.ih[l]
	scales := p.work[len(p.work)-rows:]
	quantiseRows(p.bytes, m.stride(), scales, x, m.inputs)
	m.multiply(sums, wide, p.bytes, scales, q.bias[l][:m.outputs], kernel.Identity, p.words)
	q.unfed(sums, q.bias[l], rows)
}

func (q *recurrentInt8) recur(p *pass, l int, sums, last []float32, rows int) {
	wide, from, m := q.sums*q.units, q.cell.from*q.units, &q.hh[l]
	scales := p.work[len(p.work)-rows:]
	quantiseRows(p.bytes, m.stride(), scales, last, m.inputs)
	kernel.ProductInt8(p.words[:rows*m.outputs], p.bytes, m.parts[0], rows, m.outputs, m.inputs)
	for i, scale := range scales {
		row := sums[i*wide+from:][:m.outputs]
		kernel.Rescale(row, p.words[i*m.outputs:], m.scales, row, scale, kernel.Identity) // what is there is the bias
	}
}
