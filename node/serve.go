package node

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
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
const maxBody = 8 << 20

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

// served is one release.
type served struct {
	model     *model.Model
	version   uint64
	digest    string
	predictor *model.Predictor
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
	release := &served{model: m, version: version, digest: hex.EncodeToString(id[:]), predictor: m.Predictor()}
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
	mux.HandleFunc("GET /v2", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"name": "choir", "version": release(), "extensions": []string{}})
	})
	mux.HandleFunc("/", nothing(mux))
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

// release is the version of the program that serves.
func release() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// nothing answers requests for which mux has no pattern: the path has none, or has one for another method.
func nothing(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				w.Header().Set("Allow", method)
				refuse(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s: %s takes %s", r.Method, r.URL.Path, method))
				return
			}
		}
		refuse(w, http.StatusNotFound, fmt.Errorf("path %s is not known here; the server tells about itself at /v2", r.URL.Path))
	}
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

// datatypes are the protocol's names of what a column's values are. A sequence is a text of ids with blanks between them.
var datatypes = map[data.Kind]string{
	data.Numeric: "FP64", data.Category: "BYTES", data.Boolean: "BOOL",
	data.ID: "INT64", data.Text: "BYTES", data.Sequence: "BYTES", data.Time: "FP64",
}

func (s *server) metadata(w http.ResponseWriter, _ *http.Request, m *served) {
	inputs := []Tensor{{Name: "features", Datatype: "FP32", Shape: []int{-1, m.model.Network.Inputs()}}}
	for _, c := range m.model.Schema.Columns {
		if c.Name != m.model.Schema.Label {
			inputs = append(inputs, Tensor{Name: c.Name, Datatype: datatypes[c.Kind], Shape: []int{-1}})
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"name": m.model.Name, "versions": []string{strconv.FormatUint(m.version, 10)}, "platform": "choir_mlp",
		"inputs": inputs, "outputs": []Tensor{{Name: "probability", Datatype: "FP64", Shape: []int{-1}}},
		"parameters": map[string]string{"digest": m.digest, "variant": m.model.Variant},
	})
}

// jsonBody hands a body that says it is JSON to use. Of one that it cannot read it tells the caller itself.
func jsonBody(w http.ResponseWriter, r *http.Request, use func(body []byte)) {
	if kind := r.Header.Get("Content-Type"); kind != "application/json" {
		if kind, _, err := mime.ParseMediaType(kind); err != nil || kind != "application/json" {
			refuse(w, http.StatusUnsupportedMediaType, errors.New("Content-Type must be application/json"))
			return
		}
	}
	readBody(w, r, use)
}

func reply(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer does not encode"}`)
	}
	respond(w, code, b)
}

// Header values of every answer; net/http only reads them.
var (
	jsonType = []string{"application/json"}
	noSniff  = []string{"nosniff"}
)

func respond(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h["Content-Type"], h["X-Content-Type-Options"] = jsonType, noSniff
	w.WriteHeader(code)
	_, _ = w.Write(body) // a caller that is gone needs no answer
}

func refuse(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}
