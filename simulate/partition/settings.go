package partition

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"choir.example/internal/nearest"
)

// Settings name a partition and its parameters, as experiment files write them. The zero value of a field is its usual
// value; one that its kind does not have is refused.
type Settings struct {
	Kind  string `json:"kind,omitempty" yaml:"kind"`                              // one of Kinds; usually iid
	Nodes int    `json:"nodes,omitempty" yaml:"nodes" usual:"10, or one a value"` // usually 10; of column and natural as many as there are values

	Shards   int     `json:"shards,omitempty" yaml:"shards" usual:"2"`        // shards: how many a node has; usually 2
	Labels   int     `json:"labels,omitempty" yaml:"labels" usual:"2"`        // labels: how many a node has; usually 2
	Alpha    float64 `json:"alpha,omitempty" yaml:"alpha" usual:"0.5"`        // dirichlet, quantity-dirichlet: concentration; usually 0.5
	Sigma    float64 `json:"sigma,omitempty" yaml:"sigma" usual:"1"`          // quantity-lognormal: deviation of the sizes' logarithms; usually 1
	Exponent float64 `json:"exponent,omitempty" yaml:"exponent" usual:"1"`    // quantity-power-law; usually 1
	Least    int     `json:"least,omitempty" yaml:"least" usual:"10 or less"` // dirichlet and quantity-…: examples that every node has; usually 10, or a quarter of the fair share where that is less
	Column   string  `json:"column,omitempty" yaml:"column"`                  // column: its name
	Variance float64 `json:"variance,omitempty" yaml:"variance" usual:"0.1"`  // noise: that of the last node; usually 0.1
}

// kind is an entry of the table of names.
type kind struct {
	keys  []string // that it reads beside kind and nodes
	build func(s Settings) Partitioner
}

var kinds = map[string]kind{
	"iid":     {nil, func(Settings) Partitioner { return IID{} }},
	"natural": {nil, func(Settings) Partitioner { return Column{} }},
	"column":  {[]string{"column"}, func(s Settings) Partitioner { return Column{s.Column} }},
	"shards":  {[]string{"shards"}, func(s Settings) Partitioner { return Shards{cmp.Or(s.Shards, 2)} }},
	"labels":  {[]string{"labels"}, func(s Settings) Partitioner { return Labels{cmp.Or(s.Labels, 2)} }},
	"noise":   {[]string{"variance"}, func(s Settings) Partitioner { return Noise{Variance: cmp.Or(s.Variance, .1)} }},
	"dirichlet": {[]string{"alpha", "least"}, func(s Settings) Partitioner {
		return Dirichlet{cmp.Or(s.Alpha, .5), s.Least}
	}},
	"quantity-dirichlet": {[]string{"alpha", "least"}, func(s Settings) Partitioner {
		return QuantityDirichlet{cmp.Or(s.Alpha, .5), s.Least}
	}},
	"quantity-lognormal": {[]string{"sigma", "least"}, func(s Settings) Partitioner {
		return QuantityLogNormal{cmp.Or(s.Sigma, 1), s.Least}
	}},
	"quantity-power-law": {[]string{"exponent", "least"}, func(s Settings) Partitioner {
		return QuantityPowerLaw{cmp.Or(s.Exponent, 1), s.Least}
	}},
}

// usualLeast is how many examples every node has where sizes are drawn and nobody says: 10 as Li et al. 2022 have it, or a
// quarter of the fair share where that is less, since hardly any draw gives all nodes much more.
func usualLeast(least, examples, nodes int) int {
	if least != 0 {
		return least
	}
	return min(10, max(1, examples/nodes/4))
}

// Kinds are the names of all partitions, in order.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Partitioner is the partition that the settings name.
func (s Settings) Partitioner() (Partitioner, error) {
	name := cmp.Or(s.Kind, "iid")
	k, ok := kinds[name]
	if !ok {
		return nil, fmt.Errorf("partition: kind %.40q: %s", s.Kind, nearest.OneOf(s.Kind, Kinds()))
	}
	for _, f := range []struct {
		key string
		set bool
	}{
		{"shards", s.Shards != 0}, {"labels", s.Labels != 0}, {"alpha", s.Alpha != 0}, {"sigma", s.Sigma != 0},
		{"exponent", s.Exponent != 0}, {"least", s.Least != 0}, {"column", s.Column != ""}, {"variance", s.Variance != 0},
	} {
		if f.set && !slices.Contains(k.keys, f.key) {
			return nil, fmt.Errorf("partition: %s is not for kind %s, but for %s", f.key, name, strings.Join(having(f.key), " and "))
		}
	}
	if name == "column" && s.Column == "" {
		return nil, fmt.Errorf("partition: kind column wants column, its name")
	}
	return k.build(s), nil
}

// having are the kinds that read a key.
func having(key string) (names []string) {
	for _, name := range Kinds() {
		if slices.Contains(kinds[name].keys, key) {
			names = append(names, name)
		}
	}
	return names
}
