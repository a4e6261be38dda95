package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/model"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// remembering is a node in a job whose strategy has nodes keep something, and a way to take part.
type remembering struct {
	*Node
	t     *testing.T
	party *party
	dir   string
	job   *choirv1.JobSpec
	model []byte
}

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	r := &remembering{t: t, party: newParty(t, "test"), dir: t.TempDir()}
	algorithm, err := jobspec.Encode(&fedavg.Settings{
		Architecture: model.Architecture{Name: "mlp", Hidden: []int{4}}, Strategy: fedavg.StrategySettings{Name: "scaffold"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.job = &choirv1.JobSpec{Name: "job", Model: "toy", Schema: toySchema(t).Encode(), Algorithm: algorithm, WeightCap: 100}
	r.start()
	if err := r.store.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	importCSV(t, r.store, Train, toyCSV(20))
	return r
}

// start starts the node, again if it runs.
func (r *remembering) start() {
	r.t.Helper()
	if r.Node != nil {
		if err := r.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.Node = r.party.node(r.dir, nil, "c1")
	body, id := encoded(r.t, toyModel(r.t, "toy", 1))
	r.model = id[:]
	r.shop.fetch = func(_ context.Context, id []byte) ([]byte, error) {
		if !bytes.Equal(id, r.model) {
			return nil, fmt.Errorf("blob %x is nowhere", id)
		}
		return body, nil
	}
}

func (r *remembering) key(round uint64, attempt uint32) *choirv1.RoundKey {
	return &choirv1.RoundKey{Job: "job", Round: round, Attempt: attempt}
}

// train makes an attempt's update and keeps it, as before it is sent; the result are its vectors.
func (r *remembering) train(round uint64, attempt uint32) (fedavg.Header, []byte, string) {
	r.t.Helper()
	h := fedavg.Header{Cluster: "test", Job: "job", Round: round, Attempt: attempt, Node: "node-01"}
	body, err := r.payload(r.t.Context(), &choirv1.Task{
		Key: r.key(round, attempt), Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: r.job, Seed: 42, Model: r.model,
	}, h)
	if err != nil {
		r.t.Fatal(err)
	}
	p, err := fedavg.DecodePayload(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return h, body, fmt.Sprint(p.Vectors)
}

func (r *remembering) receive(h fedavg.Header, payload []byte) {
	r.t.Helper()
	receipt := receiptFor(h, seal.UpdateDigest(payload))
	if err := r.answered(h, payload, &answer{receipt: &receipt}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *remembering) end(round uint64, attempt uint32, closed bool) {
	r.t.Helper()
	if err := r.settled([]*choirv1.RoundEnd{{Key: r.key(round, attempt), Closed: closed}}); err != nil {
		r.t.Fatal(err)
	}
}

// kept is what the node remembers of the job, sealed, and whether something is not settled.
func (r *remembering) kept() (memory string, unsettled bool) {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, "carry", jobFile("job")))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return string(b), len(r.shop.carry.unsettled()) > 0
}

// What an update leaves for its strategy lasts when the round has closed with the update in it: not with the receipt
// alone, not after an abandoned attempt, not after a refusal; and a restart changes nothing.
func TestMemoryLastsWithTheClose(t *testing.T) {
	r := newRemembering(t)
	h, payload, first := r.train(1, 1)
	r.receive(h, payload)
	if memory, unsettled := r.kept(); memory != "" || !unsettled {
		t.Fatalf("after the receipt: memory of %d bytes, unsettled %v", len(memory), unsettled)
	}
	r.start()
	if got := r.shop.carry.unsettled(); len(got) != 1 || got[0].String() != r.key(1, 1).String() {
		t.Fatalf("after a restart it is uncertain of %v", got)
	}
	r.end(1, 1, false)
	if memory, unsettled := r.kept(); memory != "" || unsettled {
		t.Fatalf("after an abandoned attempt: memory of %d bytes, unsettled %v", len(memory), unsettled)
	}
	h, payload, again := r.train(1, 2)
	if again != first {
		t.Error("an abandoned attempt changed the next one's update")
	}
	r.receive(h, payload)
	r.end(1, 1, true) // of another attempt than the one that is not settled
	if memory, _ := r.kept(); memory != "" {
		t.Error("the end of an earlier attempt settled a later one")
	}
	r.end(1, 2, true)
	memory, unsettled := r.kept()
	if memory == "" || unsettled {
		t.Fatalf("after the close: memory of %d bytes, unsettled %v", len(memory), unsettled)
	}
	r.start()
	h, payload, second := r.train(2, 1)
	if second == first {
		t.Error("the memory changes nothing")
	}
	refusal := refusalFor(h, seal.UpdateDigest(payload))
	if err := r.answered(h, payload, &answer{refusal: &refusal}); err != nil {
		t.Fatal(err)
	}
	if now, unsettled := r.kept(); now != memory || unsettled {
		t.Error("a refused update left something")
	}
	if bytes.Contains([]byte(memory), []byte{0, 0, 0, 0, 0, 0, 0, 0}) {
		t.Error("the memory is not sealed")
	}
}

// Before a node knows whether its last update counts, it does not begin another in the job: it would start from a memory
// that may be the wrong one.
func TestMemoryIsWaitedFor(t *testing.T) {
	r := newRemembering(t)
	h, payload, _ := r.train(1, 1)
	r.end(1, 1, true) // without a receipt
	if memory, unsettled := r.kept(); memory != "" || !unsettled || !r.late {
		t.Fatalf("without a receipt: memory of %d bytes, unsettled %v, asks %v", len(memory), unsettled, r.late)
	}
	r.late = false // nobody can be asked here
	_, err := r.payload(t.Context(), &choirv1.Task{
		Key: r.key(2, 1), Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: r.job, Seed: 42, Model: r.model,
	}, fedavg.Header{Cluster: "test", Job: "job", Round: 2, Attempt: 1, Node: "node-01"})
	if err == nil || !strings.Contains(err.Error(), "not known yet whether the update of round 1 attempt 1 counts") {
		t.Fatalf("%v", err)
	}
	r.receive(h, payload)
	r.end(1, 1, true)
	if _, unsettled := r.kept(); unsettled {
		t.Error("settled by nothing")
	}
	r.train(2, 1)
}

func TestDamagedMemoryIsNamed(t *testing.T) {
	r := newRemembering(t)
	h, payload, _ := r.train(1, 1)
	r.receive(h, payload)
	r.end(1, 1, true)
	path := filepath.Join(r.dir, "carry", jobFile("job"))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	write(t, path, b)
	_, err = r.payload(t.Context(), &choirv1.Task{
		Key: r.key(2, 1), Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: r.job, Seed: 42, Model: r.model,
	}, fedavg.Header{Cluster: "test", Job: "job", Round: 2, Attempt: 1, Node: "node-01"})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "begins anew") {
		t.Errorf("%v, want the file and the cure", err)
	}
}

// fakeLab has one place.
type fakeLab struct {
	x, y   []float32
	absent string
	out    int                            // places lent
	lie    func(own *fedavg.Update) error // nil: nobody lies
}

func (l *fakeLab) Part(string, string, uint64) (int, string) { return 2, l.absent }

func (l *fakeLab) Take(context.Context, string) (*Place, error) {
	l.out++
	return &Place{X: l.x, Y: l.y}, nil
}

func (l *fakeLab) Computed(_ string, _ uint64, u *fedavg.Update, err error) (lie func(context.Context) (*fedavg.Update, error)) {
	if err != nil || l.lie == nil {
		return nil
	}
	own := u.Clone()
	return func(context.Context) (*fedavg.Update, error) { return own, l.lie(own) }
}

func (l *fakeLab) Return(*Place) { l.out-- }

// A node in a lab trains on the examples that lie there, as many epochs as it is told; one without a lab has no tensors.
func TestLab(t *testing.T) {
	algorithm, err := jobspec.Encode(&fedavg.Settings{Architecture: model.Architecture{Name: "mlp", Hidden: []int{3}}})
	if err != nil {
		t.Fatal(err)
	}
	job := &choirv1.JobSpec{
		Name: "job", Algorithm: algorithm, Examples: &choirv1.Examples{Input: []uint32{2}, Outputs: 3}, WeightCap: 100, Publish: jobspec.PublishNone,
	}
	a, err := jobspec.Algorithm(job)
	if err != nil {
		t.Fatal(err)
	}
	global := a.Network.Initial(1)
	body, err := model.EncodeNetwork(a.Network, global)
	if err != nil {
		t.Fatal(err)
	}
	lab := &fakeLab{x: []float32{0, 1, 1, 0, 1, 1}, y: []float32{0, 1, 2}}
	b := &bench{t: t, models: map[string][]byte{"id": body}}
	b.workshop = &workshop{store: openTestStore(t, t.TempDir()), name: "node-01", lab: lab, fetch: func(_ context.Context, id []byte) ([]byte, error) {
		return b.models[string(id)], nil
	}}
	task := &choirv1.Task{Key: b.task(nil).Key, Kind: choirv1.RoundKind_ROUND_KIND_TRAIN, Job: job, Seed: 42, Model: []byte("id")}
	got := b.do(task)
	client, err := fedavg.NewClient(a)
	if err != nil {
		t.Fatal(err)
	}
	want, err := client.Update(t.Context(), fedavg.Work{Global: global, X: lab.x, Y: lab.y, Epochs: 2, Seed: nodeSeed(task, "node-01")})
	if err != nil {
		t.Fatal(err)
	}
	want.Evaluations = make([]model.Evaluation, 1)
	if bytesOf(got) != bytesOf(want) {
		t.Error("another update than of the lab's examples")
	}
	lab.lie = func(own *fedavg.Update) error {
		own.Vectors[0][0] = 7
		if lab.out != 0 {
			return errors.New("who waits for others keeps their place")
		}
		return nil
	}
	if got, err := b.work(t.Context(), task); err != nil || got.Vectors[0][0] != 7 {
		t.Errorf("a liar sends %v, %v, want its lie", got, err)
	}
	lab.absent = "it sleeps"
	if _, err := b.work(t.Context(), task); err == nil || err.Error() != "it sleeps" {
		t.Errorf("%v", err)
	}
	if lab.out != 0 {
		t.Errorf("%d places were not given back", lab.out)
	}
	b.lab = nil
	if _, err := b.work(t.Context(), task); err == nil || !strings.Contains(err.Error(), "learns from tensors, and this node has rows") {
		t.Errorf("%v", err)
	}
}
