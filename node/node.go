// Package node is the edge agent: it keeps private data encrypted, trains on it when a coordinator invites it, protects
// and delivers the update, fetches released models and answers predictions on this machine.
//
//	err := node.Enrol(ctx, cfg, deps, token)    // once
//	n, err := node.New(cfg, deps)
//	_, err = n.Store().Import(ctx, file, node.Source{Name: "sessions.csv"})
//	err = n.Run(ctx)                            // until ctx ends
//
// The node only dials out. No row leaves it: what leaves are sums and deltas, signed by the node and sealed to the
// coordinators. It does not add noise or masks; docs/threat-model.md says what a coordinator can see.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/fedavg"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// Node is one edge agent. Make it with New, start it with Run.
type Node struct {
	cfg    Config
	deps   Deps // Now is clock's
	clock  *clock
	id     *identity
	box    *seal.Box // that id is sealed in
	store  *Store
	spool  *spool
	client *client
	shop   *workshop
	serve  *server // nil without HTTP
	health *health // nil without Health

	journal  *journal
	progress progress
	metrics  *metrics
	officers officers
	renewal  renewal            // of Run's goroutine, like the rest
	late     bool               // an update in the spool may have an answer by now
	declined []*choirv1.Decline // what no coordinator was told yet

	complaints map[string]bool // about releases, made already
	rosterSaid string          // the last one about a list of coordinators
}

// New opens the node's directory. The node must be enrolled. Close releases what it opened.
func New(cfg Config, deps Deps) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// Looking makes nothing: another process may be enrolling here at this moment, with keys of its own.
	if _, err := os.Stat(filepath.Join(cfg.Dir, identityFile)); errors.Is(err, os.ErrNotExist) {
		return nil, notEnrolled(cfg)
	}
	box, err := deps.dataKey(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, deps: deps, box: box.Sub("identity")}
	if n.id, err = loadIdentity(cfg.Dir, n.box); err != nil {
		return nil, err
	}
	if n.id == nil || len(n.id.chain) == 0 {
		return nil, notEnrolled(cfg)
	}
	if err := n.id.of(cfg); err != nil {
		return nil, err
	}
	n.id.known = &seal.Known{}
	if n.id.roster, err = openRoster(cfg.Dir, n.box); err != nil {
		return nil, err
	}
	if n.id.roots, err = openRoots(cfg.Dir, n.id.root, n.box, deps.Log); err != nil {
		return nil, err
	}
	if n.officers, err = loadOfficers(cfg.Dir, n.box); err != nil {
		return nil, err
	}
	if err := n.open(box); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open takes files and ports. The store comes first, because only one process can have it open: from then on the
// directory is ours.
func (n *Node) open(box *seal.Box) (err error) {
	if n.store, err = openStore(filepath.Join(n.cfg.Dir, storeFile), box.Sub("store")); err != nil {
		return err
	}
	if n.spool, err = openSpool(filepath.Join(n.cfg.Dir, "spool"), box.Sub("spool")); err != nil {
		return err
	}
	if n.journal, err = openJournal(n.cfg.Dir); err != nil {
		return err
	}
	if n.deps.Lab != nil {
		n.spool.hold()
		n.journal.brief = true
	}
	n.clock = newClock(n.deps.Now, issued(n.id.chain))
	if taken, now := n.clock.Now(), n.deps.Now(); taken.After(now) { // in this order: a right clock has moved on in between
		n.deps.Log.Warn("this machine's clock must be wrong, a later time is taken", "clock", now, "taken", taken)
	}
	n.deps.Now = n.clock.Now
	n.client = newClient(n.id, n.deps)
	n.shop = &workshop{store: n.store, fetch: n.client.fetch, name: n.id.name, lab: n.deps.Lab, algorithm: n.deps.Algorithm}
	if n.shop.carry, err = openCarry(filepath.Join(n.cfg.Dir, "carry"), box.Sub("carry")); err != nil {
		return err
	}
	n.metrics = newMetrics()
	n.metrics.observe(n)
	if n.cfg.HTTP != "" {
		if err := n.cfg.checkKey(); err != nil {
			return err
		}
		if n.serve, err = newServer(n.cfg, n.deps, n.store, n.metrics); err != nil {
			return err
		}
		n.shop.pause = n.serve.pauser()
	}
	if n.cfg.Health != "" {
		n.health, err = n.newHealth(n.cfg.Health)
	}
	return err
}

