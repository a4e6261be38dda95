package audit

import (
	"crypto/ed25519"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

// noon is when the federations of these tests are founded; their certificates last a month.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const month = 30 * 24 * time.Hour

// federation is a root and the coordinators it certified, with all keys in hand.
type federation struct {
	t         testing.TB
	random    *rand.ChaCha8
	root      *seal.Root
	names     []string
	keys      map[string]ed25519.PrivateKey
	chains    map[string][][]byte           // certificates, as of now
	firstKeys map[string]ed25519.PrivateKey // of the founders
	genesis   *Genesis
	epochs    []*EpochAnnounced
}

// found makes a federation named shop. Its keys follow from the seed.
func found(t testing.TB, seed byte, names ...string) *federation {
	t.Helper()
	f := &federation{t: t, random: rand.NewChaCha8([32]byte{seed}), names: names,
		keys: map[string]ed25519.PrivateKey{}, chains: map[string][][]byte{}, firstKeys: map[string]ed25519.PrivateKey{}}
	var err error
	if f.root, err = seal.NewRoot("shop", noon, f.random); err != nil {
		t.Fatal(err)
	}
	f.genesis = &Genesis{Cluster: "shop", Root: f.root.Certificate().Raw, TimeMS: noon.UnixMilli()}
	for _, name := range names {
		f.keys[name] = f.key()
		f.genesis.Coordinators = append(f.genesis.Coordinators,
			Coordinator{Name: name, Address: name + ":1", Chain: f.certify(seal.RoleCoordinator, name, f.keys[name], month)})
		f.firstKeys[name] = f.keys[name]
		f.epochs = append(f.epochs, f.epoch(name, 1))
	}
	return f
}

func (f *federation) key() ed25519.PrivateKey {
	f.t.Helper()
	key, err := seal.NewKey(f.random)
	if err != nil {
		f.t.Fatal(err)
	}
	return key
}

func (f *federation) certify(role seal.Role, name string, key ed25519.PrivateKey, life time.Duration) [][]byte {
	f.t.Helper()
	chain, err := f.root.Certify(role, name, key.Public().(ed25519.PublicKey), noon, life)
	if err != nil {
		f.t.Fatal(err)
	}
	return chain
}

// epoch is the announcement of a new epoch key.
func (f *federation) epoch(name string, number uint64) *EpochAnnounced {
	f.t.Helper()
	key, err := seal.NewEpochKey(number)
	if err != nil {
		f.t.Fatal(err)
	}
	return &EpochAnnounced{name, number, key.Recipient(), key.Sign("shop", name, f.keys[name])}
}

// story is a lawful history in which everything happens once: three nodes enrol, a token comes back, the statistics
// round counts two batches, the first attempt at round 1 is abandoned, an update is refused, the job ends with a release.
// Each call makes new records.
func (f *federation) story() []Record {
	records := []Record{copyOf(f.genesis)}
	for _, e := range f.epochs {
		records = append(records, copyOf(e))
	}
	for i, node := range []string{"m", "n", "o"} {
		records = append(records, &TokenCreated{"t-" + node, "node", 1},
			&Enrolled{node, ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i))).Public().(ed25519.PublicKey), "t-" + node})
	}
	reused := records[len(records)-1].(*Enrolled).Key
	records = append(records, &Incident{Node: "thief", Reason: ReasonTokenReuse, First: reused, Second: digest(8)}, &JobSubmitted{"j", dig(1)})
	records = append(records, f.round(0, 1, roundStatistics, "m", "n o")...)
	lost := f.round(1, 1, roundTraining, "m", "n")
	records = append(records, lost[:3]...)
	records = append(records, &RoundAbandoned{"j", 1, 1, "too few"})
	records = append(records, f.round(1, 2, roundTraining, "m n o")...)
	records = append(records, &Incident{"j", 1, 2, "n", ReasonShape, nil, nil})
	records = append(records, f.round(2, 1, roundEvaluation, "m o")...)
	return append(records, &Released{"model", 1, "j", 1, []Variant{
		{"float32", made(1), 128, true, ""}, {"int8", candidate, 32, false, "AUC too low"},
	}}, &JobEnded{"j", "finished", ""})
}

