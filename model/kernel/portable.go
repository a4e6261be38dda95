package kernel

import "math"

// portable is the path in plain Go. Loops are shaped so that the compiler drops the bounds checks. A product that is
// added to is converted first: that forbids the compiler to fuse the two, which on some processors it would.
var portable = &path{
	name:            "go",
	width:           1,
	product:         productGo,
	transpose:       transposeGo,
	axpby:           axpbyGo,
	axpy:            axpyGo,
	scale:           scaleGo,
	add:             addGo,
	multiply:        multiplyGo,
	multiplyTo:      multiplyToGo,
	fold4:           fold4Go,
	dot:             dotGo,
	sum:             sumGo,
	maxAbs:          maxAbsGo,
	max:             maxGo,
	move:            moveGo,
	maxPool:         maxPoolGo,
	routePool:       routePoolGo,
	relu:            reluGo,
	exp:             expGo,
	expSum:          expSumGo,
	sigmoid:         sigmoidGo,
	tanh:            tanhGo,
	reluGrad:        reluGradGo,
	sigmoidGrad:     sigmoidGradGo,
	tanhGrad:        tanhGradGo,
	momentum:        momentumGo,
	adaptive:        adaptiveGo,
	toFixed:         toFixedGo,
	toFixedRandomly: toFixedRandomlyGo,
	fromFixed:       fromFixedGo,
	addUint32:       addUint32Go,
	quantise:        quantiseGo,
	axpyInt8:        axpyInt8Go,
	dotInt8:         dotInt8Go,
	productInt8:     productInt8Go,
	rescale:         rescaleGo,
	exchange:        exchangeGo,
	addRows:         addRowsGo,
	addDots:         addDotsGo,
	addScaled:       addScaledGo,
	addFixed:        addFixedGo,
	addScaledDouble: addScaledDoubleGo,
}

func axpbyGo(dst, x []float32, a, b float32) {
	x = x[:len(dst)]
	for i, v := range dst {
		dst[i] = float32(b*v) + float32(a*x[i])
	}
}

func axpyGo(dst, x []float32, a float32) {
	x = x[:len(dst)]
	for len(dst) >= 4 && len(x) >= 4 {
		dst[0] += float32(a * x[0])
		dst[1] += float32(a * x[1])
		dst[2] += float32(a * x[2])
		dst[3] += float32(a * x[3])
		dst, x = dst[4:], x[4:]
	}
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] += float32(a * v)
	}
}

func scaleGo(dst []float32, a float32) {
	for i := range dst {
		dst[i] *= a
	}
}

func addGo(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i := range dst {
		dst[i] = x[i] + y[i]
	}
}

func multiplyGo(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i := range dst {
		dst[i] = x[i] * y[i]
	}
}

func multiplyToGo(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i := range dst {
		dst[i] += float32(x[i] * y[i])
	}
}

func fold4Go(dst, x0, x1, x2, x3 []float32, a0, a1, a2, a3 float32) {
	n := len(dst)
	x0, x1, x2, x3 = x0[:n], x1[:n], x2[:n], x3[:n]
	for i, v := range dst {
		dst[i] = v + float32(a0*x0[i]) + float32(a1*x1[i]) + float32(a2*x2[i]) + float32(a3*x3[i])
	}
}

func dotGo(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	for len(x) >= 4 && len(y) >= 4 {
		s0 += float32(x[0] * y[0])
		s1 += float32(x[1] * y[1])
		s2 += float32(x[2] * y[2])
		s3 += float32(x[3] * y[3])
		x, y = x[4:], y[4:]
	}
	y = y[:len(x)]
	for i, v := range x {
		s0 += float32(v * y[i])
	}
	return (s0 + s1) + (s2 + s3)
}

func sumGo(x []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(x) >= 4 {
		s0, s1, s2, s3 = s0+x[0], s1+x[1], s2+x[2], s3+x[3]
		x = x[4:]
	}
	for _, v := range x {
		s0 += v
	}
	return (s0 + s1) + (s2 + s3)
}

// As integers, magnitudes are in the order of floats, and NaN is above all.
func maxAbsGo(x []float32) float32 {
	const magnitude = 1<<31 - 1
	var t0, t1, t2, t3 uint32
	for len(x) >= 4 {
		t0 = max(t0, math.Float32bits(x[0])&magnitude)
		t1 = max(t1, math.Float32bits(x[1])&magnitude)
		t2 = max(t2, math.Float32bits(x[2])&magnitude)
		t3 = max(t3, math.Float32bits(x[3])&magnitude)
		x = x[4:]
	}
	for _, v := range x {
		t0 = max(t0, math.Float32bits(v)&magnitude)
	}
	return math.Float32frombits(max(t0, t1, t2, t3))
}

func maxGo(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		if v > top {
			top = v
		} else if v != v {
			return v
		}
	}
	return top
}

func reluGo(dst, x []float32) {
	x = x[:len(dst)]
	for i, v := range x {
		bits := math.Float32bits(v)
		if v <= 0 { // on integers it is no jump
			bits = 0
		}
		dst[i] = math.Float32frombits(bits)
	}
}

func reluGradGo(grad, y []float32) {
	y = y[:len(grad)]
	for i, v := range y {
		bits := math.Float32bits(grad[i])
		if v <= 0 {
			bits = 0
		}
		grad[i] = math.Float32frombits(bits)
	}
}

func sigmoidGradGo(grad, y []float32) {
	y = y[:len(grad)]
	for i, v := range y {
		grad[i] *= float32(v * (1 - v))
	}
}

func tanhGradGo(grad, y []float32) {
	y = y[:len(grad)]
	for i, v := range y {
		grad[i] *= 1 - float32(v*v)
	}
}

func momentumGo(w, v, g []float32, keep, decay, fromV, fromG float32) {
	v, g = v[:len(w)], g[:len(w)]
	for i, x := range w {
		d := g[i] + float32(decay*x)
		v[i] = float32(keep*v[i]) + d
		w[i] = x - float32(fromV*v[i]) - float32(fromG*d)
	}
}

func adaptiveGo(w, m, v, g []float32, s AdaptiveStep) {
	m, v, g = m[:len(w)], v[:len(w)], g[:len(w)]
	for i, x := range w {
		d := g[i]
		m[i] = float32(s.KeepM*m[i]) + float32(s.AddM*d)
		v[i] = float32(s.KeepV*v[i]) + float32(s.AddV*float32(d*d))
		root := float32(math.Sqrt(float64(v[i])))
		w[i] = float32(s.Shrink*x) - float32(s.Rate*m[i])/(float32(s.Root*root)+s.Epsilon)
	}
}
