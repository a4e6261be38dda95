package model

import "choir.example/model/kernel"

// lstmCell is the long short-term memory with a forget gate (Gers, Schmidhuber and Cummins 2000). Its sums are, in the
// order of ONNX, input gate i, output gate o, forget gate f and candidate g:
//
//	c = f·c' + i·g, h = o·tanh(c)
//
// with c' of the step before. It saves c and tanh(c).
var lstmCell = cell{sums: 4, fed: 4, saved: 2, forget: 2, forward: lstmForward, backward: lstmBackward}

func newLSTM(l LayerSpec, in [][]int) (layer, error) { return newRecurrent(lstmCell, l, in) }

func lstmForward(s step) {
	h, all := s.units, s.rows*s.units
	memory, bent := s.saved[:all], s.saved[all:]
	for i := range s.rows {
		row := s.sums[i*4*h:][:4*h]
		gates, g := row[:3*h], row[3*h:]
		kernel.Activate(gates, gates, kernel.Sigmoid)
		kernel.Activate(g, g, kernel.Tanh)
		c := memory[i*h:][:h]
		kernel.Multiply(c, gates[:h], g)
		if s.lastSaved != nil {
			kernel.AddProduct(c, gates[2*h:], s.lastSaved[i*h:][:h])
		}
	}
	kernel.Activate(bent, memory, kernel.Tanh)
	for i := range s.rows {
		kernel.Multiply(s.out[i*h:][:h], s.sums[(i*4+1)*h:][:h], bent[i*h:][:h])
	}
}

func lstmBackward(s step) {
	h, all := s.units, s.rows*s.units
	bent := s.saved[all:]
	for i := range s.rows {
		row := s.sums[i*4*h:][:4*h]
		in, out, forget, g := row[:h], row[h:2*h], row[2*h:3*h], row[3*h:]
		tc, dh, dc := bent[i*h:][:h], s.dout[i*h:][:h], s.carried[i*h:][:h]
		var last []float32
		if s.lastSaved != nil {
			last = s.lastSaved[i*h:][:h]
		}
		lstmRowBackward(in, out, forget, g, tc, dh, dc, last)
	}
}

// lstmRowBackward does one row: gates become the gradients of their sums, dc that of the last c.
func lstmRowBackward(in, out, forget, g, tc, dh, dc, last []float32) {
	n := len(dh)
	in, out, forget, g, tc, dc = in[:n], out[:n], forget[:n], g[:n], tc[:n], dc[:n]
	for k, d := range dh {
		i, o, f, c := in[k], out[k], forget[k], g[k]
		out[k] = d * tc[k] * o * (1 - o)
		m := dc[k] + float32(d*o)*(1-float32(tc[k]*tc[k]))
		in[k] = m * c * i * (1 - i)
		g[k] = m * i * (1 - float32(c*c))
		dc[k] = m * f
	}
	if last == nil {
		clear(forget)
		return
	}
	last = last[:n]
	for k, f := range forget {
		forget[k] = dc[k] * last[k] * (1 - f) // dc is m·f already
	}
}
