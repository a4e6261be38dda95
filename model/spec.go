package model

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Spec describes an architecture: a directed acyclic graph of layers in topological order, and what it learns from. It
// is plain data that reads the same in JSON and in YAML; Compile checks it and makes a Network of it.
type Spec struct {
	Input  []int       `json:"input" yaml:"input"`   // shape of one example: [features], [height, width, channels] or [ids]
	Layers []LayerSpec `json:"layers" yaml:"layers"` // each reads layers before it; the last one is the output
	Loss   string      `json:"loss" yaml:"loss"`     // what training lowers
}

// LayerSpec describes one layer. Which fields a kind takes stands in the table of kinds; any other is refused.
type LayerSpec struct {
	Name string   `json:"name,omitempty" yaml:"name"` // default: the kind and the layer's place, as in dense3
	Kind string   `json:"kind" yaml:"kind"`
	From []string `json:"from,omitempty" yaml:"from"` // what it reads; default: the layer before, "input" for the first

	Units      int     `json:"units,omitempty" yaml:"units"`           // outputs of a dense layer
	Filters    int     `json:"filters,omitempty" yaml:"filters"`       // output channels of a convolution
	Kernel     int     `json:"kernel,omitempty" yaml:"kernel"`         // side of a square window
	Stride     int     `json:"stride,omitempty" yaml:"stride"`         // of the window; default 1, for a pool its kernel
	Padding    int     `json:"padding,omitempty" yaml:"padding"`       // rows and columns of zeros at each side
	Groups     int     `json:"groups,omitempty" yaml:"groups"`         // of channels; default 1
	Activation string  `json:"activation,omitempty" yaml:"activation"` // relu, sigmoid or tanh; default none
	Rate       float64 `json:"rate,omitempty" yaml:"rate"`             // share that dropout sets to zero
	Rows       []int   `json:"rows,omitempty" yaml:"rows"`             // ids of each embedding table; one: all columns share it
	Columns    []int   `json:"columns,omitempty" yaml:"columns"`       // of the input that an embedding reads; default all
	Dim        int     `json:"dim,omitempty" yaml:"dim"`               // values that an id is embedded in
	Pool       string  `json:"pool,omitempty" yaml:"pool"`             // of an embedding bag: mean, the default, or sum
	Depth      int     `json:"depth,omitempty" yaml:"depth"`           // recurrent layers one on the other; default 1
	Sequence   bool    `json:"sequence,omitempty" yaml:"sequence"`     // a recurrent layer gives every step, not the last alone
}

// Limits that keep an architecture which came from elsewhere from allocating without end.
const (
	maxLayers     = 256
	maxWidth      = 1 << 17 // of an axis: a dot product of so many int8 values, at most 128·127 each, stays below 2^31
	maxExample    = 1 << 24 // values of one example at a layer
	maxParameters = 1 << 28
	maxValues     = 1 << 26 // values of one example at all layers
	maxWindows    = 1 << 28 // values under all windows of a convolution
)

// kind is what a word in LayerSpec.Kind means.
type kind struct {
	fields string // of LayerSpec that it takes beside name, kind and from
	reads  int    // inputs; 0: at least two
	build  func(l LayerSpec, in [][]int) (layer, error)
}

// kinds is the table of layers.
var kinds = map[string]kind{
	"activation": {"activation", 1, newActivation},
	"add":        {"", 0, newAdd},
	"avgpool":    {"kernel stride", 1, newAvgPool},
	"concat":     {"", 0, newConcat},
	"conv":       {"filters kernel stride padding groups activation", 1, newConv},
	"dense":      {"units activation", 1, newDense},
	"dropout":    {"rate", 1, newDropout},
	"flatten":    {"", 1, newFlatten},
	"globalpool": {"", 1, newGlobalPool},
	"groupnorm":  {"groups", 1, newGroupNorm},
	"layernorm":  {"", 1, newLayerNorm},
	"maxpool":    {"kernel stride", 1, newMaxPool},
	"shuffle":    {"groups", 1, newShuffle},

	"embedding":     {"rows columns dim", 1, newEmbedding},
	"embedding-bag": {"rows dim pool", 1, newEmbeddingBag},
	"factorisation": {"", 2, newFactorisation},
	"gru":           {"units depth sequence", 1, newGRU},
	"lstm":          {"units depth sequence", 1, newLSTM},
	"rnn":           {"units depth sequence", 1, newRNN},
}

// Kinds lists the kinds of layers, each with the fields that it takes beside name, kind and from: "dense (units,
// activation)".
func Kinds() []string {
	names := sortedNames(kinds)
	for i, name := range names {
		if fields := kinds[name].fields; fields != "" {
			names[i] += " (" + listed(fields) + ")"
		}
	}
	return names
}

// checkFields names a field that the layer's kind does not take.
func (l LayerSpec) checkFields() error {
	k, ok := kinds[l.Kind]
	if !ok {
		return fmt.Errorf("kind %.40q, want one of %s", l.Kind, strings.Join(sortedNames(kinds), ", "))
	}
	allowed := append(strings.Fields(k.fields), "name", "kind", "from")
	v := reflect.ValueOf(l)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); !v.Field(i).IsZero() && !slices.Contains(allowed, name) {
			return fmt.Errorf("a %s layer has no %s; beside name and from it takes %s", l.Kind, name, listed(k.fields))
		}
	}
	return nil
}

// listed writes words with commas.
func listed(words string) string {
	if words == "" {
		return "nothing"
	}
	return strings.ReplaceAll(words, " ", ", ")
}

// sortedNames are the keys of a table.
func sortedNames[V any](table map[string]V) []string {
	var names []string
	for name := range table {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// between refuses a setting out of its range.
func between(field string, value, low, top int) error {
	if value < low || value > top {
		return fmt.Errorf("%s %d, want %d to %d", field, value, low, top)
	}
	return nil
}

// values is the number of values of a shape.
func values(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// checkShape refuses a shape that is empty, or holds more values than an example may.
func checkShape(shape []int) error {
	if len(shape) < 1 || len(shape) > 3 {
		return fmt.Errorf("%d axes, want 1 to 3", len(shape))
	}
	n := int64(1)
	for _, d := range shape {
		if d < 1 || d > maxWidth || n*int64(d) > maxExample {
			return fmt.Errorf("shape %v, want axes of 1 to 2^17 and at most 2^24 values", shape)
		}
		n *= int64(d)
	}
	return nil
}

// equal reports whether two architectures are written the same way.
func (s Spec) equal(o Spec) bool {
	return s.Loss == o.Loss && slices.Equal(s.Input, o.Input) && slices.EqualFunc(s.Layers, o.Layers, LayerSpec.equal)
}

func (l LayerSpec) equal(o LayerSpec) bool { return reflect.DeepEqual(l, o) }
