package state_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// founders are three coordinators with real certificates and keys, so that the records can be audited. Others join.
type founders struct {
	root *seal.Root
	keys map[string]ed25519.PrivateKey // by public key
	all  []*choirv1.CoordinatorEntry
}

func newFounders(t testing.TB) *founders {
	t.Helper()
	root, err := seal.NewRoot("shop", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &founders{root: root, keys: map[string]ed25519.PrivateKey{}}
	for _, name := range []string{"ada", "bob", "cyd"} {
		key, err := seal.NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := root.Certify(seal.RoleCoordinator, name, key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		f.all = append(f.all, &choirv1.CoordinatorEntry{Name: name, Address: name + ":1", Chain: chain})
		f.keep(key)
	}
	return f
}

func (f *founders) keep(key ed25519.PrivateKey) ed25519.PublicKey {
	public := key.Public().(ed25519.PublicKey)
	f.keys[string(public)] = key
	return public
}

// announce is the next epoch key of a voter.
func (f *founders) announce(v state.Coordinator) *choirv1.Command {
	leaf, err := x509.ParseCertificate(v.Chain[0])
	if err != nil {
		panic(err)
	}
	epoch, err := seal.NewEpochKey(v.Epoch.Epoch + 1)
	if err != nil {
		panic(err)
	}
	key := f.keys[string(leaf.PublicKey.(ed25519.PublicKey))]
	return &choirv1.Command{Body: &choirv1.Command_AnnounceEpoch{AnnounceEpoch: &choirv1.AnnounceEpoch{Key: &choirv1.EpochKey{
		Coordinator: v.Name, Epoch: epoch.Epoch, Recipient: epoch.Recipient(), Signature: epoch.Sign("shop", v.Name, key),
	}}}}
}

// approve certifies the keys of a machine that asked to join.
func (f *founders) approve(name string, j state.Join) *choirv1.Command {
	chain, err := f.root.Certify(seal.RoleCoordinator, name, j.Key, time.Now(), time.Hour)
	if err != nil {
		panic(err)
	}
	issuer, err := f.root.CertifyIssuer(name, j.IssuerKey, time.Now(), time.Hour)
	if err != nil {
		panic(err)
	}
	return &choirv1.Command{Body: &choirv1.Command_ApproveCoordinator{ApproveCoordinator: &choirv1.ApproveCoordinator{
		Name: name, Chain: chain, Issuer: issuer, TimeMs: time.Now().UnixMilli(),
	}}}
}

// audit has the independent verifier read the records.
func (f *founders) audit(log audit.Log) error {
	b := audit.Bundle{Root: f.root.Certificate().Raw, Head: audit.Head{Cluster: "shop", Size: log.Size(), Root: log.Root()}}
	for i := range log.Size() {
		b.Records = append(b.Records, log.Record(i))
	}
	for _, c := range audit.Verify(b.Encode(), "", time.Now()).Checks {
		if !c.OK && c.Name != "signatures" { // nobody signed this head
			return fmt.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
	return nil
}

// life draws commands that are mostly what a coordinator would propose in a state.
type life struct {
	*mathrand.Rand
	*founders
	s    *state.State
	term uint64
	n    uint64 // draws made, for digests that are new
}

func (l *life) pick(names ...string) string { return names[l.IntN(len(names))] }

func (l *life) fresh() []byte { l.n++; return digestOf(fmt.Sprint("fresh ", l.n)) }

// next draws a command. What founders sign is never spoilt: nodes and auditors check signatures, Apply does not. Job ends and abandonments are rare, so that some jobs get to their release.
func (l *life) next() *choirv1.Command {
	if l.s.Cluster == "" {
		return &choirv1.Command{Body: &choirv1.Command_Genesis{Genesis: &choirv1.Genesis{
			Cluster: "shop", Root: l.root.Certificate().Raw, TimeMs: time.Now().UnixMilli(), Coordinators: l.all,
		}}}
	}
	switch n := l.IntN(100); {
	case n < 2:
		return l.announce(l.s.Coordinators[l.IntN(len(l.s.Coordinators))])
	case n < 5:
		return l.membership()
	case n < 9:
		id := l.pick(tokens...)
		return &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{
			Id: id, SecretHash: digestOf(id), ExpiresMs: 1 + l.Int64N(1000), Role: "node", Labels: map[string]string{"region": l.pick("1", "2", "3")},
		}}}
	case n < 19:
		id := l.pick(tokens...)
		return &choirv1.Command{Body: &choirv1.Command_Enrol{Enrol: &choirv1.Enrol{
			TokenId: id, SecretHash: digestOf(id), Name: l.pick("n1", "n2", "n3", "n4", "n5", "n6", "n7"), PublicKey: digestOf(l.pick("k1", "k2", "k3") + id), TimeMs: 1 + l.Int64N(500),
		}}}
	case n < 22 && len(l.s.Jobs) > 0:
		return l.control()
	}
	var running []*state.Job
	for _, name := range slices.Sorted(maps.Keys(l.s.Jobs)) {
		if j := l.s.Jobs[name]; j.State == state.JobRunning || j.Active() != nil {
			running = append(running, j)
		}
	}
	if len(running) == 0 || len(running) < 3 && l.IntN(20) == 0 {
		spec := usual()
		spec.Name, spec.Model, spec.Hidden, spec.MinimumCohort = fmt.Sprint("job-", l.IntN(50)), l.pick("m", "n"), []uint32{4}, 1+l.Uint32N(2)
		spec.Rounds, spec.BudgetRounds, spec.Goal, spec.MaxAttempts = 1+l.Uint64N(3), budget, spec.MinimumCohort*l.Uint32N(2), 4
		if spec.Goal > 0 {
			spec.OverSelectionPercent = 50 * l.Uint32N(4)
		}
		if l.IntN(3) == 0 {
			spec.Where = []*choirv1.LabelMatch{{Label: "region", Values: []string{"1", "2"}}}
		}
		if l.IntN(3) == 0 {
			spec.Validation = digestOf("public set")
		}
		if l.IntN(3) == 0 {
			l.tensors(spec)
		}
		return &choirv1.Command{Body: &choirv1.Command_SubmitJob{SubmitJob: &choirv1.SubmitJob{Spec: spec, TimeMs: 1}}}
	}
	j := running[l.IntN(len(running))]
	if r := j.Active(); r != nil {
		return l.step(j, r)
	}
	return l.begin(j)
}

var tokens = []string{"t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"}

// membership draws who comes and goes.
func (l *life) membership() *choirv1.Command {
	names := slices.Sorted(maps.Keys(l.s.Joins))
	switch n := l.IntN(20); {
	case n < 7 && len(names) > 0:
		name := l.pick(names...)
		return l.approve(name, l.s.Joins[name])
	case n < 10:
		id := fmt.Sprint("c", len(l.s.Tokens))
		return &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{
			Id: id, SecretHash: digestOf(id), ExpiresMs: 1000, Role: "coordinator",
		}}}
	case n < 16:
		id := "c0"
		for _, t := range slices.Sorted(maps.Keys(l.s.Tokens)) {
			if token := l.s.Tokens[t]; token.Role == "coordinator" && (token.Node == "" || l.IntN(4) == 0) {
				id = t
			}
		}
		name := l.pick("ada", "bob", "cyd", "dot", "eli")
		key, issuer := ed25519.NewKeyFromSeed(digestOf(id+name)), ed25519.NewKeyFromSeed(digestOf("issuer"+id))
		return &choirv1.Command{Body: &choirv1.Command_RequestJoin{RequestJoin: &choirv1.RequestJoin{
			TokenId: id, SecretHash: digestOf(id), Name: name, Address: fmt.Sprint(name, ":", l.IntN(3)),
			PublicKey: l.keep(key), IssuerKey: issuer.Public().(ed25519.PublicKey), TimeMs: 1 + l.Int64N(1000),
		}}}
	case n < 17:
		return &choirv1.Command{Body: &choirv1.Command_RemoveCoordinator{RemoveCoordinator: &choirv1.RemoveCoordinator{Name: l.pick(l.voters()...)}}}
	case n < 18:
		return &choirv1.Command{Body: &choirv1.Command_RevokeToken{RevokeToken: &choirv1.RevokeToken{Id: l.pick(append(slices.Sorted(maps.Keys(l.s.Tokens)), "t1")...)}}}
	case n < 19 && l.IntN(4) == 0:
		return &choirv1.Command{Body: &choirv1.Command_RevokeNode{RevokeNode: &choirv1.RevokeNode{Name: l.pick("n1", "n2", "n3", "n4", "n5", "n6", "n7")}}}
	}
	fingerprint := digestOf(l.pick("operator", "officer", "auditor"))
	if l.IntN(2) == 0 {
		fingerprint = digestOf(string(l.s.Coordinators[0].Chain[0])) // that of a certificate
	}
	return &choirv1.Command{Body: &choirv1.Command_RevokePerson{RevokePerson: &choirv1.RevokePerson{Fingerprint: fingerprint}}}
}

