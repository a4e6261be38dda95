package coordinator

import (
	"crypto/ed25519"
	"os"
	"slices"
	"sync"
	"testing"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/canon"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// trained starts a federation whose nodes are through the statistics round and returns their tasks of round 1.
func trained(t *testing.T, coordinators int, observe Observer, names ...string) (*testFederation, []*testNode, []*choirv1.Task) {
	t.Helper()
	f := startFederation(t, coordinators, nil, observe)
	nodes := f.enrol(names...)
	f.submit(testJob(t, 2))
	f.statistics(nodes)
	return f, nodes, f.tasks(nodes)
}

// The identity of an update does not depend on its recipients: sealed anew, it is the same update and counts once.
func TestSealedAnewCountsOnce(t *testing.T) {
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	n, task := nodes[0], tasks[0]
	first := n.answer("c1", task, 5)
	again := n.answer("c1", task, 5) // age draws a new key: other bytes, same update
	if first != again {
		t.Fatalf("receipts differ: %+v and %+v", first, again)
	}
	nodes[1].answer("c1", tasks[1], 7)
	if r := f.round("c1", 1, state.PhaseClosed); r.Count != 2 {
		t.Fatalf("%d updates counted, want 2", r.Count)
	}
}

// A node may send to several coordinators at once: whatever batches its update lands in, it counts once, and the other
// updates of a batch that must be cut anew are not lost.
func TestDuplicateIsSubtracted(t *testing.T) {
	f, nodes, tasks := trained(t, 3, Observer{}, "a", "b", "c")
	leader := f.leader()
	others := slices.DeleteFunc([]string{"c1", "c2", "c3"}, func(s string) bool { return s == leader })
	second := f.member(others[0])
	f.round(others[0], 1, state.PhaseOpen)
	key := attemptOf(tasks[0].Key)
	s := second.replica.State()
	j := s.Jobs["job"]
	shape, err := second.shape(j, j.Find(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	k := second.collector(key, shape, false)
	k.begin() // another upload is under way here, so this batch waits
	sealedA, digestA := nodes[0].sealed(tasks[0], nodes[0].payload(tasks[0], 1))
	sealedB, digestB := nodes[1].sealed(tasks[1], nodes[1].payload(tasks[1], 2))
	var wg sync.WaitGroup
	outcomes := make([]*choirv1.Outcome, 2)
	for i, x := range []struct {
		n        *testNode
		envelope []byte
		digest   [32]byte
	}{{nodes[0], sealedA, digestA}, {nodes[1], sealedB, digestB}} {
		wg.Go(func() {
			out, err := x.n.upload(f.ctx(), others[0], tasks[i].Key, x.envelope, x.digest)
			if err != nil {
				t.Errorf("%s: %v", x.n.name, err)
			}
			outcomes[i] = out
		})
	}
	f.eventually("both updates wait in one batch", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.pending) == 2
	})
	direct := nodes[0].answer(leader, tasks[0], 1) // the same update by another way, committed first
	k.end()
	wg.Wait()
	if t.Failed() {
		return
	}
	if r := nodes[0].receipt(outcomes[0]); r != direct {
		t.Fatalf("two receipts for one update: %+v and %+v", r, direct)
	}
	if r := nodes[1].receipt(outcomes[1]); r.Batch == direct.Batch {
		t.Fatal("b is in a's batch")
	}
	nodes[2].answer(leader, tasks[2], 3)
	r := f.round(leader, 1, state.PhaseClosed)
	want := fedavg.NewSum(shape)
	for i, q := range []int32{1, 2, 3} {
		if err := want.Add(&nodes[i].payload(tasks[i], q).Update); err != nil {
			t.Fatal(err)
		}
	}
	if r.Count != 3 || r.Sum != want.Digest() {
		t.Fatalf("%d updates with sum %v, want 3 with %x", r.Count, r.Sum, want.Digest())
	}
}

// A node that signs two different updates for one attempt: the first counts, the second is refused, and the incident is
// recorded once with both digests.
func TestEquivocationIsAnIncident(t *testing.T) {
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	n, task := nodes[0], tasks[0]
	first := n.answer("c1", task, 1)
	for range 2 {
		envelope, digest := n.sealed(task, n.payload(task, 2))
		out, err := n.upload(f.ctx(), "c1", task.Key, envelope, digest)
		if err != nil {
			t.Fatal(err)
		}
		refusal, err := audit.DecodeRefusal(out.GetRefusal().GetBody())
		if err != nil || refusal.Update != digest || refusal.Reason != "another update of the node is counted" {
			t.Fatalf("outcome %+v, %v", refusal, err)
		}
		s := f.wait("c1", "incident recorded", func(s *state.State) bool {
			return s.Jobs["job"].Find(1, 1).Incidents["a"] != ""
		})
		var found []*audit.Incident
		for i := range s.Log.Size() {
			r, err := audit.Decode(s.Log.Record(i))
			if err != nil {
				t.Fatal(err)
			}
			if x, ok := r.(*audit.Incident); ok {
				found = append(found, x)
			}
		}
		if len(found) != 1 || found[0].Reason != audit.ReasonEquivocation || [32]byte(found[0].First) != first.Update || [32]byte(found[0].Second) != digest {
			t.Fatalf("incidents %+v", found)
		}
	}
}

// A coordinator that dies after the commit costs no receipt: another gives it, with the same log index.
func TestReceiptSurvivesTheCoordinator(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 3, Observer{}, "a", "b")
	leader := f.leader()
	receipt := nodes[0].answer(leader, tasks[0], 1)
	f.kill(leader)
	next := f.leader()
	f.wait(next, "the batch on the successor", func(s *state.State) bool { return s.Index >= receipt.Index })
	out, err := nodes[0].at(next).GetOutcome(f.ctx(), &choirv1.OutcomeRequest{Key: tasks[0].Key, Update: receipt.Update[:]})
	if err != nil {
		t.Fatal(err)
	}
	if again := nodes[0].receipt(out); again != receipt {
		t.Fatalf("receipt %+v, was %+v", again, receipt)
	}
	if who := out.GetReceipt().Signatures[0].Signer; who != next {
		t.Fatalf("signed by %s, want %s", who, next)
	}
	nodes[1].answer(next, tasks[1], 1)
	if r := f.round(next, 1, state.PhaseClosed); r.Count != 2 || r.Attempt != 1 {
		t.Fatalf("round closed with %d updates in attempt %d, want 2 in 1", r.Count, r.Attempt)
	}
}

