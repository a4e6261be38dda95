// Package coordinator is one replica of the cluster that runs a federation's rounds: it invites nodes, takes in their
// sealed updates, folds them exactly, agrees with its peers on what counts, and publishes the models.
//
// A round is one function, (*Coordinator).round in round.go. What must be agreed lies in the pure package state; this
// package is the world around it: replication (replica.go, raftlog.go, raftwire.go), bulk data (blobs.go), gossip
// (members.go), gRPC services (service_*.go) and the ingest of updates (ingest.go, collect.go, batch.go).
//
//	c, err := coordinator.New(cfg, deps)
//	err = c.Run(ctx) // until ctx ends
//
// Any replica takes uploads and answers polls; the leader alone drives rounds. Any machine may die at any moment: what
// was committed is carried on by the next leader, what was not is sent again by the nodes. The package does not
// protect against coordinators that lie (docs/threat-model.md).
package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/coordinator/state"
	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// peerBackoff reconnects to a peer quickly: it may just have restarted, and rounds wait for it.
var peerBackoff = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// Coordinator is one replica. Make it with New, start it with Run.
type Coordinator struct {
	cfg  Config
	deps Deps

	box      *seal.Box // data key of this directory
	unlock   func()    // of this directory
	onDisk   bool      // who this is lies in the directory
	founder  bool      // raft's empty log begins with the founding voters; otherwise they send it
	epochs   *keyring  // open what nodes seal to this voter
	former   former
	roster   atomic.Pointer[signedRoster] // the latest that a majority has signed
	attested atomic.Pointer[attested]     // the latest head, for releases
	spool    *spool
	presence *presence
	declines declines
	wire     *wire
	replica  *replica
	blobs    *blobStore
	members  *members
	peers    *peerClients

	uploads    chan struct{} // one slot an upload being received
	enrolments chan struct{} // one slot an enrolment under way
	stopping   chan struct{} // closed when Run begins to end

	standing   *standing
	diskFailed func(error) // says now and then that the disk takes no blob
	limits     *limits
	metrics    *metrics
	own        atomic.Pointer[papers]
	believed   atomic.Pointer[trust]
	health     net.Listener // nil without Health
	gate       *gate
	tasks      group
	mu         sync.Mutex // guards the fields below
	collectors map[attempt]*collector
	offences   map[offence]bool // being recorded
	load       int              // updates under way
	made       partials
	plans      plans
	callers    seal.Known // whose certificates were verified before
}

// New opens the directory and everything in it, and keeps others out of it until Run has returned. It starts nothing
// that talks to the outside. With no credential in deps, the directory says who this is: Found or Join has furnished it.
func New(cfg Config, deps Deps) (*Coordinator, error) {
	if cfg.Address == "" && deps.Listener != nil {
		cfg.Address = deps.Listener.Addr().String()
	}
	if deps.Dial == nil {
		deps.Dial = dialDirect
	}
	check := cfg.Validate
	if deps.Credential == nil {
		check = cfg.checkSelf // the rest is on disk
	}
	if err := check(); err != nil {
		return nil, err
	}
	if deps.Credential == nil && !Furnished(cfg.Dir) { // looking makes nothing
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, noIdentity(cfg.Dir))
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
	}
	unlock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
	}
	c, err := open(cfg, deps)
	if err != nil {
		unlock()
		return nil, err
	}
	c.unlock = unlock
	return c, nil
}

