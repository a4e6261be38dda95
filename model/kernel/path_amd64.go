package kernel

import "golang.org/x/sys/cpu"

//go:generate go -C gen run . ..

// available lists the paths of this processor, the fastest last.
func available() []*path {
	paths := []*path{portable}
	x := cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasBMI2 || !x.HasPOPCNT {
		return paths
	}
	paths = append(paths, avx2)
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
		paths = append(paths, avx512(x.HasAVX512VNNI))
	}
	return paths
}

// What assembly of AVX2 does to int8 it does to whole vectors only; plain Go does the rest.
var avx2 = &path{
	name:       "avx2",
	width:      8,
	product:    func(p product) { p.tiled(tilesAVX2, 8) },
	transpose:  strided(transposeAVX2),
	axpby:      axpbyAVX2,
	axpy:       axpyAVX2,
	scale:      scaleAVX2,
	add:        addAVX2,
	multiply:   multiplyAVX2,
	multiplyTo: multiplyToAVX2,
	fold4:      fold4AVX2,
	dot:        dotAVX2,
	sum:        sumAVX2,
	maxAbs:     maxAbsAVX2,
	max:        maxAVX2,
	move: func(dst, src Grid, rows, cols, n int, add bool) {
		moveAVX2(&dst.Data[0], 4*dst.Row, 4*dst.Column, &src.Data[0], 4*src.Row, 4*src.Column, rows, cols, n, number(add))
	},
	maxPool: func(dst, src []float32, p Pool) {
		maxPoolAVX2(&dst[0], &src[0], p.Columns, p.Channels, p.Kernel, 4*p.Step, 4*p.Width)
	},
	routePool: func(dst, grad, src, top []float32, p Pool, add bool) {
		routePoolAVX2(&dst[0], &grad[0], &src[0], &top[0], number(add), p.Columns, p.Channels, p.Kernel, 4*p.Step, 4*p.Width)
	},
	relu:        reluAVX2,
	exp:         expAVX2,
	expSum:      expSumAVX2,
	sigmoid:     sigmoidAVX2,
	tanh:        tanhAVX2,
	reluGrad:    reluGradAVX2,
	sigmoidGrad: sigmoidGradAVX2,
	tanhGrad:    tanhGradAVX2,
	momentum:    momentumAVX2,
	adaptive: func(w, m, v, g []float32, s AdaptiveStep) {
		adaptiveAVX2(w, m, v, g, s.KeepM, s.AddM, s.KeepV, s.AddV, s.Rate, s.Root, s.Epsilon, s.Shrink)
	},
	toFixed:         toFixedAVX2,
	toFixedRandomly: toFixedRandomlyAVX2,
	fromFixed:       fromFixedAVX2,
	addUint32:       addUint32AVX2,
	quantise: func(q []int8, x []float32, inverse float32) {
		whole := len(q) &^ 7
		quantiseAVX2(q[:whole], x[:whole], inverse)
		quantiseGo(q[whole:], x[whole:], inverse)
	},
	axpyInt8: func(dst []float32, q []int8, a float32) {
		whole := len(dst) &^ 7
		axpyInt8AVX2(dst[:whole], q[:whole], a)
		axpyInt8Go(dst[whole:], q[whole:], a)
	},
	dotInt8: func(a, b []int8) int32 {
		whole := len(a) &^ 15
		return dotInt8AVX2(a[:whole], b[:whole]) + dotInt8Go(a[whole:], b[whole:])
	},
	productInt8: tiledInt8(tilesInt8AVX2, 8),
	rescale:     rescaleAVX2,
	exchange:    exchangeAVX2,
	addRows:     addRowsAVX2,
	addDots:     tiledDots(widenAVX2, dotTileAVX2, dotRowsAVX2),
	addScaled: func(acc []int64, q []int32, w int32) {
		whole := len(acc) &^ 3
		addScaledAVX2(acc[:whole], q[:whole], w)
		addScaledGo(acc[whole:], q[whole:], w)
	},
	addFixed: func(acc []int64, x []float32, inverse, limit float64, w int32) int {
		whole := len(acc) &^ 7
		return addFixedAVX2(acc[:whole], x[:whole], inverse, limit, w) + addFixedGo(acc[whole:], x[whole:], inverse, limit, w)
	},
	addScaledDouble: func(acc []float64, q []int32, w float64) {
		whole := len(acc) &^ 3
		addScaledDoubleAVX2(acc[:whole], q[:whole], w)
		addScaledDoubleGo(acc[whole:], q[whole:], w)
	},
}

