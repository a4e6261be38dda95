package partition

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Labels gives every node examples of Each labels and no other (Li et al. 2022, §4.1, #C = k): node i has label i modulo
// the classes and others at random, those that nobody has yet first, so that none is left over. A label's examples go in
// equal parts to the nodes that have it.
type Labels struct{ Each int }

// Divide implements Partitioner.
func (l Labels) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if err := l.check(x, nodes); err != nil {
		return nil, err
	}
	holders := l.holders(x.Classes, nodes, rng)
	parts := make([][]int32, nodes)
	for label, list := range byLabel(x, rng) {
		if len(list) < len(holders[label]) {
			return nil, fmt.Errorf("label %d is to be on %d nodes and has %d examples; about %d nodes would do, or fewer labels a node",
				label, len(holders[label]), len(list), max(1, nodes*len(list)/len(holders[label])))
		}
		for i, chunk := range chunks(list, max(len(holders[label]), 1)) {
			if len(chunk) > 0 {
				node := holders[label][i]
				parts[node] = append(parts[node], chunk...)
			}
		}
	}
	return parts, nil
}

func (l Labels) check(x Examples, nodes int) error {
	least := (x.Classes + nodes - 1) / nodes
	switch {
	case x.Classes < 2:
		return errNoLabels
	case l.Each < 1 || l.Each > x.Classes:
		return fmt.Errorf("labels is %d, want %d to %d, the classes there are", l.Each, least, x.Classes)
	case l.Each < least:
		return fmt.Errorf("%d labels a node on %d nodes leave some of %d classes to nobody, want at least %d labels a node", l.Each, nodes, x.Classes, least)
	}
	return nil
}

// holders are the nodes of each label, in order.
func (l Labels) holders(classes, nodes int, rng *rand.Rand) [][]int {
	holders, mine := make([][]int, classes), make([][]bool, nodes)
	take := func(node, label int) {
		mine[node][label] = true
		holders[label] = append(holders[label], node)
	}
	for node := range nodes {
		mine[node] = make([]bool, classes)
		take(node, node%classes)
	}
	for range l.Each - 1 {
		for node := range nodes {
			free := func(nobody bool) (labels []int) {
				for label := range classes {
					if !mine[node][label] && (!nobody || len(holders[label]) == 0) {
						labels = append(labels, label)
					}
				}
				return labels
			}
			labels := free(true)
			if len(labels) == 0 {
				labels = free(false)
			}
			take(node, labels[rng.IntN(len(labels))])
		}
	}
	for _, list := range holders {
		slices.Sort(list)
	}
	return holders
}