// open opens a locked directory. An identity that the caller has not given lies in it.
func open(cfg Config, deps Deps) (*Coordinator, error) {
	box, err := deps.dataKey(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
	}
	founder, onDisk, since := true, deps.Credential == nil, uint64(0)
	if onDisk {
		if founder, since, err = openIdentity(&cfg, &deps, box); err != nil {
			return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
		}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{
		cfg: cfg, deps: deps, box: box, founder: founder, presence: newPresence(), replica: newReplica(),
		declines:   newDeclines(),
		collectors: map[attempt]*collector{}, offences: map[offence]bool{}, made: partials{byJob: map[string]*attemptPartials{}}, plans: plans{byJob: map[string]parsed{}},
		gate: &gate{}, limits: newLimits(), standing: newStanding(), metrics: newMetrics(),
		uploads: make(chan struct{}, cfg.Uploads), enrolments: make(chan struct{}, 4), stopping: make(chan struct{}),
	}
	c.diskFailed = complain(deps.Log, "the disk takes no model: this coordinator does not lead until it does; is it full?")
	c.attested.Store(newAttested())
	own, err := newPapers(deps.Root, deps.Credential, deps.Issuer, since)
	if err != nil {
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
	}
	c.own.Store(own)
	c.onDisk = onDisk
	if err := c.openDir(); err != nil {
		return nil, fmt.Errorf("open coordinator %s: %w", cfg.Name, err)
	}
	return c, nil
}

// openDir opens what lies on disk.
func (c *Coordinator) openDir() (err error) {
	if c.epochs, err = openKeyring(filepath.Join(c.cfg.Dir, "keys"), c.box, c.gate, c.deps.Now); err != nil {
		return err
	}
	if c.spool, err = openSpool(filepath.Join(c.cfg.Dir, "spool"), c.gate); err != nil {
		return err
	}
	c.blobs = &blobStore{
		gate: c.gate, dir: filepath.Join(c.cfg.Dir, "blobs"), self: c.cfg.Name, box: c.box.Sub("blobs"), log: c.deps.Log,
		peers: c.blobPeers, spawn: c.tasks.spawn,
	}
	return nil
}

// foundingVoters begin raft's log, if it is empty; a joiner gets it from the others.
func (c *Coordinator) foundingVoters() []Voter {
	if !c.founder {
		return nil
	}
	return c.cfg.Voters
}

// blobPeers are the other voters.
func (c *Coordinator) blobPeers() []blobPeer {
	var out []blobPeer
	for _, v := range c.voters() {
		if v.Name != c.cfg.Name {
			out = append(out, blobPeer{v.Name, func() (choirv1.PeersClient, error) { return c.peers.client(v.Name, v.Address) }})
		}
	}
	return out
}

// start opens the port and begins to replicate and to gossip.
func (c *Coordinator) start() (err error) {
	if c.cfg.Health != "" {
		if c.health, err = openHealth(c.cfg.Health); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				_ = c.health.Close()
			}
		}()
	}
	listener := c.deps.Listener
	if listener == nil {
		if listener, err = net.Listen("tcp", cmp.Or(c.cfg.Listen, c.cfg.Address)); err != nil {
			return err
		}
	}
	c.wire = &wire{
		listener: listener, dialTCP: c.deps.Dial, log: c.deps.Log, refused: c.metrics.refused.Inc, address: addressOf(c.cfg.Address),
		serverTLS: c.serverTLS(), clientTLS: c.clientTLS, identify: c.identify,
	}
	c.wire.prepare()
	c.peers = newPeerClients(c.wire.dialPeer)
	err = c.replica.open(replicaConfig{
		name: c.cfg.Name, dir: c.cfg.Dir, voters: c.foundingVoters(), heartbeat: c.cfg.Heartbeat, box: c.box,
		stream: c.wire.raftStream(), log: c.deps.Log, gate: c.gate,
	})
	if err != nil {
		c.wire.close()
		return err
	}
	c.wire.start() // only now: admit reads the replica's state
	if c.members, err = openMembers(c.cfg.Name, c.cfg.Address, c.voters, c.wire); err != nil {
		c.wire.close()
		return errors.Join(err, c.replica.Close(false))
	}
	return nil
}

// Run takes part in the federation until ctx ends, then stops what it started: leadership is handed on, uploads under
// way are left for the nodes to send again, nothing committed is lost. It returns nil when it stopped because ctx ended.
func (c *Coordinator) Run(ctx context.Context) error {
	defer c.unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.start(); err != nil {
		return fmt.Errorf("run coordinator %s: %w", c.cfg.Name, err)
	}
	c.tasks.begin(ctx)
	server := c.server()
	for _, task := range []func(context.Context){c.watch, c.keepCurrent, c.takeOver, c.warnOfExpiry, c.announce, c.countersign, c.attest, c.repair, c.members.run, c.serveConsole,
		func(ctx context.Context) { c.replica.Lead(ctx, c.lead) }} {
		c.tasks.spawn(task)
	}
	if c.health != nil {
		c.metrics.observe(c)
		c.tasks.spawn(func(ctx context.Context) { c.serveHealth(ctx, c.health) })
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.wire.grpcListener()) }()
	ended := make(chan error, 1)
	c.tasks.spawn(func(ctx context.Context) { ended <- c.follow(ctx) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
		if err != nil {
			err = fmt.Errorf("run coordinator %s: %w", c.cfg.Name, err)
		}
	case err = <-c.replica.newer:
		err = fmt.Errorf("run coordinator %s: %w", c.cfg.Name, err)
	case err = <-served:
		err = fmt.Errorf("run coordinator %s: serve: %w", c.cfg.Name, err)
		served <- nil
	}
	close(c.stopping)
	cancel()
	c.tasks.wait()
	server.Stop()
	<-served
	return errors.Join(err, c.stop())
}

