package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/fedavg"
	"choir.example/internal/canon"
	"choir.example/internal/rpc"
	"choir.example/model"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// attack is one node's upload, honest but for what a case changes in it.
type attack struct {
	n        *testNode
	task     *choirv1.Task
	payload  *fedavg.Payload
	key      ed25519.PrivateKey // that signs
	to       []string           // recipients
	header   *choirv1.UploadHeader
	envelope []byte
	messages []*choirv1.UploadRequest // sent instead of header and envelope
}

func newAttack(n *testNode, task *choirv1.Task) *attack {
	a := &attack{n: n, task: task, payload: n.payload(task, 1), key: n.cred.Key}
	for _, k := range task.Keys {
		a.to = append(a.to, k.Recipient)
	}
	return a
}

// pack signs and seals what the payload now is.
func (a *attack) pack(t *testing.T) {
	envelope, digest, err := seal.SealUpdate(a.payload.Encode(), a.key, a.to)
	if err != nil {
		t.Fatal(err)
	}
	a.put(envelope, digest)
}

func (a *attack) put(envelope []byte, digest [32]byte) {
	a.envelope = envelope
	a.header = &choirv1.UploadHeader{Key: a.task.Key, Update: digest[:], Size: uint64(len(envelope))}
}

// send sends it and returns how the coordinator turned it away.
func (a *attack) send(ctx context.Context) error {
	client := a.n.at("c1")
	if a.messages == nil {
		_, err := uploadTo(ctx, client, a.header, a.envelope)
		return err
	}
	stream, err := client.Upload(ctx)
	if err != nil {
		return err
	}
	for _, m := range a.messages {
		if stream.Send(m) != nil {
			break // Recv knows why
		}
	}
	_ = stream.CloseSend()
	for err == nil {
		_, err = stream.Recv()
	}
	return err
}

func header(h *choirv1.UploadHeader) *choirv1.UploadRequest {
	return &choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: h}}
}

func chunk(b []byte) *choirv1.UploadRequest {
	return &choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: b}}
}

// announced is a header for an envelope of any kind.
func (a *attack) announced(size uint64) *choirv1.UploadRequest {
	return header(&choirv1.UploadHeader{Key: a.task.Key, Update: make([]byte, 32), Size: size})
}

// forge makes an envelope by hand, with signatures that are not SealUpdate's.
func (a *attack) forge(t *testing.T, signed []string, signature, envelope []byte) {
	payload := a.payload.Encode()
	var w canon.Writer
	w.Uint(1)
	w.Uint(uint64(len(signed)))
	for _, r := range signed {
		w.String(r)
	}
	w.Fixed(signature)
	w.Fixed(envelope)
	w.Bytes(payload)
	sealed, err := seal.SealTo(w.Buf, a.to)
	if err != nil {
		t.Fatal(err)
	}
	a.put(sealed, seal.UpdateDigest(payload))
}

func freshRecipient(t *testing.T) string {
	k, err := seal.NewEpochKey(1)
	if err != nil {
		t.Fatal(err)
	}
	return k.Recipient()
}

// badUpdate is one way in which an update can be wrong. change runs before it is signed and sealed, spoil after.
type badUpdate struct {
	name   string
	change func(t *testing.T, a *attack)
	spoil  func(t *testing.T, a *attack)
	code   codes.Code // InvalidArgument unless it says otherwise
	text   string     // in the answer, after the node and the round where the code is InvalidArgument
	reason string     // of the incident; empty: none
}

