package model

import (
	"choir.example/model/kernel"
)

// softLabels is the cross entropy of probabilities of all classes in place of one class, at every position: what a student
// learns from the answers of others (Hinton, Vinyals and Dean 2015, §2).
type softLabels struct{ softmax }

func newSoftLabels(shape []int) (loss, error) {
	l, err := newSoftmax(shape)
	if err != nil {
		return nil, err
	}
	return softLabels{l.(softmax)}, nil
}

func (l softLabels) targets() int         { return l.positions * int(l.classes) }
func (softLabels) accepts(y float32) bool { return y >= 0 && y <= 1 }
func (softLabels) wants() string          { return "a probability, 0 to 1, for each class" }

func (l softLabels) gradient(n int, out, y, dout []float32) float64 {
	k, rows := int(l.classes), n*l.positions
	sum, scale := 0.0, 1/float32(rows)
	for at := 0; at < rows*k; at += k {
		z, p, d := out[at:at+k], y[at:at+k], dout[at:at+k]
		logSum := float64(kernel.Softmax(d, z)) // −Σ p·log softmax(z), the p adding up to 1
		for i := range d {
			sum += float64(p[i]) * (logSum - float64(z[i]))
			d[i] = (d[i] - p[i]) * scale
		}
	}
	return sum * float64(scale)
}
