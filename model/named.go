package model

import (
	"fmt"
	"slices"
	"strings"
)

// architecture is an entry of the table of names: the shapes it has unless others are asked for, and its layers.
type architecture struct {
	input   []int
	outputs int
	ids     []int // how many there are of each kind
	build   func(b *builder, outputs int)
}

// architectures is the table of names.
var architectures = map[string]architecture{
	"linear":   {[]int{16}, 1, nil, linear},
	"logistic": {[]int{16}, 1, nil, logisticRegression},
	"svm":      {[]int{16}, 1, nil, supportVector},
	"mlp":      {[]int{784}, 10, nil, twoHidden},
	"cnn":      {[]int{28, 28, 1}, 10, nil, mcMahanCNN},
	"mobile":   {[]int{28, 28, 1}, 10, nil, mobileNet},
	"shuffle":  {[]int{28, 28, 1}, 10, nil, shuffleNet},

	"rnn":                  {[]int{80}, 90, nil, charRNN},
	"lstm":                 {[]int{80}, 90, nil, charLSTM},
	"text":                 {[]int{128}, 77, []int{1 << 14}, textBag},
	"recommend-mlp":        {[]int{2}, 1, []int{1000, 1000}, recommendMLP},
	"recommend-lstm":       {[]int{1, 2}, 1, []int{1000, 1000}, recommendLSTM},
	"matrix-factorisation": {[]int{2}, 1, []int{1000, 1000}, factors},
}

// Architectures lists the names that Named knows.
func Architectures() []string { return sortedNames(architectures) }