// made is the model that a round made; candidate is a variant of it.
func made(round uint64) [32]byte { return dig(byte(0x40 + round)) }

var candidate = dig(0x60)

// round is the records of an attempt by cohort m, n, o with a batch for each string, which lists nodes. A node's weight
// is its letter's number after l.
func (f *federation) round(round uint64, attempt uint32, kind uint8, batches ...string) []Record {
	open := &RoundOpened{Job: "j", Round: round, Attempt: attempt, RoundKind: kind, Plan: dig(2), Cohort: []string{"m", "n", "o"}, MinimumCohort: 2, Goal: 3}
	closed := &RoundClosed{Job: "j", Round: round, Attempt: attempt, Sum: dig(3), EvalExamples: 10, EvalCorrect: 9}
	switch kind {
	case roundStatistics:
		closed.Model, closed.Statistics, closed.EvalExamples, closed.EvalCorrect = made(round), dig(5), 0, 0
	case roundTraining:
		open.Model, closed.Model = made(round-1), made(round)
	case roundEvaluation:
		open.Candidates = [][32]byte{made(round - 1), candidate}
	}
	records := []Record{open}
	for i, nodes := range batches {
		b := &BatchAccepted{Job: "j", Round: round, Attempt: attempt, Batch: dig(byte(0x80 + i)), Sum: dig(3), Coordinator: f.names[0]}
		if len(batches) > 1 {
			b.Sum = dig(byte(0x70 + i)) // a part of the round's sum
		}
		for _, c := range nodes {
			if c == ' ' {
				continue
			}
			weight := int64(c - 'l')
			b.Accepted = append(b.Accepted, Accepted{string(c), [32]byte{byte(round), byte(attempt), byte(c)}, weight})
			closed.Count++
			closed.Weight += weight
		}
		records = append(records, b)
	}
	return append(records, &RoundCut{"j", round, attempt, closed.Count, closed.Weight}, &Charged{"j", round, attempt, "none", closed.Count}, closed)
}

// encoded encodes records.
func encoded(records []Record) [][]byte {
	out := make([][]byte, len(records))
	for i, r := range records {
		out[i] = Encode(r)
	}
	return out
}

// head is the head of a log of records, signed by some.
func (f *federation) head(records [][]byte, signers ...string) Head {
	log := NewLog(records)
	h := Head{Cluster: "shop", Size: log.Size(), Root: log.Root()}
	for _, s := range signers {
		h.Signatures = append(h.Signatures, Signature{s, seal.Sign(f.keys[s], DomainHead, h.Message())})
	}
	return h
}

// bundle exports records under a head that some signed, all if none is named.
func (f *federation) bundle(records []Record, signers ...string) *Bundle {
	if len(signers) == 0 {
		signers = f.names
	}
	b := &Bundle{Root: f.root.Certificate().Raw, Records: encoded(records)}
	b.Head = f.head(b.Records, signers...)
	for _, s := range signers {
		chain, joined := f.chains[s]
		if !joined {
			i := slices.IndexFunc(f.genesis.Coordinators, func(c Coordinator) bool { return c.Name == s })
			chain = f.genesis.Coordinators[i].Chain
		}
		b.Chains = append(b.Chains, Chain{s, chain})
	}
	return b
}

// verify verifies a bundle under the federation's root, an hour after it was founded.
func (f *federation) verify(b *Bundle) Report {
	return Verify(b.Encode(), f.root.Fingerprint(), noon.Add(time.Hour))
}

// failed lists the names and details of the checks that failed.
func failed(r Report) (names []string, details string) {
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Name)
			details += c.Detail
		}
	}
	return names, details
}
