package kernel

import "fmt"

// Pool describes a row of square windows over an image of channels. Lengths are in float32s.
type Pool struct {
	Columns  int // windows, at least 1
	Channels int // of the image, at least 1; each is pooled alone
	Kernel   int // pixels of a window's side, at least 1
	Step     int // from a window to the next
	Width    int // from a row of the image to the next
}

// MaxPool writes the largest value of each channel in each window, NaN if one is. src begins with the first window's first
// pixel; dst has a pixel for each window.
func MaxPool(dst, src []float32, p Pool) {
	p.check(len(dst), len(src))
	for lo, part := 0, p.part(); lo < p.Columns; lo += part.Columns {
		part.Columns = min(part.Columns, p.Columns-lo)
		use.maxPool(dst[lo*p.Channels:], src[lo*p.Step:], part)
	}
}

// RoutePool gives the gradient of each window to dst, the gradient of the image, where src first is what MaxPool wrote to
// top, and 0 to the rest of the window; or, as it must if windows overlap, adds it. What grad holds afterwards is undefined.
func RoutePool(dst, grad, src, top []float32, p Pool, add bool) {
	p.check(len(grad), len(src))
	p.check(len(top), len(dst))
	for lo, part := 0, p.part(); lo < p.Columns; lo += part.Columns {
		part.Columns = min(part.Columns, p.Columns-lo)
		use.routePool(dst[lo*p.Step:], grad[lo*p.Channels:], src[lo*p.Step:], top[lo*p.Channels:], part, add)
	}
}

// check panics unless there are so many windows in slices of such lengths.
func (p Pool) check(windows, image int) {
	if p.Columns < 1 || p.Channels < 1 || p.Kernel < 1 || p.Step < 0 || p.Width < 0 || windows < p.Columns*p.Channels ||
		image < (p.Columns-1)*p.Step+(p.Kernel-1)*p.Width+p.Kernel*p.Channels {
		panic(fmt.Sprintf("kernel: %+v of an image of %d floats to %d", p, image, windows))
	}
}

// part is as many windows as one call takes: assembly is not preempted.
func (p Pool) part() Pool {
	if each := p.Kernel * p.Kernel * p.Channels; p.Columns*each > block {
		p.Columns = max(1, block/each)
	}
	return p
}
