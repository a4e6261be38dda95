package model

import "fmt"

// shuffle mixes channels so that the next grouped convolution sees some of each group (Zhang et al. 2018, ShuffleNet,
// §3.1): channels as groups × n become n × groups.
type shuffle struct {
	bare
	shape    []int
	channels int
	from     []int // channel of the input, for each of the output
}

func newShuffle(l LayerSpec, in [][]int) (layer, error) {
	c := in[0][len(in[0])-1]
	if l.Groups < 2 || c%l.Groups != 0 {
		return nil, fmt.Errorf("groups %d, want at least 2 that divide %d channels", l.Groups, c)
	}
	s := shuffle{shape: in[0], channels: c, from: make([]int, c)}
	for i := range s.from {
		s.from[i] = i%l.Groups*(c/l.Groups) + i/l.Groups
	}
	return s, nil
}

func (s shuffle) output() []int { return s.shape }
func (s shuffle) flops() int64  { return 0 }

func (s shuffle) forward(p *pass) {
	for at := 0; at < p.n*values(s.shape); at += s.channels {
		in, out := p.in[0][at:][:s.channels], p.out[at:][:s.channels]
		for i, from := range s.from {
			out[i] = in[from]
		}
	}
}

func (s shuffle) backward(p *pass) {
	for at := 0; at < p.n*values(s.shape); at += s.channels {
		din, dout := p.din[0][at:][:s.channels], p.dout[at:][:s.channels]
		if p.add[0] {
			for i, from := range s.from {
				din[from] += dout[i]
			}
			continue
		}
		for i, from := range s.from {
			din[from] = dout[i]
		}
	}
}
