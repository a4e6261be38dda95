package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/model"
)

// The prediction server speaks the Open Inference Protocol, version 2, over HTTP. It listens on loopback only, answers
// no request whose Host is not a loopback name (a web page must not reach it through DNS), takes JSON only, and sends
// no CORS headers.
const (
	maxBody = 8 << 20
	maxRows = 4096 // a request
)

// server answers predictions from the releases it holds, one a model. A swap is atomic: a request is answered by one
// release.
type server struct {
	listener net.Listener
	http     *http.Server
	deps     Deps
	current  atomic.Pointer[map[string]*served] // by model name; a map is never changed

	mu   sync.Mutex // guards over, and swaps of current
	over map[string]uint64
}

// served is one release with predictors to go round.
type served struct {
	model      *model.Model
	version    uint64
	digest     string
	predictors sync.Pool
}

func newServer(cfg Config, deps Deps) (*server, error) {
	l, err := net.Listen("tcp", cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listen for predictions on %s (is the port in use?): %w", cfg.HTTP, err)
	}
	s := &server{listener: l, deps: deps, over: map[string]uint64{}}
	s.current.Store(&map[string]*served{})
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	return s, nil
}

// start serves until the function it returns is called.
func (s *server) start(context.Context) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.deps.Log.Error("prediction server ended", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.http.Shutdown(ctx) != nil {
			_ = s.http.Close() // requests that do not end are cut
		}
		<-done
	}
}

// close gives the port back, if start's stop has not done so.
func (s *server) close() error {
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// models are the releases that answer, by model name. The map must not be changed.
func (s *server) models() map[string]*served { return *s.current.Load() }

// inUse lists the releases that answer, by name.
func (s *server) inUse() []ModelInUse {
	out := []ModelInUse{}
	models := s.models()
	for _, name := range slices.Sorted(maps.Keys(models)) {
		m := models[name]
		out = append(out, ModelInUse{name, m.version, m.model.Variant, m.digest})
	}
	return out
}

// swap makes a release the one that answers for its model.
func (s *server) swap(m *model.Model, version uint64, id [32]byte) {
	release := &served{model: m, version: version, digest: hex.EncodeToString(id[:])}
	release.predictors.New = func() any { return m.Predictor() }
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.models())
	next[m.Name] = release
	s.current.Store(&next)
}

// skip remembers a release that could not be taken, so that it is not asked for again and again.
func (s *server) skip(name string, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[name] = max(s.over[name], version)
}

func (s *server) skipped() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.over)
}

// handler routes the protocol's paths.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, map[string]bool{"live": true}) })
	mux.HandleFunc("GET /v2/health/ready", s.ready)
	mux.HandleFunc("GET /v2/models/{name}", s.named(s.metadata))
	mux.HandleFunc("GET /v2/models/{name}/ready", s.named(func(w http.ResponseWriter, _ *http.Request, m *served) {
		reply(w, http.StatusOK, map[string]any{"name": m.model.Name, "ready": true})
	}))
	mux.HandleFunc("POST /v2/models/{name}/infer", s.named(s.infer))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			refuse(w, http.StatusForbidden, fmt.Errorf("host %q: only loopback names are answered", r.Host))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// loopbackHost reports whether a Host header names this machine.
func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
	}
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	if len(s.models()) == 0 {
		refuse(w, http.StatusServiceUnavailable, errors.New("no release is here yet"))
		return
	}
	reply(w, http.StatusOK, map[string]bool{"ready": true})
}

// named finds the model in the path.
func (s *server) named(f func(http.ResponseWriter, *http.Request, *served)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		m, ok := s.models()[name]
		if !ok {
			refuse(w, http.StatusNotFound, fmt.Errorf("model %q is not here", name))
			return
		}
		f(w, r, m)
	}
}

// tensor is an input or output of the protocol.
type tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     []any  `json:"data,omitempty"`
}

