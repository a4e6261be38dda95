package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"choir.example/coordinator"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/node"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// mostUpdates is the most that coordinators commit together: in an experiment all come at once.
const mostUpdates = 64

// system runs the trial by real coordinators and nodes: tokens, certificates, replication, sealed updates, an audit log
// that is verified in the end. Which nodes take part, and what becomes of their updates, is the experiment's; real time
// decides nothing. In a directory of its own a run goes on where it was stopped or killed: what was decided lies on the
// coordinators' disks, and the nodes do again what they had under way.
func (t *trial) system(ctx context.Context) (err error) {
	spec, err := t.job()
	if err != nil {
		return err
	}
	site, err := t.openSite()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.close()) }()
	s := &systemRun{trial: t, site: site, said: &lastWarning{}, done: t.behind()}
	if err := t.restore(); err != nil {
		return err
	}
	if s.lab, err = newLab(t, site.lab); err != nil {
		return err
	}
	s.lab.failed = s.failed
	defer func() { err = errors.Join(err, s.lab.sent.close()) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	t.start = time.Now() // founding is no part of a round
	t.cfg.Stage("training")
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(s.f.sound, func() { stop(context.Cause(s.f.sound)) })()
	err = s.train(within, spec)
	cause := context.Cause(s.f.sound)
	closed := s.f.Close()
	if cause != nil { // it is what failed the training, and what is said again now
		return cause
	}
	return errors.Join(err, closed)
}

// start founds coordinators and nodes, or starts those again that were founded.
func (s *systemRun) start(ctx context.Context) (err error) {
	t := s.trial
	log := slog.New(&warningHandler{next: cmp.Or(t.cfg.Log, slog.New(slog.DiscardHandler)).Handler(), last: s.said})
	coordinators, heartbeat := cmp.Or(t.cfg.Coordinators, 1), time.Duration(0)
	if coordinators == 1 {
		heartbeat = 50 * time.Millisecond // nobody is waited for
	}
	if s.site.again {
		t.cfg.Stage("starting coordinators and nodes again")
	} else {
		t.cfg.Stage("founding coordinators and nodes")
	}
	s.f, err = Start(ctx, FederationConfig{
		Dir: s.site.dir, Cluster: "experiment", Coordinators: coordinators, Heartbeat: heartbeat, Names: t.names, Lab: s.lab, Algorithm: t.ownAlgorithm(),
		BatchUpdates: mostUpdates, Available: s.lab.available, Trusted: t.ownUpdate(), Node: s.observe, Coordinator: coordinator.Observer{StepFailed: s.stepFailed},
		Log: log, Network: NewMemoryNetwork(), Lasting: s.site.of, Now: t.cfg.Now,
	})
	return err
}

// train has the job done, or what is left of it.
func (s *systemRun) train(ctx context.Context, spec *choirv1.JobSpec) error {
	if err := s.submit(ctx, spec); err != nil {
		return err
	}
	if s.site.again {
		if err := s.recall(ctx); err != nil {
			return err
		}
	}
	err := s.follow(ctx)
	if err != nil && !errors.Is(err, model.ErrDiverged) {
		return err
	}
	return errors.Join(err, s.audit(ctx)) // the rounds before are as good as those of any run
}

// submit submits the job, unless the coordinators have it.
func (s *systemRun) submit(ctx context.Context, spec *choirv1.JobSpec) error {
	err := s.f.patiently(ctx, func(ctx context.Context) error {
		_, err := s.f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec})
		return err
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("submit job: %w", err)
	}
	return nil
}

// recall tells the lab who has done its part in the round that is open. It refuses to wait for updates that nobody computes any
// more: those that count, and were lost with the power for the liars, who want to see them.
func (s *systemRun) recall(ctx context.Context) error {
	records, err := s.records(ctx)
	if err != nil {
		return err
	}
	counted, open := []string(nil), 0
	for _, r := range records {
		switch r := r.(type) {
		case *audit.RoundOpened:
			counted, open = nil, int(r.Round)
		case *audit.BatchAccepted:
			for _, a := range r.Accepted {
				counted = append(counted, a.Node)
			}
		case *audit.RoundClosed:
			counted, open = nil, 0
		}
	}
	if open == 0 {
		return nil
	}
	s.lab.counts(open, counted)
	if lost := s.lab.lacks(open, counted); len(lost) > 0 {
		return fmt.Errorf("round %d: what %d nodes have sent is not known to the liars any more, as after a power cut, such as of %s: %w", open, len(lost), lost[0], ErrFederation)
	}
	return nil
}

