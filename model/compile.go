package model

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
)

// Network is a compiled architecture: shapes are known and fit, and every parameter has its place in one flat slice,
// layer by layer, each layer's tensors in a fixed order. It is immutable and may be shared.
type Network struct {
	spec  Spec
	nodes []node
	size  int
	loss  loss
}

// node is a layer in its network.
type node struct {
	layer
	name   string
	kind   string
	from   []int  // nodes that it reads; -1 is the input
	widths []int  // values of an example of each input
	width  int    // of an example of the output
	at     int    // of its first parameter
	root   int    // node in whose memory the output lies: itself, or what a view looks at, or -1 for the input
	table  lookup // the layer, if it looks rows up, or nil
	learns bool   // it or a layer below it has parameters: it wants a gradient
	add    []bool // of each input: on the way back, another reader gave it a gradient before
}

// SpecError is what is wrong with an architecture, and in which part of it.
type SpecError struct {
	Part string // as the keys of a file name it: input, layers, layers[2], loss
	err  error
}

func (e *SpecError) Error() string { return e.err.Error() }
func (e *SpecError) Unwrap() error { return e.err }

func specError(part, format string, args ...any) error {
	return &SpecError{part, fmt.Errorf(format, args...)}
}

// layerError is what is wrong with layer i.
func layerError(i int, name string, err error) error {
	return specError(fmt.Sprintf("layers[%d]", i), "layer %.40s: %w", name, err)
}

// Compile checks the architecture and lays it out. Its errors name the layer, and wrap a SpecError.
func (s Spec) Compile() (*Network, error) {
	n, err := s.compile()
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return n, nil
}

func (s Spec) compile() (*Network, error) {
	if err := checkShape(s.Input); err != nil {
		return nil, specError("input", "input: %w", err)
	}
	if len(s.Layers) < 1 || len(s.Layers) > maxLayers {
		return nil, specError("layers", "%d layers, want 1 to %d", len(s.Layers), maxLayers)
	}
	c := compiler{network: &Network{spec: s}, places: map[string]int{"input": -1}}
	for i, l := range s.Layers {
		if l.Name == "" {
			l.Name = fmt.Sprintf("%s%d", l.Kind, i+1)
		}
		if err := c.layer(l); err != nil {
			return nil, layerError(i, l.Name, err)
		}
	}
	if err := c.checkUsed(); err != nil {
		return nil, err
	}
	c.markAdds()
	var err error
	n := c.network
	if n.size == 0 {
		return nil, specError("layers", "no layer has parameters to learn")
	}
	if n.loss, err = newLoss(s.Loss, n.OutputShape()); err != nil {
		return nil, specError("loss", "loss: %w", err)
	}
	return n, nil
}

// compiler lays out one network.
type compiler struct {
	network *Network
	places  map[string]int // node by name
	read    []bool         // by another node
	values  int            // of an example at all layers
}

var layerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,39}$`)

// layer adds a node.
func (c *compiler) layer(l LayerSpec) error {
	n := c.network
	if _, taken := c.places[l.Name]; taken || !layerName.MatchString(l.Name) {
		return fmt.Errorf("the name is taken, or is not 1 to 40 of a-z, 0-9, dot, dash and underscore")
	}
	if err := l.checkFields(); err != nil {
		return err
	}
	at := node{name: l.Name, kind: l.Kind, at: n.size}
	shapes, err := c.inputs(l, &at)
	if err != nil {
		return err
	}
	if at.layer, err = kinds[l.Kind].build(l, shapes); err != nil {
		return err
	}
	if err := checkShape(at.output()); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	at.table, _ = at.layer.(lookup)
	if at.table != nil && n.root(at.from[0]) >= 0 {
		return fmt.Errorf("it reads %s; want ids, which only the input holds", n.nodes[at.from[0]].name)
	}
	at.width = values(at.output())
	if c.values += at.width; c.values > maxValues {
		return fmt.Errorf("%d values an example up to here, at most 2^26", c.values)
	}
	at.learns, at.root = at.learns || at.size() > 0, len(n.nodes)
	if _, ok := at.layer.(view); ok {
		at.root = n.root(at.from[0])
	}
	if n.size += at.size(); n.size > maxParameters {
		return fmt.Errorf("%d parameters up to here, at most 2^28", n.size)
	}
	c.places[l.Name] = len(n.nodes)
	n.nodes, c.read = append(n.nodes, at), append(c.read, false)
	return nil
}

// inputs resolves what a layer reads.
func (c *compiler) inputs(l LayerSpec, at *node) (shapes [][]int, err error) {
	if l.From == nil {
		at.from = []int{len(c.network.nodes) - 1}
	}
	for _, name := range l.From {
		i, ok := c.places[name]
		if !ok {
			return nil, fmt.Errorf("from %.40q, which is not input or a layer before it", name)
		}
		at.from = append(at.from, i)
	}
	if want := kinds[l.Kind].reads; want > 0 && len(at.from) != want || want == 0 && (len(at.from) < 2 || len(at.from) > maxLayers) {
		return nil, fmt.Errorf("it reads %d layers; want %s", len(at.from), [...]string{"two or more", "one", "two"}[want])
	}
	for _, i := range at.from {
		shape := c.network.spec.Input
		if i >= 0 {
			shape, c.read[i] = c.network.nodes[i].output(), true
			at.learns = at.learns || c.network.nodes[i].learns
		}
		shapes, at.widths = append(shapes, shape), append(at.widths, values(shape))
	}
	return shapes, nil
}

// checkUsed refuses a layer whose output goes nowhere.
func (c *compiler) checkUsed() error {
	last := len(c.read) - 1
	if i := slices.Index(c.read[:last], false); i >= 0 {
		return layerError(i, c.network.nodes[i].name, errors.New("no layer reads it, and it is not the last"))
	}
	return nil
}

// markAdds settles who, on the way back, is the first to give an input its gradient, and who adds to it.
func (c *compiler) markAdds() {
	nodes := c.network.nodes
	given := make([]bool, len(nodes))
	for i := len(nodes) - 1; i >= 0; i-- {
		nodes[i].add = make([]bool, len(nodes[i].from))
		if nodes[i].root != i {
			continue
		}
		for k, from := range nodes[i].from {
			if from = c.network.root(from); from >= 0 {
				nodes[i].add[k], given[from] = given[from], true
			}
		}
	}
}

// root is the node in whose memory node i's output lies.
func (n *Network) root(i int) int {
	if i < 0 {
		return i
	}
	return n.nodes[i].root
}

// Spec is what the network was compiled from.
func (n *Network) Spec() Spec { return n.spec }

// Size is the number of parameters.
func (n *Network) Size() int { return n.size }

// Inputs is the number of values of one example.
func (n *Network) Inputs() int { return values(n.spec.Input) }

// Outputs is the number of values that the last layer gives for one example: logits, scores or real numbers.
func (n *Network) Outputs() int { return n.last().width }

// OutputShape is the shape of those.
func (n *Network) OutputShape() []int { return n.last().output() }

// Targets is the number of targets that one example is trained with.
func (n *Network) Targets() int { return n.loss.targets() }

func (n *Network) last() *node { return &n.nodes[len(n.nodes)-1] }

// Tensors names the parts of the flat parameters, in order.
func (n *Network) Tensors() []Tensor {
	var all []Tensor
	for i := range n.nodes {
		all = append(all, n.nodes[i].named()...)
	}
	return all
}

// named are a node's tensors as they stand in the network.
func (n *node) named() []Tensor {
	ts := slices.Clone(n.tensors())
	for i := range ts {
		ts[i].Name, ts[i].Offset = n.name+"."+ts[i].Name, n.at+ts[i].Offset
	}
	return ts
}

// Init draws parameters, of length Size, from the seed: the same bits on every processor.
func (n *Network) Init(params []float32, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0x696e6974))
	for i := range n.nodes {
		n.nodes[i].init(n.nodes[i].of(params), rng)
	}
}

// Initial is Init of new parameters.
func (n *Network) Initial(seed uint64) []float32 {
	params := make([]float32, n.size)
	n.Init(params, seed)
	return params
}

// of is the node's part of the parameters, or of what has their shape.
func (n *node) of(params []float32) []float32 {
	end := n.at + n.size()
	return params[n.at:end:end]
}

// LayerInfo describes a layer of a network for people.
type LayerInfo struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`
	From       []string `json:"from"`
	Output     []int    `json:"output"`
	Parameters int      `json:"parameters"`
	FLOPs      int64    `json:"flops"` // of one example forward, two a multiplication and addition
}