// inferRequest is what a caller sends. Parameters and requested outputs are allowed and have no effect here.
type inferRequest struct {
	ID         string          `json:"id,omitempty"`
	Inputs     []tensor        `json:"inputs"`
	Outputs    json.RawMessage `json:"outputs,omitempty"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

type inferReply struct {
	ModelName    string            `json:"model_name"`
	ModelVersion string            `json:"model_version"`
	ID           string            `json:"id,omitempty"`
	Parameters   map[string]string `json:"parameters"`
	Outputs      []outTensor       `json:"outputs"`
}

type outTensor struct {
	Name     string    `json:"name"`
	Datatype string    `json:"datatype"`
	Shape    []int     `json:"shape"`
	Data     []float64 `json:"data"`
}

func (s *server) metadata(w http.ResponseWriter, _ *http.Request, m *served) {
	inputs := []tensor{{Name: "features", Datatype: "FP32", Shape: []int{-1, m.model.Spec.Inputs}}}
	for _, c := range m.model.Schema.Columns {
		if c.Name != m.model.Schema.Label {
			inputs = append(inputs, tensor{Name: c.Name, Datatype: map[string]string{"numeric": "FP64", "category": "BYTES", "boolean": "BOOL"}[string(c.Kind)], Shape: []int{-1}})
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"name": m.model.Name, "versions": []string{strconv.FormatUint(m.version, 10)}, "platform": "choir_mlp",
		"inputs": inputs, "outputs": []tensor{{Name: "probability", Datatype: "FP64", Shape: []int{-1}}},
		"parameters": map[string]string{"digest": m.digest, "variant": m.model.Variant},
	})
}

func (s *server) infer(w http.ResponseWriter, r *http.Request, m *served) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, errors.New("Content-Type must be application/json"))
		return
	}
	var req inferRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		code := http.StatusBadRequest
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			code, err = http.StatusRequestEntityTooLarge, fmt.Errorf("it is larger than %d bytes; send fewer rows", large.Limit)
		}
		refuse(w, code, fmt.Errorf("body: %w", err))
		return
	}
	if _, err := d.Token(); err != io.EOF {
		refuse(w, http.StatusBadRequest, errors.New("body: text after the end"))
		return
	}
	x, n, err := features(m.model, req.Inputs)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	logits := make([]float32, n)
	p := m.predictors.Get().(model.Predictor)
	p.Predict(x, logits)
	m.predictors.Put(p)
	probabilities := make([]float64, n)
	for i, z := range logits {
		probabilities[i] = model.Probability(z)
	}
	id := make([]byte, 16)
	if _, err := io.ReadFull(s.deps.Rand, id); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	reply(w, http.StatusOK, inferReply{
		ModelName: m.model.Name, ModelVersion: strconv.FormatUint(m.version, 10), ID: req.ID,
		Parameters: map[string]string{"digest": m.digest, "variant": m.model.Variant, "prediction_id": hex.EncodeToString(id)},
		Outputs:    []outTensor{{Name: "probability", Datatype: "FP64", Shape: []int{n}, Data: probabilities}},
	})
}

// features turns inputs, by the schema's names or as one tensor "features", into n rows for the model.
func features(m *model.Model, inputs []tensor) (x []float32, n int, err error) {
	if len(inputs) == 0 {
		return nil, 0, errors.New("inputs: none given")
	}
	if inputs[0].Name == "features" {
		return matrix(m, inputs)
	}
	n = len(inputs[0].Data)
	for _, in := range inputs {
		if err := in.check(n, 1); err != nil {
			return nil, 0, err
		}
		if err := in.checkValues(); err != nil {
			return nil, 0, err
		}
	}
	width := m.Spec.Inputs
	x = make([]float32, n*width)
	for i := range n {
		values := make(map[string]any, len(inputs))
		for _, in := range inputs {
			if _, twice := values[in.Name]; twice {
				return nil, 0, fmt.Errorf("input %s: given twice", in.Name)
			}
			values[in.Name] = in.Data[i]
		}
		row, err := m.Schema.RowFromInputs(values)
		if err != nil {
			return nil, 0, fmt.Errorf("row %d: %w", i+1, err)
		}
		m.Statistics.Features(row, x[i*width:(i+1)*width])
	}
	return x, n, nil
}

// check compares a tensor's shape with its data: n rows of width values.
func (t tensor) check(n, width int) error {
	if n < 1 || n > maxRows || len(t.Data) != n*width {
		return fmt.Errorf("input %s: %d values for %d rows of %d, want 1 to %d rows", t.Name, len(t.Data), n, width, maxRows)
	}
	if !slices.Equal(t.Shape, []int{n, width}) && (width > 1 || !slices.Equal(t.Shape, []int{n})) {
		return fmt.Errorf("input %s: shape %v, want [%d, %d]", t.Name, t.Shape, n, width)
	}
	return nil
}

// checkValues sees that the data are what the datatype says; null is a missing value. Whether a column takes them is the
// schema's to say.
func (t tensor) checkValues() error {
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
		want, known := valueKinds[t.Datatype]
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

// matrix reads the input "features", already standardised and one-hot.
func matrix(m *model.Model, inputs []tensor) ([]float32, int, error) {
	t, width := inputs[0], m.Spec.Inputs
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
		if !ok || f > 1e6 || f < -1e6 {
			return nil, 0, fmt.Errorf("input features: value %d is not a number in ±1e6", i+1)
		}
		x[i] = float32(f)
	}
	return x, n, nil
}

func reply(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer does not encode"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a caller that is gone needs no answer
}

func refuse(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}
