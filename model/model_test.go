package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"choir.example/model/data"
)

const smallSchema = `{"name":"visits","columns":[{"name":"age","kind":"numeric","min":-10,"max":90},{"name":"day","kind":"category","categories":["Mon","Tue"]},{"name":"bought","kind":"boolean"}],"label":"bought","unit":"visit"}`

// small is a model of three features and hidden layers of three and two: 12 + 8 + 3 parameters. Its numbers are the
// same on every processor.
func small(t testing.TB, variant string) *Model {
	t.Helper()
	schema, err := data.ParseSchema([]byte(smallSchema))
	if err != nil {
		t.Fatal(err)
	}
	st, err := data.NewStatistics(schema, data.Collect(schema, []data.Row{{31, 1, 0}, {-10, 0, 1}, {90, 1, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	m := &Model{Name: "small", Variant: variant, Network: compile(t, MLP(3, 3, 2)), Schema: schema, Statistics: st}
	if !strings.HasSuffix(variant, "int8") {
		m.Params = m.Network.Initial(1)
		return m
	}
	for k, d := range [][2]int{{3, 3}, {3, 2}, {2, 1}} {
		var weights, bias Int8Tensor
		for o := range d[1] {
			weights.Scales, bias.Floats = append(weights.Scales, 1/float32(o+k+3)), append(bias.Floats, float32(o)-1)
			for i := range d[0] {
				weights.Weights = append(weights.Weights, int8(50*i-31*o-k))
			}
		}
		m.Quantised = append(m.Quantised, weights, bias)
	}
	return m
}

func encode(t testing.TB, m *Model) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var variants = []string{"float32", "int8", "student", "student-int8"}

// TestRoundTrip: a model of each variant comes back as it was, predicts the same, and encodes to the same bytes.
func TestRoundTrip(t *testing.T) {
	for _, variant := range variants {
		m := small(t, variant)
		b := encode(t, m)
		again, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", variant, err)
		}
		if !reflect.DeepEqual(again, m) {
			t.Errorf("%s: %+v came back as %+v", variant, m, again)
		}
		if !slices.Equal(encode(t, again), b) {
			t.Errorf("%s: encodes to other bytes", variant)
		}
		rows := []data.Row{{20, 0, 0}, {math.NaN(), 1, 1}, {90, math.NaN(), 0}}
		if got, want := again.Evaluate(rows), m.Evaluate(rows); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: evaluates to %+v, want %+v", variant, got, want)
		}
	}
}

// TestEncodeRefuses: what Decode would not give back is not written.
func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, variant, want string
		change              func(m *Model)
	}{
		{"NaN parameter", "float32", "parameter 22 is NaN", func(m *Model) { m.Params[22] = nan32 }},
		{"infinite parameter", "student", "parameter 0 is -Inf", func(m *Model) { m.Params[0] = -inf32 }},
		{"short parameters", "float32", "22 parameters, want 23", func(m *Model) { m.Params = m.Params[:22] }},
		{"no parameters", "float32", "either float or quantised", func(m *Model) { m.Params = nil }},
		{"both kinds of parameters", "int8", "either float or quantised", func(m *Model) { m.Params = m.Network.Initial(1) }},
		{"floats called int8", "float32", `variant "int8", want one of [float32 student]`, func(m *Model) { m.Variant = "int8" }},
		{"int8 called student", "int8", `variant "student"`, func(m *Model) { m.Variant = "student" }},
		{"unknown variant", "float32", `variant "tiny"`, func(m *Model) { m.Variant = "tiny" }},
		{"name not UTF-8", "float32", "its name is not UTF-8", func(m *Model) { m.Name = "\xff" }},
		{"no schema", "float32", "no schema", func(m *Model) { m.Schema = nil }},
		{"no statistics", "float32", "no statistics", func(m *Model) { m.Statistics = nil }},
		{"statistics of another schema", "float32", "belong to another schema", func(m *Model) {
			s := *m.Schema
			s.Name, m.Schema = "other", &s
		}},
		{"inputs", "float32", "4 inputs for 3 features", func(m *Model) { m.Network = compile(t, MLP(4, 3, 2)) }},
		{"no network", "float32", "no architecture", func(m *Model) { m.Network = nil }},
		{"two outputs", "float32", "2 outputs for one label", func(m *Model) {
			m.Network = compile(t, Spec{[]int{3}, []LayerSpec{{Kind: "dense", Units: 2}}, "softmax"})
		}},
		{"missing tensor", "int8", "5 tensors, want 6", func(m *Model) { m.Quantised = m.Quantised[:5] }},
		{"weights too narrow", "int8", "layers.1.weight does not fit", func(m *Model) { m.Quantised[2].Weights = m.Quantised[2].Weights[1:] }},
		{"NaN scale", "int8", "layers.2.weight: a value is not finite", func(m *Model) { m.Quantised[4].Scales[0] = nan32 }},
		{"infinite bias", "int8", "layers.0.bias: a value is not finite", func(m *Model) { m.Quantised[1].Floats[1] = inf32 }},
		{"weight of no pair", "int8", "layers.0.weight: a weight is -128", func(m *Model) { m.Quantised[0].Weights[1] = -128 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := small(t, c.variant)
			c.change(m)
			if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestGolden: the format does not drift. A change of these bytes makes every file written so far unreadable.
func TestGolden(t *testing.T) {
	floats, bytes := encode(t, small(t, "float32")), encode(t, small(t, "int8"))
	const header = `{"__metadata__":{"choir":"{\"name\":\"small\",\"variant\":\"int8\",\"spec\":{\"inputs\":3,\"hidden\":[3,2]},\"schema\":{\"name\":\"visits\",` +
		`\"columns\":[{\"name\":\"age\",\"kind\":\"numeric\",\"min\":-10,\"max\":90},{\"name\":\"day\",\"kind\":\"category\",\"categories\":[\"Mon\",\"Tue\"]},{\"name\":\"bought\",\"kind\":\"boolean\"}],` +
		`\"label\":\"bought\",\"unit\":\"visit\"},\"statistics\":\"AQgGAuL10QXOiNYEAgQGBA==\"}","format":"pt"},` +
		`"layers.0.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},` +
		`"layers.0.scale":{"dtype":"F32","shape":[3],"data_offsets":[12,24]},` +
		`"layers.0.weight":{"dtype":"I8","shape":[3,3],"data_offsets":[48,57]},` +
		`"layers.1.bias":{"dtype":"F32","shape":[2],"data_offsets":[24,32]},` +
		`"layers.1.scale":{"dtype":"F32","shape":[2],"data_offsets":[32,40]},` +
		`"layers.1.weight":{"dtype":"I8","shape":[2,3],"data_offsets":[57,63]},` +
		`"layers.2.bias":{"dtype":"F32","shape":[1],"data_offsets":[40,44]},` +
		`"layers.2.scale":{"dtype":"F32","shape":[1],"data_offsets":[44,48]},` +
		`"layers.2.weight":{"dtype":"I8","shape":[1,2],"data_offsets":[63,65]}}`
	got, _ := split(bytes)
	if strings.TrimRight(got, " ") != header || len(got)%8 != 0 {
		t.Errorf("header\n%s\nwant\n%s", got, header)
	}
	for i, want := range []string{
		"642fdb39bdb423e9ba175748d753128b92b0e09f06f5a24d4a97bb018ea82130",
		"652e6429b83f88ba7c5f5010764b2d3d958853d74d4379fa1f466e35ddf1366d",
	} {
		sum := sha256.Sum256([][]byte{floats, bytes}[i])
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("digest %x, want %s", sum, want)
		}
	}
}

// split divides a file into header and tensors.
func split(b []byte) (header string, body []byte) {
	n := binary.LittleEndian.Uint64(b)
	return string(b[8 : 8+n]), b[8+n:]
}

// join is a file of the header, padded, and the tensors.
func join(header string, body []byte) []byte {
	header = strings.TrimRight(header, " ")
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), append([]byte(header), body...)...)
}

// readPublic reads a file by the format's public description alone (github.com/huggingface/safetensors): offsets
// begin after the header, cover the rest without a hole or an overlap, and floats are aligned.
func readPublic(b []byte) (floats map[string][]float32, bytes map[string][]int8, err error) {
	header, body := split(b)
	var tensors map[string]struct {
		DType   string  `json:"dtype"`
		Shape   []int   `json:"shape"`
		Offsets [2]int  `json:"data_offsets"`
		Choir   *string `json:"choir"`
		Format  *string `json:"format"`
	}
	if err := json.Unmarshal([]byte(header), &tensors); err != nil {
		return nil, nil, err
	}
	if meta := tensors["__metadata__"]; meta.Choir == nil || meta.Format == nil || header[0] != '{' {
		return nil, nil, fmt.Errorf("no metadata, or no object at the start")
	}
	delete(tensors, "__metadata__")
	covered := make([]int, len(body))
	floats, bytes = map[string][]float32{}, map[string][]int8{}
	for name, h := range tensors {
		size := map[string]int{"F32": 4, "I8": 1}[h.DType]
		n := h.Offsets[1] - h.Offsets[0]
		product := size
		for _, d := range h.Shape {
			product *= d
		}
		if n != product || (len(b)-len(body)+h.Offsets[0])%size != 0 {
			return nil, nil, fmt.Errorf("%s: %+v does not fit or is not aligned", name, h)
		}
		for i := h.Offsets[0]; i < h.Offsets[1]; i++ {
			covered[i]++
		}
		for at := h.Offsets[0]; at < h.Offsets[1]; at += size {
			if size == 1 {
				bytes[name] = append(bytes[name], int8(body[at]))
			} else {
				floats[name] = append(floats[name], math.Float32frombits(binary.LittleEndian.Uint32(body[at:])))
			}
		}
	}
	if i := slices.IndexFunc(covered, func(n int) bool { return n != 1 }); i >= 0 {
		return nil, nil, fmt.Errorf("byte %d is in %d tensors", i, covered[i])
	}
	return floats, bytes, nil
}

// TestPublicFormat: whoever reads safetensors reads our files: each tensor has the layer's values.
func TestPublicFormat(t *testing.T) {
	for _, variant := range variants {
		m := small(t, variant)
		floats, bytes, err := readPublic(encode(t, m))
		if err != nil {
			t.Fatalf("%s: %v", variant, err)
		}
		for i, l := range m.Network.Tensors() {
			if m.Quantised != nil {
				q := m.Quantised[i]
				if l.Weight && (!slices.Equal(bytes[l.Name], q.Weights) || !slices.Equal(floats[l.scaleName()], q.Scales)) ||
					!l.Weight && !slices.Equal(floats[l.Name], q.Floats) {
					t.Errorf("%s: %s differs", variant, l.Name)
				}
				continue
			}
			for k, v := range m.Params[l.Offset:][:l.Len()] {
				if l.Weight { // inputs × outputs here, outputs × inputs there
					k = k%l.Outputs()*l.Shape[0] + k/l.Outputs()
				}
				if floats[l.Name][k] != v {
					t.Errorf("%s: %s differs", variant, l.Name)
				}
			}
		}
		if want := 2 * 3; m.Quantised == nil && len(floats)+len(bytes) != want {
			t.Errorf("%s: %d tensors, want %d", variant, len(floats)+len(bytes), want)
		}
	}
}

// TestDecodeRefusesHeaders changes one piece of a good file's header.
func TestDecodeRefusesHeaders(t *testing.T) {
	const bias0, bias1 = `"layers.0.bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}`, `"layers.1.bias":{"dtype":"F32","shape":[2],"data_offsets":[48,56]}`
	const weight0 = `"layers.0.weight":{"dtype":"F32","shape":[3,3],"data_offsets":[12,48]}`
	header, body := split(encode(t, small(t, "float32")))
	for _, c := range []struct{ name, old, new, want string }{
		{"nothing changed", "", "", ""},
		{"not JSON", `{"__meta`, `{__meta`, "header: invalid"},
		{"an array", header, `[]`, "header: it is not a JSON object"},
		{"two objects", header, header + `{}`, "header: text after the end"},
		{"null", header, `null`, "header: it is not a JSON object"},
		{"a space", `,"layers.0.bias"`, `, "layers.0.bias"`, "not in canonical form"},
		{"tensor overlaps", bias1, strings.Replace(bias1, "48,56", "40,48", 1), `tensors "layers.0.weight" and "layers.1.bias" overlap`},
		{"two tensors in one place", bias0, strings.Replace(bias0, "0.bias", "9.bias", 1) + "," + bias0, "overlap"},
		{"hole", bias0, strings.Replace(bias0, `[3],"data_offsets":[0,12]`, `[2],"data_offsets":[0,8]`, 1), `there is a hole of 4 bytes before tensor "layers.0.weight"`},
		{"tensor twice", bias0, bias0 + "," + bias0, `tensor "layers.0.bias" is there twice`},
		{"missing tensor", bias0 + ",", "", `there is a hole of 12 bytes before tensor "layers.0.weight"`},
		{"wrong type", bias0, strings.Replace(bias0, "F32", "F16", 1), `tensor "layers.0.bias": type "F16"`},
		{"type in lower case", bias0, strings.Replace(bias0, "F32", "f32", 1), `tensor "layers.0.bias": type "f32"`},
		{"no type", bias0, strings.Replace(bias0, `"dtype":"F32",`, "", 1), `tensor "layers.0.bias": type ""`},
		{"bytes for floats", bias0, strings.Replace(bias0, `"F32","shape":[3]`, `"I8","shape":[12]`, 1), "not in canonical form"},
		{"other shape", weight0, strings.Replace(weight0, "[3,3]", "[9]", 1), "tensor layers.0.weight is F32 [9], want F32 [3 3]"},
		{"shape larger than its bytes", bias0, strings.Replace(bias0, "[3]", "[4]", 1), "offsets [0 12] for 16 bytes"},
		{"shape that wraps", bias0, strings.Replace(bias0, "[3]", "[1073741824,1073741824]", 1), "more than the file holds"},
		{"five dimensions", bias0, strings.Replace(bias0, "[3]", "[1,1,1,1,3]", 1), `tensor "layers.0.bias": 5 dimensions, want 1 to 4`},
		{"other dimensions", bias0, strings.Replace(bias0, "[3]", "[1,1,3]", 1), "tensor layers.0.bias is F32 [1 1 3], want F32 [3]"},
		{"no dimension", bias0, strings.Replace(bias0, "[3]", "[]", 1), `tensor "layers.0.bias": 0 dimensions`},
		{"no shape", bias0, strings.Replace(bias0, `"shape":[3],`, "", 1), `tensor "layers.0.bias": 0 dimensions`},
		{"shape of nothing", bias0, strings.Replace(bias0, "[3]", "[0]", 1), "more than the file holds"},
		{"negative shape", bias0, strings.Replace(bias0, "[3]", "[-3]", 1), "more than the file holds"},
		{"shape of half", bias0, strings.Replace(bias0, "[3]", "[1.5]", 1), `tensor "layers.0.bias": json`},
		{"negative offset", bias0, strings.Replace(bias0, "[0,12]", "[-12,0]", 1), "offsets [-12 0]"},
		{"offset beyond the end", bias0, strings.Replace(bias0, "[0,12]", "[1000000,1000012]", 1), "offsets [1000000 1000012]"},
		{"offset beyond an int", bias0, strings.Replace(bias0, "[0,12]", "[0,99999999999999999999]", 1), `tensor "layers.0.bias": json`},
		{"unknown key", bias0, strings.Replace(bias0, `"shape"`, `"extra":1,"shape"`, 1), "unknown field"},
		{"other tensor name", `"layers.2.bias"`, `"layers.2.bias2"`, "tensor layers.2.bias is"},
		{"other metadata", `"format":"pt"`, `"format":"pt","note":"x"`, "not in canonical form"},
		{"other format", `"format":"pt"`, `"format":"tf"`, "not in canonical form"},
		{"metadata not text", `"format":"pt"`, `"format":1`, "metadata: json"},
		{"no metadata", header[:strings.Index(header, `"layers.0.bias"`)], "{", "header: it has no metadata; another program wrote it"},
		{"no model", header[:strings.Index(header, `,"format"`)], `{"__metadata__":{"choir":""`, "metadata: EOF"},
		{"unknown key of the model", `{\"name\":\"small\"`, `{\"note\":1,\"name\":\"small\"`, `unknown field "note"`},
		{"name twice", `{\"name\":\"small\"`, `{\"name\":\"x\",\"name\":\"small\"`, "metadata is not in canonical form"},
		{"key in other case", `{\"name\":\"small\"`, `{\"Name\":\"small\"`, "metadata is not in canonical form"},
		{"unknown variant", `\"float32\"`, `\"tiny\"`, `variant "tiny"`},
		{"int8 that holds floats", `\"float32\"`, `\"int8\"`, `variant "int8"`},
		{"no schema", `\"schema\":`, `\"schema\":null,\"schema\":`, "metadata is not in canonical form"},
		{"schema null", header[strings.Index(header, `{\"name\":\"visits`):strings.Index(header, `,\"statistics`)], "null", "null is not a value"},
		{"unknown key of the schema", `\"kind\":\"numeric\"`, `\"kind\":\"numeric\",\"note\":1`, `parse schema: unknown field "note"`},
		{"schema key twice", `\"unit\":\"visit\"`, `\"unit\":\"x\",\"unit\":\"visit\"`, `parse schema: field "unit" is given twice`},
		{"invalid schema", `\"min\":-10`, `\"min\":100`, "column age: range [100, 90]"},
		{"schema of other width", `[\"Mon\",\"Tue\"]`, `[\"Mon\",\"Tue\",\"Wed\"]`, "statistics of schema visits: 8 sums, want 9"},
		{"other statistics", `AQgGAuL10QXOiNYEAgQGBA==`, `AQgGAuL10QXOiNYEAgQGCA==`, "4 of 3 labels are positive"},
		{"statistics not base64", `AQgGAuL10QXOiNYEAgQGBA==`, `?`, "metadata: illegal base64"},
		{"other inputs", `{\"inputs\":3`, `{\"inputs\":4`, "4 inputs for 3 features"},
		{"inputs beyond an int", `{\"inputs\":3`, `{\"inputs\":99999999999999999999`, "metadata: json"},
		{"no hidden layer", `\"hidden\":[3,2]`, `\"hidden\":[]`, "0 hidden layers"},
		{"neither form", `\"inputs\":3,\"hidden\":[3,2]`, ``, "0 inputs"},
		{"both forms", `\"hidden\":[3,2]`, `\"hidden\":[3,2],\"input\":[3],\"layers\":[{\"kind\":\"dense\",\"units\":1}],\"loss\":\"logistic\"`, "not in canonical form"},
		{"two outputs", `\"inputs\":3,\"hidden\":[3,2]`, `\"input\":[3],\"layers\":[{\"kind\":\"dense\",\"units\":2}],\"loss\":\"softmax\"`, "2 outputs for one label"},
		{"unknown kind", `\"inputs\":3,\"hidden\":[3,2]`, `\"input\":[3],\"layers\":[{\"kind\":\"tree\"}],\"loss\":\"softmax\"`, `kind "tree", want one of`},

		{"one layer more", `\"hidden\":[3,2]`, `\"hidden\":[3,2,1]`, "6 tensors, want 8"},
		{"other hidden width", `\"hidden\":[3,2]`, `\"hidden\":[3,3]`, "tensor layers.1.weight is F32 [2 3], want F32 [3 3]"},
		{"huge hidden width", `\"hidden\":[3,2]`, `\"hidden\":[16384,16000]`, "tensor layers.0.weight is F32 [3 3], want F32 [16384 3]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(header, c.old) {
				t.Fatalf("the header has no %s", c.old)
			}
			_, err := Decode(join(strings.Replace(header, c.old, c.new, 1), body))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrFormat)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestDecodeRefusesBodies changes the numbers, or what stands around them.
func TestDecodeRefusesBodies(t *testing.T) {
	for _, variant := range variants {
		good := encode(t, small(t, variant))
		header, body := split(good)
		start := len(good) - len(body)
		for at := 0; at < len(body)/4*4 && (variant == "float32" || at < 48); at += 4 {
			for _, v := range []float32{nan32, inf32, -inf32} {
				b := slices.Clone(good)
				binary.LittleEndian.PutUint32(b[start+at:], math.Float32bits(v))
				if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), "a value is not finite") {
					t.Errorf("%s: %v at %d: error %v", variant, v, at, err)
				}
			}
		}
		length := func(n uint64) []byte {
			b := slices.Clone(good)
			binary.LittleEndian.PutUint64(b, n)
			return b
		}
		for name, b := range map[string][]byte{
			"trailing byte":          append(slices.Clone(good), 0),
			"more padding":           append(binary.LittleEndian.AppendUint64(nil, uint64(len(header)+8)), append([]byte(header+"        "), body...)...),
			"header one shorter":     length(uint64(len(header) - 1)),
			"header eight shorter":   length(uint64(len(header) - 8)),
			"header one longer":      length(uint64(len(header) + 1)),
			"header the whole file":  length(uint64(len(good) - 8)),
			"header above the file":  length(uint64(len(good) - 7)),
			"header of nothing":      length(0),
			"header of 8 MiB":        length(8 << 20),
			"header negative as int": length(1 << 63),
			"header overflows":       length(math.MaxUint64),
		} {
			if _, err := Decode(b); !errors.Is(err, ErrFormat) {
				t.Errorf("%s: %s: error %v", variant, name, err)
			}
		}
		for n := range good {
			if _, err := Decode(good[:n]); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s: cut to %d of %d bytes: error %v", variant, n, len(good), err)
			}
		}
	}
}

