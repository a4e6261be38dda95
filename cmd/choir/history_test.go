package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/model"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Whatever coordinators, nodes and operators ask for, in whatever order: what the replicated state records is a history
// that the verifier finds lawful. So a bundle that does not verify was not written by the state.
func TestWhatTheStateRecordsVerifies(t *testing.T) {
	seen := map[audit.Kind]int{}
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		for range 400 {
			w.propose(w.anything())
		}
		report := audit.Verify(w.bundle().Encode(), w.root.Fingerprint(), w.now)
		for _, c := range report.Checks {
			if !c.OK {
				t.Errorf("seed %d: %s: %s", seed, c.Name, c.Detail)
			}
		}
		records, err := w.bundle().Decoded()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			seen[r.Kind()]++
		}
	}
	for k := audit.KindGenesis; k <= audit.KindJobEnded; k++ {
		if seen[k] < 20 {
			t.Errorf("%v was recorded %d times: this test shows nothing about it", k, seen[k])
		}
	}
}

// world proposes commands, some of which the state refuses.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	root  *seal.Root
	names []string
	keys  map[string]ed25519.PrivateKey
	s     *state.State
	made  int // names and digests made up
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(seed)})
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: time.Now(), names: []string{"c1", "c2", "c3"}, keys: map[string]ed25519.PrivateKey{}, s: state.New()}
	var err error
	if w.root, err = seal.NewRoot("shop", w.now, random); err != nil {
		t.Fatal(err)
	}
	genesis := &choirv1.Genesis{Cluster: "shop", Root: w.root.Certificate().Raw, TimeMs: w.now.UnixMilli()}
	for _, name := range w.names {
		if w.keys[name], err = seal.NewKey(random); err != nil {
			t.Fatal(err)
		}
		chain, err := w.root.Certify(seal.RoleCoordinator, name, w.keys[name].Public().(ed25519.PublicKey), w.now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		genesis.Coordinators = append(genesis.Coordinators, &choirv1.CoordinatorEntry{Name: name, Address: name + ":1", Chain: chain})
	}
	w.propose(&choirv1.Command{Body: &choirv1.Command_Genesis{Genesis: genesis}})
	return w
}

func (w *world) propose(c *choirv1.Command) {
	w.t.Helper()
	b, err := state.Encode(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, _ = state.Apply(w.s, w.s.Index+1, 1, b)
}

func (w *world) bundle() *audit.Bundle {
	b := &audit.Bundle{Root: w.s.Root, Head: audit.Head{Cluster: w.s.Cluster, Size: w.s.Log.Size(), Root: w.s.Log.Root()}}
	for _, c := range w.s.Coordinators {
		b.Chains = append(b.Chains, audit.Chain{Name: c.Name, Certificates: c.Chain})
		b.Head.Signatures = append(b.Head.Signatures, audit.Signature{Signer: c.Name, Signature: seal.Sign(w.keys[c.Name], audit.DomainHead, b.Head.Message())})
	}
	for i := range w.s.Log.Size() {
		b.Records = append(b.Records, w.s.Log.Record(i))
	}
	return b
}

// anything is a command about the latest job, mostly one that could be accepted.
func (w *world) anything() *choirv1.Command {
	job := fmt.Sprintf("job-%d", max(1, len(w.s.Jobs)))
	j := w.s.Jobs[job]
	if j == nil || j.State != state.JobRunning && w.rng.IntN(2) == 0 {
		return w.submit(fmt.Sprintf("job-%d", len(w.s.Jobs)+1))
	}
	switch w.rng.IntN(16) {
	case 0:
		return w.epoch()
	case 1:
		id := w.node()
		return &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{Id: id, SecretHash: digestOf(id), ExpiresMs: 2, Role: "node"}}}
	case 2, 3:
		return w.enrol()
	case 4:
		return &choirv1.Command{Body: &choirv1.Command_EndJob{EndJob: &choirv1.EndJob{Job: w.maybe(job, "job-9"), State: state.JobFailed, Reason: "no budget", Term: uint64(w.rng.IntN(8))}}}
	case 5:
		return w.publish(j)
	}
	if r := j.Current(); r != nil && (!r.Over() || w.rng.IntN(4) == 0) {
		return w.step(job, r)
	}
	return w.open(j)
}

// maybe is nearly always a, else b.
func (w *world) maybe(a, b string) string {
	if w.rng.IntN(10) == 0 {
		return b
	}
	return a
}

func (w *world) node() string { return fmt.Sprintf("n%d", w.rng.IntN(6)) }

// fresh is a digest that nothing else has.
func (w *world) fresh() []byte { w.made++; return digestOf(fmt.Sprint(w.made)) }

func digestOf(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }

func (w *world) epoch() *choirv1.Command {
	name := w.names[w.rng.IntN(3)]
	key, err := seal.NewEpochKey(uint64(w.rng.IntN(10)))
	if err != nil {
		w.t.Fatal(err)
	}
	return &choirv1.Command{Body: &choirv1.Command_AnnounceEpoch{AnnounceEpoch: &choirv1.AnnounceEpoch{Key: &choirv1.EpochKey{
		Coordinator: name, Epoch: key.Epoch, Recipient: key.Recipient(), Signature: key.Sign("shop", name, w.keys[name]),
	}}}}
}

// enrol uses the token of a node's name, sometimes for another node or with another key.
func (w *world) enrol() *choirv1.Command {
	token := w.node()
	return &choirv1.Command{Body: &choirv1.Command_Enrol{Enrol: &choirv1.Enrol{
		TokenId: token, SecretHash: digestOf(token), Name: w.maybe(token, w.node()), PublicKey: digestOf(w.maybe("key", w.node())), TimeMs: 1,
	}}}
}

