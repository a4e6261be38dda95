package model

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"choir.example/model/data"
)

// tensors of two types and of one to four axes, in file order.
func someTensors() []tensor {
	return []tensor{
		{"a", "F32", []int{2}, packFloats([]float32{1, 2})},
		{"c", "F32", []int{1, 2, 1, 1}, packFloats([]float32{3, 4})},
		{"b", "I8", []int{3, 1}, []byte{5, 6, 7}},
		{"d", "I8", []int{1, 1, 2}, []byte{8, 9}},
	}
}

func encodeTensors(t testing.TB, meta string, ts []tensor) []byte {
	t.Helper()
	b, err := encodeSafetensors(meta, ts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSafetensorsRefuse(t *testing.T) {
	good := encodeTensors(t, "m", someTensors())
	if _, ts, err := decodeSafetensors(good); err != nil || len(ts) != 4 || string(ts["d"].body) != "\x08\x09" {
		t.Fatalf("%v, error %v", ts, err)
	}
	header, body := split(good)
	offsets := func(name string, from, to int) string { // moves a tensor
		i := strings.Index(header, `"`+name+`":`)
		j := i + strings.Index(header[i:], `"data_offsets"`)
		k := j + strings.Index(header[j:], "}")
		return fmt.Sprintf(`%s"data_offsets":[%d,%d]%s`, header[:j], from, to, header[k:])
	}
	padded := header + strings.Repeat(" ", maxHeader)
	larger := append(binary.LittleEndian.AppendUint64(nil, uint64(len(padded))), padded+string(body)...)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"overlap within the file", join(offsets("d", 18, 20), body), `tensors "b" and "d" overlap`},
		{"two tensors in one place", join(offsets("c", 0, 8), body), `tensors "a" and "c" overlap`},
		{"order of offsets", join(strings.Replace(offsets("c", 0, 8), "[0,8]", "[8,16]", 1), body), "canonical"},
		{"trailing byte", append(slices.Clone(good), 0), "1 bytes follow the last tensor"},
		{"last byte missing", good[:len(good)-1], "tensor"},
		{"hole between", join(offsets("d", 20, 22), append(slices.Clone(body), 9)), `a hole of 1 bytes before tensor "d"`},
		{"duplicate", join(strings.Replace(header, `"a":`, `"d":{"dtype":"I8","shape":[1,1,2],"data_offsets":[19,21]},"a":`, 1), body), `header: tensor "d" is there twice`},
		{"other type", join(strings.Replace(header, "I8", "U8", 1), body), `type "U8"`},
		{"half floats", join(strings.Replace(header, `"F32","shape":[2]`, `"BF16","shape":[4]`, 1), body), `type "BF16"`},
		{"header larger than allowed", larger, fmt.Sprintf("header of %d bytes", len(padded))},
		{"empty", nil, "0 bytes"},
		{"only a length", binary.LittleEndian.AppendUint64(nil, 0), "header: EOF"},
	} {
		if _, _, err := decodeSafetensors(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// Every network whose input is a row of features comes back from its file, in float32 and in int8.
func TestFilesOfArchitectures(t *testing.T) {
	for _, c := range onnxCases(t) {
		n := compile(t, c.spec)
		if len(c.spec.Input) != 1 || n.Outputs() != 1 {
			continue
		}
		schema := numbers(t, n.Inputs())
		if n.lookups() {
			schema = names(t, n.Inputs())
		}
		sums := make([]int64, schema.StatLen())
		sums[len(sums)-2] = 1
		statistics, err := data.NewStatistics(schema, sums)
		if err != nil {
			t.Fatal(err)
		}
		m := &Model{Name: c.name, Variant: "float32", Network: n, Schema: schema, Statistics: statistics, Params: n.Initial(1)}
		q := *m
		q.Variant, q.Params = "int8", nil
		if q.Quantised, err = Quantise(n, m.Params); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Model{m, &q} {
			file := encode(t, m)
			again, err := Decode(file)
			if err != nil {
				t.Errorf("%s, %s: %v", c.name, m.Variant, err)
				continue
			}
			if !bytes.Equal(encode(t, again), file) || !again.Network.spec.equal(c.spec) {
				t.Errorf("%s, %s: came back as %+v", c.name, m.Variant, again.Network.spec)
			}
		}
	}
}

// names is a schema of so many columns of ids below 10.
func names(t testing.TB, features int) *data.Schema {
	t.Helper()
	s := numbers(t, features)
	for i := range features {
		s.Columns[i].Kind, s.Columns[i].Min, s.Columns[i].Max = data.ID, 1, 9
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// lookups reports whether the network has embeddings.
func (n *Network) lookups() bool {
	return slices.ContainsFunc(n.nodes, func(at node) bool { _, ok := at.layer.(lookup); return ok })
}

// numbers is a schema of so many numeric features.
func numbers(t testing.TB, features int) *data.Schema {
	t.Helper()
	s := &data.Schema{Name: "numbers", Label: "label", Unit: "row"}
	for i := range features {
		s.Columns = append(s.Columns, data.Column{Name: fmt.Sprint("x", i), Kind: data.Numeric, Max: 1})
	}
	s.Columns = append(s.Columns, data.Column{Name: "label", Kind: data.Boolean})
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

// What is read is the file that would be written, tensor by tensor, without a byte that is in two or in none.
func FuzzSafetensors(f *testing.F) {
	good := encodeTensors(f, "m", someTensors())
	header, body := split(good)
	f.Add(good)
	f.Add(encodeTensors(f, "", nil))
	f.Add(join(strings.Replace(header, "[0,8]", "[8,16]", 1), body))
	f.Add(join(strings.Replace(header, `"a":`, `"b":`, 1), body))
	f.Fuzz(func(t *testing.T, b []byte) {
		meta, ts, err := decodeSafetensors(b)
		if err != nil {
			return
		}
		var list []tensor
		size := 0
		for _, x := range ts {
			if len(x.body) != values(x.shape)*sizes[x.dtype] {
				t.Fatalf("%s: %d bytes of shape %v", x.name, len(x.body), x.shape)
			}
			size += len(x.body)
			list = append(list, x)
		}
		if again := encodeTensors(t, meta, list); !bytes.Equal(again, b) || size > len(b) {
			t.Fatalf("%q became %q", b, again)
		}
	})
}
