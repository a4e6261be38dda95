package coordinator

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Every RPC has a row in the table, and the table has no other rows.
func TestFreshnessTableIsComplete(t *testing.T) {
	rpcs := slices.DeleteFunc(slices.Sorted(maps.Keys(roles)), func(what string) bool { return !strings.HasPrefix(what, "/") })
	if table := slices.Sorted(maps.Keys(freshnessOf)); !slices.Equal(table, rpcs) {
		t.Errorf("the table has the rows %q, want %q", table, rpcs)
	}
}

func (f *testFederation) operatorsAt(name string) choirv1.OperatorsClient {
	return choirv1.NewOperatorsClient(f.connect(name, f.operator))
}

// newToken makes a token at a coordinator and returns its id.
func (f *testFederation) newToken(at choirv1.OperatorsClient) string {
	f.t.Helper()
	reply, err := at.CreateToken(f.ctx(), &choirv1.CreateTokenRequest{LifetimeMs: 60_000})
	if err != nil {
		f.t.Fatal(err)
	}
	token, err := seal.ParseToken(reply.Token)
	if err != nil {
		f.t.Fatal(err)
	}
	return token.ID
}

// knows reports whether an answer tells of a token.
func knows(reply *choirv1.ListTokensReply, id string) bool {
	return slices.ContainsFunc(reply.GetTokens(), func(t *choirv1.TokenStatus) bool { return t.Id == id })
}

// What one coordinator has acknowledged every other one tells, at once.
func TestEveryCoordinatorTellsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	var at []choirv1.OperatorsClient
	for _, v := range f.voters {
		at = append(at, f.operatorsAt(v.Name))
	}
	for i := range 30 {
		id := f.newToken(at[i%3])
		for k, other := range at {
			if reply, err := other.ListTokens(f.ctx(), &choirv1.ListTokensRequest{}); err != nil || !knows(reply, id) {
				t.Fatalf("c%d does not know a token that c%d made: %v", k+1, i%3+1, err)
			}
		}
	}
}

// A coordinator whose disk takes nothing never answers with what it knew before; it sends everybody to the others, says
// so, and answers again when the disk does.
func TestCoordinatorThatIsBehindAnswersNobody(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	node := f.enrol("a")[0]
	leader := f.leader()
	behind := f.other(leader)
	m := f.member(behind)
	good, bad := f.operatorsAt(leader), f.operatorsAt(behind)
	f.submit(testJob(t, 1))
	watch, err := bad.WatchJob(f.ctx(), &choirv1.GetJobRequest{Name: "job"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	client, polled := node.at(behind), make(chan error, 1)
	done := &choirv1.RoundKey{Job: "job", Round: 9} // it takes no task
	go func() {
		_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: done, WaitMs: 30_000})
		polled <- err
	}()
	f.eventually("the node polls", func() bool { return m.presence.recent(time.Now())["a"] })

	m.replica.store.mute.Store(true)
	for range 5 {
		id := f.newToken(good)
		reply, err := bad.ListTokens(f.ctx(), &choirv1.ListTokensRequest{})
		if err == nil && !knows(reply, id) {
			t.Fatal("a state from before a token that was acknowledged")
		}
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), behind+" is behind") {
			t.Errorf("not what the disk allows: %v", err)
		}
	}
	f.eventually("it knows that it is behind", func() bool { return m.ready() != nil })
	if err := m.ready(); !strings.Contains(err.Error(), "is behind, at entry") {
		t.Errorf("not ready, because: %v", err)
	}
	if err := <-polled; status.Code(err) != codes.Unavailable {
		t.Errorf("the poll that waited there ended with %v", err)
	}
	for { // the round that opened before may still come
		if _, err = watch.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the operator who watched there was left with %v", err)
	}
	began := time.Now()
	for what, call := range map[string]func() error{
		"poll": func() error {
			_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: done, WaitMs: 30_000})
			return err
		},
		"submit": func() error {
			spec := testJob(t, 1)
			spec.Name = "other"
			_, err := bad.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: spec})
			return err
		},
		"status": func() error {
			_, err := bad.GetStatus(f.ctx(), &choirv1.StatusRequest{})
			return err
		},
		"show": func() error {
			_, err := bad.GetJob(f.ctx(), &choirv1.GetJobRequest{Name: "job"})
			return err
		},
		"bundle": func() error {
			stream, err := bad.GetBundle(f.ctx(), &choirv1.BundleRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "behind") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to send five callers elsewhere", took)
	}
	if s := f.member(leader).replica.State(); s.Jobs["other"] != nil {
		t.Error("a job was taken by a coordinator that could not have told so")
	}
	told, err := bad.GetStatus(f.ctx(), &choirv1.StatusRequest{Unconfirmed: true})
	if err != nil || !strings.Contains(told.Unconfirmed, "is behind") || told.Leader == "" {
		t.Errorf("asked for what it knows, it says %v, %v", told, err)
	}
	page, body := f.ask(f.browser(behind, f.operator), http.MethodGet, "/jobs")
	if page.Header.Get("Choir-Unconfirmed") == "" || !strings.Contains(body, "may be old: coordinator "+behind+" is behind") {
		t.Errorf("the console does not say that it may be old: %s", body)
	}

	m.replica.store.mute.Store(false)
	f.eventually("it is ready again", func() bool { return m.ready() == nil })
	id := f.newToken(good)
	if reply, err := bad.ListTokens(f.ctx(), &choirv1.ListTokensRequest{}); err != nil || !knows(reply, id) {
		t.Errorf("with a disk that works: %v", err)
	}
	if _, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: done}); err != nil {
		t.Errorf("with a disk that works: %v", err)
	}
}