// Updates that cannot be what an honest node sends, whatever the round. NaN, infinities and numbers such as 1e30 have no
// place on the grid of integers; the nearest to them are the coordinates outside it.
var badUpdates = []badUpdate{
	{name: "coordinate above the grid", change: func(_ *testing.T, a *attack) { a.payload.Vectors[0][3] = fedavg.MaxQ + 1 },
		text: "vector 0: coordinate 3: 8388609 is outside ±2^23", reason: audit.ReasonShape},
	{name: "coordinate below the grid", change: func(_ *testing.T, a *attack) { a.payload.Vectors[0][0] = math.MinInt32 },
		text: "vector 0: coordinate 0: -2147483648 is outside ±2^23", reason: audit.ReasonShape},
	{name: "norm above the clip", change: func(_ *testing.T, a *attack) { a.payload.Vectors[0][0] = 1<<20 + 1 },
		text: "vector 0: norm exceeds the clip norm", reason: audit.ReasonShape},
	{name: "short vector", change: func(_ *testing.T, a *attack) { a.payload.Vectors[0] = a.payload.Vectors[0][1:] },
		text: "vector 0: length 6, want 7", reason: audit.ReasonShape},
	{name: "long vector", change: func(_ *testing.T, a *attack) { a.payload.Vectors[0] = append(a.payload.Vectors[0], 0) },
		text: "vector 0: length 8, want 7", reason: audit.ReasonShape},
	{name: "no vector", change: func(_ *testing.T, a *attack) { a.payload.Vectors = nil },
		text: "0 vectors, want 1", reason: audit.ReasonShape},
	{name: "two vectors", change: func(_ *testing.T, a *attack) {
		a.payload.Vectors = append(a.payload.Vectors, a.payload.Vectors[0])
	}, text: "2 vectors, want 1", reason: audit.ReasonShape},
	{name: "scalars in a training round", change: func(_ *testing.T, a *attack) { a.payload.Scalars = []int64{1} },
		text: "1 scalars, want 0", reason: audit.ReasonShape},
	{name: "negative weight", change: func(_ *testing.T, a *attack) { a.payload.Weight = -2 },
		text: "weight -2 is outside [1, 1000]", reason: audit.ReasonShape},
	{name: "zero weight", change: func(_ *testing.T, a *attack) { a.payload.Weight = 0 },
		text: "weight 0 is outside [1, 1000]", reason: audit.ReasonShape},
	{name: "weight above the cap", change: func(_ *testing.T, a *attack) { a.payload.Weight = 1001 },
		text: "weight 1001 is outside [1, 1000]", reason: audit.ReasonShape},
	{name: "weight that overflows", change: func(_ *testing.T, a *attack) { a.payload.Weight = math.MaxInt64 },
		text: "weight 9223372036854775807 is outside [1, 1000]", reason: audit.ReasonShape},
	{name: "no evaluation", change: func(_ *testing.T, a *attack) { a.payload.Evaluations = nil },
		text: "0 evaluations, want 1", reason: audit.ReasonShape},
	{name: "negative examples", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Examples = -1 },
		text: "evaluation 0: -1 examples is outside [0, 1048576]", reason: audit.ReasonShape},
	{name: "more correct than examples", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Correct = 3 },
		text: "evaluation 0: 3 correct of 2 examples", reason: audit.ReasonShape},
	{name: "negative loss", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Loss = -1 },
		text: "evaluation 0: loss -1 is outside", reason: audit.ReasonShape},
	{name: "loss of 1e18", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Loss = 1e18 },
		text: "evaluation 0: loss 1000000000000000000 is outside", reason: audit.ReasonShape},
	{name: "negative bin", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Positives[5] = -1 },
		text: "evaluation 0: bin 5: counts -1 and 0", reason: audit.ReasonShape},
	{name: "histogram of more than the examples", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Negatives[0] = 2 },
		text: "evaluation 0: histograms hold 4 examples, want 2", reason: audit.ReasonShape},
	{name: "short histogram", change: func(_ *testing.T, a *attack) { a.payload.Evaluations[0].Positives = []int64{2} },
		text: fmt.Sprintf("evaluation 0: histograms of 1 and %d bins, want %[1]d", model.Bins), reason: audit.ReasonShape},

	{name: "other attempt", change: func(_ *testing.T, a *attack) { a.payload.Attempt = 2 },
		text: `the update answers round 1 attempt 2 of job "job", not round 1 attempt 1 of job "job"`, reason: audit.ReasonReplay},
	{name: "other round", change: func(_ *testing.T, a *attack) { a.payload.Round = 7 },
		text: `the update answers round 7 attempt 1 of job "job", not round 1 attempt 1 of job "job"`, reason: audit.ReasonReplay},
	{name: "other job", change: func(_ *testing.T, a *attack) { a.payload.Job = "jobs" },
		text: `the update answers round 1 attempt 1 of job "jobs", not round 1 attempt 1 of job "job"`, reason: audit.ReasonReplay},
	{name: "other federation", change: func(_ *testing.T, a *attack) { a.payload.Cluster = "shop" },
		text: `the update is of federation "shop", not "test"`, reason: audit.ReasonReplay},
	{name: "other plan", change: func(_ *testing.T, a *attack) { a.payload.Plan[0] ^= 1 },
		text: "the update answers another plan of the round", reason: audit.ReasonReplay},
	{name: "other model", change: func(_ *testing.T, a *attack) { a.payload.Model[0] ^= 1 },
		text: "the update started from another model than the round's", reason: audit.ReasonReplay},

	{name: "in another node's name", change: func(_ *testing.T, a *attack) { a.payload.Node = "victim" },
		text: "verify update of node victim: update: signature does not verify", reason: audit.ReasonSignature},
	{name: "in the name of a node that never enrolled", change: func(_ *testing.T, a *attack) { a.payload.Node = "ghost" },
		text: `the update names node "ghost", which is not enrolled`, reason: audit.ReasonSignature},
	{name: "signed by a foreign key", change: func(t *testing.T, a *attack) {
		key, err := seal.NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		a.key = key
	}, text: "update: signature does not verify", reason: audit.ReasonSignature},
	{name: "unsigned", spoil: func(t *testing.T, a *attack) {
		a.forge(t, a.to, make([]byte, 64), make([]byte, 64))
	}, text: "update: signature does not verify", reason: audit.ReasonSignature},
	{name: "signed for other recipients", spoil: func(t *testing.T, a *attack) {
		digest := seal.UpdateDigest(a.payload.Encode())
		a.forge(t, a.to, seal.Sign(a.key, "choir/update/v1", digest[:]), make([]byte, 64))
	}, text: "envelope: signature does not verify", reason: audit.ReasonSignature},
	{name: "not a payload", spoil: func(t *testing.T, a *attack) {
		envelope, digest, err := seal.SealUpdate([]byte("garbage"), a.key, a.to)
		if err != nil {
			t.Fatal(err)
		}
		a.put(envelope, digest)
	}, text: "decode update: version 103 is not known", reason: audit.ReasonEncoding},
	{name: "payload with a byte too many", spoil: func(t *testing.T, a *attack) {
		envelope, digest, err := seal.SealUpdate(append(a.payload.Encode(), 0), a.key, a.to)
		if err != nil {
			t.Fatal(err)
		}
		a.put(envelope, digest)
	}, text: "decode update: ", reason: audit.ReasonEncoding},

	{name: "sealed to a stranger's key", change: func(t *testing.T, a *attack) { a.to = []string{freshRecipient(t)} },
		text: "open envelope: open: envelope is not for this recipient", reason: audit.ReasonDecrypt},
	{name: "not sealed", spoil: func(_ *testing.T, a *attack) {
		a.put(a.payload.Encode(), seal.UpdateDigest(a.payload.Encode()))
	}, text: "open envelope: open: no age header", reason: audit.ReasonDecrypt},
	{name: "flipped bit in the age header", spoil: func(_ *testing.T, a *attack) { a.envelope[60] ^= 1 },
		text: "open envelope: ", reason: audit.ReasonDecrypt},
	{name: "flipped bit in the envelope", spoil: func(_ *testing.T, a *attack) { a.envelope[len(a.envelope)/2] ^= 1 },
		text: "open envelope: ", reason: audit.ReasonDecrypt},
	{name: "cut envelope", spoil: func(_ *testing.T, a *attack) {
		a.envelope = a.envelope[:len(a.envelope)-1]
		a.header.Size--
	}, text: "open envelope: ", reason: audit.ReasonDecrypt},
	{name: "another update's digest", spoil: func(_ *testing.T, a *attack) { a.header.Update[0] ^= 1 },
		text: "the update's digest is not the announced one", reason: audit.ReasonEncoding},

	{name: "size 0", spoil: func(_ *testing.T, a *attack) { a.header.Size = 0 },
		text: "envelope of 0 bytes, want 1 to ", reason: audit.ReasonShape},
	{name: "size above the limit", spoil: func(_ *testing.T, a *attack) { a.header.Size = 1 << 20 },
		text: "envelope of 1048576 bytes, want 1 to ", reason: audit.ReasonShape},
	{name: "size that overflows", spoil: func(_ *testing.T, a *attack) { a.header.Size = math.MaxUint64 },
		text: "envelope of 18446744073709551615 bytes, want 1 to ", reason: audit.ReasonShape},
	{name: "more bytes than announced", spoil: func(_ *testing.T, a *attack) { a.header.Size-- },
		text: "chunk of ", reason: audit.ReasonEncoding},
	{name: "fewer bytes than announced", spoil: func(_ *testing.T, a *attack) { a.header.Size++ },
		code: codes.DataLoss, text: "upload ended after "},
	{name: "empty chunk", spoil: func(_ *testing.T, a *attack) { a.messages = []*choirv1.UploadRequest{a.announced(10), chunk(nil)} },
		text: "chunk of 0 bytes after 0 of 10", reason: audit.ReasonEncoding},
	{name: "header twice", spoil: func(_ *testing.T, a *attack) { a.messages = []*choirv1.UploadRequest{a.announced(10), a.announced(10)} },
		text: "chunk of 0 bytes after 0 of 10", reason: audit.ReasonEncoding},
	{name: "oversized message", spoil: func(_ *testing.T, a *attack) {
		a.messages = []*choirv1.UploadRequest{a.announced(10), chunk(make([]byte, 5<<20))}
	}, code: codes.ResourceExhausted, text: "received message larger than max"},
	{name: "no message", spoil: func(_ *testing.T, a *attack) { a.messages = []*choirv1.UploadRequest{} },
		code: codes.InvalidArgument, text: "upload: the first message is not a header with a digest"},
	{name: "chunk first", spoil: func(_ *testing.T, a *attack) { a.messages = []*choirv1.UploadRequest{chunk(a.envelope)} },
		text: "upload: the first message is not a header with a digest"},
	{name: "short update digest", spoil: func(_ *testing.T, a *attack) { a.header.Update = a.header.Update[:31] },
		text: "upload: the first message is not a header with a digest"},
	{name: "unknown job", spoil: func(_ *testing.T, a *attack) {
		a.header.Key = &choirv1.RoundKey{Job: "nobody's", Round: 1, Attempt: 1}
	}, code: codes.NotFound, text: `upload: round 1 attempt 1 of job "nobody's" is not known`},
	{name: "no round", spoil: func(_ *testing.T, a *attack) { a.header.Key = nil },
		code: codes.NotFound, text: `upload: round 0 attempt 0 of job "" is not known`},
}

