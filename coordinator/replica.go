package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
)

// errNotLeader is returned where only the leader may act; nothing was put into the log.
var errNotLeader = errors.New("this coordinator does not lead")

// applyTimeout bounds the wait for a place in the leader's queue.
const applyTimeout = 2 * time.Second

// raftBatch is how many entries one message carries. Raft's default of 64 stalls under a backlog.
const raftBatch = 512

// replica adapts the pure state to raft: it applies what is committed, in order, and hands out the latest state.
type replica struct {
	raft  *raft.Raft
	store *raftStore
	snaps *sealedSnapshots
	trans *raft.NetworkTransport

	state   atomic.Pointer[state.State]
	reign   atomic.Uint64 // term in which this replica leads and has applied all that was committed before
	mu      sync.Mutex    // guards changed
	changed chan struct{}
	stuck   error      // why nothing more is applied; only raft's goroutine of the state machine touches it
	newer   chan error // gets stuck
}

// replicaConfig is what a replica needs.
type replicaConfig struct {
	name      string
	dir       string
	voters    []Voter // bootstraps an empty log with these; none: the log comes from those who have it
	heartbeat time.Duration
	box       *seal.Box
	stream    raft.StreamLayer
	log       *slog.Logger
	gate      *gate
}

// newReplica returns a replica with the empty state.
func newReplica() *replica {
	r := &replica{changed: make(chan struct{}), newer: make(chan error, 1)}
	r.state.Store(state.New())
	return r
}

// open opens log and snapshots and starts raft.
func (r *replica) open(cfg replicaConfig) (err error) {
	if r.store, err = openRaftStore(filepath.Join(cfg.dir, raftFile), cfg.box.Sub("raft"), cfg.gate); err != nil {
		return err
	}
	r.store.failed = complain(cfg.log, "the disk takes no log entry: this coordinator confirms none until it does; is it full?")
	logger := raftLogger(cfg.log)
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.dir, 2, logger)
	if err == nil {
		err = cfg.gate.write(func() error { return ownersOnly(filepath.Join(cfg.dir, snapshotsDir)) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open snapshots: %w", err), r.store.Close())
	}
	logs, err := raft.NewLogCache(raftBatch, r.store)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), r.store.Close())
	}
	r.snaps = &sealedSnapshots{files: files, dir: filepath.Join(cfg.dir, snapshotsDir), box: cfg.box.Sub("snapshot"), gate: cfg.gate, logs: logs}
	r.snaps.failed = complain(cfg.log, "the disk takes no snapshot: the one before and the log since then stay; is it full?")
	newest, err := r.snaps.verify()
	if err == nil {
		err = r.snaps.sweep()
	}
	if err == nil {
		err = r.store.complete(newest.Index)
	}
	if err == nil {
		err = r.snaps.anchor(newest.Index, newest.Term)
	}
	if err != nil {
		return errors.Join(err, r.store.Close())
	}
	r.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: cfg.stream, MaxPool: 3, Timeout: 10 * time.Second, Logger: logger,
	})
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.name)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = cfg.heartbeat, cfg.heartbeat, cfg.heartbeat/2
	conf.CommitTimeout = min(conf.CommitTimeout, cfg.heartbeat/4)
	conf.MaxAppendEntries, conf.BatchApplyCh = raftBatch, true
	conf.Logger = logger
	if err := r.bootstrap(conf, cfg.voters); err != nil {
		return errors.Join(err, r.trans.Close(), r.store.Close())
	}
	if r.raft, err = raft.NewRaft(conf, (*fsm)(r), logs, r.store, r.snaps, r.trans); err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), r.trans.Close(), r.store.Close())
	}
	return nil
}

// bootstrap writes the founding voters into an empty log.
func (r *replica) bootstrap(conf *raft.Config, voters []Voter) error {
	exists, err := raft.HasExistingState(r.store, r.store, r.snaps)
	if err != nil || exists || len(voters) == 0 {
		return err
	}
	var servers raft.Configuration
	for _, v := range voters {
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(v.Name), Address: raft.ServerAddress(v.Address)})
	}
	if err := raft.BootstrapCluster(conf, r.store, r.store, r.snaps, r.trans, servers); err != nil {
		return fmt.Errorf("bootstrap raft: %w", err)
	}
	return nil
}

// State is the latest applied state.
func (r *replica) State() *state.State { return r.state.Load() }

