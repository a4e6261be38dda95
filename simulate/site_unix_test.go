//go:build unix

package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"choir.example/fedavg"
	"choir.example/simulate/attack"
)

// moment is when a run of fidelity system is cut: when so many nodes have been enrolled, or when so many have begun to train
// since the process began and, of the round that they are in, an update counts already: not the first two, one of whom may wait
// as a liar. The run has taken in the round before by then.
type moment struct{ Enrolled, Trained, Round int }

// cut cuts a run.
type cut struct {
	moment
	strike func()

	mu      sync.Mutex // guards what follows, and moment
	begun   int
	counted chan struct{} // closed when an update of Round counts

	taken chan struct{}   // closed when the round before Round was taken in, and its snapshot kept
	over  <-chan struct{} // closed when it is too late
}

// cutting is a strategy, and a log's handler, that see when it is time.
type cutting struct {
	fedavg.Strategy
	slog.Handler
	*cut
}

func (c cutting) Local(l *fedavg.Local) error {
	c.mu.Lock()
	c.begun++
	now := c.begun == c.Trained
	c.mu.Unlock()
	if now {
		for _, awaited := range []chan struct{}{c.counted, c.taken} {
			select {
			case <-awaited:
			case <-c.over:
				return context.Canceled
			}
		}
		c.strike()
		return context.Canceled
	}
	return c.Strategy.Local(l)
}

func (c cutting) Enabled(context.Context, slog.Level) bool { return true }

func (c cutting) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c cutting) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Message {
	case "node is enrolled":
		if c.Enrolled--; c.Enrolled == 0 {
			c.strike()
		}
	case "update counted":
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "round" && int(a.Value.Uint64()) == c.Round {
				c.Round = 0
				close(c.counted)
			}
			return a.Key != "round"
		})
	}
	return nil
}