// Every bad update is turned away with an answer that says why and names the node, and is an incident with its reason
// where the node is to blame. Nothing of it is counted: each node's honest update is taken afterwards, the round closes,
// and its sum is that of the honest ones.
func TestBadUpdates(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	var names []string
	for i := range badUpdates {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	nodes := f.enrol(append(names, "victim", "thief")...)
	spec := testJob(t, 2)
	spec.Clip = 1             // 2^20 on a grid of range 8
	spec.DurationMs = 600_000 // the cases take turns with other tests
	f.submit(spec)
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	victim, thief := len(badUpdates), len(badUpdates)+1
	good := make([]*attack, len(nodes))
	for i, n := range nodes {
		good[i] = newAttack(n, tasks[i])
		good[i].pack(t)
	}
	t.Run("cases", func(t *testing.T) {
		for i, bad := range badUpdates {
			t.Run(bad.name, func(t *testing.T) {
				t.Parallel()
				a := newAttack(nodes[i], tasks[i])
				if bad.change != nil {
					bad.change(t, a)
				}
				a.pack(t)
				if bad.spoil != nil {
					bad.spoil(t, a)
				}
				code, text := bad.code, bad.text
				if code == 0 {
					code = codes.InvalidArgument
				}
				if bad.reason != "" {
					text = fmt.Sprintf("node %s, round 1: ", nodes[i].name)
				}
				f.refused(t, a.send(f.ctx()), code, text, bad.text)
				f.incidentOf(nodes[i].name, bad.reason)
			})
		}
		t.Run("stolen from another node", func(t *testing.T) {
			stolen := *good[victim]
			stolen.n = nodes[thief]
			f.refused(t, stolen.send(f.ctx()), codes.InvalidArgument, "node thief, round 1: node thief sent an update of node victim")
			f.incidentOf("thief", audit.ReasonSignature)
		})
	})
	var sending sync.WaitGroup
	for _, a := range good {
		sending.Go(func() {
			out, err := uploadTo(f.ctx(), a.n.at("c1"), a.header, a.envelope)
			if err != nil || out.GetReceipt() == nil {
				t.Errorf("the honest update of %s: %v, %v", a.n.name, out, err)
			}
		})
	}
	sending.Wait()
	if t.Failed() {
		return
	}
	r := f.round("c1", 1, state.PhaseClosed)
	want := fedavg.NewSum(fedavg.Shape{Vectors: []int{7}, Evaluations: 1, WeightCap: 1000})
	refused := 1 // the thief
	for i, a := range good {
		if err := want.Add(&a.payload.Update); err != nil {
			t.Fatal(err)
		}
		if i < len(badUpdates) && badUpdates[i].reason != "" {
			refused++
		}
	}
	if int(r.Count) != len(nodes) || r.Sum != want.Digest() || int(r.Refused) != refused {
		t.Errorf("%d updates counted, want %d; %d nodes refused, want %d; sum %v", r.Count, len(nodes), r.Refused, refused, r.Sum)
	}

	// Round 2: what was good in round 1 is a replay.
	task := nodes[0].poll("c1")
	replay := *good[0]
	replay.header = &choirv1.UploadHeader{Key: task.Key, Update: good[0].header.Update, Size: good[0].header.Size}
	f.refused(t, replay.send(f.ctx()), codes.InvalidArgument,
		`node n00, round 2: the update answers round 1 attempt 1 of job "job", not round 2 attempt 1 of job "job"`)
	s := f.wait("c1", "incident of n00", func(s *state.State) bool { return s.Jobs["job"].Find(2, 1).Incidents["n00"] != "" })
	if r := s.Jobs["job"].Find(2, 1); r.Incidents["n00"] != audit.ReasonReplay || r.Count != 0 {
		t.Errorf("incidents %v, %d counted", r.Incidents, r.Count)
	}
}

// refused checks the code and the texts of an answer.
func (f *testFederation) refused(t *testing.T, err error, code codes.Code, texts ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%v, want code %v", err, code)
	}
	for _, text := range texts {
		if !strings.Contains(status.Convert(err).Message(), text) {
			t.Errorf("%q, want %q in it", status.Convert(err).Message(), text)
		}
	}
}

