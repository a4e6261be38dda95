package coordinator

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// algorithmJob is the test's job with an algorithm in the place of its older fields.
func algorithmJob(t testing.TB, rounds uint64, s fedavg.Settings) *choirv1.JobSpec {
	t.Helper()
	s.Architecture, s.Compression.Range = model.Architecture{Name: "mlp", Hidden: []int{2}}, 8
	spec := testJob(t, rounds)
	spec.Hidden, spec.LocalEpochs, spec.Batch, spec.LearningRate, spec.Range = nil, 0, 0, 0, 0
	var err error
	if spec.Algorithm, err = jobspec.Encode(&s); err != nil {
		t.Fatal(err)
	}
	return spec
}

// params are the parameters of a model on a coordinator.
func (f *testFederation) params(name string, id state.Digest) []float32 {
	f.t.Helper()
	m, err := f.member(name).loadModel(f.ctx(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return m.Params
}

// A round with enough updates is cut when everybody else has declined, to whichever coordinator, long before its time is
// over; one with too few waits.
func TestRoundEndsWithoutThoseWhoDecline(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b", "c")
	spec := testJob(t, 2)
	spec.MinimumCohort, spec.DurationMs = 2, 3600_000
	f.submit(spec)
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	leader := f.leader()
	other := f.voters[0].Name
	if other == leader {
		other = f.voters[1].Name
	}
	nodes[0].answer(leader, tasks[0], 1)
	ctx, cancel := context.WithTimeout(f.ctx(), 5*time.Second)
	defer cancel()
	if _, err := nodes[2].at(other).Poll(ctx, &choirv1.PollRequest{
		Roster: 1, Done: nodes[2].done, WaitMs: 1, Declined: []*choirv1.Decline{{Key: tasks[2].Key, Reason: "it sleeps"}},
	}); err != nil {
		t.Fatal(err)
	}
	if r := f.round(leader, 1, state.PhaseOpen); r.Count != 1 {
		t.Fatalf("%d updates", r.Count)
	}
	nodes[1].answer(leader, tasks[1], 1)
	if r := f.round(leader, 1, state.PhaseClosed); r.Count != 2 || r.Goal != 3 {
		t.Errorf("closed with %d updates of %d", r.Count, r.Goal)
	}
}

// largest is a rule that takes the largest of each coordinate.
type largest struct{}

func (largest) Check(int) error         { return nil }
func (largest) Needs() fedavg.RuleNeeds { return fedavg.RuleNeeds{} }

func (largest) Combine(c *fedavg.Combination) error {
	for i := range c.Out {
		c.Out[i] = math.Inf(-1)
		for _, v := range c.Vectors {
			c.Out[i] = max(c.Out[i], float64(v[i]))
		}
	}
	return nil
}

// Updates that are combined one by one are: where nodes seal to all coordinators, and where they seal to one that does not
// lead, whose batch the leader must be able to open.
func TestUpdatesAreCombinedOneByOne(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	for _, v := range f.voters {
		f.member(v.Name).Coordinator.deps.Algorithm = func(spec *choirv1.JobSpec) (*fedavg.Algorithm, error) {
			a, err := jobspec.Algorithm(spec)
			if err == nil {
				a.Rule = largest{}
			}
			return a, err
		}
	}
	nodes := f.enrol("a", "b", "c")
	f.submit(algorithmJob(t, 2, fedavg.Settings{}))
	f.statistics(nodes)
	leader := f.leader()
	at := f.voters[0].Name
	if at == leader {
		at = f.voters[1].Name
	}
	for round := uint64(1); round <= 2; round++ {
		tasks := f.tasks(nodes)
		for i, n := range nodes {
			if round == 2 {
				tasks[i].Keys = slices.DeleteFunc(tasks[i].Keys, func(k *choirv1.EpochKey) bool { return k.Coordinator != at })
			}
			n.answer(at, tasks[i], int32(1000*(i+1)))
		}
		r := f.round(leader, round, state.PhaseClosed)
		before, after := f.params(leader, r.Model), f.params(leader, r.Next)
		want := 3000. * 8 / (1 << 23)
		for i := range before {
			if got := float64(after[i]) - float64(before[i]); math.Abs(got-want) > 1e-6 {
				t.Fatalf("round %d: parameter %d moved by %v, want %v, the largest", round, i, got, want)
			}
		}
	}
}

// A round of whose updates no model can be made is abandoned with the reason, and the observer is told why: as an error, and before.
func TestStepThatDivergesIsTold(t *testing.T) {
	t.Parallel()
	type failure struct {
		RoundEvent
		err error
	}
	told := make(chan failure, 1)
	f := startFederation(t, 1, nil, Observer{StepFailed: func(_ string, e RoundEvent, err error) { told <- failure{e, err} }})
	nodes := f.enrol("a", "b")
	f.submit(algorithmJob(t, 2, fedavg.Settings{Strategy: fedavg.StrategySettings{ServerRate: 1e300}}))
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	for i, n := range nodes {
		n.answer("c1", tasks[i], 1000)
	}
	r := f.round("c1", 1, state.PhaseAbandoned)
	got := <-told
	if want := (RoundEvent{Job: "job", Round: 1, Attempt: 1, Kind: "train"}); got.RoundEvent != want || !errors.Is(got.err, fedavg.ErrServerDiverged) {
		t.Errorf("%+v, want %+v and that the server diverged", got, want)
	}
	if want := "parameter 0 of layers.0.weight would be +Inf: the server's step diverged; lower its learning rate"; r.Reason != want {
		t.Errorf("abandoned for %q, want %q", r.Reason, want)
	}
}

// What a strategy keeps is a blob that the close names, goes to the nodes with the next round's model, and survives the
// leader.
func TestStrategyStateSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b")
	f.submit(algorithmJob(t, 3, fedavg.Settings{Strategy: fedavg.StrategySettings{Name: "fedavgm", Momentum: .5, ServerRate: 1}}))
	f.statistics(nodes)
	move, want := 0., 0.
	for round := uint64(1); round <= 3; round++ {
		tasks := f.tasks(nodes)
		if has := len(tasks[0].StrategyState) > 0; has != (round > 1) {
			t.Errorf("round %d: the task has a strategy's state: %v", round, has)
		}
		leader := f.leader()
		if round == 2 {
			f.kill(leader)
			leader = f.leader()
		}
		for i, n := range nodes {
			n.answer(leader, tasks[i], 1000)
		}
		r := f.round(leader, round, state.PhaseClosed)
		before, after := f.params(leader, r.Model), f.params(leader, r.Next)
		move = .5*move + 1000.*8/(1<<23) // Reddi et al. 2021: v = β·v + delta
		want = move
		if got := float64(after[0]) - float64(before[0]); math.Abs(got-want) > 1e-6 {
			t.Errorf("round %d: moved by %v, want %v", round, got, want)
		}
	}
	f.eventually("the last round is told to the new leader", func() bool {
		s := f.member(f.leader()).replica.State()
		return s.Jobs["job"].Trained == 3 && !s.Jobs["job"].Strategy.IsZero()
	})
}

// A job that wants what coordinators do not have is refused at the door.
func TestAlgorithmsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	f.enrol("a")
	for want, s := range map[string]fedavg.Settings{
		"it is asynchronous":           {Strategy: fedavg.StrategySettings{Name: "fedasync"}},
		"it looks at public inputs":    {Strategy: fedavg.StrategySettings{Name: "feddf"}},
		"trusts an update":             {Robust: fedavg.RobustSettings{Rule: "fltrust"}},
		`robust: rule "best", want`:    {Robust: fedavg.RobustSettings{Rule: "best"}},
		"privacy: clip is 1e-09":       {Privacy: fedavg.Privacy{Clip: 1e-9}},
		"local: batch of 16777216":     {Local: fedavg.LocalSettings{Batch: 1 << 24}},
		"strategy: mu is for fedasync": {Strategy: fedavg.StrategySettings{Mu: 1}},
	} {
		_, err := f.operators().SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: algorithmJob(t, 1, s)})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Evaluations of several classes have no histograms, and those of one have.