// TestEveryBitCounts: a file with one bit flipped is an error or another model, never the same one.
func TestEveryBitCounts(t *testing.T) {
	good := encode(t, small(t, "int8"))
	for bit := range 8 * len(good) {
		b := slices.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		if m, err := Decode(b); err == nil && !slices.Equal(encode(t, m), b) {
			t.Fatalf("bit %d: a second encoding of %+v is accepted", bit, m)
		}
	}
}

// TestDecodeIsBounded: what a file makes its reader allocate is a small multiple of the file, whatever it claims.
func TestDecodeIsBounded(t *testing.T) {
	header, body := split(encode(t, small(t, "float32")))
	wide := func(hidden string) string {
		return strings.Replace(header, `\"hidden\":[3,2]`, `\"hidden\":`+hidden, 1)
	}
	many := func(entry string, n int) string { // n more tensors
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, entry, i)
		}
		return strings.Replace(header, `"layers.0.bias"`, b.String()+`"layers.0.bias"`, 1)
	}
	block := make([]byte, 1<<20)
	for _, c := range []struct {
		name, header string
		body         []byte
	}{
		{"good", header, body},
		{"2^28 parameters", wide("[16384,16382]"), body},
		{"a hidden layer a byte", wide("[" + strings.Repeat("1,", 10_000) + "1]"), body},
		{"shape of 2^60", strings.Replace(header, `"shape":[3]`, `"shape":[1152921504606846976]`, 1), body},
		{"shape of many ones", strings.Replace(header, `"shape":[3]`, `"shape":[`+strings.Repeat("1,", 10_000)+`3]`, 1), body},
		{"long name", strings.Replace(header, `"layers.0.bias":`, `"`+strings.Repeat("x", 100_000)+`":1,"layers.0.bias":`, 1), body},
		{"long type", strings.Replace(header, `"F32"`, `"`+strings.Repeat("x", 100_000)+`"`, 1), body},
		{"overlapping tensors of the whole file", many(`"t%d":{"dtype":"I8","shape":[1048576],"data_offsets":[0,1048576]},`, 1000), block},
		{"many names", many(`"%d":0,`, 100_000), body},
		{"nested arrays", many(`"t%d":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+",", 1), body},
		{"long model name", strings.Replace(header, `\"small\"`, `\"`+strings.Repeat("x", 100_000)+`\"`, 1), body},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := join(c.header, c.body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(file)
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > uint64(64*len(file)+64<<10) {
				t.Errorf("a file of %d bytes makes Decode allocate %d", len(file), used)
			}
			if text := fmt.Sprint(err); len(text) > 300 {
				t.Errorf("an error of %d bytes: %.100s…", len(text), text)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, variant := range variants {
		good := encode(f, small(f, variant))
		f.Add(good)
		header, body := split(good)
		f.Add(join(strings.Replace(header, `"shape":[3]`, `"shape":[1,3]`, 1), body))
		f.Add(join(strings.Replace(header, `[3,2]`, `[3]`, 1), body))
		f.Add(good[:len(good)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := encode(t, m); !slices.Equal(again, b) {
			t.Fatalf("%q became %q", b, again)
		}
		if e := Evaluate(m.Predictor(), m.Statistics.Synthetic(2, 1), []float32{0, 1}); e.Examples != 2 {
			t.Fatalf("evaluates to %+v", e)
		}
	})
}
