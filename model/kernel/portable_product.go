package kernel

func productGo(p product) {
	for i := range p.m {
		row := p.dst[i*p.dstStride:][:p.n]
		if !p.add {
			clear(row)
		}
		a := func(l int) float32 { return p.alpha * p.a[i*p.aRow+l*p.aCol] }
		l := 0
		for ; l+4 <= p.k; l += 4 {
			fold4Go(row, p.b[l*p.bStride:], p.b[(l+1)*p.bStride:], p.b[(l+2)*p.bStride:], p.b[(l+3)*p.bStride:],
				a(l), a(l+1), a(l+2), a(l+3))
		}
		for ; l < p.k; l++ {
			axpyGo(row, p.b[l*p.bStride:], a(l))
		}
		if p.bias != nil {
			addGo(row, row, p.bias)
		}
		if p.relu {
			reluGo(row, row)
		}
	}
}

func transposeGo(dst []float32, dstStride int, src []float32, srcStride, rows, cols int) {
	for i := range rows {
		to := dst[i:]
		for j, v := range src[i*srcStride:][:cols] {
			to[j*dstStride] = v
		}
	}
}
