package model

import "choir.example/model/kernel"

// maxInt8Depth is the longest dot product that the kernel takes.
const maxInt8Depth = 1 << 16

// int8Matrix is a matrix of weights packed for products.
type int8Matrix struct {
	inputs, outputs int
	parts           [][]int32 // packed, each of maxInt8Depth inputs but the last
	scales          []float32
}

func newInt8Matrix(t Int8Tensor, inputs, outputs int) int8Matrix {
	m := int8Matrix{inputs: inputs, outputs: outputs, scales: t.Scales}
	for lo := 0; lo < inputs; lo += maxInt8Depth {
		k := min(maxInt8Depth, inputs-lo)
		weights := make([]int8, 0, outputs*k)
		for o := range outputs {
			weights = append(weights, t.Weights[o*inputs+lo:][:k]...)
		}
		packed := make([]int32, kernel.PackedInt8(outputs, k))
		kernel.PackInt8(packed, weights, outputs, k)
		m.parts = append(m.parts, packed)
	}
	return m
}

// stride is the distance of two quantised rows.
func (m *int8Matrix) stride() int { return kernel.Int8Stride(m.inputs) }

// words is what sums holds in multiply, for as many rows.
func (m *int8Matrix) words(rows int) int {
	if len(m.parts) > 1 {
		rows++ // the products of a part
	}
	return rows * m.outputs
}

// multiply is out = act(x·W + bias) for rows of quantised x with a scale each.
func (m *int8Matrix) multiply(out []float32, outStride int, x []int8, scales []float32, bias []float32, act kernel.Activation, sums []int32) {
	rows := len(scales)
	if len(m.parts) == 1 {
		kernel.ProductInt8(sums, x, m.parts[0], rows, m.outputs, m.inputs)
	} else {
		m.deep(sums, x, rows)
	}
	for i, scale := range scales {
		kernel.Rescale(out[i*outStride:][:m.outputs], sums[i*m.outputs:][:m.outputs], m.scales, bias, scale, act)
	}
}

// deep multiplies part by part.
func (m *int8Matrix) deep(sums []int32, x []int8, rows int) {
	part := sums[rows*m.outputs:][:m.outputs]
	for i := range rows {
		sum := sums[i*m.outputs:][:m.outputs]
		clear(sum)
		for p, packed := range m.parts {
			lo := p * maxInt8Depth
			k := min(maxInt8Depth, m.inputs-lo)
			kernel.ProductInt8(part, x[i*m.stride()+lo:][:kernel.Int8Stride(k)], packed, 1, m.outputs, k)
			for o, v := range part {
				sum[o] += v
			}
		}
	}
}

// quantiseRows quantises rows of n values, each with its own scale, to rows of int8 stride apart.
func quantiseRows(q []int8, stride int, scales, x []float32, n int) {
	for i := range scales {
		scales[i] = kernel.QuantiseRow(q[i*stride:][:n], x[i*n:][:n])
	}
}