// The leader dies with one update committed and another spooled: the round goes on under its successor, and the update
// that had no receipt is sent again and counts once. A replica that was away catches up and agrees.
func TestLeaderDiesMidRound(t *testing.T) {
	t.Parallel()
	spooled, hold := make(chan string), make(chan struct{})
	var once sync.Once
	f, nodes, tasks := trained(t, 3, Observer{Spooled: func(coordinator string, e RoundEvent, node string) {
		if node == "b" && e.Round == 1 {
			once.Do(func() { spooled <- coordinator; <-hold }) // hold it before it can reach a batch
		}
	}}, "a", "b")
	leader := f.leader()
	first := nodes[0].answer(leader, tasks[0], 4)
	envelope, digest := nodes[1].sealed(tasks[1], nodes[1].payload(tasks[1], 6))
	failed := make(chan error, 1)
	go func() {
		_, err := nodes[1].upload(f.ctx(), leader, tasks[1].Key, envelope, digest)
		failed <- err
	}()
	if at := <-spooled; at != leader {
		t.Fatalf("spooled at %s, want %s", at, leader)
	}
	dead := f.kill(leader)
	close(hold)
	if err := <-failed; err == nil {
		t.Fatal("a dead coordinator answered")
	}
	next := f.leader()
	out, err := nodes[1].upload(f.ctx(), next, tasks[1].Key, envelope, digest)
	if err != nil {
		t.Fatal(err)
	}
	nodes[1].receipt(out)
	r := f.round(next, 1, state.PhaseClosed)
	if r.Count != 2 || r.Attempt != 1 || r.Accepted["a"].Index != first.Index {
		t.Fatalf("round %+v", r)
	}
	f.restart(dead)
	back := f.round(leader, 1, state.PhaseClosed)
	if back.Sum != r.Sum || back.Next != r.Next {
		t.Fatal("the replica that was away does not agree")
	}
}

// An update that comes too late gets a signed refusal naming the log index, from any coordinator.
func TestLateUpdateIsRefused(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	nodes := f.enrol("a", "b")
	spec := testJob(t, 1)
	spec.DurationMs = 1500
	f.submit(spec)
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	nodes[0].answer(f.leader(), tasks[0], 1)
	r := f.round(f.leader(), 1, state.PhaseClosed) // the duration is over with one of two
	envelope, digest := nodes[1].sealed(tasks[1], nodes[1].payload(tasks[1], 1))
	for _, v := range f.voters {
		f.round(v.Name, 1, state.PhaseClosed)
		out, err := nodes[1].upload(f.ctx(), v.Name, tasks[1].Key, envelope, digest)
		if err != nil {
			t.Fatal(err)
		}
		refusal, err := audit.DecodeRefusal(out.GetRefusal().GetBody())
		if err != nil || refusal.Index != r.CutAt || refusal.Reason != "closed without this update" || refusal.Update != digest {
			t.Fatalf("%s: %+v, %v", v.Name, refusal, err)
		}
		key := f.member(v.Name).deps.Credential.Key.Public().(ed25519.PublicKey)
		if !seal.Verify(key, audit.DomainRefusal, out.GetRefusal().Body, out.GetRefusal().Signatures[0].Signature) {
			t.Fatalf("%s: the refusal is not signed by it", v.Name)
		}
	}
}

