package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/model"
	choirv1 "choir.example/proto/choir/v1"
)

// world is a federation of one coordinator and any number of nodes, driven by commands made in code.
type world struct {
	t           testing.TB
	s           *state.State
	index, term uint64
	largest     int // encoded command so far
}

func newWorld(t testing.TB, nodes int) *world {
	w := &world{t: t, s: state.New(), term: 1}
	w.tell(`genesis { cluster: "shop" root: "root" time_ms: 1 coordinators { name: "ada" address: "a:1" chain: "ada's" } }`)
	for i := range nodes { // directly: enrolment by entries copies the roster each time
		name := fmt.Sprintf("node-%05d", i)
		w.s.Nodes[name] = state.Node{Key: digestOf(name), Token: fmt.Sprint("t", i)}
	}
	w.s.Roster = uint64(nodes)
	return w
}

func (w *world) try(c *choirv1.Command) error {
	w.t.Helper()
	data, err := state.Encode(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.largest = max(w.largest, len(data))
	w.index++
	w.s, err = state.Apply(w.s, w.index, w.term, data)
	return err
}

func (w *world) do(c *choirv1.Command) {
	w.t.Helper()
	if err := w.try(c); err != nil {
		w.t.Fatalf("entry %d: %v", w.index, err)
	}
}

func (w *world) tell(text string) {
	w.t.Helper()
	w.index++
	var err error
	if w.s, err = state.Apply(w.s, w.index, w.term, encoded(w.t, text)); err != nil {
		w.t.Fatalf("entry %d: %v", w.index, err)
	}
}

func (w *world) job() *state.Job { return w.s.Jobs["purchase"] }

// open opens the job's next round with every node available.
func (w *world) open() error {
	w.t.Helper()
	spec, err := w.job().JobSpec()
	if err != nil {
		w.t.Fatal(err)
	}
	key, kind, ok := w.job().Next(spec)
	if !ok {
		w.t.Fatal("the job needs no round")
	}
	n := len(w.s.Nodes)
	available := bytes.Repeat([]byte{0xff}, (n+7)/8)
	if n%8 > 0 {
		available[n/8] = 1<<(n%8) - 1
	}
	c := &choirv1.OpenRound{Key: key, Kind: kind, Seed: key.Round, Roster: w.s.Roster, Available: available, Term: w.term}
	if kind == choirv1.RoundKind_ROUND_KIND_TRAIN {
		c.Model = w.job().Model[:]
	}
	return w.try(&choirv1.Command{Body: &choirv1.Command_OpenRound{OpenRound: c}})
}

// collect accepts the whole cohort of the open round in batches.
func (w *world) collect(batch int, weight int64) {
	w.t.Helper()
	r := w.job().Active()
	for from := 0; from < len(r.Cohort); from += batch {
		nodes := r.Cohort[from:min(from+batch, len(r.Cohort))]
		id := digestOf(fmt.Sprint(r.Number, r.Attempt, from))
		c := &choirv1.AcceptBatch{Key: r.Key("purchase"), Batch: id, Sum: id, Coordinator: "ada", Holders: []string{"ada"}, Weight: weight * int64(len(nodes))}
		for _, n := range nodes {
			c.Accepted = append(c.Accepted, &choirv1.Accepted{Node: n, Update: digestOf(fmt.Sprint(n, r.Number)), Weight: weight})
		}
		w.do(&choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: c}})
	}
}

// finish cuts, charges and closes the open round with an evaluation of so many examples in each bin.
func (w *world) finish(perBin int64) {
	w.t.Helper()
	r := w.job().Active()
	key := r.Key("purchase")
	w.do(&choirv1.Command{Body: &choirv1.Command_CutRound{CutRound: &choirv1.CutRound{Key: key, Term: r.Term}}})
	w.do(&choirv1.Command{Body: &choirv1.Command_Charge{Charge: &choirv1.Charge{Key: key, Mechanism: "none", Term: r.Term}}})
	made := digestOf(fmt.Sprint("made ", r.Number))
	c := &choirv1.CloseRound{Key: key, Sum: made, Model: made, Term: r.Term}
	if len(r.Batches) == 1 {
		c.Sum = r.Batches[0].Sum[:]
	}
	if r.Kind == choirv1.RoundKind_ROUND_KIND_STATISTICS {
		c.Statistics = made
	} else {
		c.Evaluations = []*choirv1.EvaluationSum{flat(uint64(w.job().Active().Count), perBin)}
	}
	w.do(&choirv1.Command{Body: &choirv1.Command_CloseRound{CloseRound: c}})
}

