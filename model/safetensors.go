package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A safetensors file is the length of its header in eight bytes, the header (JSON: a tensor's type, shape and place by
// name, and string metadata), then the tensors' bytes, little-endian, without gaps. We write floats before bytes, so
// that floats are aligned, each in order of names, and the header without spaces, padded to eight bytes; and we read only
// that form: one model has one file.
const maxHeader = 8 << 20

// tensor is a named array.
type tensor struct {
	name  string
	dtype string // F32 or I8
	shape []int
	body  []byte
}

// sizes are the bytes of a value, by type.
var sizes = map[string]int{"F32": 4, "I8": 1}

type tensorHeader struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

func encodeSafetensors(meta string, ts []tensor) ([]byte, error) {
	slices.SortFunc(ts, func(a, b tensor) int {
		return cmp.Or(sizes[b.dtype]-sizes[a.dtype], strings.Compare(a.name, b.name))
	})
	header := map[string]any{"__metadata__": map[string]string{"choir": meta, "format": "pt"}}
	at := 0
	for _, t := range ts {
		header[t.name] = tensorHeader{t.dtype, t.shape, [2]int{at, at + len(t.body)}}
		at += len(t.body)
	}
	h, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	out := make([]byte, 0, 8+len(h)+at)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(h)))
	out = append(out, h...)
	for _, t := range ts {
		out = append(out, t.body...)
	}
	return out, nil
}

// strictJSON decodes one value and refuses unknown fields and trailing text.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("text after the end")
	}
	return nil
}

func decodeSafetensors(b []byte) (meta string, ts map[string]tensor, err error) {
	if len(b) < 8 {
		return "", nil, fmt.Errorf("%d bytes", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader || n > uint64(len(b)-8) {
		return "", nil, fmt.Errorf("header of %d bytes in a file of %d", n, len(b))
	}
	var raw map[string]json.RawMessage
	if err := strictJSON(b[8:8+n], &raw); err != nil {
		return "", nil, fmt.Errorf("header: %w", err)
	}
	var metadata map[string]string
	if err := strictJSON(raw["__metadata__"], &metadata); err != nil {
		return "", nil, fmt.Errorf("metadata: %w", err)
	}
	delete(raw, "__metadata__")
	body := b[8+n:]
	var list []tensor
	total := 0
	ts = map[string]tensor{}
	for name, text := range raw {
		t, err := readTensor(name, text, body)
		if err != nil {
			return "", nil, fmt.Errorf("tensor %.40s: %w", name, err)
		}
		// Tensors that overlap could add up to far more than the file.
		if len(t.body) > len(body)-total {
			return "", nil, fmt.Errorf("tensors overlap")
		}
		total += len(t.body)
		ts[name] = t
		list = append(list, t)
	}
	if total != len(body) {
		return "", nil, fmt.Errorf("tensors of %d bytes in %d: there is a hole, or something behind them", total, len(body))
	}
	again, err := encodeSafetensors(metadata["choir"], list)
	if err != nil || !bytes.Equal(again, b) {
		return "", nil, fmt.Errorf("it is not in canonical form")
	}
	return metadata["choir"], ts, nil
}

func readTensor(name string, text json.RawMessage, body []byte) (tensor, error) {
	var h tensorHeader
	if err := strictJSON(text, &h); err != nil {
		return tensor{}, err
	}
	size := sizes[h.DType]
	if size == 0 {
		return tensor{}, fmt.Errorf("type %.20q", h.DType)
	}
	if len(h.Shape) < 1 || len(h.Shape) > 4 {
		return tensor{}, fmt.Errorf("%d dimensions, want 1 to 4", len(h.Shape))
	}
	for _, d := range h.Shape {
		if d < 1 || size > len(body)/d {
			return tensor{}, fmt.Errorf("shape %v is more than the file holds", h.Shape)
		}
		size *= d
	}
	from, to := h.Offsets[0], h.Offsets[1]
	if from < 0 || to < from || to > len(body) || to-from != size {
		return tensor{}, fmt.Errorf("offsets %v for %d bytes", h.Offsets, size)
	}
	return tensor{name, h.DType, h.Shape, body[from:to]}, nil
}

// take returns a tensor's bytes, if its type and shape are as wanted.
func take(ts map[string]tensor, name, dtype string, shape ...int) ([]byte, error) {
	t, ok := ts[name]
	if !ok || t.dtype != dtype || !slices.Equal(t.shape, shape) {
		return nil, fmt.Errorf("tensor %s is %s %v, want %s %v", name, t.dtype, t.shape, dtype, shape)
	}
	return t.body, nil
}

func packFloats(x []float32) []byte {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// unpackFloats reads into dst and refuses values that are not finite.
func unpackFloats(dst []float32, b []byte) error {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	if !Finite(dst) {
		return fmt.Errorf("a value is not finite")
	}
	return nil
}

func packInt8(x []int8) []byte {
	b := make([]byte, len(x))
	for i, v := range x {
		b[i] = byte(v)
	}
	return b
}

func unpackInt8(b []byte) []int8 {
	x := make([]int8, len(b))
	for i, v := range b {
		x[i] = int8(v)
	}
	return x
}
