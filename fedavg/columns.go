package fedavg

import "choir.example/model/kernel"

// tiles hands the vectors to f tile by tile: rows are vectors, columns kernel.Lanes coordinates from at on, of which the
// last tile may use fewer. The tile is f's to change.
func tiles(vectors [][]int32, f func(at, lanes int, tile []int32)) {
	tile := make([]int32, len(vectors)*kernel.Lanes)
	for at := 0; at < len(vectors[0]); at += kernel.Lanes {
		lanes := min(kernel.Lanes, len(vectors[0])-at)
		for i, v := range vectors {
			copy(tile[i*kernel.Lanes:(i+1)*kernel.Lanes], v[at:at+lanes])
		}
		f(at, lanes, tile)
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