// avx512 is the path of AVX-512; without VNNI it takes int8 products from AVX2.
func avx512(vnni bool) *path {
	p := &path{
		name:       "avx512",
		width:      16,
		product:    func(p product) { p.tiled(tilesAVX512, 16) },
		transpose:  strided(transposeAVX512),
		axpby:      axpbyAVX512,
		axpy:       axpyAVX512,
		scale:      scaleAVX512,
		add:        addAVX512,
		multiply:   multiplyAVX512,
		multiplyTo: multiplyToAVX512,
		fold4:      fold4AVX512,
		dot:        dotAVX512,
		sum:        sumAVX512,
		maxAbs:     maxAbsAVX512,
		max:        maxAVX512,
		move: func(dst, src Grid, rows, cols, n int, add bool) {
			moveAVX512(&dst.Data[0], 4*dst.Row, 4*dst.Column, &src.Data[0], 4*src.Row, 4*src.Column, rows, cols, n, number(add))
		},
		maxPool: func(dst, src []float32, p Pool) {
			maxPoolAVX512(&dst[0], &src[0], p.Columns, p.Channels, p.Kernel, 4*p.Step, 4*p.Width)
		},
		routePool: func(dst, grad, src, top []float32, p Pool, add bool) {
			routePoolAVX512(&dst[0], &grad[0], &src[0], &top[0], number(add), p.Columns, p.Channels, p.Kernel, 4*p.Step, 4*p.Width)
		},
		relu:        reluAVX512,
		exp:         expAVX512,
		expSum:      expSumAVX512,
		sigmoid:     sigmoidAVX512,
		tanh:        tanhAVX512,
		reluGrad:    reluGradAVX512,
		sigmoidGrad: sigmoidGradAVX512,
		tanhGrad:    tanhGradAVX512,
		momentum:    momentumAVX512,
		adaptive: func(w, m, v, g []float32, s AdaptiveStep) {
			adaptiveAVX512(w, m, v, g, s.KeepM, s.AddM, s.KeepV, s.AddV, s.Rate, s.Root, s.Epsilon, s.Shrink)
		},
		toFixed:         toFixedAVX512,
		toFixedRandomly: toFixedRandomlyAVX512,
		fromFixed:       fromFixedAVX512,
		addUint32:       addUint32AVX512,
		quantise:        quantiseAVX512,
		axpyInt8:        axpyInt8AVX512,
		dotInt8:         avx2.dotInt8,
		productInt8:     avx2.productInt8,
		rescale:         rescaleAVX512,
		exchange:        exchangeAVX512,
		addRows:         addRowsAVX512,
		addDots:         tiledDots(widenAVX512, dotTileAVX512, dotRowsAVX512),
		addScaled: func(acc []int64, q []int32, w int32) {
			whole := len(acc) &^ 7
			addScaledAVX512(acc[:whole], q[:whole], w)
			addScaledGo(acc[whole:], q[whole:], w)
		},
		addFixed: func(acc []int64, x []float32, inverse, limit float64, w int32) int {
			whole := len(acc) &^ 15
			return addFixedAVX512(acc[:whole], x[:whole], inverse, limit, w) + addFixedGo(acc[whole:], x[whole:], inverse, limit, w)
		},
		addScaledDouble: func(acc []float64, q []int32, w float64) {
			whole := len(acc) &^ 7
			addScaledDoubleAVX512(acc[:whole], q[:whole], w)
			addScaledDoubleGo(acc[whole:], q[whole:], w)
		},
	}
	if vnni {
		p.dotInt8 = dotInt8AVX512
		p.productInt8 = tiledInt8(tilesInt8AVX512, 16)
	}
	return p
}

