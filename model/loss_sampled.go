package model

import "choir.example/model/kernel"

// sampledSoftmax is the cross entropy of what was chosen among what was drawn (Jean et al. 2015, §3). The correction of
// each score by the logarithm of its probability to be drawn is left out: others are drawn uniformly, so it is the same
// for all and cancels.
type sampledSoftmax struct{ ranking }

func newSampledSoftmax(shape []int) (loss, error) {
	r, err := newRanking(shape)
	return sampledSoftmax{r}, err
}

func (l sampledSoftmax) gradient(n int, out, _, dout []float32) float64 {
	copy(dout, out)
	rows, sum := n*l.positions, 0.0
	for at := 0; at < len(out); at += l.scores {
		row := dout[at : at+l.scores]
		z := row[0]
		sum += float64(kernel.Softmax(row, row)) - float64(z)
		row[0]--
	}
	kernel.Scale(dout, 1/float32(rows))
	return sum / float64(rows)
}
