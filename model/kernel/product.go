package kernel

import "fmt"

// Activation is a function that a product applies to each element that it writes.
type Activation uint8

// The activations. NaN stays NaN under all of them.
const (
	Identity Activation = iota
	ReLU
	Sigmoid
	Tanh
)

// Matrix is a view of row-major data: element (i, j) is Data[i*Stride+j].
type Matrix struct {
	Data   []float32
	Stride int // distance of two rows, at least the columns; less in a source whose rows overlap, as windows of an image do
}

// Strided is a matrix that need not lie row by row, and whose columns come in blocks: element (i, j) is
// Data[i*Row+j%Block*Column+j/Block*Jump]. So lie the windows of an image, a block a column of pixels; and, transposed, the
// values of all windows at one of their places.
type Strided struct {
	Data                     []float32
	Row, Column, Block, Jump int
}

// Epilogue is what NN does to a product before it writes it: dst = act(beta·dst + a·b + bias).
type Epilogue struct {
	Beta       float32   // 0: dst is only written, whatever it held
	Bias       []float32 // one a column, or nil
	Activation Activation
}

// NTScratch is how many float32s of scratch NT wants.
const NTScratch = 2 * panel * panelDepth

// A panel is what NT holds transposed: 64 columns by 256 deep stay in the innermost cache.
const (
	panel      = 64
	panelDepth = 256
)

// product is dst = alpha·a·b, plus dst if add, plus bias unless nil, and then max(0, ·) if relu. a is as in Strided, so that
// it may be transposed, or one row repeated; a block of 0 is all of k.
type product struct {
	dst, a, b  []float32
	dstStride  int
	aRow, aCol int
	block      int
	jump       int
	repeat     Repeat // 0 times is once
	bStride    int
	m, n, k    int // of dst: rows, columns; k products a sum
	alpha      float32
	add        bool
	bias       []float32
	relu       bool
}

// NN is dst = act(beta·dst + a·b + bias) for dst of m×n, a of m×k, b of k×n: the forward pass, with weights of
// inputs × outputs.
func NN(dst, a, b Matrix, m, n, k int, e Epilogue) {
	if m == 0 || n == 0 {
		return
	}
	dst.hold("dst", m, n)
	a.reach("a", m, k)
	b.reach("b", k, n)
	add := dst.scale(m, n, e.Beta)
	p := product{dst: dst.Data, dstStride: dst.Stride, a: a.Data, aRow: a.Stride, aCol: 1, b: b.Data, bStride: b.Stride,
		m: m, n: n, k: k, alpha: 1, add: add, relu: e.Activation == ReLU}
	if e.Bias != nil {
		p.bias = e.Bias[:n]
	}
	if n == 1 && b.Stride == 1 {
		p.dots()
	} else {
		use.product(p)
	}
	dst.activate(m, n, e.Activation)
}

// Repeat is how often a product is taken, and how many floats dst and a move on each time.
type Repeat struct{ Times, Dst, A int }

// Products is dst = act(beta·dst + alpha·a·b + bias) for dst of m×n, a of m×k, b of k×n, where k is whole blocks, once or for
// several dst and a one after the other: what one wrote, the next may add to. Rows of a convolution are such, and the
// gradients of its weights and its input.
func Products(r Repeat, dst Matrix, a Strided, b Matrix, m, n, k int, alpha float32, e Epilogue) {
	if m == 0 || n == 0 || r.Times == 0 {
		return
	}
	if min(r.Times, r.Dst, r.A) < 0 {
		panic(fmt.Sprintf("kernel: products repeated %+v", r))
	}
	Matrix{dst.Data[(r.Times-1)*r.Dst:], dst.Stride}.hold("dst", m, n)
	Strided{a.Data[(r.Times-1)*r.A:], a.Row, a.Column, a.Block, a.Jump}.reach("a", m, k)
	b.reach("b", k, n)
	p := product{dst: dst.Data, dstStride: dst.Stride, a: a.Data, aRow: a.Row, aCol: a.Column, block: a.Block, jump: a.Jump,
		b: b.Data, bStride: b.Stride, m: m, n: n, k: k, alpha: alpha, add: e.Beta != 0, relu: e.Activation == ReLU, repeat: r}
	if e.Bias != nil {
		p.bias = e.Bias[:n]
	}
	if e.Activation <= ReLU && (e.Beta == 0 || e.Beta == 1) {
		use.product(p)
		return
	}
	for i := range r.Times {
		p.dst, p.a, p.repeat.Times = dst.Data[i*r.Dst:], a.Data[i*r.A:], 1
		one := Matrix{p.dst, dst.Stride}
		one.scale(m, n, e.Beta)
		use.product(p)
		one.activate(m, n, e.Activation)
	}
}

