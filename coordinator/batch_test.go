package coordinator

import (
	"testing"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	choirv1 "choir.example/proto/choir/v1"
)

// Until the round is cut a leader's own batches are apart, too. What is then merged is what was committed: a sum in memory
// that is another one gives way to the batch's blob.
func TestOwnBatchesAreMergedAfterTheCut(t *testing.T) {
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("n1", "n2", "n3")
	f.submit(testJob(t, 1))
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	want := fedavg.NewSum(fedavg.Shape{Vectors: []int{7}, Evaluations: 1, WeightCap: 1000})
	add := func(i int) {
		t.Helper()
		u := nodes[i].payload(tasks[i], int32(i+1)).Update
		if err := want.Add(&u); err != nil {
			t.Fatal(err)
		}
		nodes[i].answer("c1", tasks[i], int32(i+1))
	}
	add(0)
	add(1)
	made := &f.member("c1").made
	held := func() map[state.Digest]partial {
		made.mu.Lock()
		defer made.mu.Unlock()
		return made.byJob["job"].batches
	}
	// The receipts come from the applied log, a moment before the sums are kept.
	f.eventually("two sums are kept", func() bool {
		made.mu.Lock()
		defer made.mu.Unlock()
		p := made.byJob["job"]
		return p != nil && len(p.batches) == 2
	})
	r := f.round("c1", 1, state.PhaseOpen)
	for _, b := range f.member("c1").now("job", r).Batches {
		p := held()[b.ID]
		if p.digest != b.Sum || p.sum.Count != 1 || p.sum.Digest() != b.Sum {
			t.Errorf("batch %v: %d updates with digest %v, committed is %v", b.ID, p.sum.Count, p.digest, b.Sum)
		}
	}
	made.mu.Lock()
	for id, p := range made.byJob["job"].batches {
		p.sum.Vectors[0][0]++
		made.byJob["job"].batches[id] = partial{p.sum, p.sum.Digest()}
		break
	}
	made.mu.Unlock()
	add(2)
	if r := f.round("c1", 1, state.PhaseClosed); r.Sum != want.Digest() {
		t.Errorf("closed with %v, the sum of the updates is %x", r.Sum, want.Digest())
	}
}

// Sums of one attempt are kept by batch, within bounds, and until they are taken or another attempt begins.
func TestPartialsAreBounded(t *testing.T) {
	const half = partialBytes / 16 // coordinates that take half of the room
	p := partials{byJob: map[string]*attemptPartials{}}
	first, second := attemptOf(&choirv1.RoundKey{Job: "a", Round: 1, Attempt: 1}), attemptOf(&choirv1.RoundKey{Job: "a", Round: 1, Attempt: 2})
	sum := fedavg.NewSum(fedavg.Shape{Vectors: []int{half}})
	for i := range byte(3) {
		p.add(first, state.Digest{i}, partial{sum: sum})
		p.add(first, state.Digest{i}, partial{sum: sum})
	}
	if n := len(p.byJob["a"].batches); n != 2 || p.byJob["a"].bytes != partialBytes {
		t.Errorf("%d batches, %d bytes", n, p.byJob["a"].bytes)
	}
	p.add(second, state.Digest{9}, partial{sum: sum})
	if p.take(first) != nil {
		t.Error("an older attempt is still there")
	}
	if got := p.take(second); len(got) != 1 || p.take(second) != nil {
		t.Errorf("took %d, and again", len(got))
	}
}
