// Package simulate starts whole federations in one process: real coordinators and nodes, each with its own directory
// and keys, that speak mutual TLS over loopback TCP. The demo, tests and experiments all begin here, so what they show
// is what a deployment does; the wire and the data are all that differ.
//
//	f, err := simulate.Start(ctx, simulate.FederationConfig{Dir: dir, Coordinators: 3, Schema: schema, Parts: parts, …})
//	defer f.Close()
//	_, err = f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec})
//	status, err := f.WaitJob(ctx, spec.Name, nil)
package simulate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"choir.example/coordinator"
	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// FederationConfig describes a federation in one process.
type FederationConfig struct {
	Dir          string // everything is kept below it; it must be empty or not exist
	Cluster      string // name of the federation
	Coordinators int
	Schema       *data.Schema
	Parts        []data.Parts  // the data of each node; their number is the number of nodes
	Heartbeat    time.Duration // raft's timers; 0: coordinator.DefaultConfig's
	Variant      string        // that nodes serve; empty: node.DefaultConfig's
	Serve        bool          // nodes run a prediction server on a free port
	Log          *slog.Logger
	Network      *Network
	Coordinator  coordinator.Observer
	Node         func(name string) node.Observer // nil: none
}

// Federation is a running federation.
type Federation struct {
	cfg   FederationConfig
	root  *seal.Root
	human *seal.Credential // an operator

	voters  []coordinator.Voter
	mu      sync.Mutex // guards members and gone
	members map[string]*member
	gone    map[string]*member // killed or stopped, for Restart
	edges   map[string]*edge
	names   []string // of nodes
	ctx     context.Context
	cancel  context.CancelFunc
}

// member is one coordinator, running or dead.
type member struct {
	config coordinator.Config
	deps   coordinator.Deps
	c      *coordinator.Coordinator
	cancel context.CancelFunc
	done   chan error
}

// edge is one node.
type edge struct {
	config node.Config
	deps   node.Deps
	n      *node.Node
	cancel context.CancelFunc
	done   chan error
}

// certificateLife is how long coordinators and people of a simulated federation are certified.
const certificateLife = 30 * 24 * time.Hour

// CoordinatorName and NodeName are the names of the i-th, from zero.
func CoordinatorName(i int) string { return fmt.Sprintf("c%d", i+1) }

// NodeName is the name of the i-th node, from zero.
func NodeName(i int) string { return fmt.Sprintf("node-%02d", i+1) }

// Start founds a federation: a root of its own, coordinators, nodes enrolled by token, data imported through the CSV
// importer into encrypted stores. It returns when all nodes are enrolled and run.
func Start(ctx context.Context, cfg FederationConfig) (_ *Federation, err error) {
	f := &Federation{cfg: cfg, members: map[string]*member{}, gone: map[string]*member{}, edges: map[string]*edge{}}
	f.ctx, f.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start federation: %w", err)
	}
	if f.root, err = seal.NewRoot(cfg.Cluster, time.Now(), rand.Reader); err != nil {
		return nil, err
	}
	if f.human, err = f.certify(seal.RoleOperator, "operator"); err != nil {
		return nil, err
	}
	if err := f.startCoordinators(); err != nil {
		return nil, err
	}
	return f, f.startNodes()
}

// certify makes a key and has the root certify it.
func (f *Federation) certify(role seal.Role, name string) (*seal.Credential, error) {
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := f.root.Certify(role, name, key.Public().(ed25519.PublicKey), time.Now(), certificateLife)
	if err != nil {
		return nil, err
	}
	return &seal.Credential{Chain: chain, Key: key}, nil
}

