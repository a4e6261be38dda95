package model

import (
	"fmt"
	"math"
	"testing"
)

// TestConvAgainstLoops holds what comes out of a convolution to sums over its windows in float64: filters that fill vectors
// and that do not, windows abreast, strides, paddings, groups.
func TestConvAgainstLoops(t *testing.T) {
	for _, filters := range []int{1, 2, 3, 4, 6, 8, 12, 16, 20} {
		for _, l := range []LayerSpec{
			{Kernel: 3}, {Kernel: 3, Padding: 1}, {Kernel: 5, Padding: 4, Stride: 3}, {Kernel: 2, Stride: 2}, {Kernel: 1}, {Kernel: 1, Stride: 2},
			{Kernel: 3, Stride: 2, Padding: 1},
		} {
			for _, channels := range []int{1, 6} {
				l.Kind, l.Filters, l.Groups = "conv", filters, 1
				checkConv(t, l, 8, 12, channels)
				if l.Groups = 2; filters%2 == 0 && channels%2 == 0 {
					checkConv(t, l, 7, 9, channels)
				}
			}
		}
	}
}

func checkConv(t *testing.T, l LayerSpec, height, width, channels int) {
	t.Helper()
	const examples = 3
	built, err := newConv(l, [][]int{{height, width, channels}})
	if err != nil {
		t.Fatal(err)
	}
	c, ok := built.(*conv)
	if !ok {
		return // depthwise
	}
	in, size := height*width*channels, values(c.output())
	params, x := reals(c.size()), reals(examples*in)
	out := make([]float32, examples*size)
	c.forward(&pass{n: examples, params: params, in: [][]float32{x}, out: out, work: make([]float32, c.work(examples))})
	seen, each := c.channels/c.groups, c.filters/c.groups
	for i, got := range out {
		example, f, column, row := i/size, i%c.filters, i/c.filters%c.columns, i/c.filters/c.columns%c.rows
		sum := float64(params[c.weights()+f])
		for k := range c.depth() {
			px, py, channel := column*c.stride+k/seen/c.kernel-c.padding, row*c.stride+k/seen%c.kernel-c.padding, f/each*seen+k%seen
			if px >= 0 && px < width && py >= 0 && py < height {
				sum += float64(params[k*c.filters+f]) * float64(x[example*in+(py*width+px)*channels+channel])
			}
		}
		if math.Abs(float64(got)-sum) > 1e-4 {
			t.Fatalf("%s: output %d is %v, want %v", fmt.Sprintf("%+v of %d×%d×%d", l, height, width, channels), i, got, sum)
		}
	}
}