// records are the audit log as it is now.
func (s *systemRun) records(ctx context.Context) ([]audit.Record, error) {
	b, err := s.f.Bundle(ctx)
	if err != nil {
		return nil, fmt.Errorf("export audit log: %w", err)
	}
	bundle, err := audit.DecodeBundle(b)
	if err != nil {
		return nil, err
	}
	return bundle.Decoded()
}

// foresee counts the updates of each round of fidelity system, and refuses rounds without a model: a federation makes one in each.
func (t *trial) foresee() error {
	if t.result.Fidelity != System {
		return nil
	}
	for round := range t.rounds {
		m := t.muster(round + 1)
		if m.skipped != "" {
			return fmt.Errorf("round %d would be skipped: %s; fidelity system has no such rounds, want fidelity math", round+1, m.skipped)
		}
		t.heard = append(t.heard, len(m.counted()))
	}
	return nil
}

// job is the trial as a job. Its rounds wait for whoever takes part, however long that is.
func (t *trial) job() (*choirv1.JobSpec, error) {
	algorithm, err := jobspec.Encode(t.x.settings())
	if err != nil {
		return nil, err
	}
	examples := &choirv1.Examples{Outputs: uint32(t.data.Train.Classes)}
	for _, n := range t.data.Train.Input {
		examples.Input = append(examples.Input, uint32(n))
	}
	for _, n := range t.data.Tables {
		examples.Ids = append(examples.Ids, uint32(n))
	}
	return &choirv1.JobSpec{
		Name: jobName, Model: jobName, Algorithm: algorithm, Examples: examples, Publish: jobspec.PublishNone,
		Rounds: uint64(t.rounds), Seed: t.cfg.Seed, WeightCap: t.algorithm.WeightCap, MinimumCohort: 1, Goal: uint32(t.caller.wanted()),
		DurationMs: uint64(time.Hour / time.Millisecond), WaitMs: uint64(time.Hour / time.Millisecond), MaxAttempts: 1,
	}, nil
}

// ownAlgorithm makes the trial's algorithm where a job cannot say it: of parts that choir does not have, or of inputs that
// the server has. nil: the job says it.
func (t *trial) ownAlgorithm() func(*choirv1.JobSpec) (*fedavg.Algorithm, error) {
	if t.x.Own.Strategy == nil && t.x.Own.Rule == nil && t.algorithm.Public == nil {
		return nil
	}
	return func(*choirv1.JobSpec) (*fedavg.Algorithm, error) { return t.algorithm, nil }
}

// ownUpdate makes the update of the server's own; nil: the algorithm wants none.
func (t *trial) ownUpdate() func(context.Context, fedavg.Work) (*fedavg.Update, error) {
	if !t.algorithm.Trusts() {
		return nil
	}
	return func(ctx context.Context, work fedavg.Work) (*fedavg.Update, error) {
		client, err := fedavg.NewClient(t.algorithm)
		if err != nil {
			return nil, err
		}
		return (&worker{trial: t, client: client}).trusted(ctx, work)
	}
}

// systemRun is a trial under way in a federation.
type systemRun struct {
	trial *trial
	site  *site
	lab   *lab
	f     *Federation
	said  *lastWarning

	mu      sync.Mutex // guards what follows
	done    int        // training rounds that were taken in
	ended   bool       // the trial has seen enough
	failure *roundError
	halt    context.CancelCauseFunc // of following the job; nil before
}

// errEnough is why nobody waits for the job's end: no round of it is wanted any more, and the one that is open has none.
var errEnough = errors.New("the trial has seen enough")

// failed takes in why a round that is not closed makes no model.
func (s *systemRun) failed(round int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil && round > s.done {
		s.failure = &roundError{round, err}
		s.giveUp()
	}
}

// stepFailed takes in that coordinators could make no model of a round's updates. They would try it again, to the same end.
func (s *systemRun) stepFailed(_ string, e coordinator.RoundEvent, err error) {
	s.failed(int(e.Round), err)
}

// giveUp stops following the job once all is taken in that there was before the round that failed; mu is held.
func (s *systemRun) giveUp() {
	switch {
	case s.halt == nil || s.failure == nil:
	case s.ended:
		s.halt(errEnough)
	case s.failure.round == s.done+1:
		s.halt(s.failure)
	}
}

