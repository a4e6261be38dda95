// Package web is the console: a few read-only pages that show people what a federation does. It renders the agreed
// state and what one coordinator sees of the others; it knows neither raft nor gRPC, asks nobody who he is (the
// coordinator has done that), and changes nothing.
//
//	handler := web.New("c1", source, log)
//
// The pages are plain HTML with one style sheet: no script, nothing from elsewhere, and a Content-Security-Policy that
// allows neither. They show no secret, no weight and no row, because the state holds none.
package web

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"

	"choir.example/coordinator/state"
	"choir.example/internal/plot"
)

// Source is what the pages show. Requests call it concurrently.
type Source interface {
	// State is the agreed state, and why it may be old: nil if a leader confirms that it is not, which may take a moment.
	State(ctx context.Context) (s *state.State, doubt error)
	// Cluster is how the coordinators do, as far as this one knows.
	Cluster(ctx context.Context) (Cluster, error)
	// Present is the set of nodes that some coordinator heard lately. It may ask the others, within a second or so.
	Present(ctx context.Context) map[string]bool
}

// Cluster is what one coordinator sees of all.
type Cluster struct {
	Leader   string // empty if there is none
	Term     uint64
	Replicas map[string]Replica // by name
}

// Replica is one coordinator as seen by another.
type Replica struct {
	State   string  // alive or unreachable
	Load    float64 // updates under way
	Applied uint64  // raft index, 0 if it is not known
}

//go:embed files
var files embed.FS

// policy allows our style sheet and our icon, and nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// errNotFound is a page about something that does not exist.
var errNotFound = errors.New("not found")

// view is a page's content: the name of its template, the tab it belongs to, and what the template shows.
type view struct {
	page, tab, title string
	body             any
}

// frame is what the layout shows around a page's content.
type frame struct {
	Cluster, Self string
	Tab, Title    string
	Doubt         string // why this may be old
	Follow        bool
	FollowLink    string // the same page, following or not
	Body          any
}

// console serves the pages.
type console struct {
	self   string
	source Source
	log    *slog.Logger
	pages  map[string]*template.Template
	style  []byte
	icon   []byte
}

// New makes the handler of the coordinator called self.
func New(self string, source Source, log *slog.Logger) http.Handler {
	c := &console{self: self, source: source, log: log, pages: map[string]*template.Template{}, icon: file("icon.svg")}
	c.style = append(file("style.css"), plot.Style...)
	layout := template.Must(template.New("layout.html").Funcs(words).ParseFS(files, "files/layout.html"))
	for _, page := range []string{"cluster", "nodes", "jobs", "job", "releases", "release", "records", "record", "missing"} {
		c.pages[page] = template.Must(template.Must(layout.Clone()).ParseFS(files, "files/"+page+".html"))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /style.css", c.static("text/css; charset=utf-8", c.style))
	mux.HandleFunc("GET /icon.svg", c.static("image/svg+xml", c.icon))
	mux.HandleFunc("GET /{$}", c.page(c.cluster))
	mux.HandleFunc("GET /nodes", c.page(c.nodes))
	mux.HandleFunc("GET /jobs", c.page(jobs))
	mux.HandleFunc("GET /jobs/{job}", c.page(job))
	mux.HandleFunc("GET /releases", c.page(releases))
	mux.HandleFunc("GET /releases/{model}/{version}", c.page(release))
	mux.HandleFunc("GET /records", c.page(records))
	mux.HandleFunc("GET /records/{index}", c.page(record))
	mux.HandleFunc("GET /", c.page(func(*http.Request, *state.State) (view, error) { return view{}, errNotFound }))
	return guard(mux)
}

// guard sets the headers of every answer. That there is nothing but GET and HEAD is in the patterns.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// file reads an embedded file.
func file(name string) []byte {
	b, err := files.ReadFile("files/" + name)
	if err != nil {
		panic(err) // it is compiled in
	}
	return b
}

func (c *console) static(kind string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(body) // the reader is gone
	}
}

// Unconfirmed is the header of a page that no leader confirms, so that whoever asked can ask another coordinator.
const Unconfirmed = "Choir-Unconfirmed"

// page renders what make says. A page that asks to follow loads itself again after some seconds.
func (c *console) page(make func(r *http.Request, s *state.State) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, doubt := c.source.State(r.Context())
		code := http.StatusOK
		v, err := make(r, s)
		if errors.Is(err, errNotFound) {
			code, v, err = http.StatusNotFound, view{page: "missing", title: "Not found", body: r.URL.Path}, nil
		}
		if err != nil {
			c.fail(w, r, err)
			return
		}
		f := frame{Cluster: s.Cluster, Self: c.self, Tab: v.tab, Title: v.title, Body: v.body}
		if doubt != nil {
			f.Doubt = doubt.Error()
			w.Header().Set(Unconfirmed, "1")
		}
		f.follow(r, w.Header())
		var b bytes.Buffer
		if err := c.pages[v.page].Execute(&b, f); err != nil {
			c.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(b.Bytes()) // the reader is gone
	}
}

// followSeconds is how often a followed page loads itself again.
const followSeconds = 5

// follow notes whether the page is to load itself again, and the link that changes that.
func (f *frame) follow(r *http.Request, h http.Header) {
	q := r.URL.Query()
	f.Follow = q.Has("follow")
	if f.Follow {
		h.Set("Refresh", fmt.Sprint(followSeconds))
		q.Del("follow")
	} else {
		q.Set("follow", "1")
	}
	f.FollowLink = strings.TrimSuffix(r.URL.EscapedPath()+"?"+q.Encode(), "?")
}

func (c *console) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		c.log.Error("console page not made", "path", r.URL.Path, "error", err)
	}
	http.Error(w, "this page could not be made; the coordinator's log says why", http.StatusInternalServerError)
}
