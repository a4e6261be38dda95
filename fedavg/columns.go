package fedavg

import "choir.example/model/kernel"

// tiles hands the vectors to f tile by tile: rows are vectors, columns kernel.Lanes coordinates from at on, of which the
// last tile may use fewer. The tile is f's to change.
func tiles(vectors [][]int32, f func(at, lanes int, tile []int32)) {
	const together = 8 // tiles that are filled at a time: memory gives more of one vector sooner than a little of each
	size, length := len(vectors)*kernel.Lanes, len(vectors[0])
	all := make([]int32, together*size)
	for from := 0; from < length; from += together * kernel.Lanes {
		to := min(from+together*kernel.Lanes, length)
		for i, v := range vectors {
			for at := from; at < to; at += kernel.Lanes {
				row := all[(at-from)/kernel.Lanes*size+i*kernel.Lanes:][:kernel.Lanes]
				copy(row, v[at:min(at+kernel.Lanes, to)])
			}
		}
		for at := from; at < to; at += kernel.Lanes {
			tile := all[(at-from)/kernel.Lanes*size:][:size]
			f(at, min(kernel.Lanes, to-at), tile)
		}
	}
}

// middle writes to out, coordinate by coordinate, the mean of the values lo to hi-1 in order of size.
func middle(vectors [][]int32, lo, hi int, out []float64) {
	network, count := kernel.NewNetwork(len(vectors), lo, hi), float64(hi-lo)
	tiles(vectors, func(at, lanes int, tile []int32) {
		network.Sort(tile)
		var sum [kernel.Lanes]int64
		kernel.AddRows(&sum, tile[lo*kernel.Lanes:hi*kernel.Lanes])
		for i, s := range sum[:lanes] {
			out[at+i] = float64(s) / count
		}
	})
}
