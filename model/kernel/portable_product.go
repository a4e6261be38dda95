package kernel

func productGo(p product) {
	for i := range max(1, p.repeat.Times) {
		once := p
		once.dst, once.a = p.dst[i*p.repeat.Dst:], p.a[i*p.repeat.A:]
		once.plain()
	}
}

// plain computes one product.
func (p *product) plain() {
	block, blocks := p.blocks()
	for i := range p.m {
		row := p.dst[i*p.dstStride:][:p.n]
		if !p.add {
			clear(row)
		}
		for l := range blocks {
			p.blockGo(row, p.a[i*p.aRow+l*p.jump:], p.b[l*block*p.bStride:], block)
		}
		if p.bias != nil {
			addGo(row, row, p.bias)
		}
		if p.relu {
			reluGo(row, row)
		}
	}
}

// blockGo adds a block of k columns to a row.
func (p *product) blockGo(row, a, b []float32, k int) {
	at := func(l int) float32 { return p.alpha * a[l*p.aCol] }
	l := 0
	for ; l+4 <= k; l += 4 {
		fold4Go(row, b[l*p.bStride:], b[(l+1)*p.bStride:], b[(l+2)*p.bStride:], b[(l+3)*p.bStride:],
			at(l), at(l+1), at(l+2), at(l+3))
	}
	for ; l < k; l++ {
		axpyGo(row, b[l*p.bStride:], at(l))
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