// flat is an evaluation with the same number of examples in every bin.
func flat(nodes uint64, perBin int64) *choirv1.EvaluationSum {
	e := &choirv1.EvaluationSum{Nodes: nodes}
	for range model.Bins {
		e.Positives, e.Negatives = append(e.Positives, perBin), append(e.Negatives, perBin)
		e.Examples += 2 * perBin
	}
	return e
}

// checkRestored fails unless the state survives a snapshot.
func (w *world) checkRestored() {
	w.t.Helper()
	b := snap(w.t, w.s)
	if snap(w.t, restore(w.t, b)) != b {
		w.t.Error("the state changed in a snapshot")
	}
}

func TestEightClosedRoundsKeepTheirDetails(t *testing.T) {
	w := newWorld(t, 3)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" rounds: 20 minimum_cohort: 2 hidden: 8 } time_ms: 1 }`)
	for range 14 {
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		w.collect(2, 10)
		w.finish(1)
	}
	before, want := w.s, snap(t, w.s)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if snap(t, before) != want {
		t.Error("dropping details changed the state that had them")
	}
	for _, r := range w.job().Rounds {
		detailed := r.Number >= 14-state.KeepRounds
		if (r.Accepted != nil) != detailed || (r.Batches != nil) != (detailed && r.Number < 14) || (r.Cohort != nil) != detailed || (r.Incidents != nil) != detailed {
			t.Errorf("round %d of 14: accepted %v, batches %v, cohort %v", r.Number, r.Accepted, r.Batches, r.Cohort)
		}
		if len(r.Evaluation) > 0 && (r.Evaluation[0].Positives != nil) != detailed {
			t.Errorf("round %d of 14: %d bins", r.Number, len(r.Evaluation[0].Positives))
		}
		if r.Number < 14 && (r.Count != 3 || r.Weight != 30 || r.Sum.IsZero() || r.Next.IsZero() || r.Number > 0 && r.Evaluation[0].AUC != 500_000) {
			t.Errorf("round %d lost what it made: %+v", r.Number, r)
		}
	}
	w.checkRestored()
}

