package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/node"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// mostUpdates is the most that coordinators commit together: in an experiment all come at once.
const mostUpdates = 64

// system runs the trial by real coordinators and nodes: tokens, certificates, replication, sealed updates, an audit log
// that is verified in the end. Which nodes take part, and what becomes of their updates, is the experiment's; real time
// decides nothing.
func (t *trial) system(ctx context.Context) (err error) {
	heard, err := t.heard()
	if err != nil {
		return err
	}
	spec, err := t.job()
	if err != nil {
		return err
	}
	dir, remove, err := t.workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	said := &lastWarning{}
	s := &systemRun{trial: t, said: said, heard: heard, sent: map[uint64]int64{}}
	if s.lab, err = newLab(t); err != nil {
		return err
	}
	log := slog.New(&warningHandler{next: cmp.Or(t.cfg.Log, slog.New(slog.DiscardHandler)).Handler(), last: said})
	coordinators, heartbeat := cmp.Or(t.cfg.Coordinators, 1), time.Duration(0)
	if coordinators == 1 {
		heartbeat = 50 * time.Millisecond // nobody is waited for
	}
	t.cfg.Stage("founding coordinators and nodes")
	s.f, err = Start(ctx, FederationConfig{
		Dir: dir, Cluster: "experiment", Coordinators: coordinators, Heartbeat: heartbeat, Names: t.names, Lab: s.lab, Algorithm: t.ownAlgorithm(),
		BatchUpdates: mostUpdates, Available: s.lab.available, Trusted: t.ownUpdate(), Node: s.observe, Log: log, Network: NewMemoryNetwork(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.f.Close()) }()
	t.start = time.Now() // founding is no part of a round
	t.cfg.Stage("training")
	if _, err := s.f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		return fmt.Errorf("submit job: %w", err)
	}
	if err := s.follow(ctx); err != nil {
		return err
	}
	t.result.Saturated = s.lab.saturated.Load()
	return s.audit(ctx)
}

// heard is how many updates count in each round, from the first. A federation makes a model in every round.
func (t *trial) heard() (counts []int, err error) {
	for round := range t.rounds {
		m := t.muster(round + 1)
		if m.skipped != "" {
			return nil, fmt.Errorf("round %d would be skipped: %s; fidelity system has no such rounds, want fidelity math", round+1, m.skipped)
		}
		counts = append(counts, len(m.counted()))
	}
	return counts, nil
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

// workDir is where coordinators and nodes keep what they keep.
func (t *trial) workDir() (dir string, remove func() error, err error) {
	if t.cfg.Dir != "" {
		return t.cfg.Dir, func() error { return nil }, nil
	}
	if dir, err = os.MkdirTemp("", "choir-simulate-"); err != nil {
		return "", nil, fmt.Errorf("make a directory for coordinators and nodes: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// systemRun is a trial under way in a federation.
type systemRun struct {
	trial *trial
	lab   *lab
	f     *Federation
	said  *lastWarning
	heard []int // updates that count, by round from the first
	done  int   // training rounds that were taken in
	ended bool

	mu   sync.Mutex       // guards sent
	sent map[uint64]int64 // bytes of updates, by round
}

// observe counts what a node sends.
func (s *systemRun) observe(string) node.Observer {
	return node.Observer{Sending: func(_ string, round uint64, _ uint32, payload []byte) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sent[round] += int64(len(payload))
	}}
}

// follow takes in each round's model until the job is over, or the trial has seen enough.
func (s *systemRun) follow(ctx context.Context) error {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	status, err := s.f.WaitJob(within, jobName, func(status *choirv1.JobStatus) {
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
	if cause := context.Cause(within); cause != nil && ctx.Err() == nil {
		return cause
	}
	if err != nil {
		return err
	}
	if s.ended || status.State == "finished" {
		return nil
	}
	return fmt.Errorf("job %s: %s%s", status.State, status.Reason, s.warned())
}

// closed takes in a round.
func (s *systemRun) closed(ctx context.Context, r *choirv1.RoundStatus) error {
	if want := s.heard[r.Round-1]; int(r.Accepted) != want {
		return fmt.Errorf("round %d: %d updates count, want %d%s", r.Round, r.Accepted, want, s.warned())
	}
	body, err := s.f.Blob(ctx, r.Model)
	if err != nil {
		return fmt.Errorf("round %d: %w", r.Round, err)
	}
	_, params, _, err := model.DecodeNetwork(body)
	if err != nil {
		return fmt.Errorf("round %d: %w", r.Round, err)
	}
	s.done = int(r.Round)
	s.mu.Lock()
	s.trial.sent.Store(s.sent[r.Round])
	delete(s.sent, r.Round)
	s.mu.Unlock()
	if s.ended = s.trial.closed(s.done, int(r.Accepted), params); !s.ended || s.done == s.trial.rounds {
		return nil
	}
	_, err = s.f.Operator().ControlJob(ctx, &choirv1.ControlJobRequest{Name: jobName, Action: "stop"})
	if err != nil {
		return fmt.Errorf("stop after round %d: %w", r.Round, err)
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
	report := audit.Verify(bundle, s.f.Fingerprint(), time.Now())
	for _, c := range report.Checks {
		if !c.OK {
			err = errors.Join(err, fmt.Errorf("audit: %s: %s", c.Name, c.Detail))
		}
	}
	return err
}
