package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/model"
	"choir.example/simulate/attack"
)

// stumbling is federated averaging that diverges where it is told to. Its server counts its steps, and its nodes know how many there
// were.
type stumbling struct {
	fedavg.FedAvg
	node   func(l *fedavg.Local) bool // on nodes; nil: on none
	server func(step int) float32     // times which the server's model is; nil: 1
}

func (stumbling) Needs() fedavg.Needs { return fedavg.Needs{State: 1, Shared: 1} }

func (s stumbling) Local(l *fedavg.Local) error {
	if s.node != nil && s.node(l) {
		l.Config.Rate = 1e30
	}
	return s.FedAvg.Local(l)
}

func (s stumbling) Server(r *fedavg.Round) error {
	r.State[0][0]++
	r.Move(1, r.Delta())
	if s.server != nil {
		for i := range r.Next {
			r.Next[i] *= s.server(int(r.State[0][0]))
		}
	}
	return nil
}

// at is a share of the nodes that diverge once there were so many steps, by chance that is the same in both fidelities.
func at(steps int, share uint64) func(l *fedavg.Local) bool {
	return func(l *fedavg.Local) bool { return int(l.Shared[0][0]) == steps && l.Config.Seed%100 < share }
}

// times is a server whose model explodes in one of its steps.
func times(step int, by float32) func(int) float32 {
	return func(now int) float32 {
		if now == step {
			return by
		}
		return 1
	}
}

// diverging are experiments that diverge, after how many rounds, and with which words; none for one that ends before it would.
var diverging = map[string]struct {
	change func(x *Experiment)
	rounds int
	words  string
}{
	"all nodes, at once": {func(x *Experiment) { x.Local.LearningRate = 1e20 }, 0, "round 1: node-02: train: "},
	"some nodes":         {func(x *Experiment) { x.Own.Strategy = stumbling{node: at(2, 30)} }, 2, "round 3: node-0"},
	"some nodes of rounds that not all are in": {func(x *Experiment) {
		x.Own.Strategy, x.Fleet.Dropout, x.Evaluation.Every = stumbling{node: at(3, 50)}, .3, 2
	}, 3, "round 4: node-0"},
	"some nodes among liars": {func(x *Experiment) {
		x.Own.Strategy, x.Cohort = stumbling{node: at(1, 30)}, CohortSettings{}
		x.Robust, x.Fleet.Liars = fedavg.RobustSettings{Rule: "median", F: 2}, attack.Settings{Attack: "inner-product", Nodes: 2, Scale: 5}
	}, 1, "round 2: node-0"},
	"the loss":                              {func(x *Experiment) { x.Own.Strategy = stumbling{server: times(3, 1e6)} }, 2, "round 3: the loss on the test set is "},
	"the loss, and nodes in the next round": {func(x *Experiment) { x.Own.Strategy = stumbling{server: times(3, 1e30)} }, 2, "round 3: the loss on the test set is "},
	"nodes, by a server that nobody measured": {func(x *Experiment) {
		x.Own.Strategy, x.Evaluation.Every = stumbling{server: times(3, 1e30)}, 2
	}, 3, "round 4: node-0"},
	"the server": {func(x *Experiment) {
		x.Own.Strategy, x.Evaluation.Every = stumbling{server: times(3, float32(math.Inf(1)))}, 2
	}, 2, "round 3: parameter 0 of layers.0.weight would be "},
	"the server, by its rate": {func(x *Experiment) {
		x.Strategy.ServerRate, x.Evaluation.Every = 1e42, 3
	}, 0, "round 1: parameter 0 of layers.0.weight would be "},
	"the server's own update": {func(x *Experiment) {
		x.Robust = fedavg.RobustSettings{Rule: "fltrust", Root: 7} // as no node has
		x.Own.Strategy = stumbling{node: func(l *fedavg.Local) bool { return l.Examples == 7 && l.Shared[0][0] == 2 }}
	}, 2, "round 3: the server's own update: train: "},
	"nobody, since the target is reached before": {func(x *Experiment) {
		x.Target.Accuracy, x.Own.Strategy = .01, stumbling{node: at(1, 100)}
	}, 1, ""},
}

