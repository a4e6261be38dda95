package model

import "choir.example/model/kernel"

// window is how a square kernel slides over an image of channels, of which it sees a slice: where the rows of a matrix
// product come from. The image of an example is height × width × channels.
type window struct {
	height, width, channels int
	from, seen              int // first channel seen, and how many
	kernel, stride, padding int
}

// lineSize is what line writes.
func (v window) lineSize() int { return (v.width + 2*v.padding) * v.column() }

// column is the size of one column of a line.
func (v window) column() int { return v.kernel * v.seen }

// line writes what row y of the output sees: for every column of the padded image the kernel's rows of it, one below
// the other. Windows side by side then overlap in memory as they do in the image: the window at x is kernel·column
// values from x·stride·column on, so that a line is a matrix with overlapping rows, and a convolution a product of it
// with the weights, where im2col would copy every value kernel² times. A kernel of one column needs no copy at all.
func (v window) line(dst, image []float32, y int) kernel.Matrix {
	if !v.pixels() {
		layOut(v, dst, image, y)
	}
	return v.view(dst, image, y)
}

// layOut writes a line of an image of floats or of int8.
func layOut[T float32 | int8](v window, dst, image []T, y int) {
	column := v.column()
	clear(dst[:v.padding*column])
	clear(dst[(v.padding+v.width)*column : v.lineSize()])
	inner := dst[v.padding*column : (v.padding+v.width)*column]
	for k := range v.kernel {
		strip(v, inner[k*v.seen:], image, y*v.stride+k-v.padding)
	}
}

// pixels reports whether a window is a single pixel, which lies in the image as it does in a line.
func (v window) pixels() bool { return v.kernel == 1 && v.padding == 0 }

// view is the line that line wrote before.
func (v window) view(line, image []float32, y int) kernel.Matrix {
	if v.pixels() {
		return kernel.Matrix{Data: image[y*v.stride*v.width*v.channels+v.from:], Stride: v.stride * v.channels}
	}
	return kernel.Matrix{Data: line, Stride: v.stride * v.column()}
}

// strip writes one row of the image, or zeros outside of it, a column apart.
func strip[T float32 | int8](v window, dst, image []T, row int) {
	column := v.column()
	if row < 0 || row >= v.height {
		for x := range v.width {
			clear(dst[x*column:][:v.seen])
		}
		return
	}
	src := image[row*v.width*v.channels+v.from:]
	if v.seen == 1 {
		for x := range v.width {
			dst[x*column] = src[x*v.channels]
		}
		return
	}
	for x := range v.width {
		copy(dst[x*column:][:v.seen], src[x*v.channels:])
	}
}

// addLine adds what line would have read: the gradient of a line to the gradient of the image.
func (v window) addLine(image, line []float32, columns, y int) {
	size := v.kernel * v.column()
	for x := range columns {
		for i := range v.kernel * v.kernel { // column by column
			row, column := y*v.stride+i%v.kernel-v.padding, x*v.stride+i/v.kernel-v.padding
			if row < 0 || row >= v.height || column < 0 || column >= v.width {
				continue
			}
			dst := image[(row*v.width+column)*v.channels+v.from:][:v.seen]
			kernel.Add(dst, dst, line[x*size+i*v.seen:][:v.seen])
		}
	}
}
