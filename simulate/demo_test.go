package simulate

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// failovers is how many seeds TestFailover goes through: go test ./simulate -run TestFailover -v -failovers 20
var failovers = flag.Int("failovers", 3, "seeds that TestFailover kills a leader under")

// runDemo runs the demo with few rounds and fails the test on anything that is not as it must be.
func runDemo(t *testing.T, change func(*DemoConfig)) *DemoResult {
	t.Helper()
	dir := t.TempDir()
	cfg := DemoConfig{
		Dir: filepath.Join(dir, "files"), Report: filepath.Join(dir, "report.html"), Coordinators: 3, Nodes: 9, Rounds: 3,
		Kill: true, Log: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	r, err := Demo(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Error(p)
	}
	return r
}

// maxFailover is how long the federation may be without a leader, from the cut to the first batch under a new term.
const maxFailover = 3 * time.Second

// The leader dies while it holds a committed batch and an update that is only spooled; under each seed the round goes
// on, nothing is lost and nothing counted twice.
func TestFailover(t *testing.T) {
	var took []float64
	for seed := range *failovers {
		f := runDemo(t, func(c *DemoConfig) { c.Seed = uint64(seed) }).Failover
		if f.Victim == "" || f.Seconds <= 0 {
			t.Fatalf("seed %d: no leader was killed: %+v", seed, f)
		}
		if want := 9 * 5; f.Receipts < want || f.Counted != f.Receipts || f.Lost != 0 || f.Twice != 0 {
			t.Errorf("seed %d: %+v", seed, f)
		}
		took = append(took, f.Seconds)
		t.Logf("seed %d: %s killed in round %d, %.2f s to the next batch, %d receipts, %d counted, %d lost, %d twice",
			seed, f.Victim, f.Round, f.Seconds, f.Receipts, f.Counted, f.Lost, f.Twice)
	}
	slices.Sort(took)
	worst := took[len(took)-1]
	t.Logf("%d seeds: median %.2f s, maximum %.2f s", len(took), (took[(len(took)-1)/2]+took[len(took)/2])/2, worst)
	if worst > maxFailover.Seconds() {
		t.Errorf("failover took %.2f s, want at most %v", worst, maxFailover)
	}
}

// One seed gives one model, whatever happened to the coordinators and however many there are.
func TestSeedDecidesTheModel(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	results := map[string]*DemoResult{}
	t.Run("runs", func(t *testing.T) { // all of them end before it does
		for name, change := range map[string]func(*DemoConfig){
			"killed": func(c *DemoConfig) { c.Seed = 7 },
			"alone":  func(c *DemoConfig) { c.Seed, c.Kill, c.Coordinators = 7, false, 1 },
			"other":  func(c *DemoConfig) { c.Seed, c.Kill, c.Coordinators = 8, false, 1 },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := runDemo(t, change)
				mu.Lock()
				defer mu.Unlock()
				results[name] = r
			})
		}
	})
	killed, alone, other := results["killed"], results["alone"], results["other"]
	if killed == nil || alone == nil || other == nil {
		t.Fatal("not all runs came to an end")
	}
	if killed.Model != alone.Model {
		t.Errorf("models of one seed: %+v, %+v", killed.Model, alone.Model)
	}
	for i, v := range killed.Variants {
		if w := alone.Variants[i]; v.Bytes != w.Bytes || v.AUC != w.AUC {
			t.Errorf("variant %s: %d bytes AUC %v, then %d bytes AUC %v", v.Name, v.Bytes, v.AUC, w.Bytes, w.AUC)
		}
	}
	if killed.Model.Digest == other.Model.Digest {
		t.Error("two seeds gave one model")
	}
}

// A variant that misses its gate is recorded, not published, and the demo has failed.
func TestMissedGateFailsTheDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := newDemo(DemoConfig{
		Dir: filepath.Join(dir, "files"), Report: filepath.Join(dir, "report.html"), Coordinators: 1, Nodes: 2, Rounds: 2,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.spec.StudentEpochs = 0 // a student that was taught nothing
	r, err := d.run(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(r.Problems, "; ")
	for _, variant := range []string{"student", "student-int8"} {
		if !strings.Contains(said, "variant "+variant+" was withheld: ") {
			t.Errorf("the demo's problems are %q, want one about %s", said, variant)
		}
	}
	if strings.Contains(said, "variant float32") || !r.Audit.Verified {
		t.Errorf("problems %q, audit verified %v", said, r.Audit.Verified)
	}
	for _, v := range r.Released {
		if v.Name == "student" || v.Name == "student-int8" {
			t.Errorf("%s was published", v.Name)
		}
	}
}

// A job may name a public validation set: its variants are measured there, and no node evaluates them.
func TestPublicValidationSet(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 2, 0)
	f, err := Start(t.Context(), FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 1, Schema: schema, Parts: parts, Network: NewNetwork(), Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var public bytes.Buffer
	if err := data.WriteCSV(&public, schema, parts[0].Held); err != nil {
		t.Fatal(err)
	}
	spec := PurchaseJob(schema, len(parts), 2, 0)
	spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm = 500, 2, 1_000_000
	ctx := testContext(t)
	if _, err := f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec, Validation: public.Bytes()}); err != nil {
		t.Fatal(err)
	}
	s, err := f.WaitJob(ctx, spec.Name, nil)
	if err != nil || s.State != "finished" {
		t.Fatalf("%v, %v", s, err)
	}
	for _, r := range s.Rounds {
		if r.Kind == choirv1.RoundKind_ROUND_KIND_EVALUATE {
			t.Errorf("nodes were asked to evaluate: round %d", r.Round)
		}
	}
	rel, err := f.Operator().GetRelease(ctx, &choirv1.ReleaseRequest{Model: spec.Model})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range rel.Variants {
		if e := v.Evaluation; !v.Published || e.Nodes != 0 || e.Examples != int64(len(parts[0].Held)) {
			t.Errorf("variant %s: published %v, %d nodes, %d examples, want the %d public ones", v.Name, v.Published, e.Nodes, e.Examples, len(parts[0].Held))
		}
	}
}

// What --keep keeps is enough for a stranger to check the run, and the page needs no network.
func TestDemoLeaves(t *testing.T) {
	t.Parallel()
	var cfg DemoConfig
	var stages []string
	r := runDemo(t, func(c *DemoConfig) {
		c.Nodes, c.Coordinators, c.Kill, c.Rounds = 2, 1, false, 1
		c.Progress = func(p DemoProgress) { stages = append(stages, p.Stage) }
		cfg = *c
	})
	bundle, err := os.ReadFile(filepath.Join(cfg.Dir, "audit", "run.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(cfg.Dir, "audit", "root.fingerprint"))
	if err != nil {
		t.Fatal(err)
	}
	if report := audit.Verify(bundle, strings.TrimSpace(string(root)), time.Now()); !report.OK || report.Records != r.Audit.Records {
		t.Errorf("the bundle does not verify: %+v", report)
	}
	page, err := os.ReadFile(cfg.Report)
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"src=", "href=\"http", "@import", "url("} {
		if strings.Contains(string(page), forbidden) {
			t.Errorf("the page refers to something outside: %s", forbidden)
		}
	}
	for _, v := range r.Variants {
		if !strings.Contains(string(page), v.Name) {
			t.Errorf("the page does not name variant %s", v.Name)
		}
	}
	if r.Prediction.ModelVersion != "1" || !(r.Prediction.Probability > 0 && r.Prediction.Probability < 1) {
		t.Errorf("prediction %+v", r.Prediction)
	}
	if len(stages) < 5 {
		t.Errorf("progress was shown %d times", len(stages))
	}
}