func (l *life) voters() (names []string) {
	for _, v := range l.s.Coordinators {
		names = append(names, v.Name)
	}
	return names
}

// control draws what an operator does with a job. Jobs are resumed and continued more often than halted.
func (l *life) control() *choirv1.Command {
	c := &choirv1.ControlJob{Job: l.pick(slices.Sorted(maps.Keys(l.s.Jobs))...)}
	switch j := l.s.Jobs[c.Job]; {
	case l.IntN(4) == 0:
		c.Action = l.pick(state.ActionPause, state.ActionResume, state.ActionStop, state.ActionContinue)
	case j.State == state.JobPaused:
		c.Action = state.ActionResume
	case j.Ended():
		c.Action, c.Rounds = state.ActionContinue, l.Uint64N(3)
	default:
		c.Action = l.pick(state.ActionPause, state.ActionStop)
	}
	return &choirv1.Command{Body: &choirv1.Command_ControlJob{ControlJob: c}}
}

// tensors makes a job of one that has an algorithm and no schema.
func (*life) tensors(spec *choirv1.JobSpec) {
	spec.Schema, spec.Validation, spec.Hidden, spec.LocalEpochs, spec.Batch, spec.LearningRate, spec.Range = nil, nil, nil, 0, 0, 0, 0
	spec.Algorithm, spec.Examples, spec.Publish = []byte("{}"), &choirv1.Examples{Input: []uint32{2}, Outputs: 1}, "none"
}