func TestEvaluationsOfSeveralClasses(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	spec := algorithmJob(t, 1, fedavg.Settings{})
	spec.Schema = []byte(`{"name":"toy","columns":[{"name":"x","kind":"numeric","max":1},{"name":"y","kind":"category","categories":["low","middle","high"]}],"label":"y","unit":"row"}`)
	spec.Publish = jobspec.PublishNone
	f.submit(spec)
	for _, n := range nodes {
		n.rows = n.rows[:2]
	}
	tasks := f.tasks(nodes)
	for i, n := range nodes {
		p := n.payload(tasks[i], 0)
		p.Scalars = []int64{2, 0, 1 << 21, 1 << 20, 2} // two rows by the schema
		n.deliver("c1", tasks[i], p)
	}
	tasks = f.tasks(nodes)
	bad := nodes[0].payload(tasks[0], 1) // with histograms
	envelope, digest := nodes[0].sealed(tasks[0], bad)
	if _, err := nodes[0].upload(f.ctx(), "c1", tasks[0].Key, envelope, digest); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "histograms of scores, of 3 classes") {
		t.Fatalf("%v", err)
	}
	f.incidentOf("a", audit.ReasonShape)
	for i, n := range nodes {
		p := n.payload(tasks[i], 1)
		p.Evaluations[0].Positives, p.Evaluations[0].Negatives = nil, nil
		n.deliver("c1", tasks[i], p)
	}
	r := f.round("c1", 1, state.PhaseClosed)
	if e := r.Evaluation[0]; e.Examples != 4 || e.Correct != 2 || e.AUC != 0 {
		t.Errorf("%+v", e)
	}
	f.wait("c1", "job finished", func(s *state.State) bool { return s.Jobs["job"].State == state.JobFinished })
}