// TN is dst = beta·dst + alpha·aᵀ·b for dst of m×n, a of k×m, b of k×n: the gradient of the weights. With alpha = -rate
// and beta = 1 it is a step of SGD on them, and the gradient is never written.
func TN(dst, a, b Matrix, m, n, k int, alpha, beta float32) {
	if m == 0 || n == 0 {
		return
	}
	dst.hold("dst", m, n)
	a.reach("a", k, m)
	b.reach("b", k, n)
	add := dst.scale(m, n, beta)
	p := product{dst: dst.Data, dstStride: dst.Stride, a: a.Data, aRow: 1, aCol: a.Stride, b: b.Data, bStride: b.Stride,
		m: m, n: n, k: k, alpha: alpha, add: add}
	if n == 1 && dst.Stride == 1 { // one column: as a row it fills the vectors
		p.a, p.aRow, p.aCol, p.b, p.bStride = b.Data, 1, b.Stride, a.Data, a.Stride
		p.m, p.n, p.dstStride = 1, m, m
	}
	use.product(p)
}

// NT is dst = beta·dst + a·bᵀ for dst of m×n, a of m×k, b of n×k: the gradient with respect to a layer's input.
// scratch holds NTScratch float32s.
func NT(dst, a, b Matrix, m, n, k int, beta float32, scratch []float32) {
	if m == 0 || n == 0 {
		return
	}
	dst.hold("dst", m, n)
	a.reach("a", m, k)
	b.reach("b", n, k)
	scratch = scratch[:NTScratch]
	add := dst.scale(m, n, beta)
	switch {
	case m < 4 || k == 0:
		for i := range m { // few rows are not worth a transposition: each is a product with one column
			p := product{dst: dst.Data[i*dst.Stride:], dstStride: 1, a: b.Data, aRow: b.Stride, aCol: 1, b: a.Data[i*a.Stride:],
				m: n, k: k, add: add}
			p.dots()
		}
	case m*(n+k) < n*k:
		transposedLeft(dst, a, b, m, n, k, add, scratch)
	default:
		transposedRight(dst, a, b, m, n, k, add, scratch)
	}
}

// transposedLeft computes dstᵀ = b·aᵀ, transposing panels of a before and of dst after: the way for a few rows a times
// a large b, which is read in place.
func transposedLeft(dst, a, b Matrix, m, n, k int, add bool, scratch []float32) {
	at, out := scratch[:panel*panelDepth], scratch[panel*panelDepth:]
	for l := 0; l < k; l += panelDepth {
		depth := min(panelDepth, k-l)
		for i := 0; i < m; i += panel {
			rows := min(panel, m-i)
			use.transpose(at, rows, a.Data[i*a.Stride+l:], a.Stride, rows, depth)
			for j := 0; j < n; j += panelDepth {
				cols := min(panelDepth, n-j)
				block := dst.Data[i*dst.Stride+j:]
				if add {
					use.transpose(out, rows, block, dst.Stride, rows, cols)
				}
				use.product(product{dst: out, dstStride: rows, a: b.Data[j*b.Stride+l:], aRow: b.Stride, aCol: 1, b: at,
					bStride: rows, m: cols, n: rows, k: depth, alpha: 1, add: add})
				use.transpose(block, dst.Stride, out, rows, cols, rows)
			}
		}
		add = true
	}
}

// transposedRight computes dst = a·(bᵀ), transposing panels of b: the way where b is small against a.
func transposedRight(dst, a, b Matrix, m, n, k int, add bool, scratch []float32) {
	for l := 0; l < k; l += panelDepth {
		depth := min(panelDepth, k-l)
		for j := 0; j < n; j += panel {
			cols := min(panel, n-j)
			use.transpose(scratch, cols, b.Data[j*b.Stride+l:], b.Stride, cols, depth)
			use.product(product{dst: dst.Data[j:], dstStride: dst.Stride, a: a.Data[l:], aRow: a.Stride, aCol: 1, b: scratch,
				bStride: cols, m: m, n: cols, k: depth, alpha: 1, add: add})
		}
		add = true
	}
}

