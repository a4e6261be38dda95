package kernel

// peakOf is the loop that measures what a core can do at most with the vectors of the path.
func peakOf(p *path) (loop func(n int), width int) {
	switch p.name {
	case "avx512":
		return peakAVX512, 16
	case "avx2":
		return peakAVX2, 8
	}
	return nil, 0
}
