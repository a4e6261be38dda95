package node

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/model"
	"choir.example/model/data"
)

// The prediction server speaks the Open Inference Protocol, version 2, over HTTP. On loopback it answers no request whose
// Host is not a loopback name (a web page must not reach it through DNS); beyond, it speaks TLS and answers only those
// who show the token. It takes JSON only, and sends no CORS headers.
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
	open     bool // beyond loopback
	token    token
	store    *Store // for feedback
	memory   *memory
	metrics  *metrics
	current  atomic.Pointer[map[string]*served] // by model name; a map is never changed
	inFlight atomic.Int64                       // predictions

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

// newServer listens. What it answers feedback with is the store.
func newServer(cfg Config, deps Deps, store *Store, m *metrics) (*server, error) {
	s := &server{deps: deps, store: store, memory: newMemory(), metrics: m, over: map[string]uint64{}}
	s.current.Store(&map[string]*served{})
	loopback, err := onLoopback(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	s.open = !loopback
	if s.token, err = openToken(cfg.Dir, deps.Rand); err != nil {
		return nil, err
	}
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	if cfg.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate and key of the prediction server: %w", err)
		}
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if s.listener, err = net.Listen("tcp", cfg.HTTP); err != nil {
		return nil, fmt.Errorf("listen for predictions on %s (is the port in use?): %w", cfg.HTTP, err)
	}
	return s, nil
}

// serve answers until the server is shut down.
func (s *server) serve() error {
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}

// start answers until the function it returns is called.
func (s *server) start() (stop func()) {
	return background(s.deps.Log, "prediction server", s.http, s.serve)
}

// background serves until the function it returns is called, which gives requests under way two seconds to end.
func background(log *slog.Logger, what string, h *http.Server, serve func() error) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			log.Error(what+" ended", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if h.Shutdown(ctx) != nil {
			_ = h.Close() // requests that do not end are cut
		}
		<-done
	}
}

// closeListener gives a port back, if that was not done yet.
func closeListener(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Training leaves the processor after each slice of time to whoever waits for it; while predictions are under way it
// waits for them to end, but no longer than trainingWaits, so that under any load it has a share left.
const (
	trainingSlice = 500 * time.Microsecond
	trainingWaits = 4 * time.Millisecond
)

// pauser is what training calls before each step.
func (s *server) pauser() func() {
	last := time.Now()
	return func() {
		if time.Since(last) < trainingSlice {
			return
		}
		runtime.Gosched()
		for begin := time.Now(); s.inFlight.Load() > 0 && time.Since(begin) < trainingWaits; {
			time.Sleep(50 * time.Microsecond)
		}
		last = time.Now()
	}
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
	mux.HandleFunc("POST /v2/models/{name}/feedback", s.named(s.feedback))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.open && !s.token.opens(r) {
			refuse(w, http.StatusUnauthorized, errToken)
			return
		}
		if !s.open && !loopbackHost(r.Host) {
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

// Tensor is an input or output of the protocol.
type Tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     []any  `json:"data,omitempty"`
}

// inferRequest is what a caller sends. Parameters and requested outputs are allowed and have no effect here.
type inferRequest struct {
	ID         string          `json:"id,omitempty"`
	Inputs     []Tensor        `json:"inputs"`
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
	inputs := []Tensor{{Name: "features", Datatype: "FP32", Shape: []int{-1, m.model.Spec.Inputs}}}
	for _, c := range m.model.Schema.Columns {
		if c.Name != m.model.Schema.Label {
			inputs = append(inputs, Tensor{Name: c.Name, Datatype: map[string]string{"numeric": "FP64", "category": "BYTES", "boolean": "BOOL"}[string(c.Kind)], Shape: []int{-1}})
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"name": m.model.Name, "versions": []string{strconv.FormatUint(m.version, 10)}, "platform": "choir_mlp",
		"inputs": inputs, "outputs": []Tensor{{Name: "probability", Datatype: "FP64", Shape: []int{-1}}},
		"parameters": map[string]string{"digest": m.digest, "variant": m.model.Variant},
	})
}

func (s *server) infer(w http.ResponseWriter, r *http.Request, m *served) {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	start := time.Now()
	body, ok := jsonBody(w, r)
	if !ok {
		return
	}
	req, err := decodeInfer(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	x, rows, n, err := features(m.model, req.Inputs)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	p := &prediction{model: m.model, version: m.version, rows: rows, count: n, at: s.deps.Now()}
	if _, err := io.ReadFull(s.deps.Rand, p.id[:]); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	probabilities := m.predict(x, n)
	s.memory.remember(p)
	reply(w, http.StatusOK, inferReply{
		ModelName: m.model.Name, ModelVersion: strconv.FormatUint(m.version, 10), ID: req.ID,
		Parameters: map[string]string{"digest": m.digest, "variant": m.model.Variant, "prediction_id": hex.EncodeToString(p.id[:])},
		Outputs:    []outTensor{{Name: "probability", Datatype: "FP64", Shape: []int{n}, Data: probabilities}},
	})
	s.metrics.predicted(m.model.Name, n, time.Since(start))
}

// predict computes the probability of each of n rows.
func (m *served) predict(x []float32, n int) []float64 {
	logits, out := make([]float32, n), make([]float64, n)
	p := m.predictors.Get().(model.Predictor)
	p.Predict(x, logits)
	m.predictors.Put(p)
	for i, z := range logits {
		out[i] = model.Probability(z)
	}
	return out
}

// jsonBody reads a body that says it is JSON. If it cannot it answers the caller itself.
func jsonBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if kind := r.Header.Get("Content-Type"); kind != "application/json" {
		if kind, _, err := mime.ParseMediaType(kind); err != nil || kind != "application/json" {
			refuse(w, http.StatusUnsupportedMediaType, errors.New("Content-Type must be application/json"))
			return nil, false
		}
	}
	return readBody(w, r)
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
	width := m.Spec.Inputs
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
	for _, in := range inputs {
		if err := in.check(n, 1); err != nil {
			return nil, err
		}
		if err := in.checkValues(); err != nil {
			return nil, err
		}
	}
	rows := make([]data.Row, n)
	values := make(map[string]any, len(inputs))
	for i := range n {
		clear(values)
		for _, in := range inputs {
			if _, twice := values[in.Name]; twice {
				return nil, fmt.Errorf("input %s: given twice", in.Name)
			}
			values[in.Name] = in.Data[i]
		}
		var err error
		if rows[i], err = m.Schema.RowFromInputs(values); err != nil {
			return nil, fmt.Errorf("row %d: %w", i+1, err)
		}
	}
	return rows, nil
}

// check compares a tensor's shape with its data: n rows of width values.
func (t Tensor) check(n, width int) error {
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

// matrix reads the input "features", already standardised and one-hot.
func matrix(m *model.Model, inputs []Tensor) ([]float32, int, error) {
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
