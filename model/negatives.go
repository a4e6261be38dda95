package model

import "math/rand/v2"

// DrawNegatives fills the columns of each example behind the chosen item's with other items, drawn uniformly: what the
// losses bpr and sampled-softmax rank it above. width is the number of columns, chosen that of the item's, items how
// many there are, two at least. It is called anew before each epoch, by
// TrainConfig.Redraw.
func DrawNegatives(x []float32, width, chosen, items int, rng *rand.Rand) {
	for ; len(x) > 0; x = x[width:] {
		for i := chosen + 1; i < width; i++ {
			item := rng.IntN(items - 1)
			if item >= int(x[chosen]) {
				item++
			}
			x[i] = float32(item)
		}
	}
}
