package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/seeds"
	"choir.example/model"
	"choir.example/model/codec"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// planned is a job's specification, parsed: what the coordinator computes with.
type planned struct {
	network *model.Network
	schema  *data.Schema
	grid    codec.Grid
	job     *choirv1.JobSpec
}

func newPlanned(job *choirv1.JobSpec) (*planned, error) {
	schema, err := data.ParseSchema(job.Schema)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", job.Name, err)
	}
	p := &planned{schema: schema, job: job, grid: codec.Grid{Range: job.Range}}
	var hidden []int
	for _, h := range job.Hidden {
		hidden = append(hidden, int(h))
	}
	if p.network, err = model.MLP(schema.Features(), hidden...).Compile(); err != nil {
		return nil, fmt.Errorf("job %s: %w", job.Name, err)
	}
	return p, nil
}

// clipSquared is the largest squared norm of an encoded update, 0 for no bound.
func (p *planned) clipSquared() int64 {
	if p.job.Clip == 0 {
		return 0
	}
	return p.grid.ClipSquared(p.job.Clip)
}

// algorithm is what the job's nodes train by.
func (p *planned) algorithm() *fedavg.Algorithm {
	rate := p.job.ServerRate
	if rate == 0 {
		rate = 1
	}
	return &fedavg.Algorithm{Network: p.network, Strategy: fedavg.FedAvg{Rate: rate}, Grid: p.grid, Batch: int(p.job.Batch), WeightCap: p.job.WeightCap}
}

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
		eligible := s.Eligible(job)
		available, n := c.available(ctx, s, eligible)
		want := int(job.Goal)
		if want == 0 {
			want = len(eligible)
		}
		late := c.deps.Now().After(deadline)
		if n >= want && n >= int(job.MinimumCohort) || late && n >= int(job.MinimumCohort) {
			open := &choirv1.OpenRound{
				Key: key, Kind: kind, Seed: seeds.Derive("choir/round/v1", job.Seed, key.Job, key.Round),
				Roster: s.Roster, Available: available, Term: term,
			}
			if kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
				open.Model = j.Model[:]
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

// available asks all coordinators which nodes they heard lately and returns a bitmap over the roster, and how many
// of them are eligible.
func (c *Coordinator) available(ctx context.Context, s *state.State, eligible []string) (bitmap []byte, n int) {
	present := c.heard(ctx, s)
	names := s.NodeNames()
	bitmap = make([]byte, (len(names)+7)/8)
	for i, name := range names {
		if present[name] {
			bitmap[i/8] |= 1 << (i % 8)
			if _, may := slices.BinarySearch(eligible, name); may {
				n++
			}
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