// A round with too few updates ends recorded and is tried again; after the last attempt the job has failed.
func TestTooFewUpdatesAbandon(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	spec := testJob(t, 1)
	spec.MinimumCohort, spec.DurationMs, spec.MaxAttempts = 2, 300, 2
	f.submit(spec)
	tasks := f.tasks(nodes)
	nodes[0].answer("c1", tasks[0], 0)
	s := f.wait("c1", "job failed", func(s *state.State) bool { return s.Jobs["job"].State == state.JobFailed })
	j := s.Jobs["job"]
	if len(j.Rounds) != 2 || j.Rounds[1].Attempt != 2 || j.Rounds[0].Phase != state.PhaseAbandoned {
		t.Fatalf("rounds %+v", j.Rounds)
	}
	if want := "1 of 2 updates in 300ms, the minimum cohort is 2"; j.Rounds[0].Reason != want {
		t.Fatalf("reason %q, want %q", j.Rounds[0].Reason, want)
	}
}

// A blob that an entry names and nobody has any more ends its round as abandoned, not in a hang.
func TestLostBatchAbandonsTheRound(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	nodes[0].answer("c1", tasks[0], 1)
	m := f.kill("c1") // what it held in memory is gone
	for _, b := range m.replica.State().Jobs["job"].Find(1, 1).Batches {
		if err := os.Remove(m.blobs.path(b.ID)); err != nil {
			t.Fatal(err)
		}
	}
	f.restart(m)
	f.round("c1", 1, state.PhaseOpen)
	nodes[1].answer("c1", tasks[1], 1)
	r := f.round("c1", 1, state.PhaseAbandoned)
	if r.Attempt != 1 || r.Reason == "" {
		t.Fatalf("round %+v", r)
	}
	for i, n := range nodes { // the next attempt goes through
		tasks[i] = n.poll("c1")
		if tasks[i].Key.Attempt != 2 {
			t.Fatalf("attempt %d, want 2", tasks[i].Key.Attempt)
		}
		n.answer("c1", tasks[i], 1)
	}
	f.round("c1", 1, state.PhaseClosed)
}

// The same counted updates give the same model, whatever the coordinators, batches, order of arrival and attempts.
func TestSameUpdatesSameModel(t *testing.T) {
	t.Parallel()
	var models []state.Digest
	for _, coordinators := range []int{1, 3} {
		for _, reversed := range []bool{false, true} {
			f, nodes, tasks := trained(t, coordinators, Observer{}, "a", "b", "c")
			order := []int{0, 1, 2}
			if reversed {
				order = []int{2, 1, 0}
			}
			for i, k := range order {
				at := f.voters[i%coordinators].Name
				nodes[k].answer(at, tasks[k], int32(100*k+7))
			}
			models = append(models, f.round(f.leader(), 1, state.PhaseClosed).Next)
		}
	}
	for _, m := range models {
		if m != models[0] {
			t.Fatalf("models %v", models)
		}
	}
}

// Nodes that have not heard of the latest coordinators seal to the others. What one of those folds any leader can combine.
func TestUpdatesSealedToSomeAreCombined(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 3, Observer{}, "a", "b")
	at := f.voters[0].Name // one that does not lead, and the only one that the nodes know
	if at == f.leader() {
		at = f.voters[1].Name
	}
	var known []*choirv1.EpochKey
	for _, k := range tasks[0].Keys {
		if k.Coordinator == at {
			known = append(known, k)
		}
	}
	if len(known) != 1 {
		t.Fatalf("%d keys of %s", len(known), at)
	}
	for i, n := range nodes {
		tasks[i].Keys = known
		n.answer(at, tasks[i], int32(i))
	}
	f.round(at, 1, state.PhaseClosed)
}

func TestUnknownRound(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 1, Observer{}, "a")
	key := &choirv1.RoundKey{Job: "job", Round: 9, Attempt: 1}
	envelope, digest := nodes[0].sealed(tasks[0], nodes[0].payload(tasks[0], 1))
	_, err := nodes[0].upload(f.ctx(), "c1", key, envelope, digest)
	if status.Code(err) != codes.NotFound {
		t.Fatalf("%v", err)
	}
}

// However much smaller they are, envelopes that one of the voters cannot open do not stand in a batch: their sum does.
func TestBatchIsOpenToAllVoters(t *testing.T) {
	key, err := seal.NewEpochKey(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{true, false} {
		u := &verified{envelope: []byte{1}, payload: &fedavg.Payload{}, sealedTo: func([]string) bool { return open }}
		body, err := encodeBatch([]*verified{u}, make([]byte, 1000), []string{key.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(batchPartial)
		if open {
			want = batchEnvelopes
		}
		if form := canon.NewReader(body).Uint(); form != want {
			t.Errorf("sealed to all voters %v: form %d, want %d", open, form, want)
		}
		if body, err = encodeEach([]*verified{u}, []string{key.Recipient()}); err != nil {
			t.Fatal(err)
		}
		if want = batchPayloads; open {
			want = batchEnvelopes
		}
		if form := canon.NewReader(body).Uint(); form != want {
			t.Errorf("one by one, sealed to all voters %v: form %d, want %d", open, form, want)
		}
	}
}
