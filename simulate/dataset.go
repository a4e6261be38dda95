package simulate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// DataSettings name a data set.
type DataSettings struct {
	Name string `json:"name,omitempty" yaml:"name"` // one of DataSets; usually shoppers
	Path string `json:"path,omitempty" yaml:"path"` // directory or file of one that is not built in

	Public float64 `json:"public,omitempty" yaml:"public"` // share of the training examples that the server has, without labels, and no node
}

// Dataset is what a simulated fleet learns from, and what is measured with.
type Dataset struct {
	Train, Test data.Set
	Columns     map[string][]int32 // groups of training examples by name of a column, for partitions
	Tables      []int              // how many ids there are of each kind, for architectures that read ids
}

// dataSets is the table of names.
var dataSets = map[string]func(s DataSettings, seed uint64) (*Dataset, error){
	"shoppers":      shoppers,
	"fashion-mnist": images,
	"mnist":         images,
}

// DataSets are the names of all data sets, in order.
func DataSets() []string { return slices.Sorted(maps.Keys(dataSets)) }

// load reads the data set; the seed divides it where nobody else did.
func (s DataSettings) load(seed uint64) (*Dataset, error) {
	name := s.Name
	if name == "" {
		name = "shoppers"
	}
	read, ok := dataSets[name]
	if !ok {
		return nil, fmt.Errorf("data: name %.40q, want one of %s", name, strings.Join(DataSets(), ", "))
	}
	d, err := read(s, seed)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return d, nil
}

// examples is what a partition looks at.
func (d *Dataset) examples() partition.Examples {
	x := partition.Examples{Labels: make([]int32, d.Train.Len()), Classes: max(d.Train.Classes, 2), Columns: d.Columns}
	if d.Train.Targets == 1 {
		for i, y := range d.Train.Y {
			x.Labels[i] = int32(y)
		}
	}
	return x
}

// images are those of an IDX data set: a directory with the four files that MNIST came in.
func images(s DataSettings, _ uint64) (*Dataset, error) {
	if s.Path == "" {
		return nil, fmt.Errorf("%s needs path: the directory that holds the published files", s.Name)
	}
	train, test, err := data.FashionMNIST(s.Path)
	return &Dataset{Train: train, Test: test}, err
}

// shoppers are the built-in sessions of a web shop.
func shoppers(_ DataSettings, seed uint64) (*Dataset, error) {
	schema, rows, _, err := data.Shoppers()
	if err != nil {
		return nil, err
	}
	train, _, test, _, err := data.Tabular(schema, rows, seed)
	return &Dataset{Train: train, Test: test}, err
}