// budget is that of every job, so that the test can hold nodes to it.
const budget = 20

// begin opens the job's next round, or ends it.
func (l *life) begin(j *state.Job) *choirv1.Command {
	spec, err := j.JobSpec()
	if err != nil {
		panic(err)
	}
	key, kind, ok := j.Next(spec)
	if l.IntN(12) == 0 {
		return &choirv1.Command{Body: &choirv1.Command_EndJob{EndJob: &choirv1.EndJob{Job: j.Name, State: state.JobFailed, Reason: "enough", Term: l.term}}}
	}
	if !ok && spec.Publish != "" {
		return &choirv1.Command{Body: &choirv1.Command_EndJob{EndJob: &choirv1.EndJob{Job: j.Name, State: state.JobFinished, Reason: "no release", Term: l.term}}}
	}
	if !ok {
		return l.publish(j, spec)
	}
	c := &choirv1.OpenRound{Key: key, Kind: kind, Seed: l.Uint64(), Roster: l.s.Roster, Term: l.term}
	n := len(l.s.Nodes)
	c.Available = make([]byte, (n+7)/8)
	for i := range n {
		if l.IntN(4) > 0 {
			c.Available[i/8] |= 1 << (i % 8)
		}
	}
	switch kind {
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		if c.Model = j.Model[:]; j.Model.IsZero() {
			c.Model = l.fresh()
		}
		if !j.Strategy.IsZero() {
			c.StrategyState = j.Strategy[:]
		}
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		c.Candidates = [][]byte{j.Model[:], l.fresh()}
	}
	return &choirv1.Command{Body: &choirv1.Command_OpenRound{OpenRound: c}}
}

