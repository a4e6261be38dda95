package simulate

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

// edge is one node.
type edge struct {
	config node.Config
	deps   node.Deps
	n      *node.Node
	cancel context.CancelFunc
	done   chan error
}

// NodeName is the name of the i-th node, from zero.
func NodeName(i int) string { return fmt.Sprintf("node-%02d", i+1) }

// nodeNames are the names of all nodes.
func (f *Federation) nodeNames() (names []string) {
	if f.cfg.Lab != nil {
		return f.cfg.Names
	}
	for i := range f.cfg.Parts {
		names = append(names, NodeName(i))
	}
	return names
}

// startNodes has begin open each node, a few at a time, and starts them when all are open.
func (f *Federation) startNodes(begin func(i int, e *edge) error) error {
	f.names = f.nodeNames()
	var g errgroup.Group
	g.SetLimit(4)
	edges := make([]*edge, len(f.names))
	for i, name := range f.names {
		g.Go(func() error {
			edges[i] = f.newEdge(name)
			return begin(i, edges[i])
		})
	}
	err := g.Wait()
	for i, e := range edges {
		if e.n == nil {
			continue
		}
		f.edges[f.names[i]] = e
		if err == nil {
			f.runNode(e)
		}
	}
	return err
}

// runNode starts a node.
func (f *Federation) runNode(e *edge) {
	var ctx context.Context
	ctx, e.cancel = context.WithCancel(f.ctx)
	e.done = make(chan error, 1)
	go func() {
		err := e.n.Run(ctx)
		if err != nil && ctx.Err() == nil {
			f.unsound(err)
		}
		e.done <- err
	}()
}

// open opens the node's directory.
func (e *edge) open() (err error) {
	e.n, err = node.New(e.config, e.deps)
	return err
}

// newEdge lays out what a node works with.
func (f *Federation) newEdge(name string) *edge {
	config := node.DefaultConfig()
	config.Name, config.Dir = name, filepath.Join(f.cfg.Dir, name)
	if f.cfg.Serve {
		config.HTTP = "127.0.0.1:0"
	}
	if f.cfg.Variant != "" {
		config.Variant = f.cfg.Variant
	}
	config.Control = f.cfg.Lab == nil // nobody asks how a node of an experiment is doing
	deps := node.Deps{
		Log: f.cfg.Log.With("node", name), Dial: f.cfg.Network.Dialer(name), Now: f.cfg.Now, Rand: rand.Reader, Lab: f.cfg.Lab, Algorithm: f.cfg.Algorithm,
	}
	if f.cfg.Node != nil {
		deps.Observe = f.cfg.Node(name)
	}
	return &edge{config: config, deps: deps}
}

// enrol makes the i-th node from a token, and imports its data.
func (f *Federation) enrol(i int, e *edge, text string) error {
	name := e.config.Name
	token, err := seal.ParseToken(text)
	if err != nil {
		return fmt.Errorf("token for %s: %w", name, err)
	}
	if err := node.Enrol(f.ctx, e.config, e.deps, token); err != nil {
		return err
	}
	if err := e.open(); err != nil || f.cfg.Lab != nil {
		return err
	}
	if err := fill(f.ctx, e.n.Store(), f.cfg.Schema, f.cfg.Parts[i], name); err != nil {
		return fmt.Errorf("fill the store of %s: %w", name, err)
	}
	return nil
}

// tokens asks for tokens, as operator, until the federation is founded.
func (f *Federation) tokens(n int) (tokens []string, err error) {
	err = f.patiently(f.ctx, func(ctx context.Context) error {
		reply, err := f.Operator().CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: uint64(time.Hour / time.Millisecond), Count: uint32(n)})
		tokens = reply.GetTokens()
		return err
	}, codes.InvalidArgument)
	return tokens, err
}

// fill imports a node's parts as CSV.
func fill(ctx context.Context, s *node.Store, schema *data.Schema, parts data.Parts, name string) error {
	if err := s.SetSchema(schema); err != nil {
		return err
	}
	for _, p := range []struct {
		part node.Part
		rows []data.Row
	}{{node.Train, parts.Train}, {node.Validation, parts.Validation}, {node.Held, parts.Held}} {
		file, label := &bytes.Buffer{}, fmt.Sprintf("%s-%s.csv", name, p.part)
		if err := data.WriteCSV(file, schema, p.rows); err != nil {
			return fmt.Errorf("%s: %w", label, err)
		}
		if _, err := s.Import(ctx, file, node.Source{Name: label, Part: p.part}); err != nil {
			return err
		}
	}
	return nil
}
