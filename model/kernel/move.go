package kernel

import "fmt"

// Grid is rows and columns of short vectors, as an image is of pixels: that at (i, j) begins at Data[i*Row+j*Column].
type Grid struct {
	Data        []float32
	Row, Column int
}

// Move is dst = src, or dst += src if add, for grids of rows × cols vectors of n. Those of dst must not overlap.
func Move(dst, src Grid, rows, cols, n int, add bool) {
	if rows == 0 || cols == 0 || n == 0 {
		return
	}
	dst.reach("dst", rows, cols, n)
	src.reach("src", rows, cols, n)
	most := max(1, block/(cols*n)) // rows a call: assembly is not preempted
	for i := 0; i < rows; i += most {
		use.move(Grid{dst.Data[i*dst.Row:], dst.Row, dst.Column}, Grid{src.Data[i*src.Row:], src.Row, src.Column}, min(most, rows-i), cols, n, add)
	}
}

// reach panics unless the data reach to the end of the last of rows × cols vectors of n.
func (g Grid) reach(name string, rows, cols, n int) {
	if min(rows, cols, n, g.Row, g.Column) < 0 || len(g.Data) < (rows-1)*g.Row+(cols-1)*g.Column+n {
		panic(fmt.Sprintf("kernel: %s of %d floats, rows %d and columns %d apart, is not %d×%d vectors of %d",
			name, len(g.Data), g.Row, g.Column, rows, cols, n))
	}
}
