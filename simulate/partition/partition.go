// Package partition says who holds which examples, for experiments with a data set that lies in one place: by chance
// alone, or so that nodes differ in their labels, in how much they have, or in what their examples look like.
//
//	p, err := partition.Settings{Kind: "dirichlet", Nodes: 100, Alpha: .5}.Partitioner()
//	parts, err := partition.Divide(p, examples, 100, seed)
//	page += partition.NewPicture(parts, examples).SVG()
//
// Parts are places of examples in their list: nothing is copied. Every kind deals each example to exactly one node, and
// the same arguments give the same parts. A partition of one's own is a type with the method Divide; this package knows
// nothing of models, and reads no data.
package partition

import (
	"errors"
	"fmt"
	"math/rand/v2"
)

// Examples are what a partition looks at: how many there are and what is known of each.
type Examples struct {
	Labels  []int32            // class of each example; all 0 where examples have no single one
	Classes int                // labels are 0 to Classes-1; 1: there are no labels to tell examples apart
	Columns map[string][]int32 // groups by name of a column: the place, from 0, of each example's value among that column's
	Natural string             // the column that says who had the examples in the first place; empty: none does
}

// Partitioner deals examples to nodes.
type Partitioner interface {
	// Divide returns the examples of each node, by place. Every node has at least one, and none twice; two nodes may have the
	// same, though those of this package do not. rng is all chance there is. nodes is at least 1 and at most the number of
	// examples.
	Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error)
}

// Sized is a Partitioner that knows how many nodes there are where nobody says.
type Sized interface {
	Partitioner
	Nodes(x Examples) int
}

// Distorter is a Partitioner whose nodes see their examples in their own way.
type Distorter interface {
	Partitioner
	// Distort changes in place values of examples that the node, from 0 to nodes-1, holds. It is called with a copy of
	// all its examples, one after the other in the order of its part, before each training, and must do the same each
	// time: rng begins each time with the same numbers, which are this node's own.
	Distort(node, nodes int, values []float32, rng *rand.Rand)
}

// usualNodes is how many nodes there are where neither settings nor the data say.
const usualNodes = 10

// Divide deals the examples to so many nodes, 0 for as many as there usually are, and refuses parts that are none: a node
// without examples, an example that is not there or that a node has twice.
func Divide(p Partitioner, x Examples, nodes int, seed uint64) ([][]int32, error) {
	n := len(x.Labels)
	if nodes == 0 {
		nodes = usualNodes
		if s, ok := p.(Sized); ok {
			nodes = s.Nodes(x)
		}
	}
	if nodes < 1 || nodes > n {
		return nil, fmt.Errorf("partition: %d nodes for %d examples, want 1 to %d", nodes, n, n)
	}
	for i, l := range x.Labels {
		if l < 0 || int(l) >= x.Classes {
			return nil, fmt.Errorf("partition: example %d has label %d, want 0 to %d", i, l, x.Classes-1)
		}
	}
	parts, err := p.Divide(x, nodes, rand.New(rand.NewPCG(seed, 0x706172746974696f)))
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	return parts, check(parts, n, nodes)
}

// check refuses what Divide promises not to return.
func check(parts [][]int32, examples, nodes int) error {
	if len(parts) != nodes {
		return fmt.Errorf("partition: %d parts for %d nodes", len(parts), nodes)
	}
	holders := make([]int32, examples) // the last node that has an example, counted from 1; 0: none yet
	for i, part := range parts {
		if len(part) == 0 {
			return fmt.Errorf("partition: node %d of %d has no example", i+1, nodes)
		}
		for _, e := range part {
			if e < 0 || int(e) >= examples {
				return fmt.Errorf("partition: node %d has example %d, want 0 to %d", i+1, e, examples-1)
			}
			if holders[e] == int32(i+1) {
				return fmt.Errorf("partition: node %d has example %d twice", i+1, e)
			}
			holders[e] = int32(i + 1)
		}
	}
	return nil
}

// IID deals all examples at random, to each node as many as to the others, but for one.
type IID struct{}

// Divide implements Partitioner.
func (IID) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	return chunks(shuffled(len(x.Labels), rng), nodes), nil
}

// errNoLabels refuses to tell examples apart by what they do not have.
var errNoLabels = errors.New("the examples have no label with several classes; want kind iid, natural, column or quantity-dirichlet, for example")

// places are 0 to n-1.
func places(n int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	return order
}

func shuffled(n int, rng *rand.Rand) []int32 {
	order := places(n)
	mix(order, rng)
	return order
}

// mix shuffles in place.
func mix(list []int32, rng *rand.Rand) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// byLabel are the examples of each class, each in random order.
func byLabel(x Examples, rng *rand.Rand) [][]int32 {
	of := make([][]int32, x.Classes)
	for i, l := range x.Labels {
		of[l] = append(of[l], int32(i))
	}
	for _, list := range of {
		mix(list, rng)
	}
	return of
}

// chunks cuts a list into n parts of equal length, but for one.
func chunks(list []int32, n int) [][]int32 {
	parts := make([][]int32, n)
	for i := range parts {
		from, to := i*len(list)/n, (i+1)*len(list)/n
		parts[i] = list[from:to:to]
	}
	return parts
}
