package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"choir.example/model"
	"choir.example/model/data"
)

// maxRows is how many rows one request may ask for.
const maxRows = 4096

// Tensor is an input or output of the protocol.
type Tensor struct {
	Name     string `json:"name"`           // a column of the schema, or features
	Datatype string `json:"datatype"`       // FP32, FP64, INT64, BOOL, BYTES and the others of the protocol
	Shape    []int  `json:"shape"`          // [rows], [rows, 1], or [rows, features]
	Data     []any  `json:"data,omitempty"` // row-major; null is a missing value
}

// inferRequest is what a caller sends. Parameters and requested outputs are allowed and have no effect here.
type inferRequest struct {
	ID         string          `json:"id,omitempty"`
	Inputs     []Tensor        `json:"inputs"`
	Outputs    json.RawMessage `json:"outputs,omitempty"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// inferReply is the answer to a prediction request.
type inferReply struct {
	release       *served
	id            string // the caller's, may be empty
	prediction    [16]byte
	probabilities []float64
}

// append writes the answer as JSON. It has always the same form, so that encoding/json need not find it out each time.
func (a *inferReply) append(b []byte) []byte {
	m := a.release
	b = append(b, `{"model_name":`...)
	b = appendText(b, m.model.Name)
	b = append(b, `,"model_version":"`...)
	b = strconv.AppendUint(b, m.version, 10)
	b = append(b, '"')
	if a.id != "" {
		b = append(b, `,"id":`...)
		b = appendText(b, a.id)
	}
	b = append(b, `,"parameters":{"digest":"`...)
	b = append(b, m.digest...)
	b = append(b, `","prediction_id":"`...)
	b = hex.AppendEncode(b, a.prediction[:])
	b = append(b, `","variant":`...)
	b = appendText(b, m.model.Variant)
	b = append(b, `},"outputs":[{"name":"probability","datatype":"FP64","shape":[`...)
	b = strconv.AppendInt(b, int64(len(a.probabilities)), 10)
	b = append(b, `],"data":[`...)
	for i, p := range a.probabilities {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, p, 'g', -1, 64)
	}
	return append(b, "]}]}"...)
}

// appendText appends a JSON string.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(text) // a string always encodes
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

func (s *server) infer(w http.ResponseWriter, r *http.Request, m *served) {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	start := time.Now()
	jsonBody(w, r, func(body []byte) {
		answer, rows, err := s.answer(m, body)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		respond(w, http.StatusOK, answer.append(make([]byte, 0, 512)))
		s.metrics.predicted(m.model.Name, rows, time.Since(start))
	})
}