func (l *life) publish(j *state.Job, spec *choirv1.JobSpec) *choirv1.Command {
	c := &choirv1.PublishRelease{Job: j.Name, Round: spec.Rounds, Term: l.term, Validation: spec.Validation}
	c.Variants = []*choirv1.Variant{{Name: state.VariantFloat32, Blob: j.Model[:], Bytes: 9}, {Name: state.VariantInt8, Blob: l.fresh(), Bytes: 3}}
	if r := j.Closed(spec.Rounds + 1); r != nil {
		c.Evaluation = r.Key(j.Name)
		c.Variants[1].Blob = r.Candidates[1][:]
	} else {
		c.Variants[0].Evaluation, c.Variants[1].Evaluation = flat(0, 1), flat(0, 2)
	}
	return &choirv1.Command{Body: &choirv1.Command_PublishRelease{PublishRelease: c}}
}

// step goes on with an open round.
func (l *life) step(j *state.Job, r *state.Round) *choirv1.Command {
	key := r.Key(j.Name)
	switch n := l.IntN(20); {
	case n == 0:
		return &choirv1.Command{Body: &choirv1.Command_AbandonRound{AbandonRound: &choirv1.AbandonRound{Key: key, Reason: "enough", Term: r.Term}}}
	case n == 1:
		c := &choirv1.RecordIncident{Key: key, Node: l.pick(r.Cohort...), Reason: l.pick(audit.ReasonShape, audit.ReasonEquivocation)}
		if c.Reason == audit.ReasonEquivocation {
			c.First, c.Second = l.fresh(), l.fresh()
		}
		return &choirv1.Command{Body: &choirv1.Command_RecordIncident{RecordIncident: c}}
	case n < 10 && r.Phase == state.PhaseOpen:
		c := &choirv1.AcceptBatch{Key: key, Batch: l.fresh(), Sum: l.fresh(), Coordinator: l.pick(l.voters()...), Holders: l.voters()}
		for _, node := range r.Cohort {
			if l.IntN(3) == 0 {
				a := &choirv1.Accepted{Node: node, Update: l.fresh(), Weight: 1 + l.Int64N(1000)}
				c.Accepted = append(c.Accepted, a)
				c.Weight += a.Weight
			}
		}
		return &choirv1.Command{Body: &choirv1.Command_AcceptBatch{AcceptBatch: c}}
	case r.Phase == state.PhaseOpen:
		return &choirv1.Command{Body: &choirv1.Command_CutRound{CutRound: &choirv1.CutRound{Key: key, Term: r.Term}}}
	case r.Phase == state.PhaseCut:
		return &choirv1.Command{Body: &choirv1.Command_Charge{Charge: &choirv1.Charge{Key: key, Mechanism: "none", Term: r.Term}}}
	}
	c := &choirv1.CloseRound{Key: key, Sum: r.Batches[0].Sum[:], Term: r.Term}
	if r.Kind != choirv1.RoundKind_ROUND_KIND_EVALUATE {
		c.Model = l.fresh()
	}
	if r.Kind == choirv1.RoundKind_ROUND_KIND_STATISTICS {
		c.Statistics = l.fresh()
	}
	if r.Fleet > 0 && l.IntN(2) == 0 {
		c.StrategyState = l.fresh()
	}
	for range map[choirv1.RoundKind]int{choirv1.RoundKind_ROUND_KIND_TRAIN: 1, choirv1.RoundKind_ROUND_KIND_EVALUATE: 2}[r.Kind] {
		e := flat(1+l.Uint64N(uint64(r.Count)), 1+l.Int64N(3)) // of some nodes; refused below the minimum cohort
		e.Updates = uint64(r.Count)
		c.Evaluations = append(c.Evaluations, e)
	}
	return &choirv1.Command{Body: &choirv1.Command_CloseRound{CloseRound: c}}
}

