package model

// view is another shape of the same values: it computes nothing, and has its input's memory.
type view struct {
	bare
	shape []int
}

func newFlatten(_ LayerSpec, in [][]int) (layer, error) {
	return view{shape: []int{values(in[0])}}, nil
}

func (v view) output() []int  { return v.shape }
func (v view) flops() int64   { return 0 }
func (v view) forward(*pass)  {}
func (v view) backward(*pass) {}
