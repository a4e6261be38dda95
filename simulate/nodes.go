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
	"google.golang.org/grpc/status"
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

// startNodes enrols all nodes, imports their data and starts them.
func (f *Federation) startNodes() error {
	f.names = f.cfg.Names
	if f.cfg.Lab == nil {
		f.names = nil
		for i := range f.cfg.Parts {
			f.names = append(f.names, NodeName(i))
		}
	}
	tokens, err := f.tokens(len(f.names))
	if err != nil {
		return fmt.Errorf("tokens for %d nodes: %w", len(f.names), err)
	}
	var g errgroup.Group
	g.SetLimit(4)
	edges := make([]*edge, len(f.names))
	for i, name := range f.names {
		g.Go(func() (err error) {
			if edges[i], err = f.enrol(name, tokens[i]); err != nil || f.cfg.Lab != nil {
				return err
			}
			if err := fill(f.ctx, edges[i].n.Store(), f.cfg.Schema, f.cfg.Parts[i], name); err != nil {
				return fmt.Errorf("fill the store of %s: %w", name, err)
			}
			return nil
		})
	}
	err = g.Wait()
	for i, e := range edges {
		if e == nil {
			continue
		}
		f.edges[f.names[i]] = e
		if err == nil {
			e.run(f.ctx)
		}
	}
	return err
}

func (e *edge) run(ctx context.Context) {
	ctx, e.cancel = context.WithCancel(ctx)
	e.done = make(chan error, 1)
	go func() { e.done <- e.n.Run(ctx) }()
}

// enrol makes a node from a token.
func (f *Federation) enrol(name, text string) (*edge, error) {
	token, err := seal.ParseToken(text)
	if err != nil {
		return nil, fmt.Errorf("token for %s: %w", name, err)
	}
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
		Log: f.cfg.Log.With("node", name), Dial: f.cfg.Network.Dialer(name), Now: time.Now, Rand: rand.Reader, Lab: f.cfg.Lab, Algorithm: f.cfg.Algorithm,
	}
	if f.cfg.Node != nil {
		deps.Observe = f.cfg.Node(name)
	}
	if err := node.Enrol(f.ctx, config, deps, token); err != nil {
		return nil, err
	}
	e := &edge{config: config, deps: deps}
	e.n, err = node.New(config, deps)
	return e, err
}

// tokens asks for tokens, as operator, until the federation is founded.
func (f *Federation) tokens(n int) ([]string, error) {
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	for {
		reply, err := f.Operator().CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: uint64(time.Hour / time.Millisecond), Count: uint32(n)})
		if err == nil {
			return reply.Tokens, nil
		}
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.InvalidArgument {
			return nil, err
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		case <-timer.C:
		}
	}
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
