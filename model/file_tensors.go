package model

import (
	"fmt"
	"slices"
	"strings"

	"choir.example/model/kernel"
)

// A file holds a network's tensors as float32, or with int8 weights: then each tensor of weights comes with a tensor of
// scales, and all others are float32 as before. Of weights the outputs come first, as other programs have it.

// fileTensors are the tensors of a file that holds params, or quantised if it is not nil.
func (n *Network) fileTensors(params []float32, quantised []Int8Tensor) []tensor {
	var ts []tensor
	for i, t := range n.Tensors() {
		switch {
		case quantised == nil:
			ts = append(ts, tensor{t.Name, "F32", t.fileShape(), packFloats(t.toFile(params))})
		case t.scales() > 0:
			q := quantised[i]
			ts = append(ts, tensor{t.Name, "I8", t.fileShape(), packInt8(q.Weights)},
				tensor{t.scaleName(), "F32", []int{t.scales()}, packFloats(q.Scales)})
		default:
			ts = append(ts, tensor{t.Name, "F32", t.fileShape(), packFloats(quantised[i].Floats)})
		}
	}
	return ts
}

// fromFile takes the network's tensors out of a file, params or quantised ones; all must be there and no others.
func (n *Network) fromFile(file map[string]tensor) (params []float32, quantised []Int8Tensor, err error) {
	ts := n.Tensors()
	i := slices.IndexFunc(ts, func(t Tensor) bool { return t.scales() > 0 })
	int8 := i >= 0 && file[ts[i].Name].dtype == "I8"
	want := len(ts)
	for _, t := range ts {
		if int8 && t.scales() > 0 {
			want++
		}
	}
	if len(file) != want {
		return nil, nil, fmt.Errorf("%d tensors, want %d", len(file), want)
	}
	// Once all are seen to be there, the file is as long as what is allocated for it.
	for _, t := range ts {
		dtype := "F32"
		if int8 && t.scales() > 0 {
			dtype = "I8"
		}
		if _, err := take(file, t.Name, dtype, t.fileShape()...); err != nil {
			return nil, nil, err
		}
	}
	if int8 {
		quantised, err = int8FromFile(ts, file)
		if err == nil {
			err = n.checkInt8(quantised)
		}
		return nil, quantised, err
	}
	params = make([]float32, n.Size())
	for _, t := range ts {
		if err := t.fromFile(params, file[t.Name].body); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return params, nil, nil
}

func int8FromFile(ts []Tensor, file map[string]tensor) ([]Int8Tensor, error) {
	out := make([]Int8Tensor, len(ts))
	for i, t := range ts {
		q, floats, body := &out[i], t.Len(), file[t.Name].body
		scales := t.scales()
		if scales > 0 {
			var err error
			if body, err = take(file, t.scaleName(), "F32", scales); err != nil {
				return nil, err
			}
			floats, q.Weights = scales, unpackInt8(file[t.Name].body)
		}
		values := make([]float32, floats)
		if err := unpackFloats(values, body); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		if scales > 0 {
			q.Scales = values
		} else {
			q.Floats = values
		}
	}
	return out, nil
}

// fileShape is the tensor's shape in files.
func (t Tensor) fileShape() []int {
	if !t.Weight {
		return t.Shape
	}
	return append([]int{t.Outputs()}, t.Shape[:len(t.Shape)-1]...)
}

// scaleName is the tensor of the scales that int8 weights come with.
func (t Tensor) scaleName() string {
	at := strings.LastIndex(t.Name, "weight")
	return t.Name[:at] + "scale" + t.Name[at+len("weight"):]
}

// toFile is the tensor as files hold it, a copy of its part of the parameters.
func (t Tensor) toFile(params []float32) []float32 {
	body := params[t.Offset : t.Offset+t.Len()]
	if !t.Weight {
		return slices.Clone(body)
	}
	return transposed(body, t.Len()/t.Outputs(), t.Outputs())
}

// fromFile reads the tensor into its part of the parameters.
func (t Tensor) fromFile(params []float32, file []byte) error {
	body := params[t.Offset : t.Offset+t.Len()]
	if err := unpackFloats(body, file); err != nil || !t.Weight {
		return err
	}
	copy(body, transposed(body, t.Outputs(), t.Len()/t.Outputs()))
	return nil
}

// transposed is a copy of a matrix of rows × columns as columns × rows.
func transposed(x []float32, rows, columns int) []float32 {
	y := make([]float32, len(x))
	kernel.Transpose(matrix(y, rows), matrix(x, columns), rows, columns)
	return y
}