// answer predicts each row of a request, and remembers it for feedback.
func (s *server) answer(m *served, body []byte) (_ *inferReply, n int, err error) {
	var x []float32
	p, answer := prediction{model: m.model, at: s.deps.Now()}, &inferReply{release: m}
	err = decodeInfer(body, func(req *inferRequest) (err error) {
		answer.id = req.ID
		x, p.rows, p.count, err = features(m.model, req.Inputs)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if _, err := io.ReadFull(s.deps.Rand, p.id[:]); err != nil {
		return nil, 0, err
	}
	answer.prediction, answer.probabilities = p.id, m.predict(x, p.count)
	s.memory.remember(&p)
	return answer, p.count, nil
}

// predict computes the probability of each of n rows.
func (m *served) predict(x []float32, n int) []float64 {
	logits, out := make([]float32, n), make([]float64, n)
	m.predictor.Predict(x, logits)
	for i, z := range logits {
		out[i] = model.Probability(z)
	}
	return out
}

// features turns inputs, by the schema's names or as one tensor "features", into n rows for the model. rows is nil for a
// tensor.
func features(m *model.Model, inputs []Tensor) (x []float32, rows []data.Row, n int, err error) {
	if len(inputs) > 0 && inputs[0].Name == "features" {
		x, n, err = matrix(m, inputs)
		return x, nil, n, err
	}
	if rows, err = rowsOf(m, inputs); err != nil {
		return nil, nil, 0, err
	}
	width := m.Network.Inputs()
	x = make([]float32, len(rows)*width)
	for i, row := range rows {
		m.Statistics.Features(row, x[i*width:(i+1)*width])
	}
	return x, rows, len(rows), nil
}

// rowsOf turns inputs by the schema's names into rows.
func rowsOf(m *model.Model, inputs []Tensor) ([]data.Row, error) {
	if len(inputs) == 0 {
		return nil, errors.New("inputs: none given")
	}
	n := len(inputs[0].Data)
	for i, in := range inputs {
		if in.Name == "" {
			return nil, fmt.Errorf("inputs[%d]: name is missing", i)
		}
		if err := in.check(n, 1); err != nil {
			return nil, err
		}
		if err := in.checkValues(); err != nil {
			return nil, err
		}
	}
	return m.Schema.RowsFromInputs(n, func(yield func(string, []any) bool) {
		for i := range inputs {
			if !yield(inputs[i].Name, inputs[i].Data) {
				return
			}
		}
	})
}

// check compares a tensor's shape with its data: n rows of width values.
func (t Tensor) check(n, width int) error {
	switch {
	case len(t.Data) == 0:
		return fmt.Errorf("input %s: data is empty, want 1 to %d rows", t.Name, maxRows)
	case n > maxRows:
		return fmt.Errorf("input %s: %d rows, want 1 to %d rows", t.Name, n, maxRows)
	case len(t.Data) != n*width && width > 1:
		return fmt.Errorf("input %s: %d values, want %d for each row", t.Name, len(t.Data), width)
	case len(t.Data) != n*width:
		return fmt.Errorf("input %s: %d values, but the first input has %d: one for each row", t.Name, len(t.Data), n)
	}
	if !slices.Equal(t.Shape, []int{n, width}) && (width > 1 || !slices.Equal(t.Shape, []int{n})) {
		return fmt.Errorf("input %s: shape %v, want [%d, %d]", t.Name, t.Shape, n, width)
	}
	return nil
}

// checkValues sees that the data are what the datatype says; null is a missing value. Whether a column takes them is the
// schema's to say.
func (t Tensor) checkValues() error {
	want, known := valueKinds[t.Datatype]
	for i, v := range t.Data {
		var is string
		switch v.(type) {
		case nil:
			continue
		case float64:
			is = "a number"
		case string:
			is = "a string"
		case bool:
			is = "a boolean"
		default:
			is = "neither number, string nor boolean"
		}
		if !known {
			return fmt.Errorf("input %s: datatype %q, want FP64, INT64 or another number, BYTES or BOOL", t.Name, t.Datatype)
		}
		if is != want {
			return fmt.Errorf("input %s: value %d is %s, datatype %s wants %s", t.Name, i+1, is, t.Datatype, want)
		}
	}
	return nil
}

// valueKinds says what stands in JSON for a value of each datatype.
var valueKinds = map[string]string{
	"BOOL": "a boolean", "BYTES": "a string",
	"FP16": "a number", "FP32": "a number", "FP64": "a number",
	"INT8": "a number", "INT16": "a number", "INT32": "a number", "INT64": "a number",
	"UINT8": "a number", "UINT16": "a number", "UINT32": "a number", "UINT64": "a number",
}

// maxFeature bounds what is in the input "features". Every id is below it.
const maxFeature = 1 << 24

// matrix reads the input "features", already standardised and one-hot; ids are the whole numbers that they are.
func matrix(m *model.Model, inputs []Tensor) ([]float32, int, error) {
	t, width := inputs[0], m.Network.Inputs()
	if len(inputs) > 1 {
		return nil, 0, errors.New("input features: given beside other inputs")
	}
	if t.Datatype != "FP32" {
		return nil, 0, fmt.Errorf("input features: datatype %q, want FP32", t.Datatype)
	}
	n := len(t.Data) / width
	if err := t.check(n, width); err != nil {
		return nil, 0, err
	}
	x := make([]float32, len(t.Data))
	for i, v := range t.Data {
		f, ok := v.(float64)
		if !ok || f > maxFeature || f < -maxFeature {
			return nil, 0, fmt.Errorf("input features: value %d is not a number in ±%d", i+1, maxFeature)
		}
		x[i] = float32(f)
	}
	if at, rows := m.Network.BadID(x); at >= 0 {
		return nil, 0, fmt.Errorf("input features: row %d: value %d is %s, want an id, a whole number of 0 to %d",
			at/width+1, at%width+1, strconv.FormatFloat(float64(x[at]), 'f', -1, 32), rows-1)
	}
	return x, n, nil
}
