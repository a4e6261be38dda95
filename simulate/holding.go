package simulate

import (
	"errors"
	"math/rand/v2"
	"slices"

	"choir.example/internal/seeds"
	"choir.example/simulate/partition"
)

// appendExamples appends some of what a node holds to x and y, one example after the other, as the node sees it; part is
// what they are for.
func (t *trial) appendExamples(part string, node int, examples []int32, x, y []float32) ([]float32, []float32) {
	set := &t.data.Train
	n, k, from, labels := set.Values(), set.Targets, len(x), len(y)
	for _, e := range examples {
		x = append(x, set.X[int(e)*n:][:n]...)
		y = append(y, set.Y[int(e)*k:][:k]...)
	}
	if t.distorter != nil {
		t.distort(part, node, x[from:])
	}
	if part == "train" && t.lies(node) {
		t.poison(node, x[from:], y[labels:])
	}
	return x, y
}

// distort changes examples as the node sees them.
func (t *trial) distort(set string, node int, x []float32) {
	seed := seeds.Derive("choir/distort/v1", t.cfg.Seed, set, uint64(node))
	t.distorter.Distort(node, len(t.parts), x, rand.New(rand.NewPCG(seed, 0)))
}

// distortTest has the test set seen by all nodes alike: test example i as node i modulo their number sees it. The data set
// is shared, so it is a copy that changes.
func (t *trial) distortTest(p partition.Partitioner) error {
	var any bool
	if t.distorter, any = p.(partition.Distorter); !any {
		return nil
	}
	if t.data.Tables != nil || t.data.Train.Targets != 1 {
		return errors.New("partition: nodes are to see examples in their own way, and these are ids, which are names and no quantities")
	}
	d := *t.data
	d.Test.X = slices.Clone(d.Test.X)
	n, nodes := d.Test.Values(), len(t.parts)
	var mine []float32
	for node := range min(nodes, d.Test.Len()) {
		mine = mine[:0]
		for i := node; i < d.Test.Len(); i += nodes {
			mine = append(mine, d.Test.X[i*n:][:n]...)
		}
		t.distort("test", node, mine)
		for at, i := 0, node; i < d.Test.Len(); at, i = at+n, i+nodes {
			copy(d.Test.X[i*n:][:n], mine[at:])
		}
	}
	t.data = &d
	return nil
}