// number is a flag of assembly.
func number(flag bool) int {
	if flag {
		return 1
	}
	return 0
}

// tiledDots computes dot products with tiles of so many rows by four; where rows are missing at the end, the last is taken
// again. Each row is converted to float64 once, and filled up with zeros to whole vectors.
func tiledDots(widen func([]float64, []int32), tile func(dst *[16]int64, a, b *[4]*float64, n int), rows int) func([]int64, [][]int32, []float64) {
	return func(dst []int64, x [][]int32, scratch []float64) {
		const stride = DotColumns + dotPadding
		n := len(x[0])
		whole, padded := n&^(dotPadding-1), (n+dotPadding-1)&^(dotPadding-1)
		for i, q := range x {
			row := scratch[i*stride:][:padded]
			widen(row[:whole], q[:whole])
			clear(row[whole:])
			for k := whole; k < n; k++ {
				row[k] = float64(q[k])
			}
		}
		from := func(first int) (p [4]*float64) {
			for i := range p {
				p[i] = &scratch[min(first+i, len(x)-1)*stride]
			}
			return p
		}
		var out [16]int64
		for i := 0; i < len(x); i += rows {
			a := from(i)
			for j := 0; j < i+rows && j < len(x); j += 4 {
				b := from(j)
				tile(&out, &a, &b, padded)
				for k := i; k < min(i+rows, len(x)); k++ {
					to := dst[k*len(x)+j : k*len(x)+min(j+4, k+1, len(x))]
					for l := range to {
						to[l] += out[4*(k-i)+l]
					}
				}
			}
		}
	}
}

// strided adapts a transposition in assembly, whose strides are in bytes.
func strided(t func(dst *float32, dstStride int, src *float32, srcStride, rows, cols int)) func([]float32, int, []float32, int, int, int) {
	return func(dst []float32, dstStride int, src []float32, srcStride, rows, cols int) {
		if rows > 0 && cols > 0 {
			t(&dst[0], 4*dstStride, &src[0], 4*srcStride, rows, cols)
		}
	}
}

// tile computes a few rows of a product, count times its width along them, or, masked, count columns. It adds up blocks of
// k products; a jumps from the end of one to the next. Strides and jump are in bytes.
type tile func(dst *float32, dstStride int, a *float32, aRow, aCol int, b *float32, bStride int, k, blocks, jump, count int, alpha float32, bias *float32, flags int)

// Flags of a tile.
const (
	flagAdd   = 1 // to what dst holds
	flagScale = 2 // by alpha; adding scales always
	flagReLU  = 4
	flagBias  = 8
)

// whole is how many whole vectors the tiles of a row of a table compute. The first and the third compute one more, of which
// only the first lanes take part.
var whole = [6]int{0, 1, 1, 2, 4, 8}

// masked reports whether those at w do.
func masked(w int) bool { return w == 0 || w == 2 }

// tiled computes the product with tiles of vectors of width columns. b is used where it lies, never packed: blocks of
// maxDepth by maxBlock/maxDepth of it stay in the second cache while all rows pass over them. One call of a tile stays
// far below 100 µs.
func (p *product) tiled(tiles [][6]tile, width int) {
	if p.k == 0 {
		productGo(*p)
		return
	}
	for i := 1; i < p.repeat.Times; i++ {
		p.once(tiles, width)
		p.dst, p.a = p.dst[p.repeat.Dst:], p.a[p.repeat.A:]
	}
	p.once(tiles, width)
}

const maxDepth, maxBlock = 256, 1 << 17 // floats

// once computes one product, block by block of a's columns if they are deep.
func (p *product) once(tiles [][6]tile, width int) {
	block, blocks := p.blocks()
	if blocks == 1 || block <= maxDepth {
		p.cut(tiles, width)
		return
	}
	for l := 0; l < p.k; l += block {
		part := *p
		part.a, part.b, part.k, part.add = p.a[l/block*p.jump:], p.b[l*p.bStride:], block, p.add || l > 0
		if l+block < p.k {
			part.bias, part.relu = nil, false
		}
		part.cut(tiles, width)
	}
}

