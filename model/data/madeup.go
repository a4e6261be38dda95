package data

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// FedProxSynthetic makes up the data set Synthetic(alpha, beta) of Li et al. 2020, "Federated Optimization in
// Heterogeneous Networks", §5.1, in the form of the paper's repository: 30 devices with lognormal(4, 2) + 50 examples each,
// of 60 values with variance j^-1.2 around a mean of the device's own, in the 10 classes of a linear model of its own.
// alpha says how much the devices' models differ, beta their means, both as the deviation they are drawn with; with iid
// all devices have one model and mean 0. The last tenth of a device's examples, rounded up, is to test with. owners is the
// device of each example of train.
//
// The recipe is the paper's, the numbers drawn are the seed's: they are not those of another program.
func FedProxSynthetic(alpha, beta float64, iid bool, seed uint64) (train, test Set, owners []int32, err error) {
	if !(alpha >= 0 && alpha <= 1000) || !(beta >= 0 && beta <= 1000) {
		return Set{}, Set{}, nil, fmt.Errorf("synthetic(%v, %v), want 0 to 1000 each", alpha, beta)
	}
	rng := rand.New(rand.NewPCG(seed, 0x73796e7468657469))
	train = Set{Input: []int{syntheticWidth}, Targets: 1, Classes: syntheticClasses}
	test = train
	shared := drawLinear(0, rng)
	for device := range syntheticDevices {
		n := int(min(math.Exp(4+2*rng.NormFloat64()), 1e6)) + 50
		own, mean := shared, make([]float64, syntheticWidth)
		if !iid {
			own = drawLinear(alpha*rng.NormFloat64(), rng)
			center := beta * rng.NormFloat64()
			for j := range mean {
				mean[j] = center + rng.NormFloat64()
			}
		}
		for i := range n {
			x, y := own.example(mean, rng)
			to := &test
			if i < n*9/10 {
				to = &train
				owners = append(owners, int32(device))
			}
			to.X, to.Y = append(to.X, x...), append(to.Y, float32(y))
		}
	}
	return train, test, owners, nil
}

const syntheticDevices, syntheticWidth, syntheticClasses = 30, 60, 10

// linearModel is what labels a device's examples.
type linearModel struct {
	weights [syntheticClasses][syntheticWidth]float64
	biases  [syntheticClasses]float64
}

// drawLinear draws weights and biases around a mean.
func drawLinear(mean float64, rng *rand.Rand) *linearModel {
	m := &linearModel{}
	for c := range m.weights {
		m.biases[c] = mean + rng.NormFloat64()
		for j := range m.weights[c] {
			m.weights[c][j] = mean + rng.NormFloat64()
		}
	}
	return m
}

// example draws an example and its class.
func (m *linearModel) example(mean []float64, rng *rand.Rand) (x []float32, class int) {
	x, top := make([]float32, syntheticWidth), math.Inf(-1)
	for j := range x {
		x[j] = float32(mean[j] + math.Pow(float64(j+1), -.6)*rng.NormFloat64())
	}
	for c := range m.weights {
		score := m.biases[c]
		for j, w := range m.weights[c] {
			score += w * float64(x[j])
		}
		if score > top {
			class, top = c, score
		}
	}
	return x, class
}

// Blobs makes up examples for trying things out: every class is a normal cloud of deviation 1 around a center of its own,
// whose coordinates are drawn with deviation apart. Classes take turns. All sizes are at least 1, and there are at least
// two classes.
func Blobs(examples, features, classes int, apart float64, seed uint64) (Set, error) {
	if examples < 1 || features < 1 || classes < 2 || classes > maxClasses || examples > 1<<30/features || !(apart >= 0 && apart <= 1e6) {
		return Set{}, fmt.Errorf("blobs: %d examples of %d features in %d classes, %v apart", examples, features, classes, apart)
	}
	rng := rand.New(rand.NewPCG(seed, 0x626c6f6273))
	centers := make([]float64, classes*features)
	for i := range centers {
		centers[i] = apart * rng.NormFloat64()
	}
	s := Set{X: make([]float32, 0, examples*features), Y: make([]float32, 0, examples), Input: []int{features}, Targets: 1, Classes: classes}
	for i := range examples {
		class := i % classes
		for _, c := range centers[class*features:][:features] {
			s.X = append(s.X, float32(c+rng.NormFloat64()))
		}
		s.Y = append(s.Y, float32(class))
	}
	return s, nil
}