// run runs an experiment until it is cut, or to its end, from the snapshot beside dir, if there is one; a snapshot of each
// round is left there unless it is bare.
func (c *cut) run(ctx context.Context, x Experiment, cfg RunConfig, bare bool) (*Result, error) {
	c.counted, c.taken, c.over = make(chan struct{}), make(chan struct{}), ctx.Done()
	before := c.Round - 1
	take := func(round int) {
		if round == before {
			close(c.taken)
		}
	}
	algorithm, err := x.settings().Algorithm(x.Own.Data.Train.Input, x.Own.Data.Train.Classes)
	if err != nil {
		return nil, err
	}
	with := cutting{algorithm.Strategy, slog.DiscardHandler, c}
	x.Own.Strategy, cfg.Log = with, slog.New(with)
	path := cfg.Dir + ".snapshot"
	switch b, err := os.ReadFile(path); {
	case err == nil:
		if cfg.Start, err = ReadSnapshot(bytes.NewReader(b)); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if !bare {
		cfg.Keep = func(s *Snapshot) error {
			var b bytes.Buffer
			if _, err := s.WriteTo(&b); err != nil {
				return err
			}
			defer take(s.Round)
			return errors.Join(os.WriteFile(path+".new", b.Bytes(), 0o600), os.Rename(path+".new", path))
		}
	} else {
		cfg.Progress = func(p Point) { take(p.Round) }
	}
	return Run(ctx, x, cfg)
}

// brokenRuns are runs that TestSystemGoesOn breaks.
var brokenRuns = map[string]struct {
	change       func(x *Experiment)
	coordinators int
	bare         bool // there are no snapshots
	founding     bool // it is killed before all nodes are enrolled, too
}{
	"fedavg":              {change: func(x *Experiment) { x.Compression.Range = .05 }, founding: true},
	"memory of the nodes": {change: func(x *Experiment) { x.Strategy.Name = "scaffold" }, bare: true},
	"state of the server": {change: func(x *Experiment) { x.Strategy = fedavg.StrategySettings{Name: "fedadam", ServerRate: .03} }},
	"a rule, and a liar who waits": {change: func(x *Experiment) {
		x.Robust, x.Fleet.Liars = fedavg.RobustSettings{Rule: "median", F: 1}, attack.Settings{Attack: "inner-product", Nodes: 1, Scale: 5}
	}},
	"three coordinators": {change: func(*Experiment) {}, coordinators: 3},
}

// brokenRun is one of them, with all nodes in each round.
func brokenRun(name string) (Experiment, RunConfig) {
	x := small()
	x.Rounds, x.Cohort, x.Partition.Nodes = 3, CohortSettings{}, 6
	brokenRuns[name].change(&x)
	return x, RunConfig{Seed: 5, Fidelity: System, Coordinators: brokenRuns[name].coordinators, Workers: 1}
}

// A run of fidelity system that is killed and stopped in the middle of rounds, of whose updates some count already, goes on to
// the models that one without a break has, and has seen the same.
func TestSystemGoesOn(t *testing.T) {
	t.Parallel()
	for name, c := range brokenRuns {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, cfg := brokenRun(name)
			want, math := digests(t, x, RunConfig{Seed: cfg.Seed})
			cfg.Dir = filepath.Join(t.TempDir(), "run")
			if c.founding {
				kill(t, name, cfg.Dir, moment{Enrolled: 3})
				if Founded(cfg.Dir) {
					t.Error("it was founded before all nodes were enrolled")
				}
			}
			kill(t, name, cfg.Dir, moment{Trained: 9, Round: 2})
			if c.coordinators == 0 { // elections take long
				ctx, stop := context.WithCancel(testContext(t))
				stopped := &cut{moment: moment{Trained: 8, Round: 3}, strike: stop}
				if r, err := stopped.run(ctx, x, cfg, c.bare); !errors.Is(err, context.Canceled) || r == nil || r.Rounds != 2 {
					t.Fatalf("%+v: %v", r, err)
				}
			}
			got, err := new(cut).run(testContext(t), x, cfg, c.bare)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range got.Series {
				if i >= len(want) || m.ModelDigest != want[i] {
					t.Errorf("round %d: model %s, want %v", i+1, m.ModelDigest, want)
				}
			}
			if len(got.Series) != len(want) || !reflect.DeepEqual(got.Final, math.Final) || got.Saturated != math.Saturated {
				t.Errorf("%+v, want %+v", got, math)
			}
			if c.founding {
				if got.Saturated == 0 {
					t.Error("nothing saturated, which is to be counted over the breaks")
				}
				sameResult(t, x, cfg, got)
			}
		})
	}
}

