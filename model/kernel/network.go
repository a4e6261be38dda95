package kernel

// Lanes is how many columns a tile has, so many a row whether they are used or not.
const Lanes = 64

// Network sorts the columns of a tile, all of them at once, without a branch: a list of pairs of rows, of which the lesser
// values go to the first and the greater to the second. Which pairs there are does not depend on the values (Knuth, The
// Art of Computer Programming, vol. 3, §5.3.4). It is immutable.
type Network struct {
	rows  int
	pairs []int32 // two rows a pair
}

// NewNetwork makes the network after which rows lo to hi-1 of a column hold what they would in a sorted one, lesser values
// lie before them and greater ones behind. With lo 0 and hi the number of rows, a column is sorted; otherwise the order
// within each of the three parts is not settled, and takes fewer pairs. It is Batcher's merge exchange (Knuth, §5.2.2,
// algorithm M), for any number of rows, without the pairs that settle nothing that was asked for.
func NewNetwork(rows, lo, hi int) *Network {
	if rows < 0 || lo < 0 || hi < lo || hi > rows {
		panic("kernel: no such rows of a network")
	}
	n := &Network{rows: rows}
	for i, j := range mergeExchange(rows) {
		n.pairs = append(n.pairs, int32(i), int32(j))
	}
	if lo > 0 || hi < rows {
		n.prune(lo, hi)
	}
	return n
}

// Rows is how many rows a tile has.
func (n *Network) Rows() int { return n.rows }

// mergeExchange gives Batcher's pairs in order.
func mergeExchange(rows int) func(yield func(i, j int) bool) {
	return func(yield func(i, j int) bool) {
		top := 1
		for 2*top < rows {
			top *= 2
		}
		for p := top; p > 0; p /= 2 {
			for q, r, d := top, 0, p; ; q, r, d = q/2, p, q-p {
				for i := range rows - d {
					if i&p == r && !yield(i, i+d) {
						return
					}
				}
				if q == p {
					break
				}
			}
		}
	}
}

// prune walks from the last pair to the first and drops each of which both rows end in the same part, if no pair that is
// kept comes after it: what it would settle is the order within the part. A sorted column needs no order in its first and
// its last part; that in the middle is as little asked for.
func (n *Network) prune(lo, hi int) {
	part := make([]int, n.rows) // 0, 1 and 2; later 3: a pair that is kept looks at the row
	for i := range part {
		if i >= lo {
			part[i]++
		}
		if i >= hi {
			part[i]++
		}
	}
	const looked = 3
	kept := len(n.pairs)
	for at := len(n.pairs) - 2; at >= 0; at -= 2 {
		i, j := n.pairs[at], n.pairs[at+1]
		if part[i] == part[j] && part[i] != looked {
			continue
		}
		part[i], part[j] = looked, looked
		kept -= 2
		n.pairs[kept], n.pairs[kept+1] = i, j
	}
	n.pairs = append([]int32(nil), n.pairs[kept:]...)
}

// pairsInCall bounds one call, which is not preempted.
const pairsInCall = 4096

// Sort runs the network over a tile: rows of Lanes elements, of which each column is sorted for itself.
func (n *Network) Sort(tile []int32) {
	tile = tile[:n.rows*Lanes]
	for pairs := n.pairs; len(pairs) > 0; {
		part := pairs[:min(len(pairs), 2*pairsInCall)]
		use.exchange(tile, part)
		pairs = pairs[len(part):]
	}
}

// AddRows is sum += each row of a tile, column by column.
func AddRows(sum *[Lanes]int64, tile []int32) {
	for len(tile) > 0 {
		part := tile[:min(len(tile), block)]
		use.addRows(sum, part)
		tile = tile[len(part):]
	}
}
