package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"choir.example/model/data"
)

// controlSocket is where a running node answers its owner: HTTP and JSON over a Unix socket that only the owner may
// open. What changes the data goes through it, because the store belongs to the process that runs.
const controlSocket = "node.sock"

// control answers on the socket.
type control struct {
	listener net.Listener
	http     *http.Server
}

// startControl makes the socket, over one that a killed process left: the store, which is open, tells that there is no
// other.
func (n *Node) startControl() (*control, error) {
	path := filepath.Join(n.cfg.Dir, controlSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	dir, short, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false) // by its short name it cannot be found any more
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	return &control{listener: l, http: &http.Server{Handler: n.controlHandler(), ReadHeaderTimeout: 5 * time.Second}}, nil
}

// shortPath names a file by its directory's descriptor, because a socket's path has at most 107 bytes. The directory must
// stay open for as long as the name is used.
func shortPath(path string) (dir *os.File, short string, err error) {
	if dir, err = os.Open(filepath.Dir(path)); err != nil || len(path) < 100 {
		return dir, path, err
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), nil
}

// serve answers until the function it returns is called. An import that does not end soon then is undone.
func (c *control) serve(n *Node) (stop func()) {
	end := background(n.deps.Log, "control socket", c.http, func() error { return c.http.Serve(c.listener) })
	return func() {
		_ = os.Remove(filepath.Join(n.cfg.Dir, controlSocket))
		end()
	}
}

func (n *Node) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", answering(func(*http.Request) (any, error) { return n.runningStatus() }))
	mux.HandleFunc("POST /v1/feedback", answering(n.takeFeedback))
	n.serveData(mux)
	return mux
}

func (n *Node) runningStatus() (*Status, error) {
	s, err := n.Status()
	if s != nil {
		s.Running = true
		if err := n.ready(); err != nil {
			s.NotReady = err.Error()
		}
	}
	return s, err
}

// refusal is an answer that says what is wrong.
type refusal struct {
	Error  string `json:"error"`
	BadRow bool   `json:"bad_row,omitempty"` // it is a data.BadRow
}

// answering turns a function into a handler: what it returns is the answer, an error is one with its text.
func answering(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			reply(w, http.StatusUnprocessableEntity, refusal{err.Error(), errors.As(err, new(*data.BadRow))})
			return
		}
		reply(w, http.StatusOK, v)
	}
}

func (n *Node) controlSchema(r *http.Request) (any, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	schema, err := data.ParseSchema(b)
	if err != nil {
		return nil, err
	}
	return struct{}{}, n.store.SetSchema(schema)
}

// ErrNotRunning says that no node runs in a directory.
var ErrNotRunning = errors.New("no node runs in this directory")

// Controller speaks with a running node as its owner.
type Controller struct {
	dir  string
	http *http.Client
}

// Control reaches the node that runs in a directory. The error is ErrNotRunning if none does: then the store can be
// opened.
func Control(ctx context.Context, dir string) (*Controller, error) {
	c := &Controller{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c, conn.Close()
}

// dial tells a node that does not run from one that cannot be reached.
func (c *Controller) dial(ctx context.Context) (net.Conn, error) {
	path := filepath.Join(c.dir, controlSocket)
	dir, short, err := shortPath(path)
	if err == nil {
		defer dir.Close()
		var d net.Dialer
		var conn net.Conn
		if conn, err = d.DialContext(ctx, "unix", short); err == nil {
			return conn, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", c.dir, ErrNotRunning)
	}
	return nil, fmt.Errorf("reach the node in %s: %w", c.dir, err)
}

// call sends a request and decodes the answer into out.
func (c *Controller) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// send sends a request and returns a good response. One that says what is wrong is an error with that text.
func (c *Controller) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the node in %s: %w", c.dir, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var said refusal
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&said); err != nil || said.Error == "" {
		return nil, fmt.Errorf("the node in %s answered %s", c.dir, resp.Status)
	}
	err = errors.New(said.Error)
	if said.BadRow {
		err = &data.BadRow{Err: err}
	}
	return nil, err
}

// Status asks how the node is doing.
func (c *Controller) Status(ctx context.Context) (*Status, error) {
	s := &Status{}
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, s)
}

// Schema is the schema of the node's data, nil if there is none yet.
func (c *Controller) Schema(ctx context.Context) (*data.Schema, error) {
	var raw json.RawMessage
	if err := c.call(ctx, http.MethodGet, "/v1/data/schema", nil, &raw); err != nil || string(raw) == "null" {
		return nil, err
	}
	return data.ParseSchema(raw)
}
