package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"choir.example/model"
)

// architectureFlags say which architecture, by name or by file.
type architectureFlags struct {
	Spec    string `arg:"" help:"A name, such as cnn, a YAML file that describes layers, or a model file, which ends in .safetensors."`
	Input   []int  `help:"Shape of an example, for a name: features, or height,width,channels. Default: what is usual for it." placeholder:"N,..."`
	Outputs int    `help:"Numbers that the network gives, for a name: one for each class, or 1. Default: what is usual for it." placeholder:"N"`
}

// spec is the architecture that the flags name.
func (f architectureFlags) spec() (model.Spec, error) {
	_, err := os.Stat(f.Spec)
	if file := err == nil || strings.ContainsAny(f.Spec, "./"); file {
		if f.Input != nil || f.Outputs != 0 {
			return model.Spec{}, &usageError{"--input and --outputs go with a name; a file says them itself", ""}
		}
		if isModelFile(f.Spec) {
			m, err := readModelFile(f.Spec)
			if err != nil {
				return model.Spec{}, err
			}
			return m.architecture().Spec(), nil
		}
		return readSpec(f.Spec)
	}
	spec, err := model.Named(f.Spec, f.Input, f.Outputs)
	if err != nil && !known(f.Spec) {
		return spec, &hinted{err, "a file needs a dot or a slash in its name: " + suggest(f.Spec, model.Architectures())}
	}
	return spec, err
}

// known reports whether a name is one of an architecture.
func known(name string) bool {
	for _, n := range model.Architectures() {
		if n == name {
			return true
		}
	}
	return false
}

// readSpec reads an architecture from a YAML file. It compiles, or the error says where in the file it does not.
func readSpec(path string) (spec model.Spec, err error) {
	lines, err := readYAMLLines(path, &spec)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return spec, &hinted{err, "names that need no file: " + strings.Join(model.Architectures(), ", ")}
		}
		return spec, err
	}
	if _, err = spec.Compile(); err == nil {
		return spec, nil
	}
	if wrong := (*model.SpecError)(nil); errors.As(err, &wrong) {
		if line, ok := lines[wrong.Part]; ok {
			return spec, fmt.Errorf("%s:%d: %w", path, line, wrong)
		}
		err = fmt.Errorf("key %s is missing: %w", wrong.Part, wrong)
	}
	return spec, fmt.Errorf("%s: %w", path, err)
}

// modelDescribe is `choir model describe`.
type modelDescribe struct {
	architectureFlags
	outputFlag
}

// Help is what --help explains.
func (modelDescribe) Help() string {
	return `Prints each layer with the shape of its output, its parameters and its work for one example forward, two operations a
multiplication and addition. Names: ` + strings.Join(model.Architectures(), ", ") + `.
A file has the keys input, layers and loss; each layer has a kind and what belongs to it, and may have a name. It reads the layer
before it, or those that from names; "input" is the example.

  input: [28, 28, 1]
  layers:
    - {kind: conv, filters: 16, kernel: 3, padding: 1, activation: relu}
    - {kind: maxpool, kernel: 2}
    - {kind: flatten}
    - {kind: dense, units: 10}
  loss: softmax

Kinds: ` + strings.Join(model.Kinds(), ", ") + `.
Losses: ` + strings.Join(model.Losses(), ", ") + `.

Example: choir model describe cnn --input 28,28,1 --outputs 10`
}

// description is a network for programs.
type description struct {
	Input      []int             `json:"input"`
	Loss       string            `json:"loss"`
	Layers     []model.LayerInfo `json:"layers"`
	Parameters int               `json:"parameters"`
	FLOPs      int64             `json:"flops"`
	Bytes      int               `json:"bytes"`
	Int8Bytes  int               `json:"int8_bytes"`
}

func describeNetwork(n *model.Network) description {
	float, int8 := n.Bytes()
	return description{n.Spec().Input, n.Spec().Loss, n.Layers(), n.Size(), n.FLOPs(), float, int8}
}

// Run describes an architecture.
func (c *modelDescribe) Run(t *terminal) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	network, err := spec.Compile()
	if err != nil {
		return fmt.Errorf("%s: %w", c.Spec, err)
	}
	d := describeNetwork(network)
	if c.json() {
		return printJSON(t.out, d)
	}
	tab := newTable("LAYER", "KIND", "READS", "OUTPUT", "PARAMETERS", "FLOPS")
	for _, l := range d.Layers {
		tab.add(l.Name, l.Kind, strings.Join(l.From, " "), shape(l.Output), l.Parameters, l.FLOPs)
	}
	if err := tab.print(t.out, "no layers"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "\ninput %s, loss %s: %d parameters, %d FLOPs an example, %d bytes, %d in int8\n",
		shape(d.Input), d.Loss, d.Parameters, d.FLOPs, d.Bytes, d.Int8Bytes)
	return err
}

// shape writes a shape as 28×28×1.
func shape(axes []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(axes), "[]"), " ", "×")
}