// Named is a well-known architecture for examples of the input's shape and that many outputs; nil and 0 are its usual
// ones. One output is a number, the logit of the positive class, or of svm its score; more are one for each class. Some read ids: ids says
// how many there are, of text the buckets that n-grams are hashed to, of recommenders users and items.
func Named(name string, input []int, outputs int, ids ...int) (Spec, error) {
	a, ok := architectures[name]
	if !ok {
		return Spec{}, fmt.Errorf("architecture %.40q, want one of %s", name, strings.Join(Architectures(), ", "))
	}
	if input == nil {
		input = a.input
	}
	if outputs == 0 {
		outputs = a.outputs
	}
	if outputs < 1 || outputs > maxWidth {
		return Spec{}, fmt.Errorf("%s: %d outputs, want 1 to 2^17", name, outputs)
	}
	if want := len(a.input); want > 1 && len(input) != want {
		return Spec{}, fmt.Errorf("%s: input of %d axes, want %d, such as %v", name, len(input), want, a.input)
	}
	if ids == nil {
		ids = a.ids
	}
	if len(ids) != len(a.ids) {
		return Spec{}, fmt.Errorf("%s: %d kinds of ids, want %d", name, len(ids), len(a.ids))
	}
	b := &builder{Spec{Input: slices.Clone(input)}, ids}
	a.build(b, outputs)
	if _, err := b.spec.Compile(); err != nil {
		return Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	return b.spec, nil
}

// builder puts layers one after the other.
type builder struct {
	spec Spec
	ids  []int
}

func (b *builder) add(l LayerSpec) { b.spec.Layers = append(b.spec.Layers, l) }

// mark names the last layer, for others to read.
func (b *builder) mark(name string) string {
	b.spec.Layers[len(b.spec.Layers)-1].Name = name
	return name
}

func (b *builder) dense(units int, activation string) {
	b.add(LayerSpec{Kind: "dense", Units: units, Activation: activation})
}

// flat makes one axis of an input that has more.
func (b *builder) flat() {
	if len(b.spec.Input) > 1 {
		b.add(LayerSpec{Kind: "flatten"})
	}
}

// conv is a convolution with group norm, as deep networks need it, and ReLU if asked for.
func (b *builder) conv(filters, kernel, stride, groups, norms int, relu bool) {
	b.add(LayerSpec{Kind: "conv", Filters: filters, Kernel: kernel, Stride: stride, Padding: kernel / 2, Groups: groups})
	b.add(LayerSpec{Kind: "groupnorm", Groups: norms})
	if relu {
		b.add(LayerSpec{Kind: "activation", Activation: "relu"})
	}
}

// classify ends a network: logits, and the cross entropy that fits their number.
func (b *builder) classify(outputs int) {
	b.dense(outputs, "")
	b.spec.Loss = "softmax"
	if outputs == 1 {
		b.spec.Loss = "logistic"
	}
}

func linear(b *builder, outputs int) {
	b.flat()
	b.dense(outputs, "")
	b.spec.Loss = "squared"
}

func logisticRegression(b *builder, outputs int) {
	b.flat()
	b.classify(outputs)
}

// supportVector learns with the squared hinge, which has no kink at the margin (loss_hinge.go); the plain one is a
// file of the same layer with loss hinge.
func supportVector(b *builder, outputs int) {
	b.flat()
	b.dense(outputs, "")
	b.spec.Loss = "squared-hinge"
}

// twoHidden is the 2NN of McMahan et al. 2017, §3.
func twoHidden(b *builder, outputs int) {
	b.flat()
	b.dense(200, "relu")
	b.dense(200, "relu")
	b.classify(outputs)
}

// mcMahanCNN is the CNN of McMahan et al. 2017, §3.
func mcMahanCNN(b *builder, outputs int) {
	for _, filters := range []int{32, 64} {
		b.add(LayerSpec{Kind: "conv", Filters: filters, Kernel: 5, Padding: 2, Activation: "relu"})
		b.add(LayerSpec{Kind: "maxpool", Kernel: 2})
	}
	b.add(LayerSpec{Kind: "flatten"})
	b.dense(512, "relu")
	b.classify(outputs)
}

// mobileNet is made of depthwise-separable blocks (Howard et al. 2017, MobileNets, §3.1), narrow enough for small images.
func mobileNet(b *builder, outputs int) {
	const norms = 4
	b.conv(16, 3, 1, 1, norms, true)
	from := 16
	for _, block := range [][2]int{{32, 1}, {64, 2}, {64, 1}, {128, 2}, {128, 1}} {
		b.conv(from, 3, block[1], from, norms, true)
		b.conv(block[0], 1, 1, 1, norms, true)
		from = block[0]
	}
	b.add(LayerSpec{Kind: "globalpool"})
	b.classify(outputs)
}

// shuffleNet is made of grouped single-pixel convolutions whose channels are shuffled (Zhang et al. 2018, ShuffleNet,
// §3.2).
func shuffleNet(b *builder, outputs int) {
	const groups = 3
	b.conv(24, 3, 1, 1, groups, true)
	channels := 24
	for stage, width := range []int{96, 192} {
		for unit := range 3 {
			b.shuffleUnit(fmt.Sprintf("unit%d%c", stage+1, 'a'+unit), channels, width, groups)
			channels = width
		}
	}
	b.add(LayerSpec{Kind: "globalpool"})
	b.classify(outputs)
}

// shuffleUnit is a bottleneck beside the identity, or beside a pool where it halves the image and widens it.
func (b *builder) shuffleUnit(name string, from, to, groups int) {
	input, stride, made := b.mark(name+".in"), 1, to
	if from != to {
		stride, made = 2, to-from
	}
	b.conv(to/4, 1, 1, groups, groups, true)
	b.add(LayerSpec{Kind: "shuffle", Groups: groups})
	b.conv(to/4, 3, stride, to/4, groups, false)
	b.conv(made, 1, 1, groups, groups, false)
	output := b.mark(name + ".out")
	if stride == 1 {
		b.add(LayerSpec{Kind: "add", From: []string{input, output}})
	} else {
		b.add(LayerSpec{Name: name + ".pool", Kind: "avgpool", Kernel: 2, From: []string{input}})
		b.add(LayerSpec{Kind: "concat", From: []string{name + ".pool", output}})
	}
	b.add(LayerSpec{Kind: "activation", Activation: "relu"})
}
