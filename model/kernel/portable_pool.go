package kernel

import "math"

func maxPoolGo(dst, src []float32, p Pool) {
	p.each(func(window, at int) {
		out := dst[window:][:p.Channels]
		copy(out, src[at:])
	}, func(window, at int) {
		out := dst[window:][:p.Channels]
		maximumGo(out, out, src[at:])
	})
}

func routePoolGo(dst, grad, src, top []float32, p Pool, add bool) {
	p.each(func(int, int) {}, func(window, at int) {
		to := dst[at:][:p.Channels]
		if !add {
			clear(to)
		}
		routeMaximumGo(to, grad[window:], src[at:], top[window:])
	})
}

// each calls first for each window and its first pixel, and then tap for each of its pixels.
func (p Pool) each(first, tap func(window, at int)) {
	for x := range p.Columns {
		first(x*p.Channels, x*p.Step)
		for i := range p.Kernel {
			for j := range p.Kernel {
				tap(x*p.Channels, x*p.Step+i*p.Width+j*p.Channels)
			}
		}
	}
}

func maximumGo(dst, x, y []float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i, v := range x {
		largest := math.Float32bits(v)
		if w := y[i]; w > v || w != w { // as integers, so that it is no jump
			largest = math.Float32bits(w)
		}
		dst[i] = math.Float32frombits(largest)
	}
}

func routeMaximumGo(dst, left, x, top []float32) {
	left, x, top = left[:len(dst)], x[:len(dst)], top[:len(dst)]
	for i, v := range top {
		if x[i] == v {
			dst[i] += left[i]
			left[i] = 0
		}
	}
}