// spoil changes one field somewhere in a message.
func (l *life) spoil(m protoreflect.Message) {
	var set []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set = append(set, f)
		return true
	})
	if len(set) == 0 {
		return
	}
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number() - b.Number()) })
	f := set[len(set)-1] // the body of a command comes after its version
	if m.Descriptor().Name() != "Command" {
		f = set[l.IntN(len(set))]
	}
	switch {
	case f.IsMap() || l.IntN(10) == 0 && f.ContainingOneof() == nil:
		m.Clear(f)
	case f.IsList():
		list := m.Mutable(f).List()
		if i := l.IntN(list.Len()); f.Message() != nil && l.IntN(2) == 0 {
			l.spoil(list.Get(i).Message())
		} else if l.IntN(2) == 0 {
			list.Append(list.Get(i))
		} else {
			list.Truncate(i)
		}
	case f.Message() != nil:
		l.spoil(m.Mutable(f).Message())
	default:
		m.Set(f, l.other(f, m.Get(f)))
	}
}

// other is another value of a scalar field.
func (l *life) other(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	by := l.IntN(3) - 1
	switch f.Kind() {
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint()) + uint32(by))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v.Uint() + uint64(by))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + int64(by))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(v.Enum() + protoreflect.EnumNumber(by))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(l.pick("", "n1", "job-1", "ada", "t1", "no such name"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([][]byte{nil, make([]byte, 32), {1}, l.fresh()}[l.IntN(4)])
	}
	return v
}

func TestRandomLives(t *testing.T) {
	f := newFounders(t)
	closed, released, refusals, joined, again := 0, 0, 0, 0, 0
	for seed := range uint64(16) {
		l := &life{Rand: mathrand.New(mathrand.NewPCG(seed, 12)), founders: f, s: state.New(), term: 1}
		for i := uint64(1); i <= 600; i++ {
			if l.IntN(50) == 0 {
				l.term++
			}
			c := l.next()
			if _, signed := c.Body.(*choirv1.Command_AnnounceEpoch); i > 1 && !signed && l.IntN(4) == 0 {
				c = proto.Clone(c).(*choirv1.Command)
				l.spoil(c.ProtoReflect())
			}
			data, err := state.Encode(c)
			if err != nil {
				t.Fatalf("seed %d, entry %d: %v", seed, i, err)
			}
			next, refused := entry{i, l.term, data}.apply(l.s)
			if err := l.check(next, refused); err != nil {
				t.Fatalf("seed %d, entry %d, %v → %v: %v", seed, i, c, refused, err)
			}
			if refused != nil {
				refusals++
			}
			if l.s = next; l.IntN(20) == 0 {
				l.s = restore(t, snap(t, next)) // and go on as a replica that was away
			}
		}
		if err := f.audit(l.s.Log); err != nil {
			t.Errorf("seed %d: the records are no lawful history: %v", seed, err)
		}
		for _, j := range l.s.Jobs {
			closed += int(j.Trained)
		}
		released += len(l.s.Releases)
		for _, v := range l.s.Coordinators {
			if len(v.Issuer) > 0 {
				joined++
			}
		}
		for _, j := range l.s.Jobs {
			if spec, err := j.JobSpec(); err == nil && spec.Rounds > 3 {
				again++ // it was continued
			}
		}
	}
	t.Logf("%d training rounds closed, %d models released, %d commands refused, %d coordinators joined, %d jobs continued", closed, released, refusals, joined, again)
	if closed < 100 || released < 15 || refusals < 3000 || joined < 10 || again < 5 {
		t.Error("these lives see too little")
	}
}