func notEnrolled(cfg Config) error {
	return fmt.Errorf("open node %s: it is not enrolled; enrol it with a token", cfg.Name)
}

// Store is the node's private data.
func (n *Node) Store() *Store { return n.store }

// Address is where the prediction server listens, empty if there is none.
func (n *Node) Address() string {
	if n.serve == nil {
		return ""
	}
	return n.serve.listener.Addr().String()
}

// Close releases files and ports of a node that does not run.
func (n *Node) Close() error {
	var errs []error
	if n.client != nil {
		n.client.close()
	}
	if n.journal != nil {
		errs = append(errs, n.journal.close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.serve != nil {
		errs = append(errs, closeListener(n.serve.listener))
	}
	if n.health != nil {
		errs = append(errs, closeListener(n.health.listener))
	}
	return errors.Join(errs...)
}

// serveAll answers on every port and socket of the node until the function it returns is called.
func (n *Node) serveAll() (stop func(), err error) {
	var stops []func()
	if n.cfg.Control {
		control, err := n.startControl()
		if err != nil {
			return nil, err
		}
		stops = append(stops, control.serve(n))
	}
	if n.serve != nil {
		stops = append(stops, n.serve.start())
	}
	if n.health != nil {
		stops = append(stops, n.health.start(n.deps.Log))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}, nil
}

// Run works until ctx ends: it settles what a restart interrupted, then waits for invitations and releases. It returns
// nil when it stopped because ctx ended. An update under way stays in the spool.
func (n *Node) Run(ctx context.Context) error {
	n.loadReleases()
	stop, err := n.serveAll()
	if err != nil {
		return fmt.Errorf("run node %s: %w", n.id.name, err)
	}
	defer stop()
	n.client.fresh = n.fresh
	n.fresh(ctx)
	if err := n.resume(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run node %s: %w", n.id.name, err)
	}
	var finished []*choirv1.RoundKey
	for ctx.Err() == nil {
		n.fresh(ctx)
		n.warnOfRoot()
		reply, err := n.poll(ctx, finished)
		if err != nil {
			continue // ctx has ended, or the certificate is due: poll tries for as long as neither
		}
		n.enlist(reply.Roster)
		n.told(reply.Officers)
		n.client.prefer(reply.Addresses)
		if err := n.settled(reply.Ended); err != nil {
			return fmt.Errorf("run node %s: %w", n.id.name, err)
		}
		busy := n.follow(ctx, reply.Releases)
		if reply.Task != nil {
			busy = n.invited(ctx, reply.Task)
			finished = finish(finished, reply.Task.Key)
		}
		if !busy && len(n.declined) == 0 { // what it declines is told at once: the round may wait for it
			_ = pause(ctx, idle(reply)) // ctx ends the loop
		}
	}
	return nil
}

// maxFinished is how many jobs a poll speaks of.
const maxFinished = 64

// finish notes the last attempt of a job that the node has finished with; the latest stands last.
func finish(finished []*choirv1.RoundKey, key *choirv1.RoundKey) []*choirv1.RoundKey {
	finished = slices.DeleteFunc(finished, func(k *choirv1.RoundKey) bool { return k.GetJob() == key.GetJob() })
	return append(finished[max(0, len(finished)-maxFinished+1):], key)
}

// poll asks for work until there is an answer, the time has come at which the certificate is to be renewed, or ctx ends.
func (n *Node) poll(ctx context.Context, finished []*choirv1.RoundKey) (*choirv1.PollReply, error) {
	req := &choirv1.PollRequest{
		Finished: finished, WaitMs: uint64(n.cfg.Poll / time.Millisecond), Versions: n.held(), Resting: n.rests() != "",
		Roster: n.id.roster.version(), Declined: n.declined, Uncertain: n.shop.carry.unsettled(),
	}
	if len(finished) > 0 {
		req.Done = finished[len(finished)-1]
	}
	ctx, cancel := context.WithTimeout(ctx, max(n.renewal.due.Sub(n.deps.Now()), time.Second))
	defer cancel()
	reply, err := n.client.poll(ctx, req)
	if err == nil {
		n.declined = nil
	}
	return reply, err
}

// enlist takes a newer list of coordinators and hangs up on those that are not in it.
func (n *Node) enlist(roster []byte) {
	if len(roster) == 0 {
		return
	}
	taken, err := n.id.roster.take(roster, n.id, n.deps.Now())
	if err != nil && n.rosterSaid != err.Error() { // once, however often it is offered
		n.rosterSaid = err.Error()
		n.deps.Log.Warn("roster not taken", "error", err)
	}
	if taken {
		n.deps.Log.Info("the coordinators changed", "roster", n.id.roster.version())
		n.client.hangUpAll() // who is still listed is called again
	}
}

// idle is the pause after a poll that brought nothing that was done: what the coordinator wishes, and enough that one which
// answers at once does not keep this machine busy.
func idle(reply *choirv1.PollReply) time.Duration {
	wish := time.Duration(min(reply.ComeBackMs, 30_000)) * time.Millisecond
	if len(reply.Releases) > 0 { // none of which could be had
		wish = max(wish, lastBackoff)
	}
	return max(wish, firstBackoff)
}

// invited answers one invitation and reports whether that went well. An update that got no answer in its time is asked
// about once the coordinators answer again.
func (n *Node) invited(ctx context.Context, t *choirv1.Task) bool {
	defer n.progress.begin(t)()
	err := n.do(ctx, t)
	if err == nil && n.late {
		err = n.resume(ctx)
	}
	n.metrics.task(t.Kind, err)
	if err != nil && ctx.Err() == nil {
		n.progress.decline(t, n.deps.Now(), err)
		n.deps.Log.Warn("task not done", "job", t.Key.GetJob(), "round", t.Key.GetRound(), "attempt", t.Key.GetAttempt(), "error", err)
	}
	return err == nil
}

// do answers one invitation.
func (n *Node) do(ctx context.Context, t *choirv1.Task) error {
	h, err := headerOf(t, n.id)
	if err != nil {
		return err
	}
	to, err := recipients(n.id, t.Cluster, t.Keys, n.deps)
	if err != nil {
		return err
	}
	payload, err := n.payload(ctx, t, h)
	if err != nil {
		n.tell(ctx, t, err)
		return err
	}
	got, err := n.deliver(ctx, t, h, payload, to)
	if err != nil {
		n.late = true
		return fmt.Errorf("deliver update, which stays in the spool: %w", err)
	}
	return n.answered(h, payload, got)
}

// payload returns the attempt's signed payload: the spooled one if there is one, so that a restart sends the same
// bytes, else a new one, made durable before it is used.
func (n *Node) payload(ctx context.Context, t *choirv1.Task, h fedavg.Header) ([]byte, error) {
	payload, err := n.spool.get(h)
	if err != nil || payload != nil {
		return payload, err
	}
	if why := n.rests(); why != "" {
		return nil, &unfitError{why, "it rests"}
	}
	if err := n.caughtUp(ctx, t); err != nil {
		return nil, err
	}
	err = n.shop.work(ctx, t, func(u *fedavg.Update) error {
		payload = (&fedavg.Payload{Header: h, Update: *u}).Encode()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return payload, n.spool.put(h, payload)
}

// settled takes in how attempts ended that count an update of the node: what it left for the strategy lasts, or is
// forgotten. One whose receipt the node does not hold yet waits for that.
func (n *Node) settled(ended []*choirv1.RoundEnd) error {
	for _, e := range ended {
		k := n.shop.carry.after[e.Key.GetJob()]
		if !proto.Equal(k, e.Key) {
			continue
		}
		payload, err := n.spool.get(fedavg.Header{Job: k.Job, Round: k.Round, Attempt: k.Attempt})
		switch {
		case err != nil:
			return err
		case payload != nil:
			n.late = true
		case e.Closed:
			err = n.shop.carry.adopt(k.Job)
		default:
			err = n.shop.carry.drop(k.Job)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// caughtUp sees to it that the node knows what its last update in the job left for the strategy, before it begins another.
func (n *Node) caughtUp(ctx context.Context, t *choirv1.Task) error {
	k := n.shop.carry.after[t.Key.Job]
	if k == nil || proto.Equal(k, t.Key) {
		return nil
	}
	if n.late {
		if err := n.resume(ctx); err != nil {
			return err
		}
	}
	if n.shop.carry.after[t.Key.Job] == nil { // the update was refused
		return nil
	}
	return fmt.Errorf("it is not known yet whether the update of round %d attempt %d counts, which leaves something for this one", k.Round, k.Attempt)
}

// answered tells the observer and forgets the payload.
func (n *Node) answered(h fedavg.Header, payload []byte, a *answer) error {
	switch {
	case a.receipt != nil:
		n.deps.Log.Debug("update counted", "round", h.Round, "attempt", h.Attempt, "index", a.receipt.Index)
		if f := n.deps.Observe.Receipt; f != nil {
			f(*a.receipt, payload)
		}
	case a.refusal != nil:
		n.deps.Log.Info("update not counted", "round", h.Round, "attempt", h.Attempt, "reason", a.refusal.Reason)
		if k := n.shop.carry.after[h.Job]; k.GetRound() == h.Round && k.GetAttempt() == h.Attempt {
			if err := n.shop.carry.drop(h.Job); err != nil {
				return err
			}
		}
		if f := n.deps.Observe.Refused; f != nil {
			f(*a.refusal)
		}
	}
	n.metrics.answered(a)
	if err := n.journal.answered(h, a.update(), a); err != nil {
		return err
	}
	return n.spool.drop(h)
}

// resume asks for the outcome of what was sent before a restart, or without an answer. What is pending stays spooled and
// goes out again with the next task of its attempt.
func (n *Node) resume(ctx context.Context) error {
	n.late = false
	names, err := n.spool.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		p, payload, err := n.spooled(name)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		got, err := n.settle(ctx, p.Header, payload)
		switch final := (*finalError)(nil); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final): // nobody knows the round yet
		case err != nil:
			n.late = true
			n.deps.Log.Warn("no answer yet about a spooled update", "job", p.Job, "round", p.Round, "attempt", p.Attempt, "error", err)
		case got != nil:
			if err := n.answered(p.Header, payload, got); err != nil {
				return err
			}
		}
	}
	return nil
}

// spooled reads a payload from the spool. One that is damaged is removed, because nobody can send it, and nil.
func (n *Node) spooled(name string) (*fedavg.Payload, []byte, error) {
	payload, err := n.spool.read(name)
	if err != nil && !errors.Is(err, seal.ErrSealed) {
		n.deps.Log.Error("spooled update cannot be read", "file", name, "error", err)
		return nil, nil, nil
	}
	var p *fedavg.Payload
	if err == nil && payload != nil {
		p, err = fedavg.DecodePayload(payload)
	}
	if err == nil && (p == nil || p.Node == n.id.name && spoolName(p.Header) == name) {
		return p, payload, nil
	}
	n.deps.Log.Error("spooled update is damaged and is removed", "file", name, "error", err)
	return nil, nil, n.spool.remove(name)
}
