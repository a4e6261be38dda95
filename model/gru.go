package model

import "choir.example/model/kernel"

// gruCell is the gated recurrent unit (Cho et al. 2014), with the reset gate behind the product as in cuDNN and PyTorch.
// Its sums are candidate n, update gate z, reset gate r, and the recurrent half q of the candidate's:
//
//	h = (1-z)·tanh(n + r·q) + z·h'
//
// with h' of the step before. n, z and r take from the input; z, r and q from h', so the columns of the two matrices of
// weights are in these two orders.
var gruCell = cell{sums: 4, fed: 3, from: 1, forget: -1, forward: gruForward, backward: gruBackward}

func newGRU(l LayerSpec, in [][]int) (layer, error) { return newRecurrent(gruCell, l, in) }

func gruForward(s step) {
	h := s.units
	for i := range s.rows {
		row, out := s.sums[i*4*h:][:4*h], s.out[i*h:][:h]
		n, gates, q := row[:h], row[h:3*h], row[3*h:]
		kernel.Activate(gates, gates, kernel.Sigmoid)
		kernel.AddProduct(n, gates[h:], q)
		kernel.Activate(n, n, kernel.Tanh)
		if s.lastOut == nil {
			clear(out)
		} else {
			copy(out, s.lastOut[i*h:][:h])
		}
		kernel.Axpy(out, -1, n) // h = n + z·(h' - n)
		kernel.Multiply(out, out, gates[:h])
		kernel.Add(out, out, n)
	}
}

func gruBackward(s step) {
	h := s.units
	for i := range s.rows {
		row, dh := s.sums[i*4*h:][:4*h], s.dout[i*h:][:h]
		n, z, r, q := row[:h], row[h:2*h], row[2*h:3*h], row[3*h:]
		if s.lastOut == nil {
			gruRowBackward(n, z, r, q, dh, nil, nil)
		} else {
			gruRowBackward(n, z, r, q, dh, s.lastOut[i*h:][:h], s.lastDout[i*h:][:h])
		}
	}
}

// gruRowBackward does one row: sums become their gradients, and lastDout gets what goes past them.
func gruRowBackward(n, z, r, q, dh, last, lastDout []float32) {
	size := len(dh)
	n, z, r, q = n[:size], z[:size], r[:size], q[:size]
	for k, d := range dh {
		nk, zk, rk, before := n[k], z[k], r[k], float32(0)
		if last != nil {
			before = last[k]
			lastDout[k] += float32(d * zk)
		}
		dn := d * (1 - zk) * (1 - float32(nk*nk))
		n[k] = dn
		z[k] = d * (before - nk) * zk * (1 - zk)
		r[k] = dn * q[k] * rk * (1 - rk)
		q[k] = dn * rk
	}
}
