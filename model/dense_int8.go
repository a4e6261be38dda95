package model

// denseInt8 is dense with int8 weights.
type denseInt8 struct {
	*dense
	weights int8Matrix
	bias    []float32
}

func (d *dense) int8(ts []Int8Tensor) int8Layer {
	return &denseInt8{d, newInt8Matrix(ts[0], d.inputs, d.outputs), ts[1].Floats}
}

func (d *denseInt8) work(batch int) int { return batch * d.positions } // a scale a row

func (d *denseInt8) integers(batch int) (bytes, words int) {
	rows := batch * d.positions
	return rows * d.weights.stride(), d.weights.words(rows)
}

func (d *denseInt8) forward(p *pass) {
	rows := p.n * d.positions
	quantiseRows(p.bytes, d.weights.stride(), p.work[:rows], p.in[0], d.inputs)
	d.weights.multiply(p.out, d.outputs, p.bytes, p.work[:rows], d.bias, d.act, p.words)
}