// stop ends gossip, raft and the port.
func (c *Coordinator) stop() error {
	c.peers.close()
	err := errors.Join(c.replica.Close(c.gate.check() == nil), c.members.close())
	c.wire.close()
	return err
}

// Kill makes the coordinator vanish as a power cut would: all its connections are cut both ways, nothing more reaches
// its directory, no peer is told. It returns once that is so. What is left of it in memory is released when Run
// returns, whose context the caller ends; by then nobody can hear it.
func (c *Coordinator) Kill() {
	c.gate.kill()
	c.wire.kill()
}

// group is goroutines with one context that are waited for together.
type group struct {
	mu  sync.Mutex // guards ctx
	ctx context.Context
	wg  sync.WaitGroup
}

func (g *group) begin(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx = ctx
}

// spawn runs f, unless the group has not begun or its context has ended.
func (g *group) spawn(f func(ctx context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil || g.ctx.Err() != nil {
		return
	}
	ctx := g.ctx
	g.wg.Go(func() { f(ctx) })
}

// wait waits for all; the context has ended, so no more begin.
func (g *group) wait() {
	g.mu.Lock()
	g.ctx = nil
	g.mu.Unlock()
	g.wg.Wait()
}

// server makes the gRPC server with all services.
func (c *Coordinator) server() *grpc.Server {
	s := grpc.NewServer(append(rpc.Server(),
		grpc.Creds(c.wire.serverCredentials()),
		grpc.UnaryInterceptor(c.authoriseUnary), grpc.StreamInterceptor(c.authoriseStream),
		grpc.MaxConcurrentStreams(256), grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 30 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
	)...)
	choirv1.RegisterEnrolmentServer(s, enrolmentService{Coordinator: c})
	choirv1.RegisterNodesServer(s, nodesService{Coordinator: c})
	choirv1.RegisterOperatorsServer(s, operatorsService{Coordinator: c})
	choirv1.RegisterPeersServer(s, peersService{Coordinator: c})
	return s
}

// lead drives the jobs, all at once, for as long as this coordinator leads.
func (c *Coordinator) lead(ctx context.Context, term uint64) {
	c.deps.Log.Info("this coordinator leads", "term", term)
	if f := c.deps.Observe.Leading; f != nil {
		f(c.cfg.Name, term)
	}
	c.found(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.reconcile(ctx) })
	driven, ended := map[string]bool{}, make(chan string)
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		for name, j := range c.replica.State().Jobs {
			if drivable(j) && !driven[name] { // again, when one that had come to rest goes on
				driven[name] = true
				wg.Go(func() {
					c.run(ctx, term, name)
					select {
					case ended <- name:
					case <-ctx.Done():
					}
				})
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case name := <-ended:
			delete(driven, name)
		}
	}
}

// found commits the genesis, if nobody has. The founding voters have the same configuration, so any of them may.
func (c *Coordinator) found(ctx context.Context) {
	if c.replica.State().Cluster != "" {
		return
	}
	g := &choirv1.Genesis{Cluster: c.cfg.Cluster, Root: c.own.Load().root.Raw, TimeMs: c.deps.Now().UnixMilli(), Officers: c.cfg.Officers}
	for _, v := range c.cfg.Voters {
		g.Coordinators = append(g.Coordinators, &choirv1.CoordinatorEntry{Name: v.Name, Address: v.Address, Chain: v.Chain})
	}
	err := c.retry(ctx, func() error { return c.decide(ctx, &choirv1.Command{Body: &choirv1.Command_Genesis{Genesis: g}}) })
	if err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrExists) {
		c.deps.Log.Error("federation not founded", "error", err)
	}
}

// busy counts an update under way here, from its first byte to its outcome, into the load that is gossiped.
func (c *Coordinator) busy() (done func()) {
	change := func(by int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.load += by
		c.members.SetLoad(float64(c.load))
	}
	change(1)
	return func() { change(-1) }
}
