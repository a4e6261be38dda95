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
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"choir.example/coordinator"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/seal"
)

// FederationConfig describes a federation in one process.
type FederationConfig struct {
	Dir          string // everything is kept below it; it must be empty or not exist, but for one that is Lasting
	Cluster      string // name of the federation
	Coordinators int
	Schema       *data.Schema
	Parts        []data.Parts  // the data of each node; their number is the number of nodes
	Heartbeat    time.Duration // raft's timers; 0: coordinator.DefaultConfig's
	BatchUpdates int           // that a coordinator commits together; 0: coordinator.DefaultConfig's
	Variant      string        // that nodes serve; empty: node.DefaultConfig's
	Serve        bool          // nodes run a prediction server on a free port
	Log          *slog.Logger
	Network      *Network
	Now          func() time.Time // the wall clock of everybody; for use by several goroutines. nil: time.Now
	Coordinator  coordinator.Observer
	Node         func(name string) node.Observer // nil: none

	// Of experiments: nodes with these names work in the lab, in place of Parts, and both sides make their algorithms by
	// Algorithm, if it is not nil, in place of what jobs say. Available says who is there in a round; nil: all.
	Names     []string
	Lab       node.Lab
	Algorithm jobspec.Builder
	Available func(job string, round uint64, node string) bool
	Trusted   func(context.Context, fedavg.Work) (*fedavg.Update, error)

	// Lasting, if it is not empty, has Start go on with the federation that it founded in Dir before, wherever that was stopped or
	// killed. It names the experiment and its seed: a federation of another is refused. What a second start needs lies in Dir, the
	// keys of coordinators and operator among it, in files of mode 0600; the root's key does not. The caller keeps others out of Dir.
	Lasting string
}

// Federation is a running federation.
type Federation struct {
	cfg       FederationConfig
	root      *x509.Certificate
	authority *seal.Root       // nil: the federation was started again, and nobody has the root's key
	human     *seal.Credential // an operator

	seats   []*seat
	voters  []coordinator.Voter
	mu      sync.Mutex // guards members and gone
	members map[string]*member
	gone    map[string]remains // killed, for Restart
	edges   map[string]*edge
	names   []string // of nodes
	ctx     context.Context
	cancel  context.CancelFunc
	sound   context.Context // ends, with the reason as cause, when a coordinator or node stops that was not told to
	unsound context.CancelCauseFunc
}

// Start founds a federation: a root of its own, coordinators, nodes enrolled by token, data imported through the CSV
// importer into encrypted stores. It returns when all nodes are enrolled and run. One that is lasting and was founded before
// is started again.
func Start(ctx context.Context, cfg FederationConfig) (_ *Federation, err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Federation{cfg: cfg, members: map[string]*member{}, gone: map[string]remains{}, edges: map[string]*edge{}}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.sound, f.unsound = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start federation: %w", err)
	}
	if cfg.Lasting == "" {
		return f, f.found()
	}
	kept, err := f.open()
	if err != nil {
		return nil, err
	}
	if kept != nil {
		return f, f.again(kept)
	}
	if err := f.found(); err != nil {
		return nil, err
	}
	return f, f.keep()
}

// found makes everybody's keys, and starts coordinators and nodes.
func (f *Federation) found() (err error) {
	if f.authority, err = seal.NewRoot(f.cfg.Cluster, f.cfg.Now(), rand.Reader); err != nil {
		return err
	}
	f.root = f.authority.Certificate()
	if f.human, err = f.certify(seal.RoleOperator, "operator"); err != nil {
		return err
	}
	for i := range f.cfg.Coordinators {
		s, err := f.newSeat(CoordinatorName(i))
		if err != nil {
			return err
		}
		f.seats = append(f.seats, s)
	}
	if err := f.startCoordinators(); err != nil {
		return err
	}
	tokens, err := f.tokens(len(f.nodeNames()))
	if err != nil {
		return fmt.Errorf("tokens for %d nodes: %w", len(f.nodeNames()), err)
	}
	return f.startNodes(func(i int, e *edge) error { return f.enrol(i, e, tokens[i]) })
}

// certify makes a key and has the root certify it.
func (f *Federation) certify(role seal.Role, name string) (*seal.Credential, error) {
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if f.authority == nil {
		return nil, fmt.Errorf("certify %s %s: the root's key was not kept", role, name)
	}
	chain, err := f.authority.Certify(role, name, key.Public().(ed25519.PublicKey), f.cfg.Now(), certificateLife)
	if err != nil {
		return nil, err
	}
	return &seal.Credential{Chain: chain, Key: key}, nil
}

// Fingerprint is the root's.
func (f *Federation) Fingerprint() string { return seal.Fingerprint(f.root.Raw) }

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

// Close stops all nodes and coordinators and waits for them. Closing again does nothing.
func (f *Federation) Close() error {
	f.cancel()
	f.unsound(nil)
	var errs []error
	for _, e := range f.edges {
		if e.done != nil {
			errs = append(errs, <-e.done)
		}
		errs = append(errs, e.n.Close())
	}
	f.edges = map[string]*edge{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		errs = append(errs, <-m.done)
	}
	for _, m := range f.gone {
		<-m.done // what a killed coordinator says no longer matters
	}
	f.members, f.gone = map[string]*member{}, map[string]remains{}
	return ignoreClosed(errors.Join(errs...))
}

// ignoreClosed drops the complaint that a port was closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
