package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/internal/seeds"
	choirv1 "choir.example/proto/choir/v1"
)

// plan waits until enough nodes are there for the job's next round and fixes everything about it that is chance or
// choice: the coordinator's clock and seeds enter here, nowhere later. The seed of a round derives from the job's seed
// and the round's number, never from the attempt.
func (c *Coordinator) plan(ctx context.Context, term uint64, name string) (*choirv1.OpenRound, error) {
	deadline := time.Time{}
	for {
		s := c.replica.State()
		j := s.Jobs[name]
		if !drivable(j) {
			return nil, fmt.Errorf("plan job %s, which is %s: %w", name, j.State, state.ErrStale)
		}
		job, err := j.JobSpec()
		if err != nil {
			return nil, err
		}
		key, kind, ok := j.Next(job)
		if !ok {
			return nil, fmt.Errorf("plan job %s: %w", name, state.ErrStale)
		}
		if deadline.IsZero() {
			deadline = c.deps.Now().Add(time.Duration(job.WaitMs) * time.Millisecond)
		}
		eligible := c.eligible(s, job, key)
		available, n := c.available(ctx, s, eligible)
		want := int(job.Goal)
		if want == 0 || c.deps.Available != nil {
			want = len(eligible)
		}
		late := c.deps.Now().After(deadline)
		if n >= want && n >= int(job.MinimumCohort) || late && n >= int(job.MinimumCohort) {
			open := &choirv1.OpenRound{
				Key: key, Kind: kind, Seed: seeds.Derive("choir/round/v1", job.Seed, key.Job, key.Round),
				Roster: s.Roster, Available: available, Term: term,
			}
			if kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
				if open.Model, err = c.from(ctx, j); err != nil {
					return nil, err
				}
				if !j.Strategy.IsZero() {
					open.StrategyState = j.Strategy[:]
				}
			}
			if err = c.wouldOpen(s, open); err == nil || !errors.Is(err, state.ErrCohort) {
				return open, nil // what is refused for good is refused by the log, for all to read
			}
			// Budget that other rounds have reserved comes back, or is spent: this waits for either without a trace in the log.
		}
		if err := c.pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// wouldOpen tells what Apply would say.
func (c *Coordinator) wouldOpen(s *state.State, open *choirv1.OpenRound) error {
	b, err := state.Encode(&choirv1.Command{Body: &choirv1.Command_OpenRound{OpenRound: open}})
	if err != nil {
		return err
	}
	_, err = state.Apply(s, s.Index+1, open.Term, b)
	return err
}

// from is the model from which a job's next training round starts.
func (c *Coordinator) from(ctx context.Context, j *state.Job) ([]byte, error) {
	id := j.Model
	if id.IsZero() {
		var err error
		if id, err = c.initial(ctx, j); err != nil {
			return nil, err
		}
	}
	return id[:], nil
}

// eligible are the nodes that a round may invite: all that the job may, or those of them that an experiment has there.
func (c *Coordinator) eligible(s *state.State, job *choirv1.JobSpec, key *choirv1.RoundKey) []string {
	names := s.Eligible(job)
	if there := c.deps.Available; there != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return !there(key.Job, key.Round, name) })
	}
	return names
}

// available asks all coordinators which nodes they heard lately and returns a bitmap over the roster of those that are
// eligible, and how many they are.
func (c *Coordinator) available(ctx context.Context, s *state.State, eligible []string) (bitmap []byte, n int) {
	present := c.heard(ctx, s)
	names := s.NodeNames()
	bitmap = make([]byte, (len(names)+7)/8)
	for i, name := range names {
		if _, may := slices.BinarySearch(eligible, name); may && present[name] {
			bitmap[i/8] |= 1 << (i % 8)
			n++
		}
	}
	return bitmap, n
}

// pause waits for a change of state or d, whichever is first.
func (c *Coordinator) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.replica.Changed():
	case <-timer.C:
	}
	return nil
}

// errAbandon carries the reason with which a round ends without a result.
type errAbandon struct{ reason string }

func (e *errAbandon) Error() string { return "abandon: " + e.reason }

// abandonReason is the text recorded for a round that err ended, cut to what the log takes: a reason that is refused
// would keep the round open.
func abandonReason(err error) string {
	text := err.Error()
	var a *errAbandon
	if errors.As(err, &a) {
		text = a.reason
	}
	return strings.ToValidUTF8(text[:min(len(text), state.MaxReason)], "")
}
