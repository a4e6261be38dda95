// Package partition says which node of a simulated fleet holds which examples of a data set: evenly and at random, or
// skewed in one of the ways in which the data of real fleets differ. A partition is a list of examples for each node; no
// example is copied.
//
//	parts, err := partition.Settings{Kind: "dirichlet", Nodes: 10, Alpha: .5}.Divide(set, seed)
//
// The same set, settings and seed give the same parts on every machine. The package trains nothing and draws no cohorts.
package partition

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Examples are what a partition looks at: how many there are and what is known of each.
type Examples struct {
	Labels  []int32            // class of each example
	Classes int                // labels are 0 to Classes-1
	Columns map[string][]int32 // groups by name of a column: the place of each example's value among that column's values
}

// Partitioner deals examples to nodes.
type Partitioner interface {
	// Divide returns the examples of each node, by place. Every node has at least one, and no two nodes have the same. rng
	// is all chance there is.
	Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error)
}

// Settings name a partition and its parameters, as experiment files write them.
type Settings struct {
	Kind   string `json:"kind,omitempty" yaml:"kind"`     // one of Kinds; usually iid
	Nodes  int    `json:"nodes,omitempty" yaml:"nodes"`   // usually 10
	Shards int    `json:"shards,omitempty" yaml:"shards"` // of shards: how many a node has; usually 2
}

// kinds is the table of names.
var kinds = map[string]func(s Settings) Partitioner{
	"iid":    func(Settings) Partitioner { return IID{} },
	"shards": func(s Settings) Partitioner { return Shards{cmp.Or(s.Shards, 2)} },
}

// Kinds are the names of all partitions, in order.
func Kinds() []string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Partitioner is the partition that the settings name.
func (s Settings) Partitioner() (Partitioner, error) {
	build, ok := kinds[cmp.Or(s.Kind, "iid")]
	if !ok {
		return nil, fmt.Errorf("partition: kind %.40q, want one of %s", s.Kind, strings.Join(Kinds(), ", "))
	}
	return build(s), nil
}

// Divide deals the examples and refuses parts that leave a node without any.
func Divide(p Partitioner, x Examples, nodes int, seed uint64) ([][]int32, error) {
	if n := len(x.Labels); nodes < 1 || nodes > n {
		return nil, fmt.Errorf("partition: %d nodes for %d examples, want 1 to %d", nodes, n, n)
	}
	parts, err := p.Divide(x, nodes, rand.New(rand.NewPCG(seed, 0x706172746974696f)))
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	for i, part := range parts {
		if len(part) == 0 {
			return nil, fmt.Errorf("partition: node %d of %d has no example", i+1, nodes)
		}
	}
	return parts, nil
}

// IID deals all examples at random, to each node as many as to the others, but for one.
type IID struct{}

// Divide implements Partitioner.
func (IID) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	return chunks(shuffled(len(x.Labels), rng), nodes), nil
}

// Shards sorts examples by label, cuts them into nodes·Each shards of equal size and deals each node Each of them
// (McMahan et al. 2017, §3): most nodes see few labels.
type Shards struct{ Each int }

// Divide implements Partitioner.
func (s Shards) Divide(x Examples, nodes int, rng *rand.Rand) ([][]int32, error) {
	if s.Each < 1 || s.Each > len(x.Labels)/nodes {
		return nil, fmt.Errorf("%d shards a node, want 1 to %d: so many examples a node there are", s.Each, len(x.Labels)/nodes)
	}
	order := places(len(x.Labels))
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(x.Labels[a], x.Labels[b]) })
	shards := chunks(order, nodes*s.Each)
	rng.Shuffle(len(shards), func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
	parts := make([][]int32, nodes)
	for i, shard := range shards {
		parts[i/s.Each] = append(parts[i/s.Each], shard...)
	}
	return parts, nil
}

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
	rng.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// chunks cuts a list into n parts of equal length, but for one.
func chunks(list []int32, n int) [][]int32 {
	parts := make([][]int32, n)
	for i := range parts {
		parts[i] = list[i*len(list)/n : (i+1)*len(list)/n]
	}
	return parts
}