func (f *Federation) startCoordinators() error {
	var waiting []*member
	for i := range f.cfg.Coordinators {
		name := CoordinatorName(i)
		m, err := f.prepare(name)
		if err != nil {
			return err
		}
		f.voters = append(f.voters, coordinator.Voter{
			Name: name, Address: m.deps.Listener.Addr().String(), Chain: m.deps.Credential.Chain,
		})
		waiting = append(waiting, m)
	}
	for _, m := range waiting {
		m.config.Voters = f.voters
		if err := f.run(m); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes a coordinator's keys and opens its port.
func (f *Federation) prepare(name string) (*member, error) {
	cred, err := f.certify(seal.RoleCoordinator, name)
	if err != nil {
		return nil, err
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer, err := f.root.CertifyIssuer(name, key.Public().(ed25519.PublicKey), time.Now(), certificateLife)
	if err != nil {
		return nil, err
	}
	l, err := f.cfg.Network.Listen(name)
	if err != nil {
		return nil, err
	}
	config := coordinator.DefaultConfig()
	config.Name, config.Cluster, config.Dir, config.Address = name, f.cfg.Cluster, filepath.Join(f.cfg.Dir, name), l.Addr().String()
	if f.cfg.Heartbeat > 0 {
		config.Heartbeat = f.cfg.Heartbeat
	}
	return &member{config: config, deps: coordinator.Deps{
		Log: f.cfg.Log.With("coordinator", name), Listener: l, Dial: f.cfg.Network.Dialer(name), Now: time.Now, Rand: rand.Reader,
		Root: f.root.Certificate(), Credential: cred, Issuer: &seal.Issuer{Certificate: issuer, Key: key}, Observe: f.cfg.Coordinator,
	}}, nil
}

// run opens a coordinator's directory and starts it.
func (f *Federation) run(m *member) (err error) {
	if m.c, err = coordinator.New(m.config, m.deps); err != nil {
		return err
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(f.ctx)
	m.done = make(chan error, 1)
	f.mu.Lock()
	f.members[m.config.Name] = m
	f.mu.Unlock()
	go func() { m.done <- m.c.Run(ctx) }()
	return nil
}

// Kill makes a coordinator vanish as a power cut would; its directory stays. It may be called from an observer.
func (f *Federation) Kill(name string) {
	f.mu.Lock()
	m := f.members[name]
	delete(f.members, name)
	f.gone[name] = m
	f.mu.Unlock()
	m.c.Kill()
	m.cancel() // its goroutines end; nobody can hear them
}

// Restart starts a coordinator again from the directory that a killed one left, on the address it had.
func (f *Federation) Restart(name string) error {
	f.mu.Lock()
	m := f.gone[name]
	delete(f.gone, name)
	f.mu.Unlock()
	if m == nil {
		return fmt.Errorf("restart: coordinator %s was not killed", name)
	}
	<-m.done // its memory is released
	l, err := f.cfg.Network.Relisten(name, m.config.Address)
	if err != nil {
		return err
	}
	m.deps.Listener = l
	return f.run(&member{config: m.config, deps: m.deps})
}

// Leader is the name of the coordinator that most lately said it leads and is alive, as its peers see it; empty if none.
func (f *Federation) Leader(ctx context.Context) string {
	reply, err := f.Operator().GetStatus(ctx, &choirv1.StatusRequest{})
	if err != nil {
		return ""
	}
	return reply.Leader
}

// Fingerprint is the root's.
func (f *Federation) Fingerprint() string { return f.root.Fingerprint() }

// Nodes are the names of the nodes.
func (f *Federation) Nodes() []string { return f.names }

// Node returns a running node.
func (f *Federation) Node(name string) *node.Node { return f.edges[name].n }

// Coordinators are the names of the founding coordinators.
func (f *Federation) Coordinators() []string {
	var out []string
	for _, v := range f.voters {
		out = append(out, v.Name)
	}
	return out
}

// startNodes enrols all nodes, imports their data and starts them.
func (f *Federation) startNodes() error {
	var g errgroup.Group
	g.SetLimit(4)
	edges := make([]*edge, len(f.cfg.Parts))
	for i := range f.cfg.Parts {
		f.names = append(f.names, NodeName(i))
		g.Go(func() (err error) {
			edges[i], err = f.enrol(NodeName(i), f.cfg.Parts[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, e := range edges {
		f.edges[f.names[i]] = e
		e.run(f.ctx)
	}
	return nil
}

func (e *edge) run(ctx context.Context) {
	ctx, e.cancel = context.WithCancel(ctx)
	e.done = make(chan error, 1)
	go func() { e.done <- e.n.Run(ctx) }()
}

// enrol makes a token as operator and a node from it, with its data imported.
func (f *Federation) enrol(name string, parts data.Parts) (*edge, error) {
	token, err := f.token()
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
	deps := node.Deps{Log: f.cfg.Log.With("node", name), Dial: f.cfg.Network.Dialer(name), Now: time.Now, Rand: rand.Reader}
	if f.cfg.Node != nil {
		deps.Observe = f.cfg.Node(name)
	}
	if err := node.Enrol(f.ctx, config, deps, token); err != nil {
		return nil, err
	}
	e := &edge{config: config, deps: deps}
	if e.n, err = node.New(config, deps); err != nil {
		return nil, err
	}
	if err := fill(f.ctx, e.n.Store(), f.cfg.Schema, parts, name); err != nil {
		return nil, errors.Join(err, e.n.Close())
	}
	return e, nil
}

// token asks for a token until the federation is founded.
func (f *Federation) token() (*seal.Token, error) {
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	for {
		reply, err := f.Operator().CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: uint64(time.Hour / time.Millisecond)})
		if err == nil {
			return seal.ParseToken(reply.Token)
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
		var file bytes.Buffer
		if err := data.WriteCSV(&file, schema, p.rows); err != nil {
			return err
		}
		if _, err := s.Import(ctx, p.part, &file, fmt.Sprintf("%s-%s.csv", name, p.part)); err != nil {
			return err
		}
	}
	return nil
}

// Operator is a client with an operator's certificate. A call goes to a living coordinator; one that finds nobody, or a
// coordinator that dies meanwhile, fails with code Unavailable.
func (f *Federation) Operator() choirv1.OperatorsClient {
	return choirv1.NewOperatorsClient(&anyCoordinator{f})
}

// anyCoordinator opens a connection a call: to the first coordinator that is alive.
type anyCoordinator struct{ f *Federation }

func (a *anyCoordinator) connect() (*grpc.ClientConn, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	for _, v := range a.f.voters {
		if a.f.members[v.Name] == nil {
			continue
		}
		config := seal.ClientTLS(a.f.human, a.f.root.Certificate(), time.Now, "h2", nil)
		return grpc.NewClient("passthrough:///"+v.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
			grpc.WithContextDialer(a.f.cfg.Network.Dialer("operator")), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	}
	return nil, status.Error(codes.Unavailable, "no coordinator is alive")
}

// Invoke makes one call.
func (a *anyCoordinator) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := a.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream whose connection ends with ctx or the stream.
func (a *anyCoordinator) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := a.connect()
	if err != nil {
		return nil, err
	}
	opts = append(opts, grpc.OnFinish(func(error) { go conn.Close() }))
	s, err := conn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		_ = conn.Close()
	}
	return s, err
}

// WaitJob follows a job until it has ended, through deaths of coordinators, and returns its last status. each, if not
// nil, is called with every status seen.
func (f *Federation) WaitJob(ctx context.Context, name string, each func(*choirv1.JobStatus)) (*choirv1.JobStatus, error) {
	var last *choirv1.JobStatus
	for {
		stream, err := f.Operator().WatchJob(ctx, &choirv1.GetJobRequest{Name: name})
		for err == nil {
			var s *choirv1.JobStatus
			if s, err = stream.Recv(); err == nil {
				last = s
				if each != nil {
					each(s)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && last != nil:
			return last, nil
		case ctx.Err() != nil:
			return last, fmt.Errorf("wait for job %s: %w", name, ctx.Err())
		case status.Code(err) != codes.Unavailable && status.Code(err) != codes.NotFound:
			return last, fmt.Errorf("wait for job %s: %w", name, err)
		}
		timer := time.NewTimer(50 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Blob fetches a model or variant as operator.
func (f *Federation) Blob(ctx context.Context, id []byte) ([]byte, error) {
	stream, err := f.Operator().GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return nil, err
	}
	return readStream(stream.Recv)
}

// Bundle exports the audit log as operator.
func (f *Federation) Bundle(ctx context.Context) ([]byte, error) {
	stream, err := f.Operator().GetBundle(ctx, &choirv1.BundleRequest{})
	if err != nil {
		return nil, err
	}
	return readStream(stream.Recv)
}

func readStream(recv func() (*choirv1.BlobChunk, error)) ([]byte, error) {
	var out []byte
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read blob: %w", err)
		}
		out = append(out, m.Data...)
	}
}

// Close stops all nodes and coordinators and waits for them.
func (f *Federation) Close() error {
	f.cancel()
	var errs []error
	for _, e := range f.edges {
		if e.done != nil {
			errs = append(errs, <-e.done)
		}
		errs = append(errs, e.n.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		errs = append(errs, <-m.done)
	}
	for _, m := range f.gone {
		<-m.done // what a killed coordinator says no longer matters
	}
	f.members, f.gone = map[string]*member{}, map[string]*member{}
	return ignoreClosed(errors.Join(errs...))
}

// ignoreClosed drops the complaint that a port was closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