// sameResult holds a result against that of a run without a break, all but the time that it took.
func sameResult(t *testing.T, x Experiment, cfg RunConfig, got *Result) {
	t.Helper()
	cfg.Dir, cfg.Start = "", nil
	want, err := Run(testContext(t), x, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want.Seconds, want.SecondsPerRound = got.Seconds, got.SecondsPerRound
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

const killedRun = "CHOIR_TEST_KILLED_RUN"

// killed says, in that variable, which run is killed, and when.
type killed struct {
	At        moment
	Name, Dir string
}

// kill has a process of its own run an experiment until it kills itself.
func kill(t *testing.T, name, dir string, at moment) {
	t.Helper()
	when, err := json.Marshal(killed{at, name, dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledRun$")
	cmd.Env = append(os.Environ(), killedRun+"="+string(when))
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); ctx.Err() != nil || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%v, want a process that killed itself in time: %s", err, out)
	}
}

// TestKilledRun is what kill starts.
func TestKilledRun(t *testing.T) {
	when := os.Getenv(killedRun)
	if when == "" {
		t.Skip("it kills its process, for TestSystemGoesOn")
	}
	var k killed
	if err := json.Unmarshal([]byte(when), &k); err != nil {
		t.Fatal(err)
	}
	c := &cut{moment: k.At, strike: func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it takes a moment
	}}
	x, cfg := brokenRun(k.Name)
	cfg.Dir = k.Dir
	r, err := c.run(t.Context(), x, cfg, brokenRuns[k.Name].bare)
	t.Fatalf("it was not killed: %+v, %v", r, err)
}

// stoppedRun is a run with a liar that was stopped in its second round, and its snapshot of the first.
func stoppedRun(t *testing.T) (x Experiment, cfg RunConfig, snapshot *Snapshot) {
	t.Helper()
	x, cfg = brokenRun("a rule, and a liar who waits")
	cfg.Dir = filepath.Join(t.TempDir(), "run")
	ctx, stop := context.WithCancel(testContext(t))
	c := &cut{moment: moment{Trained: 9, Round: 2}, strike: stop}
	if _, err := c.run(ctx, x, cfg, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cfg.Dir + ".snapshot")
	if err == nil {
		snapshot, err = ReadSnapshot(bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
	return x, cfg, snapshot
}

// refuses fails the test unless the run is refused with the words; cure tells whether it would begin anew without its directory.
func refuses(t *testing.T, words string, cure bool, x Experiment, cfg RunConfig) {
	t.Helper()
	_, err := Run(testContext(t), x, cfg)
	if err == nil || !strings.Contains(err.Error(), words) || errors.Is(err, ErrFederation) != cure {
		t.Errorf("%v, want %q", err, words)
	}
}

// Coordinators and nodes of another run are refused, and a directory of something else is not touched.
func TestSystemRefusesAnotherRun(t *testing.T) {
	t.Parallel()
	x, cfg, snapshot := stoppedRun(t)
	other := cfg
	other.Seed++
	refuses(t, "of another experiment, or of another seed", true, x, other)
	other = cfg
	other.Coordinators = 3
	refuses(t, "has 1 coordinators, want 3", true, x, other)
	faster := x
	faster.Local.LearningRate = .1
	refuses(t, "of another experiment, or of another seed", true, faster, cfg)

	cfg.Start = snapshot
	other = cfg
	other.Fidelity = Math
	refuses(t, "the snapshot is of fidelity system, want math", false, x, other)
	other = cfg
	other.Dir = ""
	refuses(t, "which is empty", false, x, other)
	other.Dir = t.TempDir()
	refuses(t, "has no coordinators and nodes to go on with", false, x, other)
	other.Start = nil
	note := filepath.Join(other.Dir, "note")
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, "it has note, which is not of coordinators and nodes", false, x, other)
	if _, err := os.Stat(note); err != nil {
		t.Error(err)
	}
}

// A run goes on weeks after it was stopped, when the certificates of its nodes have ended, for as long as those of its
// coordinators hold.
func TestSystemGoesOnAfterWeeks(t *testing.T) {
	t.Parallel()
	x, cfg, snapshot := stoppedRun(t)
	cfg.Start = snapshot
	later := func(d time.Duration) RunConfig {
		c := cfg
		c.Now = func() time.Time { return time.Now().Add(d) }
		return c
	}
	refuses(t, "certificate of its operator", true, x, later(certificateLife))
	got, err := Run(testContext(t), x, later(certificateLife*2/3))
	if err != nil {
		t.Fatal(err)
	}
	sameResult(t, x, cfg, got)
}

// What a power cut or a hand has taken from a run that was stopped is told, and nobody waits for it.
func TestSystemRefusesWhatIsTorn(t *testing.T) {
	t.Parallel()
	x, cfg, snapshot := stoppedRun(t)
	cfg.Start = snapshot
	computed, err := filepath.Glob(filepath.Join(cfg.Dir, labDir, "computed", "2.*"))
	if err != nil || len(computed) < 2 {
		t.Fatalf("of round 2 there is %v: %v", computed, err)
	}
	site := filepath.Join(cfg.Dir, siteDir)
	charter, log := filepath.Join(site, charterFile), filepath.Join(site, CoordinatorName(0), "raft.db")
	for _, c := range []struct {
		words string
		files []string
	}{
		{"not known to the liars any more", computed},
		{"as after a power cut", []string{filepath.Join(cfg.Dir, labDir, "sent.jsonl")}},
		{"is torn or altered", []string{charter}},
		{"it is damaged", []string{filepath.Join(site, NodeName(0), "identity")}},
		{"raft.db: the file has", []string{log}},
	} {
		mend := spoil(t, c.files...)
		refuses(t, c.words, true, x, cfg)
		mend()
	}
	if err := os.Chmod(charter, 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, "may be read by others", false, x, cfg)
	if err := errors.Join(os.Chmod(charter, 0o600), os.Remove(log)); err != nil {
		t.Fatal(err)
	}
	refuses(t, "raft.db: no such file", true, x, cfg)
}

// spoil cuts files off in their middle until mend is called.
func spoil(t *testing.T, paths ...string) (mend func()) {
	t.Helper()
	var all [][]byte
	for _, path := range paths {
		whole, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, whole[:len(whole)/2], 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, whole)
	}
	return func() {
		for i, path := range paths {
			if err := os.WriteFile(path, all[i], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// furnished is a lab with what lies in a directory.
func furnished(t *testing.T, tr *trial, dir string) *lab {
	t.Helper()
	l, err := newLab(tr, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.sent.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// inventedUpdate is one that a node might have computed.
func inventedUpdate(tr *trial, place int) *fedavg.Update {
	u := &fedavg.Update{Vectors: [][]int32{make([]int32, tr.algorithm.Network.Size())}, Weight: 1}
	for i := range u.Vectors[0] {
		u.Vectors[0][i] = int32(i%7 - place - 9)
	}
	return u
}

// Liars that compute their updates again, after a break before these were sent, send the same lies: what the others have
// computed is known, though they are not asked again.
func TestLiarsLieTheSameAfterABreak(t *testing.T) {
	x, cfg := brokenRun("a rule, and a liar who waits")
	x.Fleet.Liars = attack.Settings{Attack: "sign-flip", Nodes: 2, Scale: 5}
	trial, err := newTrial(x, cfg)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lies := func(l *lab, liars bool) (told []*fedavg.Update) {
		var waiting []func(context.Context) (*fedavg.Update, error)
		for place := range trial.names {
			if trial.liars[place] == liars {
				if lie := l.Computed(NodeName(place), 2, inventedUpdate(trial, place), nil); lie != nil {
					waiting = append(waiting, lie)
				}
			}
		}
		for _, lie := range waiting {
			u, err := lie(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			told = append(told, u)
		}
		return told
	}
	first := furnished(t, trial, dir)
	if told := lies(first, false); told != nil {
		t.Fatalf("honest nodes wait, for %v", told)
	}
	told := lies(first, true)
	if len(told) != 2 || reflect.DeepEqual(told[0], inventedUpdate(trial, slices.Index(trial.liars, true))) {
		t.Fatalf("the liars tell %v", told)
	}
	if again := lies(furnished(t, trial, dir), true); !reflect.DeepEqual(again, told) {
		t.Errorf("%v, want %v", again, told)
	}
	if missing := furnished(t, trial, dir).lacks(3, trial.names[:1]); len(missing) != 1 { // the round begins
		t.Errorf("%v is missing in round 3", missing)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "computed", "*")); err != nil || len(left) != 0 {
		t.Errorf("in round 3 %v is left: %v", left, err)
	}
}

// Of a round that is over no update is missing: its files are gone because nobody needs them any more.
func TestNothingIsMissingOfARoundThatIsOver(t *testing.T) {
	x, cfg := brokenRun("a rule, and a liar who waits")
	trial, err := newTrial(x, cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := furnished(t, trial, t.TempDir())
	if missing := l.lacks(1, trial.names); len(missing) != len(trial.names) {
		t.Errorf("%v are missing in round 1, want all of %v", missing, trial.names)
	}
	for round := range uint64(3) {
		l.available(jobName, 1+round, trial.names[0])
	}
	if missing := l.lacks(1, trial.names); len(missing) != 0 {
		t.Errorf("%v are missing in round 1 when round 3 is open", missing)
	}
}