// incidentOf waits for the incident of a node in round 1, if there is to be one; nothing of the node is counted.
func (f *testFederation) incidentOf(node, reason string) {
	f.t.Helper()
	s := f.wait("c1", "incident of "+node, func(s *state.State) bool {
		return reason == "" || s.Jobs["job"].Find(1, 1).Incidents[node] != ""
	})
	r := s.Jobs["job"].Find(1, 1)
	if _, counted := r.Accepted[node]; r.Incidents[node] != reason || counted {
		f.t.Errorf("%s: incident %q, want %q; counted: %v", node, r.Incidents[node], reason, counted)
	}
}

// A node that sends nonsense again and again costs one place in the log, no room in the spool, and no memory.
func TestNonsenseAgainAndAgain(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	m := f.member("c1")
	a := newAttack(nodes[0], tasks[0])
	a.payload.Weight = 0
	a.pack(t)
	f.refused(t, a.send(f.ctx()), codes.InvalidArgument, "weight 0")
	s := f.wait("c1", "incident", func(s *state.State) bool { return s.Jobs["job"].Find(1, 1).Refused == 1 })
	for range 20 {
		f.refused(t, a.send(f.ctx()), codes.InvalidArgument, "weight 0")
	}
	nodes[0].answer("c1", tasks[0], 1)
	if now := m.replica.State().Index; now > s.Index+1 {
		t.Errorf("the log grew by %d entries, want the batch alone", now-s.Index)
	}
	f.spoolEmpty("c1")
	m.mu.Lock()
	k := m.collectors[attemptOf(tasks[0].Key)]
	m.mu.Unlock()
	f.eventually("the committed update is forgotten", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.pending) == 0 && k.taken["a"] != nil && k.taken["a"].payload == nil && k.taken["a"].envelope == nil
	})
}