// Without a majority nobody is told what may be old, but the status for those who ask for it, which names no leader.
func TestWithoutMajority(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	node := f.enrol("a")[0]
	leader := f.leader() // what it knew before counts for nothing
	f.kill(f.other(leader))
	f.kill(f.other(leader))
	operators := f.operatorsAt(leader)
	if _, err := operators.ListJobs(f.ctx(), &choirv1.ListJobsRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errNoLeader.Error()) {
		t.Errorf("jobs: %v", err)
	}
	if _, err := operators.GetStatus(f.ctx(), &choirv1.StatusRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("status: %v", err)
	}
	reply, err := operators.GetStatus(f.ctx(), &choirv1.StatusRequest{Unconfirmed: true})
	if err != nil || reply.Leader != "" || !strings.Contains(reply.Unconfirmed, errNoLeader.Error()) || len(reply.Replicas) != 3 || reply.Nodes != 1 {
		t.Errorf("status as it is: %v, %v", reply, err)
	}
	client := node.at(leader)
	f.eventually("nodes are sent elsewhere", func() bool {
		_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, Done: node.done, WaitMs: 1})
		return status.Code(err) == codes.Unavailable
	})
	ctx, cancel := context.WithTimeout(f.ctx(), time.Second)
	defer cancel()
	if _, err := operators.RevokeNode(ctx, &choirv1.RevokeNodeRequest{Name: "a"}); status.Code(err) == codes.OK {
		t.Error("a minority decided")
	}
}

// A leader answers for the log up to its last command, past what raft itself writes there, and only when it has applied
// what the leaders before it committed.
func TestCommittedCountsCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob", "cyd")
	all := s.seats(t, 1500*time.Millisecond) // one leader for the whole test
	first, others := leader(t, all)
	index := propose(t, first, s.genesis(t))
	if _, err := first.Committed(); err != errNotLeader {
		t.Errorf("before its reign: %v", err)
	}
	if _, leads := first.enthrone(); !leads {
		t.Fatal("it does not lead")
	}
	if got, err := first.Committed(); err != nil || got != index {
		t.Errorf("after a barrier: %d, %v, want %d", got, err, index)
	}
	index = epochs(t, first, 1, 3)
	if got, err := first.Committed(); err != nil || got != index {
		t.Errorf("%d, %v, want %d", got, err, index)
	}
	forget(t, first)
	if got, err := first.Committed(); err != nil || got != index {
		t.Errorf("after a snapshot: %d, %v, want %d", got, err, index)
	}
	if _, err := others[0].Committed(); err != errNotLeader {
		t.Errorf("a follower: %v", err)
	}
	for _, x := range others {
		x.kill()
	}
	eventually(t, "alone it answers no more", func() bool { // the answer to a heartbeat may have been on its way
		_, err := first.Committed()
		return err == errNotLeader
	})
}
