package simulate

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

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

func TestFederation(t *testing.T) {
	schema, parts := testParts(t, 9, 0)
	level := slog.LevelInfo
	if os.Getenv("CHOIR_DEBUG") != "" {
		level = slog.LevelDebug
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	f, err := Start(ctx, FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: NewNetwork(),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started after %v", time.Since(start))
	defer f.Close()
	if _, err := f.Operator().SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: PurchaseJob(schema, len(parts), 5, 0)}); err != nil {
		t.Fatal(err)
	}
	s, err := f.WaitJob(ctx, "purchase", func(s *choirv1.JobStatus) { t.Logf("%v round %d %s", time.Since(start), s.Round, s.State) })
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Rounds {
		t.Logf("round %d %v: %s, %d accepted, auc %d", r.Round, r.Kind, r.State, r.Accepted, r.Evaluation.GetAucMillionths())
	}
	if s.State != "finished" {
		t.Fatalf("job is %s: %s", s.State, s.Reason)
	}
}