// Layers describes the layers in order.
func (n *Network) Layers() []LayerInfo {
	var infos []LayerInfo
	for i := range n.nodes {
		at := &n.nodes[i]
		info := LayerInfo{at.name, at.kind, nil, at.output(), at.size(), at.flops()}
		for _, from := range at.from {
			if from < 0 {
				info.From = append(info.From, "input")
			} else {
				info.From = append(info.From, n.nodes[from].name)
			}
		}
		infos = append(infos, info)
	}
	return infos
}

// FLOPs is the work of one example forward.
func (n *Network) FLOPs() int64 {
	var sum int64
	for i := range n.nodes {
		sum += n.nodes[i].flops()
	}
	return sum
}

// Bytes is what the parameters take as float32, and with weights in int8.
func (n *Network) Bytes() (float, int8 int) {
	for _, t := range n.Tensors() {
		float += 4 * t.Len()
		if scales := t.scales(); scales > 0 {
			int8 += t.Len() + 4*scales
		} else {
			int8 += 4 * t.Len()
		}
	}
	return float, int8
}

// work is the temporary memory that a batch needs.
func (n *Network) work(batch int) int {
	most := 0
	for i := range n.nodes {
		most = max(most, n.nodes[i].layer.work(batch))
	}
	return most
}

// What a batch may hold of one layer, and a Trainer of all of them, with gradients: 256 MiB and 4 GiB.
const (
	maxActivations = 1 << 26
	maxHeld        = 1 << 30
)

// CheckBatch refuses a batch for which a Trainer would allocate without end, or more than an int of 32 bits counts.
func (n *Network) CheckBatch(rows int) error {
	if err := checkBatch(rows, n.widest()); err != nil {
		return err
	}
	held := 0 // of an example
	for i := range n.nodes {
		held += 2*n.nodes[i].width + n.nodes[i].layer.scratch(1)
	}
	if int64(rows)*int64(held) > maxHeld {
		return fmt.Errorf("batch of %d rows, of which the layers hold %d values each, at most 2^30 values", rows, held)
	}
	return nil
}

// widest is what the widest layer holds of an example while it trains.
func (n *Network) widest() int {
	widest := n.widestOutput()
	for i := range n.nodes {
		widest = max(widest, n.nodes[i].layer.scratch(1))
	}
	return widest
}

// widestOutput is what flows of an example where it is widest.
func (n *Network) widestOutput() int {
	widest := n.Inputs()
	for i := range n.nodes {
		widest = max(widest, n.nodes[i].width)
	}
	return widest
}

func checkBatch(rows, widest int) error {
	if rows < 1 || rows > 1<<16 {
		return fmt.Errorf("batch of %d, want 1 to 2^16", rows)
	}
	if int64(rows)*int64(widest) > maxActivations {
		return fmt.Errorf("batch of %d rows of up to %d values, at most 2^26 values", rows, widest)
	}
	return nil
}