func (f *testFederation) spoolEmpty(name string) {
	f.t.Helper()
	dir := f.member(name).spool.dir
	f.eventually("spool is empty", func() bool {
		entries, err := os.ReadDir(dir)
		if err != nil {
			f.t.Fatal(err)
		}
		return len(entries) == 0
	})
}

// Two different updates of one node, the second while the first still waits for its batch: the second is refused, is an
// incident with both digests, whatever came before, and leaves nothing in the spool.
func TestEquivocationBeforeTheBatch(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 1, Observer{}, "a", "b")
	m, n := f.member("c1"), nodes[0]
	s := m.replica.State()
	shape, err := m.shape(s.Jobs["job"], s.Jobs["job"].Find(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	bad := newAttack(n, tasks[0])
	bad.payload.Weight = 0
	bad.pack(t)
	f.refused(t, bad.send(f.ctx()), codes.InvalidArgument, "weight 0")
	f.incidentOf("a", audit.ReasonShape)
	m.cfg.BatchDelay = time.Minute
	k := m.collector(attemptOf(tasks[0].Key), shape, false)
	k.begin() // another upload is under way, so the batch waits
	sent := make(chan *choirv1.Outcome, 1)
	first, digest := n.sealed(tasks[0], n.payload(tasks[0], 1))
	ctx := f.ctx()
	go func() {
		out, err := n.upload(ctx, "c1", tasks[0].Key, first, digest)
		if err != nil {
			t.Error(err)
		}
		sent <- out
	}()
	f.eventually("the first waits", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.pending) == 1
	})
	second, other := n.sealed(tasks[0], n.payload(tasks[0], 2))
	_, err = n.upload(f.ctx(), "c1", tasks[0].Key, second, other)
	f.refused(t, err, codes.InvalidArgument, "node a, round 1: node a signed two different updates for one attempt")
	s = f.wait("c1", "incident", func(s *state.State) bool {
		return s.Jobs["job"].Find(1, 1).Incidents["a"] == audit.ReasonEquivocation
	})
	record, err := audit.Decode(s.Log.Record(s.Log.Size() - 1))
	if err != nil {
		t.Fatal(err)
	}
	if i, ok := record.(*audit.Incident); !ok || [32]byte(i.First) != digest || [32]byte(i.Second) != other {
		t.Errorf("the last record is %+v", record)
	}
	k.end()
	if r := n.receipt(<-sent); r.Update != digest {
		t.Errorf("receipt for %x, want %x", r.Update, digest)
	}
	f.spoolEmpty("c1")
}

