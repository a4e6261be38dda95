package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	h, size, err := safetensorsHeader(meta, ts)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, 8+len(h)+size)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(h)))
	out = append(out, h...)
	for _, t := range ts {
		out = append(out, t.body...)
	}
	return out, nil
}

// safetensorsHeader puts tensors in order, and is the header of a file of them, whose bodies are of that size.
func safetensorsHeader(meta string, ts []tensor) (h []byte, size int, err error) {
	slices.SortFunc(ts, func(a, b tensor) int {
		return cmp.Or(sizes[b.dtype]-sizes[a.dtype], strings.Compare(a.name, b.name))
	})
	header := map[string]any{"__metadata__": map[string]string{"choir": meta, "format": "pt"}}
	at := 0
	for _, t := range ts {
		header[t.name] = tensorHeader{t.dtype, t.shape, [2]int{at, at + len(t.body)}}
		at += len(t.body)
	}
	if h, err = json.Marshal(header); err != nil {
		return nil, 0, fmt.Errorf("encode header: %w", err)
	}
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	return h, at, nil
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
	if n > maxHeader {
		return "", nil, fmt.Errorf("header of %d bytes, want at most %d", n, maxHeader)
	}
	if n > uint64(len(b)-8) {
		return "", nil, fmt.Errorf("header of %d bytes in a file of %d", n, len(b))
	}
	metadata, tensors, err := readHeader(b[8 : 8+n])
	if err != nil {
		return "", nil, fmt.Errorf("header: %w", err)
	}
	body := b[8+n:]
	var list []tensor
	var places []place
	ts = map[string]tensor{}
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		t, from, err := readTensor(name, tensors[name], body)
		if err != nil {
			return "", nil, fmt.Errorf("tensor %.40q: %w", name, err)
		}
		ts[name], list, places = t, append(list, t), append(places, place{name, from, from + len(t.body)})
	}
	if err := checkPlaces(places, len(body)); err != nil {
		return "", nil, err
	}
	// The header says where each tensor lies, and they fill the file: with that header there is no other one.
	again, _, err := safetensorsHeader(metadata["choir"], list)
	if err != nil || !bytes.Equal(again, b[8:8+n]) {
		return "", nil, fmt.Errorf("it is not in canonical form: each tensor aligned and in order of names, floats first, the header without spaces")
	}
	return metadata["choir"], ts, nil
}

// readHeader reads the metadata, and what is said of each tensor.
func readHeader(b []byte) (metadata map[string]string, tensors map[string]json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, cmp.Or(err, fmt.Errorf("it is not a JSON object"))
	}
	tensors = map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token() // in an object a key comes first, or an error
		if err != nil {
			return nil, nil, err
		}
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, nil, err
		}
		if _, twice := tensors[name.(string)]; twice {
			return nil, nil, fmt.Errorf("tensor %.40q is there twice", name)
		}
		tensors[name.(string)] = text
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, fmt.Errorf("text after the end")
	}
	text, ok := tensors["__metadata__"]
	if !ok {
		return nil, nil, fmt.Errorf("it has no metadata; another program wrote it")
	}
	if err := strictJSON(text, &metadata); err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", err)
	}
	delete(tensors, "__metadata__")
	return metadata, tensors, nil
}

// place is where the bytes of a tensor lie.
type place struct {
	name     string
	from, to int
}

// checkPlaces refuses tensors that do not lie one after the other from the first byte to the last of size.
func checkPlaces(places []place, size int) error {
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.from, b.from) })
	at := place{}
	for _, p := range places {
		switch {
		case p.from < at.to:
			return fmt.Errorf("tensors %.40q and %.40q overlap", at.name, p.name)
		case p.from > at.to:
			return fmt.Errorf("there is a hole of %d bytes before tensor %.40q", p.from-at.to, p.name)
		}
		at = p
	}
	if at.to < size {
		return fmt.Errorf("%d bytes follow the last tensor", size-at.to)
	}
	return nil
}

// readTensor is a tensor whose bytes begin at from.
func readTensor(name string, text json.RawMessage, body []byte) (t tensor, from int, err error) {
	var h tensorHeader
	if err := strictJSON(text, &h); err != nil {
		return tensor{}, 0, err
	}
	size := sizes[h.DType]
	if size == 0 {
		return tensor{}, 0, fmt.Errorf("type %.20q", h.DType)
	}
	if len(h.Shape) < 1 || len(h.Shape) > 4 {
		return tensor{}, 0, fmt.Errorf("%d dimensions, want 1 to 4", len(h.Shape))
	}
	for _, d := range h.Shape {
		if d < 1 || size > len(body)/d {
			return tensor{}, 0, fmt.Errorf("shape %v is more than the file holds", h.Shape)
		}
		size *= d
	}
	from, to := h.Offsets[0], h.Offsets[1]
	if from < 0 || to < from || to > len(body) || to-from != size {
		return tensor{}, 0, fmt.Errorf("offsets %v for %d bytes", h.Offsets, size)
	}
	return tensor{name, h.DType, h.Shape, body[from:to]}, from, nil
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
	b = b[:4*len(dst)]
	pairs, rest := dst[:len(dst)&^1], dst[len(dst)&^1:]
	for len(pairs) >= 2 && len(b) >= 8 { // two at a time, which the compiler loads at once
		x := binary.LittleEndian.Uint64(b)
		pairs[0], pairs[1] = math.Float32frombits(uint32(x)), math.Float32frombits(uint32(x>>32))
		pairs, b = pairs[2:], b[8:]
	}
	for i := range rest {
		rest[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
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