// takenIn notes the round that was taken in last.
func (s *systemRun) takenIn(round int, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.ended = round, ended
	s.giveUp()
}

// observe tells the lab what a node sends.
func (s *systemRun) observe(name string) node.Observer {
	return node.Observer{Sending: func(_ string, round uint64, _ uint32, payload []byte) { s.lab.sending(name, round, payload) }}
}

// follow takes in each round's model until the job is over, or the trial has seen enough.
func (s *systemRun) follow(ctx context.Context) error {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.mu.Lock()
	s.halt = stop
	s.giveUp() // what failed may have done so at once
	s.mu.Unlock()
	last, err := s.f.WaitJob(within, jobName, func(status *choirv1.JobStatus) {
		for _, r := range status.Rounds {
			if r.State != "closed" || int(r.Round) != s.done+1 || s.ended {
				continue
			}
			if err := s.closed(within, r); err != nil {
				stop(err)
				return
			}
		}
	})
	if cause := context.Cause(within); errors.Is(cause, errEnough) {
		return nil
	} else if cause != nil && ctx.Err() == nil {
		return cause
	}
	if err != nil {
		return err
	}
	if s.ended || last.State == "finished" {
		return nil
	}
	if err := s.abandoned(last); err != nil {
		return err
	}
	return fmt.Errorf("job %s: %s%s: %w", last.State, last.Reason, s.warned(), ErrFederation)
}

// abandoned is why the round that comes next diverged, if coordinators gave it up for that before a break; nil otherwise.
func (s *systemRun) abandoned(job *choirv1.JobStatus) error {
	for _, r := range job.Rounds {
		if r.State != "abandoned" || int(r.Round) != s.done+1 {
			continue
		}
		if err := told(r.Reason); err != nil {
			return &roundError{int(r.Round), err}
		}
	}
	return nil
}

// closed takes in a round.
func (s *systemRun) closed(ctx context.Context, r *choirv1.RoundStatus) error {
	if want := s.trial.heard[r.Round-1]; int(r.Accepted) != want {
		return fmt.Errorf("round %d: %d updates count, want %d%s: %w", r.Round, r.Accepted, want, s.warned(), ErrFederation)
	}
	body, err := s.f.Blob(ctx, r.Model)
	if err != nil {
		return fmt.Errorf("round %d: %w", r.Round, err)
	}
	_, params, _, err := model.DecodeNetwork(body)
	if err != nil {
		return fmt.Errorf("round %d: %w", r.Round, err)
	}
	t := s.trial
	sent, saturated, err := s.lab.sent.closed(int(r.Round), int(r.Accepted))
	if err != nil {
		return fmt.Errorf("round %d: %w", r.Round, err)
	}
	round := int(r.Round)
	t.sent.Store(sent)
	t.saturated.Store(saturated)
	reached, err := t.closed(round, int(r.Accepted), params)
	if err != nil {
		return err
	}
	if s.takenIn(round, reached); reached && round < t.rounds {
		return s.stop(ctx)
	}
	if reached || s.site.of == "" {
		return nil
	}
	return t.keep(&Snapshot{Round: round})
}

// stop ends the job after a round that is not its last, unless the coordinators, who do not wait for the trial, have finished it.
func (s *systemRun) stop(ctx context.Context) error {
	err := s.f.patiently(ctx, func(ctx context.Context) error {
		_, err := s.f.Operator().ControlJob(ctx, &choirv1.ControlJobRequest{Name: jobName, Action: "stop"})
		return err
	})
	if err != nil && status.Code(err) != codes.FailedPrecondition {
		return fmt.Errorf("stop after round %d: %w", s.done, err)
	}
	return nil
}

// warned is what was last complained about, for an error's end.
func (s *systemRun) warned() string {
	if w := s.said.get(); w != "" {
		return "; last warning: " + w
	}
	return ""
}

// audit exports the audit log and verifies it, trusting nothing but the root's fingerprint.
func (s *systemRun) audit(ctx context.Context) error {
	bundle, err := s.f.Bundle(ctx)
	if err != nil {
		return fmt.Errorf("export audit log: %w", err)
	}
	report := audit.Verify(bundle, s.f.Fingerprint(), s.f.cfg.Now())
	for _, c := range report.Checks {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("audit: %s: %s", c.Name, c.Detail))
		}
	}
	return err
}