// cut computes one product in parts that are neither too deep nor too wide; of several blocks, each has whole ones.
func (p *product) cut(tiles [][6]tile, width int) {
	if p.k <= maxDepth && p.n <= maxBlock/maxDepth {
		p.rows(tiles, width)
		return
	}
	block, blocks := p.blocks()
	unit := 1 // of depth
	if blocks > 1 {
		unit = block
	}
	parts := (p.k + maxDepth - 1) / maxDepth
	depth := (p.k/unit + parts - 1) / parts * unit
	cols := max(maxBlock/depth&^63, 64)
	for l := 0; l < p.k; l += depth {
		for j := 0; j < p.n; j += cols {
			part := *p
			part.a, part.b, part.dst = p.a[l/block*p.jump+l%block*p.aCol:], p.b[l*p.bStride+j:], p.dst[j:]
			part.k, part.n = min(depth, p.k-l), min(cols, p.n-j)
			part.block = min(block, part.k)
			part.add = p.add || l > 0
			if l+depth < p.k {
				part.bias, part.relu = nil, false
			} else if p.bias != nil {
				part.bias = p.bias[j:]
			}
			part.rows(tiles, width)
		}
	}
}

// rows computes the product in stripes of about as many rows each, as few as may be.
func (p *product) rows(tiles [][6]tile, width int) {
	if p.m <= len(tiles) {
		p.stripe(&tiles[p.m-1], width, 0)
		return
	}
	stripes := (p.m + len(tiles) - 1) / len(tiles)
	for i := 0; i < p.m; {
		rows := (p.m - i + stripes - 1) / stripes
		p.stripe(&tiles[rows-1], width, i)
		i += rows
		stripes--
	}
}

// stripe computes the rows from i on that the tiles have: with the widest as far as it goes, and the last columns behind
// a mask.
func (p *product) stripe(tiles *[6]tile, width, i int) {
	flags := 0
	if p.add {
		flags |= flagAdd
	}
	if p.alpha != 1 {
		flags |= flagScale
	}
	if p.relu {
		flags |= flagReLU
	}
	var bias *float32
	if p.bias != nil {
		flags |= flagBias
	}
	block, blocks := p.blocks()
	for j, w := 0, len(tiles)-1; j < p.n; {
		left, lanes := p.n-j, whole[w]*width
		if left < lanes || masked(w) && left == lanes || tiles[w] == nil {
			w--
			continue
		}
		count, next := left-lanes, p.n
		if !masked(w) {
			count = left / lanes
			next = j + count*lanes
		}
		if p.bias != nil {
			bias = &p.bias[j]
		}
		tiles[w](&p.dst[i*p.dstStride+j], 4*p.dstStride, &p.a[i*p.aRow], 4*p.aRow, 4*p.aCol, &p.b[j], 4*p.bStride, block, blocks,
			4*(p.jump-block*p.aCol), count, p.alpha, bias, flags)
		j = next
	}
}

// tileInt8 computes a few rows of ProductInt8, as tile does. Strides are in bytes; k counts words.
type tileInt8 func(dst *int32, dstStride int, a *int8, aRow int, packed *int32, packedStride int, k, count int)

// tiledInt8 is ProductInt8 with tiles of vectors of width columns.
func tiledInt8(tiles [][]tileInt8, width int) func(dst []int32, a []int8, packed []int32, m, n, k int) {
	return func(dst []int32, a []int8, packed []int32, m, n, k int) {
		for i := 0; i < m; i += len(tiles) {
			stripe := tiles[min(len(tiles), m-i)-1]
			for j, w := 0, len(stripe)-1; j < n; {
				count, lanes := n-j, 1 // masked
				if w > 0 {
					lanes = [...]int{0, 1, 4}[w] * width
					if count /= lanes; count == 0 {
						w--
						continue
					}
					count = min(count, max(1, block/(lanes*((k+3)/4)))) // a call is not preempted
				}
				stripe[w](&dst[i*n+j], 4*n, &a[i*Int8Stride(k)], Int8Stride(k), &packed[j], 4*n, (k+3)/4, count)
				j += count * lanes
			}
		}
	}
}