// Who may not come in is told so by the handshake.
func TestStrangersHearAnAlert(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	_, strangers := f.people()
	for _, p := range strangers {
		t.Run(p.who, func(t *testing.T) {
			err := f.listen("c1", p.cred)
			if err == nil || !strings.HasPrefix(err.Error(), "remote error: tls: ") {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := choirv1.NewOperatorsClient(f.connect("c1", f.operator)).GetStatus(f.ctx(), &choirv1.StatusRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Every field of a job's specification is checked before the job is in the log; the answer names field and range.
func TestBadJobs(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	operators := f.operators()
	type job = *choirv1.JobSpec
	for _, c := range []struct {
		change func(job)
		text   string
	}{
		{func(s job) { s.Name = "" }, `job name "": want 1 to 63 of`},
		{func(s job) { s.Name = "../job" }, `job name "../job": want 1 to 63 of`},
		{func(s job) { s.Model = "A" }, `model name "A": want 1 to 63 of`},
		{func(s job) { s.Schema = nil }, "job job: parse schema"},
		{func(s job) { s.Schema = []byte(`{"name":"toy","colour":"red"}`) }, "colour"},
		{func(s job) { s.Hidden = nil }, "job job: hidden: number of layers is 0, want 1 to 8"},
		{func(s job) { s.Hidden = make([]uint32, 9) }, "job job: hidden: number of layers is 9, want 1 to 8"},
		{func(s job) { s.Hidden[0] = 0 }, "hidden layer 1 of width 0"},
		{func(s job) { s.Hidden[0] = math.MaxUint32 }, "hidden layer 1 of width "},
		{func(s job) { s.Hidden = []uint32{1 << 14, 1 << 14, 1 << 14} }, "parameters, at most 2^28"},
		{func(s job) { s.Rounds = 0 }, "job job: rounds is 0, want 1 to"},
		{func(s job) { s.Rounds = math.MaxUint64 }, "job job: rounds is "},
		{func(s job) { s.LocalEpochs = 1001 }, "job job: local_epochs is 1001, want 0 to 1000"},
		{func(s job) { s.Batch = 0 }, "job job: batch is 0, want 1 to 65536"},
		{func(s job) { s.LearningRate = 0 }, "job job: learning_rate is 0, want"},
		{func(s job) { s.LearningRate = math.NaN() }, "job job: learning_rate is NaN, want"},
		{func(s job) { s.Range = math.Inf(1) }, "job job: range is +Inf, want"},
		{func(s job) { s.Range = -1 }, "job job: range is -1, want"},
		{func(s job) { s.Clip = -1 }, "job job: clip is -1, want"},
		{func(s job) { s.Clip = math.NaN() }, "job job: clip is NaN, want"},
		{func(s job) { s.WeightCap = 0 }, "job job: weight_cap is 0, want 1 to"},
		{func(s job) { s.WeightCap = math.MinInt64 }, "job job: weight_cap is -9.2"},
		{func(s job) { s.WeightCap = fedavg.MaxWeight + 1 }, "job job: weight_cap is "},
		{func(s job) { s.MinimumCohort = 0 }, "job job: minimum_cohort is 0, want 1 to 65536"},
		{func(s job) { s.Goal = 1 << 17 }, "job job: goal is 131072, want 0 to 65536"},
		{func(s job) { s.MinimumCohort, s.Goal = 3, 2 }, "job job: goal 2 is below minimum_cohort 3"},
		{func(s job) { s.DurationMs = 99 }, "job job: duration_ms is 99, want 100 to"},
		{func(s job) { s.DurationMs = math.MaxUint64 }, "job job: duration_ms is "},
		{func(s job) { s.MaxAttempts = 0 }, "job job: max_attempts is 0, want 1 to 1000"},
		{func(s job) { s.GateInt8Ppm = -1 }, "job job: gate_int8_ppm is -1, want 0 to"},
		{func(s job) { s.GateStudentPpm = 1e6 + 1 }, "job job: gate_student_ppm is "},
		{func(s job) { s.StudentHidden = 1 << 20 }, "job job: student_hidden is "},
		{func(s job) { s.StudentRows = 1 << 30 }, "job job: student_rows is "},
		{func(s job) { s.StudentTemperature = 0 }, "job job: student_temperature is 0, want 0.1 to 100"},
		{func(s job) { s.StudentEpochs = 1001 }, "job job: student_epochs is 1001, want 0 to 1000"},
		{func(s job) { s.WaitMs = math.MaxUint64 }, "job job: wait_ms is "},
		{func(s job) { s.ServerRate = math.NaN() }, "job job: server_rate is NaN, want"},
		{func(s job) { s.StudentRate = -1 }, "job job: student_rate is -1, want"},
		{func(s job) { s.Validation = []byte{1} }, "submit job: the specification names a validation set"},
		{func(s job) { s.Validation = make([]byte, 32) }, "submit job: the specification names a validation set"},
		{func(s job) { s.Public = make([]byte, 32) }, "submit job: the specification names a public set"},
	} {
		spec := testJob(t, 1)
		c.change(spec)
		_, err := operators.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: spec})
		f.refused(t, err, codes.InvalidArgument, "submit job: ", c.text)
	}
	_, err := operators.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{})
	f.refused(t, err, codes.InvalidArgument, "submit job: job: no specification")
	for csv, text := range map[string]string{
		"x,y\n0.5,true\n0.5,perhaps\n": "validation:3",
		"x,y\n":                        "validation: no rows",
		"x,z\n0.5,true\n":              "validation",
	} {
		_, err := operators.SubmitJob(f.ctx(), &choirv1.SubmitJobRequest{Spec: testJob(t, 1), Validation: []byte(csv)})
		f.refused(t, err, codes.InvalidArgument, "submit job: ", text)
	}
	if jobs := f.member("c1").replica.State().Jobs; len(jobs) > 0 {
		t.Fatalf("jobs %v", jobs)
	}
	f.submit(testJob(t, 1))
}

// Questions about what there is not, and answers that say so.
func TestBadQuestions(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	n := f.enrol("a")[0]
	nodes, operators, ctx := n.at("c1"), f.operators(), f.ctx()
	blob := func(id []byte) error {
		stream, err := operators.GetBlob(ctx, &choirv1.BlobRequest{Id: id})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	nodeBlob := func(id []byte) error {
		stream, err := nodes.GetBlob(ctx, &choirv1.BlobRequest{Id: id})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	id := make([]byte, 32)
	id[0] = 0xab
	f.refused(t, blob(id), codes.NotFound, "blob ab00", "is not public")
	f.refused(t, nodeBlob(id), codes.NotFound, "blob ab00", "is not public")
	f.refused(t, nodeBlob(make([]byte, 32)), codes.NotFound, "blob 0000", "is not public")
	f.refused(t, blob([]byte{1}), codes.InvalidArgument, "blob id of 1 bytes, want 32")
	_, err := operators.GetJob(ctx, &choirv1.GetJobRequest{Name: "jab"})
	f.refused(t, err, codes.NotFound, `job "jab" does not exist`)
	_, err = nodes.GetRelease(ctx, &choirv1.ReleaseRequest{Model: "toy", Version: 3})
	f.refused(t, err, codes.NotFound, `model "toy" has no release 3`)
	_, err = nodes.GetOutcome(ctx, &choirv1.OutcomeRequest{Update: []byte{1}})
	f.refused(t, err, codes.InvalidArgument, "get outcome: the update's digest is missing")
	for _, life := range []uint64{0, uint64(maxTokenLife/time.Millisecond) + 1, math.MaxUint64/1_000_000 + 2, math.MaxUint64} {
		_, err = operators.CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: life})
		f.refused(t, err, codes.InvalidArgument, fmt.Sprintf("create token: lifetime_ms is %d, want 1 to 2592000000 (30 days)", life))
	}
	_, err = operators.CreateToken(ctx, &choirv1.CreateTokenRequest{LifetimeMs: 1000, Labels: map[string]string{"x": strings.Repeat("x", 1<<16)}})
	f.refused(t, err, codes.InvalidArgument, "create token: ", "at most 65536 are allowed")
}

// A committed batch is one node's own statistics or delta, where it holds one update. It is there, and for coordinators
// only: nodes and operators are told that it is not public, while its round is open and afterwards.
func TestBatchesAreForCoordinatorsOnly(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a", "b")
	f.submit(testJob(t, 2))
	type receiver interface {
		Recv() (*choirv1.BlobChunk, error)
	}
	ask := func(id state.Digest, get func(context.Context, *choirv1.BlobRequest) (receiver, error)) error {
		stream, err := get(f.ctx(), &choirv1.BlobRequest{Id: id[:]})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	as := map[string]func(context.Context, *choirv1.BlobRequest) (receiver, error){
		"its node": func(ctx context.Context, r *choirv1.BlobRequest) (receiver, error) {
			return nodes[0].at("c1").GetBlob(ctx, r)
		},
		"another node": func(ctx context.Context, r *choirv1.BlobRequest) (receiver, error) {
			return nodes[1].at("c1").GetBlob(ctx, r)
		},
		"an operator": func(ctx context.Context, r *choirv1.BlobRequest) (receiver, error) {
			return f.operators().GetBlob(ctx, r)
		},
	}
	peer := choirv1.NewPeersClient(f.connect("c1", f.member("c1").deps.Credential))
	check := func(id state.Digest) {
		t.Helper()
		if err := ask(id, func(ctx context.Context, r *choirv1.BlobRequest) (receiver, error) { return peer.FetchBlob(ctx, r) }); err != nil {
			t.Errorf("a coordinator: %v", err)
		}
		for who, get := range as {
			if err := ask(id, get); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "is not public") {
				t.Errorf("%s asks for batch %v: %v", who, id, err)
			}
		}
	}
	for number := range uint64(2) { // statistics, training
		tasks := f.tasks(nodes)
		nodes[0].answer("c1", tasks[0], 1)
		id := f.member("c1").now("job", f.round("c1", number, state.PhaseOpen)).Batches[0].ID
		check(id)
		nodes[1].answer("c1", tasks[1], 1)
		f.round("c1", number, state.PhaseClosed)
		check(id)
	}
}

// A configuration that cannot run is refused with the name of the field.
func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		text   string
	}{
		{func(c *Config) { c.Name = "C 1" }, `coordinator config: Name: coordinator name "C 1"`},
		{func(c *Config) { c.Cluster = "" }, "coordinator config: Cluster is missing"},
		{func(c *Config) { c.Dir = "" }, "coordinator config: Dir is missing"},
		{func(c *Config) { c.Address = "" }, "coordinator config: Address is missing"},
		{func(c *Config) { c.Address = "abc" }, "coordinator config: Address is abc, want host:port"},
		{func(c *Config) { c.Address = "true" }, "coordinator config: Address is true, want host:port"},
		{func(c *Config) { c.Address = "host:port" }, "coordinator config: Address is host:port, want host:port, the port from 1 to 65535"},
		{func(c *Config) { c.Address = "127.0.0.1:99999" }, "coordinator config: Address is 127.0.0.1:99999, want host:port"},
		{func(c *Config) { c.Address = "127.0.0.1:0" }, "coordinator config: Address is 127.0.0.1:0, want host:port"},
		{func(c *Config) { c.Address = ":7777" }, "coordinator config: Address is :7777, want a host that nodes and peers can dial"},
		{func(c *Config) { c.Address = "0.0.0.0:7777" }, "coordinator config: Address is 0.0.0.0:7777, want a host"},
		{func(c *Config) { c.Address = "[::]:7777" }, "coordinator config: Address is [::]:7777, want a host"},
		{func(c *Config) { c.Listen = "0.0.0.0" }, "coordinator config: Listen is 0.0.0.0, want host:port"},
		{func(c *Config) { c.Health = "127.0.0.1:99999" }, "coordinator config: Health is 127.0.0.1:99999, want a loopback address"},
		{func(c *Config) { c.Heartbeat = time.Millisecond }, "coordinator config: Heartbeat is 1, want 50 to 10000 ms"},
		{func(c *Config) { c.BatchUpdates = 65 }, "coordinator config: BatchUpdates is 65, want 1 to 64 updates"},
		{func(c *Config) { c.BatchDelay = 0 }, "coordinator config: BatchDelay is 0, want 1 to 10000 ms"},
		{func(c *Config) { c.Uploads = 0 }, "coordinator config: Uploads is 0, want 1 to 1024 uploads"},
		{func(c *Config) { c.MaxUpdate = 1 << 31 }, "coordinator config: MaxUpdate is 2147483648, want 1024 to 1073741824 bytes"},
		{func(c *Config) { c.Voters = nil }, "coordinator config: Voters is 0, want 1 to 7 coordinators"},
		{func(c *Config) { c.Voters[0].Name = "c2" }, "coordinator config: c1 is not among Voters"},
	} {
		cfg := DefaultConfig()
		cfg.Name, cfg.Cluster, cfg.Dir, cfg.Address = "c1", "test", filepath.Join(t.TempDir(), "c1"), "127.0.0.1:1"
		cfg.Voters = []Voter{{Name: "c1", Address: cfg.Address}}
		c.change(&cfg)
		_, err := New(cfg, Deps{Credential: &seal.Credential{}})
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v, want %q", err, c.text)
		}
		if _, err := os.Stat(cfg.Dir); cfg.Dir != "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the directory was made: %v", c.text, err)
		}
	}
}

