package simulate

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// testParts divides the built-in data among nodes.
func testParts(t *testing.T, nodes int, seed uint64) (*data.Schema, []data.Parts) {
	t.Helper()
	schema, rows, regions, err := data.Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	var parts []data.Parts
	for _, p := range Partition(rows, regions, nodes, seed) {
		parts = append(parts, data.Split(schema, p, seed))
	}
	return schema, parts
}

// testContext ends before the test's patience does, and in time for the log to say why.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testLog goes to the test's log if CHOIR_DEBUG is set.
func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if os.Getenv("CHOIR_DEBUG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// runJob submits a job and fails the test unless it finishes.
func runJob(t *testing.T, f *Federation, spec *choirv1.JobSpec) *choirv1.JobStatus {
	t.Helper()
	ctx := testContext(t)
	if _, err := f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	s, err := f.WaitJob(ctx, spec.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != "finished" {
		t.Fatalf("job %s is %s: %s", s.Name, s.State, s.Reason)
	}
	return s
}

// A killed coordinator that comes back from its directory is one of the majority again: with another one dead, no round
// could close without it.
func TestCoordinatorComesBack(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 3, 0)
	f, err := Start(t.Context(), FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: NewNetwork(), Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	spec := PurchaseJob(schema, len(parts), 1, 0)
	spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm = 64, 1, 1_000_000
	f.Kill("c1")
	f.Kill("c1") // once is enough
	first := runJob(t, f, spec)
	if err := f.Restart("c1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Restart("c1"); err == nil {
		t.Error("a coordinator that lives was started again")
	}
	f.Kill("c2")
	spec.Name = "again"
	second := runJob(t, f, spec)
	if len(first.Rounds) == 0 || len(first.Rounds) != len(second.Rounds) {
		t.Errorf("%d rounds, then %d", len(first.Rounds), len(second.Rounds))
	}
}

// A killed coordinator leaves its directory. Its memory is dropped: nothing holds it once its goroutines have ended.
func TestKilledCoordinatorIsForgotten(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 1, 0)
	f, err := Start(t.Context(), FederationConfig{Dir: t.TempDir(), Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: NewNetwork(), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	dropped := make(chan string, 1)
	f.mu.Lock()
	runtime.AddCleanup(f.members["c2"].c, func(name string) { dropped <- name }, "c2")
	f.mu.Unlock()
	f.Kill("c2")
	tick := time.NewTicker(50 * time.Millisecond) // gossip's last goroutines end by themselves, within seconds
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for {
		select {
		case <-dropped:
			if err := f.Restart("c2"); err != nil {
				t.Error(err)
			}
			return
		case <-tick.C:
			runtime.GC()
		case <-end:
			t.Fatal("the memory of a killed coordinator is still held after 30 s")
		}
	}
}

// What cannot start leaves nothing behind: no goroutine, no port.
func TestStartFails(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 2, 0)
	dir := t.TempDir()
	start := func(dir string, parts []data.Parts) error {
		f, err := Start(t.Context(), FederationConfig{
			Dir: dir, Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: NewNetwork(), Log: testLog(t),
		})
		if err == nil {
			_ = f.Close()
		}
		return err
	}
	if err := os.WriteFile(dir+"/c2", nil, 0o600); err != nil { // where the second coordinator wants a directory
		t.Fatal(err)
	}
	if err := start(dir, parts); err == nil || !strings.Contains(err.Error(), "c2") {
		t.Errorf("start over a file: %v", err)
	}
	parts[1].Train = append(parts[1].Train, data.Row{1})
	if err := start(t.TempDir(), parts); err == nil || !strings.Contains(err.Error(), "node-02") {
		t.Errorf("start with a broken row: %v", err)
	}
	if err := (&Federation{cancel: func() {}}).Restart("c9"); err == nil {
		t.Error("a coordinator that never was came back")
	}
}
