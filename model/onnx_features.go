package model

import (
	"fmt"

	"choir.example/model/data"
)

// ONNX is the model as an ONNX file that needs nothing beside it. Its inputs are the schema's columns but the label and
// times, by their names, of shape [batch, 1]: numbers float32, NaN where missing; categories texts, empty where missing;
// booleans; ids int64, 0 where missing. A sequence has the shape [batch, length]; so has a text, whose n-grams the caller
// has hashed. The graph makes the features of them as Statistics.Features does, but in float32, and refuses nothing: a
// number out of its column's range is taken as it is, and an unknown category as missing. The outputs are "output", what
// Predictor gives, and for a classifier "probability": of the positive label, of shape [batch], or of each class. The
// metadata property "choir" is that of Encode.
func (m *Model) ONNX() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("export model %s to ONNX: %w", m.Name, err)
	}
	meta, err := m.metadata()
	if err != nil {
		return nil, fmt.Errorf("export model %s to ONNX: %w", m.Name, err)
	}
	g := &onnxGraph{names: map[string]bool{}, int8: m.Quantised != nil, layer: "features"}
	g.predict(m, g.features(m.Schema, m.Statistics))
	file, err := g.file("network", onnxProperty("choir", meta))
	if err != nil {
		return nil, fmt.Errorf("export model %s to ONNX: %w", m.Name, err)
	}
	return file, nil
}

// predict adds the network and its outputs.
func (g *onnxGraph) predict(m *Model, input string) {
	output, probability := g.unique("output"), g.unique("probability")
	out := g.network(m.Network, m.onnxWeights(), onnxValue{name: input, shape: m.Network.spec.Input}, output)
	g.layer = probability
	switch m.Network.spec.Loss {
	case "logistic":
		p := g.unary("Sigmoid", g.reshape(out.name))
		g.operators = append(g.operators, onnxOperator("Identity", "", []string{p}, []string{probability}, nil))
		g.outputs = append(g.outputs, onnxInfo(probability, onnxFloat, nil))
	case "softmax":
		g.operators = append(g.operators, onnxOperator("Softmax", "", []string{out.name}, []string{probability}, []onnxAttribute{intAttribute("axis", -1)}))
		g.outputs = append(g.outputs, onnxInfo(probability, onnxFloat, out.shape))
	}
}

func (m *Model) onnxWeights() []onnxWeight {
	if m.Quantised != nil {
		return m.Network.onnxInt8s(m.Quantised)
	}
	return m.Network.onnxFloats(m.Params)
}

// features adds inputs for the columns and what makes a row of features of them.
func (g *onnxGraph) features(s *data.Schema, t *data.Statistics) string {
	for i := range s.Columns {
		g.names[s.Columns[i].Name] = true
	}
	var parts []string
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.Name == s.Label || c.Kind == data.Time {
			continue
		}
		kind, width, part := onnxFloat, 1, ""
		switch c.Kind {
		case data.Numeric:
			part = g.numeric(c, t, i)
		case data.Category:
			kind, part = onnxString, g.category(c)
		case data.Boolean:
			kind, part = onnxBool, g.float(c.Name)
		default: // ids
			kind, width, part = onnxInt64, max(c.Length, 1), g.float(c.Name)
		}
		g.inputs = append(g.inputs, onnxInfo(c.Name, kind, []int{width}))
		parts = append(parts, part)
	}
	return g.op("Concat", parts, intAttribute("axis", 1))
}

// float is a value as float32s.
func (g *onnxGraph) float(x string) string {
	return g.op("Cast", []string{x}, intAttribute("to", int(onnxFloat)))
}

// numeric standardises a column of numbers; a missing one is the mean, which is 0.
func (g *onnxGraph) numeric(c *data.Column, t *data.Statistics, i int) string {
	shift, scale := t.Standardisation(i)
	x := c.Name
	if c.LongTail {
		x = g.unary("Log", g.binary("Add", x, g.scalar(1)))
	}
	x = g.binary("Mul", g.binary("Sub", x, g.scalar(float32(shift))), g.scalar(float32(scale)))
	return g.op("Where", []string{g.unary("IsNaN", c.Name), g.scalar(0), x})
}

// category has a one for its text among the categories, and zeros for any other.
func (g *onnxGraph) category(c *data.Column) string {
	g.ml = true
	hot := g.inner("onehot")
	g.operators = append(g.operators, onnxOperator("OneHotEncoder", "ai.onnx.ml", []string{c.Name}, []string{hot},
		[]onnxAttribute{textsAttribute("cats_strings", c.Categories), intAttribute("zeros", 1)}))
	g.types = append(g.types, onnxInfo(hot, onnxFloat, []int{1, len(c.Categories)}))
	return g.reshape(hot, len(c.Categories))
}
