package simulate

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// operatorAt is a client of one coordinator.
func operatorAt(t *testing.T, f *Federation, name string) choirv1.OperatorsClient {
	t.Helper()
	i := slices.Index(f.Coordinators(), name)
	config := seal.ClientTLS(f.human, f.root, time.Now, "h2", nil)
	conn, err := grpc.NewClient("passthrough:///"+f.voters[i].Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return choirv1.NewOperatorsClient(conn)
}

// A leader that is cut off from the others believes for a moment that it still leads. Nobody gets from it what may be
// old, and the nodes, all of which still reach it, go to those who decide: a job runs to its end meanwhile.
func TestIsolatedLeaderAnswersNobody(t *testing.T) {
	t.Parallel()
	schema, parts := testParts(t, 3, 0)
	network := NewNetwork()
	f, err := Start(t.Context(), FederationConfig{
		Dir: t.TempDir(), Cluster: "test", Coordinators: 3, Schema: schema, Parts: parts, Network: network, Log: testLog(t),
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
	old := f.Leader(ctx)
	others := slices.DeleteFunc(f.Coordinators(), func(name string) bool { return name == old })
	cut, majority := operatorAt(t, f, old), operatorAt(t, f, others[0])
	if _, err := cut.ListTokens(ctx, &choirv1.ListTokensRequest{}); err != nil {
		t.Fatal(err)
	}
	network.Isolate(old, others...)

	stop, stopped := make(chan struct{}), make(chan int, 1)
	var acknowledged atomic.Int64 // tokens
	acknowledged.Store(int64(len(parts)))
	go func() { // reads at the old leader all the time
		answers := 0
		defer func() { stopped <- answers }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			want := int(acknowledged.Load())
			if reply, err := cut.ListTokens(ctx, &choirv1.ListTokensRequest{}); err == nil {
				answers++
				if len(reply.Tokens) < want {
					t.Errorf("the leader of old tells of %d tokens when %d were acknowledged", len(reply.Tokens), want)
				}
			}
		}
	}()
	for range 5 {
		if _, err := majority.CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: 60_000}); err != nil {
			t.Fatal(err)
		}
		acknowledged.Add(1)
	}
	spec := PurchaseJob(schema, len(parts), 1, 0)
	spec.StudentRows, spec.StudentEpochs, spec.GateStudentPpm = 64, 1, 1_000_000
	if _, err := majority.SubmitJob(ctx, &choirv1.SubmitJobRequest{Spec: spec}); err != nil {
		t.Fatal(err)
	}
	finished := watched(ctx, t, majority, spec.Name)
	if finished.State != "finished" {
		t.Errorf("job %s: %s", finished.State, finished.Reason)
	}
	close(stop)
	t.Logf("the old leader answered %d times", <-stopped)

	network.Rejoin(old, others...)
	for { // it takes part again, and then knows of the job
		s, err := cut.GetJob(ctx, &choirv1.GetJobRequest{Name: spec.Name})
		if err == nil {
			if s.State != "finished" {
				t.Errorf("after it came back it says that the job is %s", s.State)
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// watched follows a job at one coordinator to its end.
func watched(ctx context.Context, t *testing.T, at choirv1.OperatorsClient, name string) (last *choirv1.JobStatus) {
	t.Helper()
	stream, err := at.WatchJob(ctx, &choirv1.GetJobRequest{Name: name})
	for err == nil {
		var s *choirv1.JobStatus
		if s, err = stream.Recv(); err == nil {
			last = s
		}
	}
	if last == nil {
		t.Fatal(err)
	}
	return last
}