// Changed is closed when a state later than any seen before the call is applied. Call it before State.
func (r *replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Wait returns the first applied state, the present one included, for which cond holds.
func (r *replica) Wait(ctx context.Context, cond func(*state.State) bool) (*state.State, error) {
	for {
		changed := r.Changed()
		if s := r.State(); cond(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// set publishes a new state.
func (r *replica) set(s *state.State) {
	r.state.Store(s)
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}

// Propose puts an encoded command into the log and waits until it is applied here. errNotLeader: nothing happened;
// *refusedCommand: Apply refused it; any other error: its fate is unknown.
//
// It does not wait longer than the leader's lease without a quorum, so ctx is looked at only before.
func (r *replica) Propose(ctx context.Context, command []byte) (index uint64, err error) {
	if len(command) > state.MaxCommand {
		return 0, &refusedCommand{fmt.Errorf("command of %d bytes, at most %d are allowed", len(command), state.MaxCommand)}
	}
	if _, err := state.DecodeCommand(command); err != nil { // before it is in every log, as a newer coordinator's may be
		return 0, &refusedCommand{err}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := r.mayApprove(command); err != nil {
		return 0, err
	}
	f := r.raft.Apply(command, applyTimeout)
	if err := f.Error(); err != nil {
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return 0, errNotLeader
		}
		return 0, fmt.Errorf("commit: %w", err)
	}
	if refused, ok := f.Response().(error); ok {
		return f.Index(), &refusedCommand{refused}
	}
	return f.Index(), nil
}

// Committed is the index of the last committed command, as of a moment after the call: whoever has applied that much has
// seen all that anybody was told before (Ongaro, Consensus: Bridging Theory and Practice, §6.4). errNotLeader: this
// replica does not lead, or does not know yet what the leaders before it have committed.
//
// Like Propose it does not wait longer than the leader's lease without a quorum.
func (r *replica) Committed() (uint64, error) {
	term := r.Term()
	if r.raft.State() != raft.Leader || r.reign.Load() != term {
		return 0, errNotLeader
	}
	commit := r.raft.CommitIndex()
	if r.raft.VerifyLeader().Error() != nil || r.Term() != term {
		return 0, errNotLeader
	}
	return r.lastCommand(commit)
}

// lastCommand is the index of the last command up to an entry: a state counts commands only, and raft's log has entries
// of its own in between.
func (r *replica) lastCommand(commit uint64) (uint64, error) {
	for i := commit; i > r.State().Index; i-- {
		var l raft.Log
		err := r.snaps.logs.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			break // a snapshot took its place, of a state that is applied
		}
		if err != nil {
			return 0, fmt.Errorf("read entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return r.State().Index, nil
}

// Leader is the leader's name and address as far as this replica knows; empty if it knows none.
func (r *replica) Leader() (name, address string) {
	a, id := r.raft.LeaderWithID()
	return string(id), string(a)
}

// Term is raft's current term.
func (r *replica) Term() uint64 { return r.raft.CurrentTerm() }

// Lead calls f each time this replica becomes leader, after a barrier, so that f sees all that was committed before.
// f's context ends with the leadership; Lead waits for f. It returns when ctx ends.
func (r *replica) Lead(ctx context.Context, f func(ctx context.Context, term uint64)) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.raft.LeaderCh(): // the latest change only: whatever reigned before has ended
			stop()
			stop = func() {}
			term, leads := r.enthrone()
			if !leads {
				continue
			}
			reign, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() {
				defer close(done)
				f(reign, term)
			}()
			stop = func() { cancel(); <-done }
		}
	}
}

// enthrone waits until all that was committed before is applied here. It is false if leadership was lost meanwhile.
func (r *replica) enthrone() (term uint64, leads bool) {
	for r.raft.State() == raft.Leader {
		term := r.Term()
		if r.raft.Barrier(applyTimeout).Error() == nil && r.raft.State() == raft.Leader && r.Term() == term {
			r.reign.Store(term)
			return term, true
		}
	}
	return 0, false
}

// Close hands leadership on, if it can, and stops raft.
func (r *replica) Close(handOn bool) error {
	if handOn && r.raft.State() == raft.Leader {
		_ = r.raft.LeadershipTransfer().Error() // a lone voter has nobody to hand on to
	}
	r.store.closing.Store(true)
	return errors.Join(r.raft.Shutdown().Error(), r.trans.Close(), r.store.Close())
}

// fsm is the replica as raft sees it.
type fsm replica

// Apply applies one committed entry. What it returns is the refusal, or nil.
func (f *fsm) Apply(l *raft.Log) any {
	r := (*replica)(f)
	if r.stuck != nil {
		return r.stuck
	}
	next, refused := state.Apply(r.State(), l.Index, l.Term, l.Data)
	if errors.Is(refused, state.ErrNewer) {
		r.stuck = fmt.Errorf("log entry %d: %w", l.Index, refused)
		r.newer <- r.stuck
		return r.stuck
	}
	r.set(next)
	if refused != nil {
		return refused
	}
	return nil
}

// Snapshot captures a pointer: states are immutable.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	r := (*replica)(f)
	return fsmSnapshot{r.State()}, r.stuck
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(rc io.ReadCloser) error {
	b, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	s, err := state.Decode(b)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	(*replica)(f).set(s)
	return nil
}

type fsmSnapshot struct{ s *state.State }

// Persist writes the state.
func (f fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	b, err := f.s.Encode()
	if err == nil {
		_, err = sink.Write(b)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: the state is shared.
func (fsmSnapshot) Release() {}
