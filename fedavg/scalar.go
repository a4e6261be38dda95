package fedavg

import (
	"fmt"
	"math"

	"choir.example/model"
)

// A strategy's scalar is sent as two of an update's: the multiple of 2^-23 that it is nearest to, as two digits of 23 bits.
// Weights times digits stay within an update's bounds, and sums of both digits give the sum of the scalars, exactly.
const (
	scalarDigits = 2
	scalarBase   = MaxQ           // of the digits, and of the grid: 1 is scalarBase of its steps
	MaxScalar    = scalarBase / 2 // largest magnitude of a scalar
)

// scalarParts are the digits of a scalar, times the weight of its update.
func scalarParts(scalar float64, weight int64) (high, low int64, err error) {
	if math.IsNaN(scalar) || math.IsInf(scalar, 0) {
		return 0, 0, fmt.Errorf("is %v: %w", scalar, model.ErrDiverged)
	}
	if math.Abs(scalar) > MaxScalar {
		return 0, 0, fmt.Errorf("is %v, want at most %v", scalar, MaxScalar)
	}
	q := int64(math.RoundToEven(scalar * scalarBase))
	return weight * (q >> 23), weight * (q & (scalarBase - 1)), nil
}

// scalarMean is the mean of scalars whose digits, times weights, were added up.
func scalarMean(high, low, weight int64) float64 {
	return (float64(high) + float64(low)/scalarBase) / float64(weight)
}