// Transpose is dst = srcᵀ for src of rows × cols.
func Transpose(dst, src Matrix, rows, cols int) {
	dst.hold("dst", cols, rows)
	src.reach("src", rows, cols)
	const tall = 256 // rows a call: assembly is not preempted
	for i := 0; i < rows; i += tall {
		for j := 0; j < cols; j += tall {
			use.transpose(dst.Data[j*dst.Stride+i:], dst.Stride, src.Data[i*src.Stride+j:], src.Stride, min(tall, rows-i), min(tall, cols-j))
		}
	}
}

// AddColumnSums is dst += alpha·(sum over the m rows of x) for x of m×n, dst of length n: the bias step.
func AddColumnSums(dst, x []float32, m, n int, alpha float32) {
	if n == 0 {
		return
	}
	Matrix{x, n}.reach("x", m, n)
	use.product(product{dst: dst[:n], dstStride: n, a: one[:], b: x, bStride: n, m: 1, n: n, k: m, alpha: alpha, add: true})
}

// one, with strides of 0, is a row of ones.
var one = [1]float32{1}

// blocks is how many columns of a make a block, and how many blocks they are.
func (p *product) blocks() (block, blocks int) {
	if p.block == 0 {
		return p.k, min(1, p.k)
	}
	return p.block, p.k / p.block
}

// dots is the product with one column: element by element it is the dot product of two contiguous vectors.
func (p product) dots() {
	b := p.b[:p.k]
	for i := range p.m {
		s := Dot(p.a[i*p.aRow:][:p.k], b)
		if p.add {
			s += p.dst[i*p.dstStride]
		}
		if p.bias != nil {
			s += p.bias[0]
		}
		if p.relu && s < 0 {
			s = 0
		}
		p.dst[i*p.dstStride] = s
	}
}

// activate applies what a product does not.
func (m Matrix) activate(rows, cols int, act Activation) {
	if act <= ReLU {
		return
	}
	for i := range rows {
		row := m.Data[i*m.Stride:][:cols]
		Activate(row, row, act)
	}
}

// scale makes dst beta·dst, and reports whether a product is to be added to it. What a beta of 0 leaves is overwritten.
func (m Matrix) scale(rows, cols int, beta float32) (add bool) {
	if beta != 0 && beta != 1 {
		for i := range rows {
			Scale(m.Data[i*m.Stride:][:cols], beta)
		}
	}
	return beta != 0
}

// hold panics unless the matrix has rows × cols elements, all of them different ones.
func (m Matrix) hold(name string, rows, cols int) {
	m.reach(name, rows, cols)
	if rows > 1 && m.Stride < cols {
		panic(fmt.Sprintf("kernel: rows of %s, %d floats long, lie %d apart", name, cols, m.Stride))
	}
}

// reach panics unless the data reach to the last of rows × cols elements. Rows of a source may overlap.
func (m Matrix) reach(name string, rows, cols int) {
	if rows > 0 && cols > 0 && (m.Stride < 0 || len(m.Data) < (rows-1)*m.Stride+cols) || rows < 0 || cols < 0 {
		panic(fmt.Sprintf("kernel: %s of %d floats with rows %d apart is not %d×%d", name, len(m.Data), m.Stride, rows, cols))
	}
}

// reach panics unless the columns are whole blocks and the data reach to the last of rows × cols elements.
func (s Strided) reach(name string, rows, cols int) {
	if rows < 0 || cols < 0 || s.Block < 1 || cols%s.Block != 0 || min(s.Row, s.Column, s.Jump) < 0 ||
		rows > 0 && cols > 0 && len(s.Data) <= (rows-1)*s.Row+(cols/s.Block-1)*s.Jump+(s.Block-1)*s.Column {
		panic(fmt.Sprintf("kernel: %s of %d floats, rows %d and columns %d apart, %d to a block, %d from block to block, is not %d×%d",
			name, len(s.Data), s.Row, s.Column, s.Block, s.Jump, rows, cols))
	}
}