// check holds the step from l.s to next against what is always true.
func (l *life) check(next *state.State, refused error) error {
	before := l.s.Log
	if root, err := next.Log.RootAt(before.Size()); err != nil || root != before.Root() {
		return fmt.Errorf("the log of %d records does not go on from the one of %d: %v", next.Log.Size(), before.Size(), err)
	}
	if refused != nil && next.Log.Size() > before.Size() && !errors.Is(refused, state.ErrToken) {
		return errors.New("a refused command left a record")
	}
	if err := checkEpochs(next); err != nil {
		return err
	}
	reserved, spent := map[string]uint32{}, map[string]uint32{}
	for _, j := range next.Jobs {
		for _, r := range j.Rounds {
			if err := checkRound(r); err != nil {
				return fmt.Errorf("job %s round %d attempt %d: %w", j.Name, r.Number, r.Attempt, err)
			}
			if r.Kind != choirv1.RoundKind_ROUND_KIND_TRAIN {
				continue
			}
			switch r.Phase { // an abandoned round may have been charged or not
			case state.PhaseOpen, state.PhaseCut:
				for _, n := range r.Cohort {
					reserved[n]++
				}
			case state.PhaseCharged, state.PhaseClosed:
				for n := range r.Accepted {
					spent[n]++
				}
			}
		}
	}
	for name, n := range next.Nodes {
		if n.Reserved != reserved[name] || n.Spent < spent[name] || n.Spent+n.Reserved > budget {
			return fmt.Errorf("node %s has %d rounds reserved and %d spent, its jobs %d and %d", name, n.Reserved, n.Spent, reserved[name], spent[name])
		}
	}
	return nil
}

// checkEpochs: a round that is not over has the keys of all coordinators it names, and no others are kept but the newest.
func checkEpochs(s *state.State) error {
	named := map[string]bool{}
	for _, j := range s.Jobs {
		for _, r := range j.Rounds {
			if r.Over() && r.Epochs != nil {
				return fmt.Errorf("job %s round %d is over and names epochs", j.Name, r.Number)
			}
		}
		r := j.Active()
		if r == nil || len(r.Epochs) == 0 {
			continue
		}
		keys := s.RoundKeys(r)
		for _, k := range keys {
			if r.Epochs[k.Coordinator] != k.Epoch || !s.NeedsEpoch(k.Coordinator, k.Epoch) {
				return fmt.Errorf("job %s round %d is sealed to epoch %d of %s, fixed were %v", j.Name, r.Number, k.Epoch, k.Coordinator, r.Epochs)
			}
			named[fmt.Sprint(k.Coordinator, k.Epoch)] = true
		}
		if len(keys) != len(r.Epochs) {
			return fmt.Errorf("job %s round %d is sealed to %d keys, fixed were %v", j.Name, r.Number, len(keys), r.Epochs)
		}
	}
	for _, c := range s.Coordinators {
		for _, k := range c.Epochs {
			if !named[fmt.Sprint(c.Name, k.Epoch)] || k.Epoch >= c.Epoch.Epoch {
				return fmt.Errorf("epoch %d of %s is kept, and no round names it", k.Epoch, c.Name)
			}
		}
	}
	return nil
}

// checkRound: each node counts once, and what the batches hold adds up to the round.
func checkRound(r *state.Round) error {
	nodes, weight := map[string]bool{}, int64(0)
	for _, b := range r.Batches {
		for _, n := range b.Nodes {
			if nodes[n] || !r.Invites(n) {
				return fmt.Errorf("node %s counts twice or uninvited", n)
			}
			nodes[n] = true
			if a, ok := r.Accepted[n]; !ok || a.Batch != b.ID {
				return fmt.Errorf("node %s is accepted with %v, not with its batch %v", n, a.Batch, b.ID)
			}
			weight += r.Accepted[n].Weight
		}
	}
	if r.Accepted != nil && (len(nodes) != int(r.Count) || len(r.Accepted) != int(r.Count) || weight != r.Weight) {
		return fmt.Errorf("it counts %d of weight %d, its batches hold %d of %d", r.Count, r.Weight, len(nodes), weight)
	}
	return nil
}