// What cannot be written ends the start with the path in the message, and leaves nothing running.
func TestDirectoryThatCannotBeWritten(t *testing.T) {
	for _, blocked := range []string{"", "keys", "spool", "raft.db", "snapshots"} {
		t.Run("instead of "+filepath.Join("DIR", blocked), func(t *testing.T) {
			t.Parallel()
			f, m := lone(t)
			path := filepath.Join(m.cfg.Dir, blocked)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if blocked == "raft.db" {
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := New(m.cfg, m.deps)
			if err == nil {
				err = c.Run(f.ctx())
			}
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "coordinator c1: ") {
				t.Errorf("%v, want the coordinator and %s in it", err, path)
			}
			_ = m.deps.Listener.Close()
		})
	}
}

// lone is a federation of one coordinator that does not run yet.
func lone(t *testing.T) (*testFederation, *testMember) {
	t.Helper()
	root, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &testFederation{t: t, dir: t.TempDir(), root: root, clock: time.Now, running: map[string]*testMember{}}
	m := f.prepare("c1")
	m.cfg.Voters = []Voter{{Name: "c1", Address: m.cfg.Address, Chain: m.deps.Credential.Chain}}
	f.voters = m.cfg.Voters
	return f, m
}

// A port that is taken ends the start with the address in the message. Without a listener of the caller's, the
// coordinator listens on its address itself.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	f, m := lone(t)
	taken := m.deps.Listener
	m.deps.Listener = nil
	c, err := New(m.cfg, m.deps)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Run(f.ctx())
	if want := "run coordinator c1: listen tcp " + m.cfg.Address + ": bind: address already in use"; err == nil || err.Error() != want {
		t.Fatalf("%v, want %s", err, want)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	f.run(m) // now it starts
	t.Cleanup(f.stop)
	f.wait("c1", "founded", func(s *state.State) bool { return s.Cluster != "" })
}