// Both fidelities diverge in the same round, with the same words, and keep the rounds before.
func TestFidelitiesDiverge(t *testing.T) {
	t.Parallel()
	for name, c := range diverging {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := small()
			c.change(&x)
			want := ends(t, x, RunConfig{Seed: 5}, c.words)
			if want.Rounds != c.rounds {
				t.Errorf("%d rounds, want %d", want.Rounds, c.rounds)
			}
			alike(t, ends(t, x, RunConfig{Seed: 5, Fidelity: System}, c.words), want)
		})
	}
}

// ends runs an experiment that diverges with the words, or does not if there are none. What there is of it is consistent.
func ends(t *testing.T, x Experiment, cfg RunConfig, words string) *Result {
	t.Helper()
	var points []Point
	cfg.Log, cfg.Progress = testLog(t), func(p Point) { points = append(points, p) }
	r, err := Run(testContext(t), x, cfg)
	if r == nil || (err != nil) != (words != "") || !strings.HasPrefix(r.Diverged, words) || words == "" && r.Diverged != "" {
		t.Fatalf("%+v: %v, want %q", r, err, words)
	}
	if words != "" && (!errors.Is(err, model.ErrDiverged) || !strings.HasSuffix(err.Error(), ": "+r.Diverged)) {
		t.Errorf("%v, want that it diverged: %s", err, r.Diverged)
	}
	if told := r.Err(); errors.Is(told, model.ErrDiverged) != (err != nil) || errors.Is(told, fedavg.ErrServerDiverged) != errors.Is(err, fedavg.ErrServerDiverged) {
		t.Errorf("the result says %v, and the run %v", told, err)
	}
	if n := len(points); cfg.Start == nil && (n != r.Rounds || n > 0 && points[n-1].Digest != r.ModelDigest) {
		t.Errorf("%d rounds to %s, and %d points, %+v", r.Rounds, r.ModelDigest, len(points), points)
	}
	if n := len(r.Series); n > 0 && r.Series[n-1].Round == r.Rounds && r.Series[n-1].Spent != r.Spent {
		t.Errorf("%+v were spent in all, and %+v until the last round", r.Spent, r.Series[n-1].Spent)
	}
	return r
}

// alike fails the test unless two fidelities came to the same. Updates are larger where they are sealed.
func alike(t *testing.T, got, want *Result) {
	t.Helper()
	plain := func(r *Result) Result {
		p := *r
		p.Fidelity, p.Seconds, p.SecondsPerRound, p.BytesUp, p.Series = "", 0, 0, 0, append([]Measurement{}, p.Series...)
		for i := range p.Series {
			p.Series[i].BytesUp = 0
		}
		return p
	}
	if !reflect.DeepEqual(plain(got), plain(want)) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Coordinators who are three diverge as one does.
func TestThreeCoordinatorsDiverge(t *testing.T) {
	t.Parallel()
	x := small()
	x.Rounds, x.Cohort, x.Partition.Nodes, x.Own.Strategy = 3, CohortSettings{}, 4, stumbling{node: at(1, 100)}
	want := ends(t, x, RunConfig{Seed: 5}, "round 2: node-01: ")
	alike(t, ends(t, x, RunConfig{Seed: 5, Fidelity: System, Coordinators: 3}, "round 2: node-01: "), want)
}

// A run that diverged, and was killed before anybody took that down, goes on to the same end: from coordinators and nodes, with a
// snapshot and without.
func TestDivergedSystemGoesOn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"some nodes", "some nodes among liars", "the server"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := small()
			diverging[name].change(&x)
			words := diverging[name].words
			cfg := RunConfig{Seed: 5, Fidelity: System, Dir: filepath.Join(t.TempDir(), "run")}
			var last *Snapshot
			cfg.Keep = func(s *Snapshot) error { last = s; return nil }
			want := ends(t, x, cfg, words)
			cfg.Keep = nil
			alike(t, ends(t, x, cfg, words), want)
			cfg.Start = last
			alike(t, ends(t, x, cfg, words), want)
		})
	}
}