func (w *world) submit(job string) *choirv1.Command {
	return &choirv1.Command{Body: &choirv1.Command_SubmitJob{SubmitJob: &choirv1.SubmitJob{TimeMs: 1, Spec: &choirv1.JobSpec{
		Name: job, Model: "toy", Hidden: []uint32{2}, Rounds: 2, LocalEpochs: 1, Batch: 1, LearningRate: 0.1, Range: 8, WeightCap: 9,
		MinimumCohort: 1 + uint32(w.rng.IntN(2)), DurationMs: 1000, MaxAttempts: 3, StudentTemperature: 1, GateInt8Ppm: int64(w.rng.IntN(2)),
		Schema: []byte(`{"name":"toy","unit":"row","label":"y","columns":[{"name":"x","kind":"numeric","min":0,"max":1},{"name":"y","kind":"boolean","required":true}]}`),
	}}}}
}

func (w *world) open(j *state.Job) *choirv1.Command {
	spec, err := j.JobSpec()
	if err != nil {
		w.t.Fatal(err)
	}
	key, kind, ok := j.Next(spec)
	if !ok {
		return w.publish(j)
	}
	c := &choirv1.OpenRound{Key: key, Kind: kind, Seed: w.rng.Uint64(), Roster: w.s.Roster, Term: 1, Available: make([]byte, (len(w.s.Nodes)+7)/8)}
	for i := range len(w.s.Nodes) {
		if w.rng.IntN(5) > 0 {
			c.Available[i/8] |= 1 << (i % 8)
		}
	}
	switch kind {
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		c.Model = j.Model[:]
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		c.Candidates = [][]byte{j.Model[:], w.fresh()}
	}
	return &choirv1.Command{Body: &choirv1.Command_OpenRound{OpenRound: c}}
}

// step is what may come next in a round, or too early, or too late.
func (w *world) step(job string, r *state.Round) *choirv1.Command {
	key := r.Key(job)
	next := map[string]int{state.PhaseOpen: w.rng.IntN(3) / 2, state.PhaseCut: 2, state.PhaseCharged: 3}[r.Phase]
	if w.rng.IntN(4) == 0 {
		next = w.rng.IntN(6)
	}
	switch next {
	case 0:
		return w.accept(key, r)
	case 1:
		return &choirv1.Command{Body: &choirv1.Command_CutRound{CutRound: &choirv1.CutRound{Key: key, Term: 1}}}
	case 2:
		return &choirv1.Command{Body: &choirv1.Command_Charge{Charge: &choirv1.Charge{Key: key, Mechanism: "none", Term: 1}}}
	case 3:
		return w.close(key, r)
	case 4:
		return &choirv1.Command{Body: &choirv1.Command_AbandonRound{AbandonRound: &choirv1.AbandonRound{Key: key, Reason: "too few", Term: 1}}}
	}
	c := &choirv1.RecordIncident{Key: key, Node: w.node(), Reason: w.maybe(audit.ReasonShape, audit.ReasonTokenReuse)}
	if w.rng.IntN(2) == 0 {
		c.Reason, c.First, c.Second = audit.ReasonEquivocation, w.fresh(), w.fresh()
	}
	return &choirv1.Command{Body: &choirv1.Command_RecordIncident{RecordIncident: c}}
}

// accept proposes a batch of some of the cohort, sometimes of nodes that are counted already. Every batch has the same
// sum, so that a round's sum is that of its batches.
func (w *world) accept(key *choirv1.RoundKey, r *state.Round) *choirv1.Command {
	c := &choirv1.AcceptBatch{Key: key, Batch: w.fresh(), Sum: digestOf("sum"), Coordinator: w.names[w.rng.IntN(3)], Holders: w.names}
	for _, node := range r.Cohort {
		if _, counted := r.Accepted[node]; w.rng.IntN(2) == 0 || counted && w.rng.IntN(10) > 0 {
			continue
		}
		weight := int64(w.rng.IntN(10)) // 0 is refused
		c.Accepted = append(c.Accepted, &choirv1.Accepted{Node: node, Update: w.fresh(), Weight: weight})
		c.Weight += weight
	}
	return &choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: c}}
}

func (w *world) close(key *choirv1.RoundKey, r *state.Round) *choirv1.Command {
	c := &choirv1.CloseRound{Key: key, Sum: digestOf("sum"), Term: 1}
	switch r.Kind {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		c.Model, c.Statistics = w.fresh(), w.fresh()
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		c.Model, c.Evaluations = w.fresh(), []*choirv1.EvaluationSum{w.evaluation(r)}
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		c.Evaluations = []*choirv1.EvaluationSum{w.evaluation(r), w.evaluation(r)}
	}
	return &choirv1.Command{Body: &choirv1.Command_CloseRound{CloseRound: c}}
}

// evaluation is of a positive and a negative example, in one bin or in two.
func (w *world) evaluation(r *state.Round) *choirv1.EvaluationSum {
	e := &choirv1.EvaluationSum{Nodes: uint64(r.Count), Examples: 2, Correct: 1, Positives: make([]int64, model.Bins), Negatives: make([]int64, model.Bins)}
	e.Positives[w.rng.IntN(2)], e.Negatives[0] = 1, 1
	return e
}

func (w *world) publish(j *state.Job) *choirv1.Command {
	c := &choirv1.PublishRelease{Job: j.Name, Round: 2, Term: 1}
	if r := j.Current(); r != nil {
		c.Evaluation = r.Key(j.Name)
		for i, id := range r.Candidates {
			c.Variants = append(c.Variants, &choirv1.Variant{Name: []string{"float32", "int8"}[i], Blob: id[:], Bytes: 100})
		}
	}
	return &choirv1.Command{Body: &choirv1.Command_PublishRelease{PublishRelease: c}}
}
