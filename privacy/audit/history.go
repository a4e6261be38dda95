package audit

import (
	"fmt"
	"slices"
)

// history is what the records say happened, replayed from the first.
type history struct {
	genesis *Genesis
	nodes   map[string]bool
	tokens  map[string]bool
	jobs    map[string]*jobHistory
	models  map[string]uint64 // versions released
	closed  int               // rounds closed
}

type jobHistory struct {
	ended  bool
	open   *attemptHistory
	next   uint64            // number of the next round
	tries  uint32            // attempts at it so far
	made   map[[32]byte]bool // models of closed rounds
	tested map[[32]byte]bool // candidates of closed evaluation rounds
}

type attemptHistory struct {
	*RoundOpened
	phase    int // 0 open, 1 cut, 2 charged
	batches  map[[32]byte]bool
	accepted map[string]bool
	weight   int64
}

// replay checks that the records tell a history that the rules allow, and returns it. Errors name the record.
func replay(records [][]byte) (*history, error) {
	h := &history{nodes: map[string]bool{}, tokens: map[string]bool{}, jobs: map[string]*jobHistory{}, models: map[string]uint64{}}
	for i, b := range records {
		r, err := Decode(b)
		if err == nil {
			err = h.apply(i, r)
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
	}
	if h.genesis == nil {
		return nil, fmt.Errorf("no genesis record")
	}
	return h, nil
}

func (h *history) apply(i int, r Record) error {
	if (i == 0) != (r.Kind() == KindGenesis) {
		return fmt.Errorf("%v is out of place", r.Kind())
	}
	switch r := r.(type) {
	case *Genesis:
		h.genesis = r
	case *EpochAnnounced:
		if !slices.ContainsFunc(h.genesis.Coordinators, func(c Coordinator) bool { return c.Name == r.Coordinator }) {
			return fmt.Errorf("epoch key of %s, which is no coordinator", r.Coordinator)
		}
	case *TokenCreated:
		h.tokens[r.ID] = true
	case *Enrolled:
		if !h.tokens[r.Token] || h.nodes[r.Node] {
			return fmt.Errorf("node %s enrolled twice, or with a token that is not valid", r.Node)
		}
		h.tokens[r.Token] = false
		h.nodes[r.Node] = true
	case *JobSubmitted:
		if h.jobs[r.Job] != nil {
			return fmt.Errorf("job %s submitted twice", r.Job)
		}
		h.jobs[r.Job] = &jobHistory{tries: 0, made: map[[32]byte]bool{}, tested: map[[32]byte]bool{}}
	case *Incident:
		return nil
	case *JobEnded:
		return h.endJob(r)
	case *Released:
		return h.release(r)
	default:
		return h.round(r)
	}
	return nil
}

func (h *history) endJob(r *JobEnded) error {
	j := h.jobs[r.Job]
	if j == nil || j.ended || j.open != nil {
		return fmt.Errorf("end of job %s, which does not run or has an open round", r.Job)
	}
	j.ended = true
	return nil
}

func (h *history) release(r *Released) error {
	j := h.jobs[r.Job]
	if j == nil || j.ended || j.open != nil {
		return fmt.Errorf("release of job %s, which does not run or has an open round", r.Job)
	}
	if r.Version != h.models[r.Model]+1 || len(r.Variants) == 0 || !j.made[r.Variants[0].Blob] {
		return fmt.Errorf("release %d of model %s does not follow from a closed round", r.Version, r.Model)
	}
	if len(j.tested) > 0 {
		for _, v := range r.Variants {
			if v.Published && !j.tested[v.Blob] {
				return fmt.Errorf("release %d of model %s: variant %s was not evaluated", r.Version, r.Model, v.Name)
			}
		}
	}
	h.models[r.Model]++
	return nil
}

// round checks the records of one attempt.
func (h *history) round(r Record) error {
	job, round, attempt := attemptFieldsOf(r)
	j := h.jobs[job]
	if j == nil || j.ended {
		return fmt.Errorf("%v of job %q, which does not run", r.Kind(), job)
	}
	if opened, ok := r.(*RoundOpened); ok {
		return h.open(j, opened)
	}
	a := j.open
	if a == nil || a.Round != round || a.Attempt != attempt {
		return fmt.Errorf("%v of round %d attempt %d, which is not open", r.Kind(), round, attempt)
	}
	switch r := r.(type) {
	case *BatchAccepted:
		return a.accept(r)
	case *RoundCut:
		if a.phase != 0 || r.Count != uint64(len(a.accepted)) || r.Weight != a.weight {
			return fmt.Errorf("cut of round %d at %d updates of weight %d, its batches hold %d of %d", round, r.Count, r.Weight, len(a.accepted), a.weight)
		}
		if len(a.accepted) < int(a.MinimumCohort) {
			return fmt.Errorf("round %d was cut with %d updates, its minimum cohort is %d", round, len(a.accepted), a.MinimumCohort)
		}
		a.phase = 1
	case *Charged:
		if a.phase != 1 || r.Nodes != uint64(len(a.accepted)) {
			return fmt.Errorf("charge of round %d is out of place or not for its %d updates", round, len(a.accepted))
		}
		a.phase = 2
	case *RoundClosed:
		return h.close(j, a, r)
	case *RoundAbandoned:
		j.open = nil
	}
	return nil
}

func (h *history) open(j *jobHistory, r *RoundOpened) error {
	if j.open != nil || r.Round != j.next || r.Attempt != j.tries+1 {
		return fmt.Errorf("round %d attempt %d opened, the job was at round %d after attempt %d", r.Round, r.Attempt, j.next, j.tries)
	}
	if !slices.IsSorted(r.Cohort) || len(slices.Compact(slices.Clone(r.Cohort))) != len(r.Cohort) {
		return fmt.Errorf("cohort of round %d is not a sorted set", r.Round)
	}
	for _, n := range r.Cohort {
		if !h.nodes[n] {
			return fmt.Errorf("cohort of round %d names node %s, which is not enrolled", r.Round, n)
		}
	}
	j.tries++
	j.open = &attemptHistory{RoundOpened: r, batches: map[[32]byte]bool{}, accepted: map[string]bool{}}
	return nil
}

func (a *attemptHistory) accept(r *BatchAccepted) error {
	if a.phase != 0 || a.batches[r.Batch] || len(r.Accepted) == 0 {
		return fmt.Errorf("batch of round %d is empty, counted twice or after the cut", a.Round)
	}
	a.batches[r.Batch] = true
	for _, u := range r.Accepted {
		if _, ok := slices.BinarySearch(a.Cohort, u.Node); !ok {
			return fmt.Errorf("round %d counts node %s, which is not in its cohort", a.Round, u.Node)
		}
		if a.accepted[u.Node] {
			return fmt.Errorf("round %d counts node %s twice", a.Round, u.Node)
		}
		if u.Weight < 1 {
			return fmt.Errorf("round %d counts node %s with weight %d", a.Round, u.Node, u.Weight)
		}
		a.accepted[u.Node] = true
		a.weight += u.Weight
	}
	return nil
}

func (h *history) close(j *jobHistory, a *attemptHistory, r *RoundClosed) error {
	if a.phase != 2 {
		return fmt.Errorf("round %d was closed before it was cut and charged", a.Round)
	}
	if r.Count != uint64(len(a.accepted)) || r.Weight != a.weight {
		return fmt.Errorf("round %d closed with %d updates of weight %d, its batches hold %d of %d", a.Round, r.Count, r.Weight, len(a.accepted), a.weight)
	}
	if r.Model != [32]byte{} {
		j.made[r.Model] = true
	}
	for _, c := range a.Candidates {
		j.tested[c] = true
	}
	j.open, j.next, j.tries = nil, j.next+1, 0
	h.closed++
	return nil
}

func attemptFieldsOf(r Record) (job string, round uint64, attempt uint32) {
	switch r := r.(type) {
	case *RoundOpened:
		return r.Job, r.Round, r.Attempt
	case *BatchAccepted:
		return r.Job, r.Round, r.Attempt
	case *RoundCut:
		return r.Job, r.Round, r.Attempt
	case *Charged:
		return r.Job, r.Round, r.Attempt
	case *RoundClosed:
		return r.Job, r.Round, r.Attempt
	case *RoundAbandoned:
		return r.Job, r.Round, r.Attempt
	}
	return "", 0, 0
}

// Decoded decodes all records of a bundle.
func (b *Bundle) Decoded() ([]Record, error) {
	out := make([]Record, len(b.Records))
	for i, raw := range b.Records {
		r, err := Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		out[i] = r
	}
	return out, nil
}
