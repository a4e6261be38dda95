package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"choir.example/internal/nearest"
	"choir.example/model/data"
	"choir.example/simulate/partition"
)

// DataSettings name a data set. The zero value of a field is its usual value; one that the data set does not have is
// refused.
type DataSettings struct {
	Name   string `json:"name,omitempty" yaml:"name"`                            // one of DataSets; usually shoppers, and rows with a schema
	Path   string `json:"path,omitempty" yaml:"path"`                            // directory of the published files, or the file
	Schema string `json:"schema,omitempty" yaml:"schema"`                        // rows: file that says what the columns mean
	By     string `json:"by,omitempty" yaml:"by"`                                // rows: column that says whose a row is, which the schema may ignore; natural divides by it
	Length int    `json:"length,omitempty" yaml:"length" usual:"the data set's"` // of one example: tinyshakespeare 80 characters, banking77 192 n-grams, online-retail 20 products
	Form   string `json:"form,omitempty" yaml:"form"`                            // online-retail: steps, of customer and product, the usual; or items

	Alpha    float64 `json:"alpha,omitempty" yaml:"alpha"`                              // fedprox-synthetic: how much devices' models differ; with a path, alpha, beta and iid only say what the file has
	Beta     float64 `json:"beta,omitempty" yaml:"beta"`                                // fedprox-synthetic: how much devices' examples differ
	IID      bool    `json:"iid,omitempty" yaml:"iid"`                                  // fedprox-synthetic: devices do not differ
	Examples int     `json:"examples,omitempty" yaml:"examples" usual:"the data set's"` // blobs 2000, shop 20,000 sessions: how many are made up, a fifth to test with
	Features int     `json:"features,omitempty" yaml:"features" usual:"20"`             // blobs: usually 20
	Classes  int     `json:"classes,omitempty" yaml:"classes" usual:"10"`               // blobs: usually 10
	Users    int     `json:"users,omitempty" yaml:"users" usual:"200"`                  // shop: usually 200

	Public float64 `json:"public,omitempty" yaml:"public"` // share of the training examples that the server has, without labels, and no node
}

// At is the same data as they lie in files: what would make them up is left out.
func (s DataSettings) At(path string) DataSettings {
	s.Path, s.Alpha, s.Beta, s.IID = path, 0, 0, false
	return s
}

// Dataset is what a simulated fleet learns from, and what is measured with. It is read only.
type Dataset struct {
	Train, Test data.Set
	Columns     map[string][]int32 // groups of training examples by name of a column, for partitions
	Natural     string             // the column that says who had the examples; empty: nobody knows
	Tables      []int              // how many ids there are of each kind, for architectures that read ids
}

// dataSet is an entry of the table of names.
type dataSet struct {
	keys  []string                  // that it reads beside name
	files []string                  // that lie in the directory path, each as it is or with .gz; nil: path, if it is a key, is something else
	drawn func(s DataSettings) bool // it is another one with another seed
	read  func(l *Loader, s DataSettings, seed uint64) (*Dataset, error)
}

var mnistFiles = []string{"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}

func always(DataSettings) bool   { return true }
func never(DataSettings) bool    { return false }
func madeUp(s DataSettings) bool { return s.Path == "" }

// dataSets is the table of names.
var dataSets = map[string]dataSet{
	"shoppers":          {nil, nil, always, shoppers},
	"fashion-mnist":     {[]string{"path"}, mnistFiles, never, images},
	"mnist":             {[]string{"path"}, mnistFiles, never, images},
	"banking77":         {[]string{"path", "length"}, []string{"train.csv", "test.csv"}, never, banking},
	"tinyshakespeare":   {[]string{"path", "length"}, []string{"input.txt"}, never, shakespeare},
	"online-retail":     {[]string{"path", "length", "form"}, []string{"purchases.csv"}, never, retail},
	"fedprox-synthetic": {[]string{"path", "alpha", "beta", "iid"}, nil, madeUp, synthetic},
	"shop":              {[]string{"users", "examples"}, nil, always, shop},
	"blobs":             {[]string{"examples", "features", "classes"}, nil, always, blobs},
	"rows":              {[]string{"path", "schema", "by"}, nil, always, rows},
}

// DataSets are the names of all data sets, in order.
func DataSets() []string { return slices.Sorted(maps.Keys(dataSets)) }

// find is the entry that the settings name, once they can be.
func (s *DataSettings) find() (dataSet, error) {
	if s.Name == "" && s.Schema != "" {
		s.Name = "rows"
	}
	s.Name = cmp.Or(s.Name, "shoppers")
	d, ok := dataSets[s.Name]
	if !ok {
		return d, fmt.Errorf("name %.40q: %s", s.Name, nearest.OneOf(s.Name, DataSets()))
	}
	for _, f := range []struct {
		key string
		set bool
	}{
		{"path", s.Path != ""}, {"schema", s.Schema != ""}, {"by", s.By != ""}, {"length", s.Length != 0}, {"form", s.Form != ""}, {"alpha", s.Alpha != 0},
		{"beta", s.Beta != 0}, {"iid", s.IID}, {"examples", s.Examples != 0}, {"features", s.Features != 0}, {"classes", s.Classes != 0}, {"users", s.Users != 0},
	} {
		if f.set && !slices.Contains(d.keys, f.key) {
			return d, fmt.Errorf("%s is not for %s, but for %s", f.key, s.Name, strings.Join(reading(f.key), ", "))
		}
	}
	return d, s.present(d)
}

// reading are the data sets that have a key.
func reading(key string) (names []string) {
	for _, name := range DataSets() {
		if slices.Contains(dataSets[name].keys, key) {
			names = append(names, name)
		}
	}
	return names
}

// present sees that a published data set's files are there, and says which is not.
func (s *DataSettings) present(d dataSet) error {
	if d.files == nil {
		return nil
	}
	want := fmt.Sprintf("want the directory of %s, each as it is or with .gz; choir does not download them", strings.Join(d.files, ", "))
	if s.Path == "" {
		return fmt.Errorf("%s needs path: %s", s.Name, want)
	}
	info, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("path: there is no %s: %s", s.Path, want)
	case err != nil:
		return fmt.Errorf("path: %w", err)
	case !info.IsDir():
		return fmt.Errorf("path: %s is a file: %s", s.Path, want)
	}
	for _, name := range d.files {
		if !exists(filepath.Join(s.Path, name)) && !exists(filepath.Join(s.Path, name+".gz")) {
			return fmt.Errorf("path: %s has neither %s nor %s.gz: %s", s.Path, name, name, want)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// examples is what a partition looks at.
func (d *Dataset) examples() partition.Examples {
	x := partition.Examples{Labels: make([]int32, d.Train.Len()), Classes: 1, Columns: d.Columns, Natural: d.Natural}
	if d.Train.Targets == 1 {
		x.Classes = max(d.Train.Classes, 2)
		for i, y := range d.Train.Y {
			x.Labels[i] = int32(y)
		}
	}
	return x
}

// check refuses what nobody can learn from or measure with.
func (d *Dataset) check() error {
	if d.Train.Len() == 0 || d.Test.Len() == 0 {
		return fmt.Errorf("%d examples to learn from and %d to test with, want at least 1 of each", d.Train.Len(), d.Test.Len())
	}
	if d.Natural != "" && d.Columns[d.Natural] == nil {
		return fmt.Errorf("there is no column %q, which is said to be natural", d.Natural)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Columns)) {
		if n := len(d.Columns[name]); n != d.Train.Len() {
			return fmt.Errorf("column %q has %d values for %d examples", name, n, d.Train.Len())
		}
	}
	return nil
}
