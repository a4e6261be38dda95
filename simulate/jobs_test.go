package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/model/data"
	"choir.example/node"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// workbook notes what nodes do, and that none does two things at once.
type workbook struct {
	mu       sync.Mutex // guards the fields below
	busy     map[string]string
	counted  map[string]int // receipts, by node, job and round
	overlaps []string
	seen     []string // jobs of the receipts, in the order in which they came
}

func (b *workbook) observe(name string) node.Observer {
	return node.Observer{
		Sending: func(job string, round uint64, attempt uint32, _ []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			what := fmt.Sprintf("%s round %d attempt %d", job, round, attempt)
			if other := b.busy[name]; other != "" && other != what { // the same goes out again
				b.overlaps = append(b.overlaps, name+": "+what+" during "+other)
			}
			b.busy[name] = what
		},
		Receipt: func(r audit.Receipt, _ []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.busy, name)
			b.counted[fmt.Sprintf("%s|%s|%d", name, r.Job, r.Round)]++
			b.seen = append(b.seen, r.Job)
		},
		Refused: func(audit.Refusal) {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.busy, name)
		},
	}
}

// Three jobs share a fleet of real nodes: two run to their end side by side, one is stopped in the middle, at a clean
// point, and a fourth waits for nodes that there are not. Each node does one thing at a time, and counts once a round.
func TestJobsShareAFleet(t *testing.T) {
	noLeaks(t)
	schema, parts := testParts(t, 3, 0)
	book := &workbook{busy: map[string]string{}, counted: map[string]int{}}
	f, err := Start(t.Context(), FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 1, Schema: schema, Parts: parts, Network: NewNetwork(), Log: testLog(t),
		Node: book.observe,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx := testContext(t)
	submit := func(name string, nodes int, rounds uint64) {
		t.Helper()
		spec := PurchaseJob(schema, nodes, rounds, 0)
		spec.Name, spec.Model = name, name
		spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm, spec.GateInt8Ppm = 64, 1, 1_000_000, 1_000_000
		if _, err := f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	submit("crowd", len(parts)+1, 1)
	submit("long", len(parts), 100_000)
	submit("ada", len(parts), 4)
	submit("bob", len(parts), 4)
	for _, name := range []string{"ada", "bob"} {
		if s, err := f.WaitJob(ctx, name, nil); err != nil || s.State != "finished" || s.Round != 4 {
			t.Fatalf("%s: %v, %v", name, s, err)
		}
	}
	for name, want := range map[string]string{"crowd": "queued", "long": "running"} {
		if s, err := f.Operator().GetJob(ctx, &choirv1.GetJobRequest{Name: name}); err != nil || s.State != want {
			t.Errorf("%s is %v, %v, want it %s", name, s.GetState(), err, want)
		}
	}
	for _, name := range []string{"crowd", "long"} {
		if _, err := f.Operator().ControlJob(ctx, &choirv1.ControlJobRequest{Name: name, Action: "stop"}); err != nil {
			t.Fatal(err)
		}
	}
	stopped, err := f.WaitJob(ctx, "long", nil)
	if err != nil || stopped.State != "stopped" {
		t.Fatalf("long: %v, %v", stopped, err)
	}
	if last := stopped.Rounds[len(stopped.Rounds)-1]; last.State != "closed" || last.Accepted != uint32(len(parts)) {
		t.Errorf("stopped at a round that is %s with %d updates", last.State, last.Accepted)
	}
	if s, err := f.WaitJob(ctx, "crowd", nil); err != nil || s.State != "stopped" || len(s.Rounds) > 0 {
		t.Errorf("crowd: %v, %v", s, err)
	}

	book.mu.Lock()
	defer book.mu.Unlock()
	if len(book.overlaps) > 0 {
		t.Errorf("two things at once: %v", book.overlaps)
	}
	for _, name := range f.Nodes() {
		for _, job := range []string{"ada", "bob"} {
			for round := range 6 { // statistics, four of training, evaluation
				if n := book.counted[fmt.Sprintf("%s|%s|%d", name, job, round)]; n != 1 {
					t.Errorf("%s has %d receipts for round %d of %s", name, n, round, job)
				}
			}
		}
	}
	first, last := map[string]int{}, map[string]int{}
	for i, job := range book.seen {
		if _, ok := first[job]; !ok {
			first[job] = i
		}
		last[job] = i
	}
	if first["bob"] > last["ada"] || first["ada"] > last["bob"] || first["long"] > last["ada"] {
		t.Errorf("one after the other: first receipts %v, last ones %v", first, last)
	}
}

// bands are rows of a schema whose label is one of three categories, by thresholds of one column.
func bands(t *testing.T, nodes, each int) (*data.Schema, []data.Parts) {
	t.Helper()
	schema, err := data.ParseSchema([]byte(`{"name":"bands","unit":"row","label":"band","columns":[
		{"name":"x","kind":"numeric","max":1},{"name":"band","kind":"category","categories":["low","middle","high"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var parts []data.Parts
	for range nodes {
		var rows []data.Row
		for range each {
			x := rng.Float64()
			rows = append(rows, data.Row{x, math.Floor(3 * x)})
		}
		parts = append(parts, data.Split(schema, rows, 1))
	}
	return schema, parts
}

// A job whose label has several classes, by a strategy with state and memory, on encrypted stores and three coordinators:
// it learns, it is measured without histograms, it makes no release, and its model is a network alone.
func TestJobOfSeveralClasses(t *testing.T) {
	noLeaks(t)
	schema, parts := bands(t, 3, 100)
	f, err := Start(t.Context(), FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: NewMemoryNetwork(), Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	algorithm, err := jobspec.Encode(&fedavg.Settings{
		Architecture: model.Architecture{Name: "mlp", Hidden: []int{8}}, Strategy: fedavg.StrategySettings{Name: "scaffold"},
		Local: fedavg.LocalSettings{Epochs: 5, Batch: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := runJob(t, f, &choirv1.JobSpec{
		Name: "bands", Model: "bands", Schema: schema.Encode(), Algorithm: algorithm, Publish: jobspec.PublishNone, Rounds: 6, WeightCap: 1000,
		MinimumCohort: 3, DurationMs: 30_000, MaxAttempts: 3, WaitMs: 20_000,
	})
	if s.Release != 0 || s.Round != 6 || len(s.Rounds) != 7 {
		t.Fatalf("release %d, round %d, %d rounds", s.Release, s.Round, len(s.Rounds))
	}
	accuracy := func(r *choirv1.RoundStatus) float64 {
		return float64(r.Evaluation.Correct) / float64(max(r.Evaluation.Examples, 1))
	}
	first, last := s.Rounds[1], s.Rounds[6]
	if first.Evaluation.Examples == 0 || accuracy(last) < .8 || accuracy(last) <= accuracy(first) || last.Evaluation.AucMillionths != 0 {
		t.Errorf("accuracy %v at first and %v at last, %+v", accuracy(first), accuracy(last), last.Evaluation)
	}
	body, err := f.Blob(testContext(t), last.Model)
	if err != nil {
		t.Fatal(err)
	}
	if network, params, _, err := model.DecodeNetwork(body); err != nil || network.Outputs() != 3 || len(params) == 0 {
		t.Errorf("%v", err)
	}
	bundle, err := f.Bundle(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range audit.Verify(bundle, f.Fingerprint(), time.Now()).Checks {
		if !c.OK {
			t.Errorf("audit: %s: %s", c.Name, c.Detail)
		}
	}
}
