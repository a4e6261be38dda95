package model

import "choir.example/model/kernel"

// A row of a product has a value for each filter, and fewer filters than a vector has lanes leave lanes idle. Then windows
// side by side are taken abreast: as one window over the columns that any of them sees, with the filters once for each,
// whose weights are zero in the columns that it does not see. In memory the output is the same.

// abreastOf is how many windows go abreast: as many as fill a vector and divide a row of the output.
func abreastOf(c *conv) int {
	if c.groups > 1 || c.kernel <= c.stride {
		return 1
	}
	most := max(1, min(kernel.Width()/c.filters, c.columns))
	for c.columns%most != 0 {
		most--
	}
	return most
}

// span is how many columns windows abreast see.
func (c *conv) span() int { return c.kernel + (c.abreast-1)*c.stride }

// wideDepth and wideFilters are the shape of their weights.
func (c *conv) wideDepth() int   { return c.span() * c.kernel * c.channels / c.groups }
func (c *conv) wideFilters() int { return c.filters / c.groups * c.abreast }

// wideSize is that of their weights and biases; 0 if there is nothing beside the layer's own.
func (c *conv) wideSize() int {
	if c.abreast == 1 {
		return 0
	}
	return (c.wideDepth() + 1) * c.wideFilters()
}

// widen writes weights and biases for windows abreast.
func (c *conv) widen(wide, params []float32) {
	clear(wide)
	depth, biases := c.wideDepth(), params[c.weights():]
	for i := range c.abreast {
		own, at := c.narrow(params, wide, i)
		kernel.Move(at, own, c.depth(), 1, c.filters, false)
		copy(wide[depth*c.wideFilters()+i*c.filters:][:c.filters], biases)
	}
}

// addWide adds a gradient of wide weights to that of the layer's.
func (c *conv) addWide(grad, wide []float32) {
	for i := range c.abreast {
		own, at := c.narrow(grad, wide, i)
		kernel.Move(own, at, c.depth(), 1, c.filters, true)
	}
}

// narrow are weights, and where among wide ones those of window i lie.
func (c *conv) narrow(weights, wide []float32, i int) (own, at kernel.Grid) {
	first := i * c.stride * c.kernel * c.channels // of the values that the window sees
	return kernel.Grid{Data: weights, Row: c.filters}, kernel.Grid{Data: wide[first*c.wideFilters()+i*c.filters:], Row: c.wideFilters()}
}
