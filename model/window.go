package model

import "choir.example/model/kernel"

// window is how a square kernel slides over an image of channels, of which it sees a slice: where the rows of a matrix
// product come from. The image of an example is height × width × channels.
type window struct {
	height, width, channels int
	from, seen              int // first channel seen, and how many
	kernel, stride, padding int
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

// turn writes the image to dst, of length size.
func (v window) turn(dst, image []float32) turned {
	switch {
	case v.pixels():
	case v.channels == 1:
		v.clearPadding(dst)
		inner := kernel.Matrix{Data: dst[v.padding*(v.column()+1):], Stride: v.column()}
		kernel.Transpose(inner, kernel.Matrix{Data: image, Stride: v.width}, v.height, v.width)
	default:
		turnPixels(v, dst, image)
	}
	return v.over(dst, image)
}

func (v window) clearPadding(dst []float32) {
	if v.padding > 0 {
		clear(dst[:v.size()])
	}
}

// turnPixels turns an image of floats or of int8 of any channels.
func turnPixels[T float32 | int8](v window, dst, image []T) {
	if v.padding > 0 {
		clear(dst[:(v.width+2*v.padding)*v.column()])
	}
	for y := range v.height {
		src := image[y*v.width*v.channels+v.from:]
		for x := range v.width {
			copy(dst[v.at(x, y):][:v.seen], src[x*v.channels:])
		}
	}
}

// at is where pixel x, y lies in a turned image.
func (v window) at(x, y int) int { return (x+v.padding)*v.column() + (y+v.padding)*v.seen }

// turnBack writes a turned gradient as that of the image, or adds it.
func (v window) turnBack(image, src []float32, add bool) {
	for y := range v.height {
		dst := image[y*v.width*v.channels+v.from:]
		for x := range v.width {
			from, to := src[v.at(x, y):][:v.seen], dst[x*v.channels:][:v.seen]
			if add {
				kernel.Add(to, to, from)
			} else {
				copy(to, from)
			}
		}
	}
}

// row is row y of the windows over a turned image: one a row of a matrix.
func (v window) row(t turned, y int) kernel.Strided {
	return kernel.Strided{Data: t.data[y*v.stride*t.row:], Row: v.stride * t.column, Column: 1, Block: v.block(), Jump: t.column}
}

// values are, each a row, what the windows see in one of their columns, of rows × columns windows in order.
func (v window) values(t turned, column, columns int) kernel.Strided {
	return kernel.Strided{Data: t.data[column*t.column:], Row: 1, Column: v.stride * t.column, Block: columns, Jump: v.stride * t.row}
}