// What fails a round for another reason than numbers ends the run in both fidelities, too.
func TestFidelitiesFail(t *testing.T) {
	t.Parallel()
	x := small()
	x.Own.Strategy = broken{}
	for _, f := range []Fidelity{Math, System} {
		r, err := Run(testContext(t), x, RunConfig{Seed: 5, Fidelity: f, Log: testLog(t)})
		if err == nil || !strings.HasSuffix(err.Error(), ": it is broken") || !strings.Contains(err.Error(), "experiment small: round 1: node-0") || r == nil || r.Diverged != "" {
			t.Errorf("%s: %+v: %v", f, r, err)
		}
	}
}

// broken is a strategy that fails on nodes.
type broken struct{ fedavg.FedAvg }

func (broken) Local(*fedavg.Local) error { return errors.New("it is broken") }

// What is told of a run that diverged depends on nothing but the experiment, however many nodes train at a time.
func TestWorkersDivergeAlike(t *testing.T) {
	stumble := small()
	stumble.Own.Strategy = stumbling{node: at(2, 50)}
	buffered := open("fedbuff", FleetSettings{Dropout: .1})
	buffered.Own.Strategy = tripping{fedavg.FedBuff{Rate: 1, K: 3}}
	for name, x := range map[string]Experiment{"rounds": stumble, "asynchronous": buffered} {
		var want *Result
		for _, workers := range []int{1, 2, 7} {
			r := ends(t, x, RunConfig{Seed: 5, Workers: workers}, "round ")
			if want == nil {
				want = r
			}
			alike(t, r, want)
		}
		if want.Rounds < 1 {
			t.Errorf("%s: it diverged at once", name)
		}
	}
}

// tripping is FedBuff of which a few nodes diverge, by chance.
type tripping struct{ fedavg.FedBuff }

func (s tripping) Local(l *fedavg.Local) error {
	if l.Config.Seed%100 < 5 {
		l.Config.Rate = 1e30
	}
	return s.FedBuff.Local(l)
}

// A node that diverges ahead of the clock, and would arrive after the run's end, changes nothing.
func TestDivergedNodeThatNeverArrives(t *testing.T) {
	x := open("fedbuff", FleetSettings{})
	x.Own.Strategy = tripping{fedavg.FedBuff{Rate: 1, K: 3}}
	r := ends(t, x, RunConfig{Seed: 5, Workers: 1}, "round ")
	x.Rounds = r.Rounds
	ends(t, x, RunConfig{Seed: 5, Workers: 7}, "")
}

// A run whose numbers explode has no accuracy in the end.
func TestDivergedRunHasNoEnd(t *testing.T) {
	for rounds, x := range map[int]Experiment{0: small(), 2: small()} {
		x.Own.Strategy = stumbling{server: times(rounds+1, 1e10)}
		r := ends(t, x, RunConfig{}, "round ")
		if text, err := json.Marshal(r); err != nil || r.Rounds != rounds || len(r.Series) != rounds || !strings.Contains(string(text), `"final":{"accuracy":null,"loss":null}`) {
			t.Errorf("%s, %v", text, err)
		}
	}
}

// The lab tells of the first node by name that failed, and not before it is known that none before it does.
func TestVerdict(t *testing.T) {
	x := small()
	trial, err := newTrial(x, RunConfig{Seed: 5, Fidelity: System})
	if err != nil {
		t.Fatal(err)
	}
	l := furnished(t, trial, "")
	var told []string
	l.failed = func(_ int, err error) { told = append(told, err.Error()) }
	l.mu.Lock()
	want := l.round(1).want
	l.mu.Unlock()
	computed := func(i int, err error) (stays bool) {
		lie := l.Computed(want[i], 1, inventedUpdate(trial, i), err)
		return lie != nil
	}
	if !computed(3, errors.New("late")) || !computed(1, errors.New("early")) || computed(4, nil) || told != nil {
		t.Errorf("told %q before it is known that the first is fine", told)
	}
	l.sending(want[0], 1, nil) // what it computed before a break
	if len(told) != 1 || told[0] != want[1]+": early" {
		t.Errorf("told %q, want of %s alone", told, want[1])
	}
	if computed(2, context.Canceled) {
		t.Error("a node that was stopped stays")
	}
}
