package model

import "choir.example/model/kernel"

// window is how a square kernel slides over an image of channels, of which it sees a slice: where the rows of a matrix
// product come from. The image of an example is height × width × channels.
type window struct {
	height, width, channels int
	from, seen              int // first channel seen, and how many
	kernel, stride, padding int
	abreast                 int // windows that a row of a product takes
}

// turned is an image, or its gradient, as products read and write it: padded, and columns first. What a window sees of a
// column of pixels is then contiguous, and as many values as a column has lie between one and the next: windows are rows
// of a matrix in blocks, and a convolution is a product of them with the weights, where im2col would copy every value
// kernel² times.
type turned struct {
	data        []float32
	column, row int // from a pixel to the one beside it, and to the one below
}

// pixels reports whether a window is a single pixel, which lies in an image as it does in a turned one.
func (v window) pixels() bool { return v.kernel == 1 && v.padding == 0 }

// block is how much a window sees of a column.
func (v window) block() int { return v.kernel * v.seen }

// column is the size of a column of a turned image.
func (v window) column() int { return (v.height + 2*v.padding) * v.seen }

// size is that of a turned image; 0 if nothing need be turned.
func (v window) size() int {
	if v.pixels() {
		return 0
	}
	return (v.width + 2*v.padding) * v.column()
}

// over is the image turned, which lies in dst.
func (v window) over(dst, image []float32) turned {
	if v.pixels() {
		return turned{image[v.from:], v.channels, v.width * v.channels}
	}
	return turned{dst[:v.size()], v.column(), v.seen}
}

// inner is where a turned image has that of an example, between its padding, row by row.
func (v window) inner(t []float32) kernel.Grid {
	return kernel.Grid{Data: t[v.at(0, 0):], Row: v.seen, Column: v.column()}
}

// slice is what is seen of an image.
func (v window) slice(image []float32) kernel.Grid {
	return kernel.Grid{Data: image[v.from:], Row: v.width * v.channels, Column: v.channels}
}

// turn writes the image to dst, of length size.
func (v window) turn(dst, image []float32) turned {
	t := v.over(dst, image)
	if v.pixels() {
		return t
	}
	if v.padding > 0 {
		clear(t.data)
	}
	if to := v.inner(t.data); v.channels == 1 {
		kernel.Transpose(kernel.Matrix{Data: to.Data, Stride: to.Column}, kernel.Matrix{Data: image, Stride: v.width}, v.height, v.width)
	} else {
		kernel.Move(to, v.slice(image), v.height, v.width, v.seen, false)
	}
	return t
}

// turnBack writes a turned gradient as that of the image, or adds it.
func (v window) turnBack(image []float32, t turned, add bool) {
	kernel.Move(v.slice(image), v.inner(t.data), v.height, v.width, v.seen, add)
}

// at is where pixel x, y lies in a turned image.
func (v window) at(x, y int) int { return (x+v.padding)*v.column() + (y+v.padding)*v.seen }

// rows are the first windows over a turned image, side by side: one, or those abreast, a row of a matrix. The next lie
// stride pixels further down.
func (v window) rows(t turned) kernel.Strided {
	return kernel.Strided{Data: t.data, Row: v.abreast * v.stride * t.column, Column: 1, Block: v.block(), Jump: t.column}
}

// values are, each a row, what the windows see in one of their columns, of rows × columns windows in order.
func (v window) values(t turned, column, columns int) kernel.Strided {
	return kernel.Strided{Data: t.data[column*t.column:], Row: 1, Column: v.abreast * v.stride * t.column, Block: columns, Jump: v.stride * t.row}
}