// One round may have a thousand attempts.
func TestEightAbandonedAttemptsKeepTheirDetails(t *testing.T) {
	w := newWorld(t, 3)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" rounds: 2 minimum_cohort: 2 hidden: 8 max_attempts: 100 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	w.collect(3, 10)
	w.finish(1)
	for range 30 {
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		r := w.job().Active()
		w.do(&choirv1.Command{Body: &choirv1.Command_AbandonRound{AbandonRound: &choirv1.AbandonRound{
			Key: r.Key("purchase"), Reason: "nobody came", Term: r.Term,
		}}})
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for _, r := range w.job().Rounds {
		detailed := r.Phase == state.PhaseClosed || r.Attempt > 31-1-state.KeepRounds
		if (r.Cohort != nil) != detailed || (r.Accepted != nil) != detailed {
			t.Errorf("round %d attempt %d, %s: cohort %v", r.Number, r.Attempt, r.Phase, r.Cohort)
		}
	}
}

func TestALargeRoster(t *testing.T) {
	start := time.Now()
	w := newWorld(t, 5000)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" rounds: 2 minimum_cohort: 2 hidden: 8 weight_cap: 1048576 } time_ms: 1 }`)
	for range 2 {
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		w.collect(64, fedavg.MaxWeight) // the most that a coordinator's configuration allows
		w.finish(fedavg.MaxExamples)
	}
	if n := w.job().Rounds[1].Count; n != 5000 {
		t.Errorf("%d updates count, want 5000", n)
	}
	w.checkRestored()
	t.Logf("%d entries, the largest of %d bytes, a snapshot of %d bytes, %v", w.index, w.largest, len(snap(t, w.s)), time.Since(start))
}

// What the largest federation commits fits an entry: batches of 64 with the longest names, four variants' histograms of
// the most examples that a sum can hold, a bitmap of 2^16 nodes.
func TestTheLargestEntriesFit(t *testing.T) {
	key := &choirv1.RoundKey{Job: strings.Repeat("j", 63), Round: 1e6, Attempt: 1000}
	batch := &choirv1.AcceptBatch{Key: key, Batch: digestOf("b"), Sum: digestOf("s"), Coordinator: strings.Repeat("c", 63), Weight: fedavg.MaxTotalWeight}
	for range 7 {
		batch.Holders = append(batch.Holders, batch.Coordinator)
	}
	for range 64 {
		batch.Accepted = append(batch.Accepted, &choirv1.Accepted{Node: strings.Repeat("n", 63), Update: digestOf("u"), Weight: fedavg.MaxWeight})
	}
	end := &choirv1.CloseRound{Key: key, Sum: digestOf("s"), Term: math.MaxUint64}
	for range 4 {
		end.Evaluations = append(end.Evaluations, flat(fedavg.MaxUpdates, fedavg.MaxUpdates*fedavg.MaxExamples/(2*model.Bins)))
	}
	open := &choirv1.OpenRound{Key: key, Seed: math.MaxUint64, Available: make([]byte, fedavg.MaxUpdates/8), Model: digestOf("m")}
	for _, c := range []*choirv1.Command{
		{Body: &choirv1.Command_AcceptBatch{AcceptBatch: batch}},
		{Body: &choirv1.Command_CloseRound{CloseRound: end}},
		{Body: &choirv1.Command_OpenRound{OpenRound: open}},
	} {
		if b, err := state.Encode(c); err != nil {
			t.Errorf("%T: %v", c.Body, err)
		} else {
			t.Logf("%T: %d bytes", c.Body, len(b))
		}
	}
}

// A job that wants everybody gets as many as one sum can hold.
func TestACohortFitsOneSum(t *testing.T) {
	w := newWorld(t, fedavg.MaxUpdates+9)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" minimum_cohort: 2 hidden: 8 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if r := w.job().Active(); len(r.Cohort) != fedavg.MaxUpdates || r.Goal != fedavg.MaxUpdates {
		t.Errorf("cohort of %d, goal %d, want %d", len(r.Cohort), r.Goal, fedavg.MaxUpdates)
	}
}

func TestACohortIsTheJobsGoal(t *testing.T) {
	w := newWorld(t, 9)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" minimum_cohort: 2 goal: 4 hidden: 8 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if r := w.job().Active(); len(r.Cohort) != 4 || r.Goal != 4 || r.Invited != 4 {
		t.Errorf("cohort of %d, goal %d, want 4", len(r.Cohort), r.Goal)
	}
}

func TestInvite(t *testing.T) {
	for _, c := range []struct {
		goal, percent uint32
		want          int
	}{
		{10, 0, 10}, {10, 25, 13}, {10, 20, 12}, {1, 1, 2}, {3, 400, 15}, {0, 0, fedavg.MaxUpdates}, {1 << 16, 400, fedavg.MaxUpdates},
	} {
		if got := state.Invite(&choirv1.JobSpec{Goal: c.goal, OverSelectionPercent: c.percent}); got != c.want {
			t.Errorf("goal %d and %d%% more: %d, want %d", c.goal, c.percent, got, c.want)
		}
	}
}

func TestTheSumOfWeightsIsBounded(t *testing.T) {
	w := newWorld(t, 3)
	w.tell(`submit_job { spec { name: "purchase" model: "buyer" rounds: 2 minimum_cohort: 2 hidden: 8 } time_ms: 1 }`)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	r := w.job().Active()
	r.Weight = fedavg.MaxTotalWeight - 10 // as if 2^16 nodes of the largest weight had been counted
	c := &choirv1.AcceptBatch{Key: r.Key("purchase"), Batch: digestOf("b"), Sum: digestOf("s"), Coordinator: "ada", Holders: []string{"ada"}, Weight: 11,
		Accepted: []*choirv1.Accepted{{Node: r.Cohort[0], Update: digestOf("u"), Weight: 11}}}
	if err := w.try(&choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: c}}); !errors.Is(err, fedavg.ErrTooMuch) {
		t.Errorf("batch above the bound: %v", err)
	}
	c.Weight, c.Accepted[0].Weight = 10, 10
	w.do(&choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: c}})
}
