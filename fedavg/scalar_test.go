package fedavg

import (
	"math"
	"testing"
)

// 1.5 is 3·2^22 steps of the grid: the digits 1 and 2^22. -1/4 is -2^21 steps: -1 and 2^23 − 2^21. Of weights 2 and 3 the
// mean is (2·1.5 − 3/4)/5 = .45.
func TestScalarsByHand(t *testing.T) {
	h1, l1, err := scalarParts(1.5, 2)
	must(t, err)
	h2, l2, err := scalarParts(-.25, 3)
	must(t, err)
	if h1 != 2 || l1 != 2<<22 || h2 != -3 || l2 != 3*(1<<23-1<<21) {
		t.Errorf("digits %d %d, %d %d", h1, l1, h2, l2)
	}
	if m := scalarMean(h1+h2, l1+l2, 5); math.Abs(m-.45) > 1e-15 {
		t.Errorf("mean %v, want .45", m)
	}
}

// The largest weights and scalars stay within what an update may hold.
func TestScalarsStayInBounds(t *testing.T) {
	for _, s := range []float64{MaxScalar, -MaxScalar, 1e-9, -1e-9, .1, -math.Pi, 123456.789} {
		h, l, err := scalarParts(s, MaxWeight)
		must(t, err)
		u := &Update{Weight: MaxWeight, Scalars: []int64{h, l}}
		if err := u.Check(Shape{Scalars: 2, WeightCap: MaxWeight}); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		if m := scalarMean(h, l, MaxWeight); math.Abs(m-s) > 1./(1<<24) {
			t.Errorf("%v came back as %v", s, m)
		}
	}
	for _, s := range []float64{math.NaN(), math.Inf(1), MaxScalar * 1.001, -MaxScalar * 1.001} {
		if _, _, err := scalarParts(s, 1); err == nil {
			t.Errorf("%v was not refused", s)
		}
	}
}