// A coordinator whose port is closed under it says so and ends; it does not stay and listen to nothing.
func TestListenerClosed(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	m := f.member("c1")
	if err := m.deps.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	err := <-m.done
	m.done <- nil // for the end of the test
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "run coordinator c1: serve: ") {
		t.Fatal(err)
	}
}

// An update that fills several chunks is taken; one byte too many in any of them is not.
func TestUpdateOfManyChunks(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	nodes := f.enrol("a")
	f.submit(testJob(t, 1, 1<<14, 10))
	f.statistics(nodes)
	task := nodes[0].poll("c1")
	a := newAttack(nodes[0], task)
	for i := range a.payload.Vectors[0] {
		a.payload.Vectors[0][i] = int32(i) << 5 // so that they need three bytes each
	}
	a.pack(t)
	if len(a.envelope) < 2*rpc.ChunkBytes {
		t.Fatalf("the envelope has %d bytes", len(a.envelope))
	}
	a.messages = []*choirv1.UploadRequest{header(a.header)}
	for part := range slices.Chunk(a.envelope, rpc.ChunkBytes+1) {
		a.messages = append(a.messages, chunk(part))
	}
	f.refused(t, a.send(f.ctx()), codes.InvalidArgument, fmt.Sprintf("chunk of %d bytes after 0 of %d", rpc.ChunkBytes+1, len(a.envelope)))
	out, err := uploadTo(f.ctx(), nodes[0].at("c1"), a.header, a.envelope)
	if err != nil {
		t.Fatal(err)
	}
	nodes[0].receipt(out)
	f.round("c1", 1, state.PhaseClosed)
}
