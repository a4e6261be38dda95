// Package audit is the proof of what happened: a record of each decision in one canonical encoding, the Merkle log
// they are leaves of, heads signed by a majority of the coordinators, receipts, and a verifier that needs nothing but a
// bundle file and the fingerprint of a root.
//
//	log = log.Append(audit.Encode(&audit.RoundCut{Job: "purchase", Round: 3, …}))
//	report := audit.Verify(bundle, fingerprint, now)
//
// The log proves which updates were counted and that nothing was rewritten afterwards. It does not prove that a
// coordinator computed an average honestly: that follows from recomputing the committed sum.
package audit

import (
	"fmt"

	"choir.example/internal/canon"
)

// Kind says what a record records. Numbers are never reused.
type Kind uint64

// Kinds of records.
const (
	KindGenesis Kind = iota + 1
	KindEpochAnnounced
	KindTokenCreated
	KindEnrolled
	KindJobSubmitted
	KindRoundOpened
	KindBatchAccepted
	KindRoundCut
	KindCharged
	KindRoundClosed
	KindRoundAbandoned
	KindReleased
	KindIncident
	KindJobEnded
	KindTokenRevoked
	KindNodeRevoked
	KindPersonRevoked
	KindJoinRequested
	KindCoordinatorApproved
	KindCoordinatorRemoved
	KindJobControlled
	KindRootRotated
	KindCoordinatorRenewed
	KindOfficerAdmitted
)

var kindNames = [...]string{"", "genesis", "epoch announced", "token created", "enrolled", "job submitted", "round opened",
	"batch accepted", "round cut", "charged", "round closed", "round abandoned", "released", "incident", "job ended",
	"token revoked", "node revoked", "person revoked", "join requested", "coordinator approved", "coordinator removed", "job controlled",
	"root rotated", "coordinator renewed", "officer admitted"}

// String names the kind.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint64(k))
}

// Record is one leaf of the log.
type Record interface {
	Kind() Kind
	visit(v visitor) // names each field once, in the order of the encoding
}

// Genesis founds the federation.
type Genesis struct {
	Cluster      string
	Root         []byte // certificate, DER
	Coordinators []Coordinator
	TimeMS       int64
	Officers     [][32]byte // SHA-256 of the officers' public keys, in order; not written if there are none
}

// Coordinator is a voter.
type Coordinator struct {
	Name, Address string
	Chain         [][]byte
}

// EpochAnnounced gives a voter a new epoch key.
type EpochAnnounced struct {
	Coordinator string
	Epoch       uint64
	Recipient   string
	Signature   []byte
}

// TokenCreated admits one future node or coordinator. Neither the secret nor its hash is recorded.
type TokenCreated struct {
	ID, Role  string
	ExpiresMS int64
}

// Enrolled binds a node's name to its key.
type Enrolled struct {
	Node  string
	Key   []byte
	Token string
}

// JobSubmitted names a job and the digest of its specification.
type JobSubmitted struct {
	Job  string
	Spec [32]byte
}

// RoundOpened invites a cohort. RoundKind is 1 for statistics, 2 for training, 3 for evaluation.
type RoundOpened struct {
	Job           string
	Round         uint64
	Attempt       uint32
	RoundKind     uint8
	Plan          [32]byte
	Model         [32]byte
	Candidates    [][32]byte
	Cohort        []string
	MinimumCohort uint32
	Goal          uint32
	Strategy      [32]byte // what the round before left of the strategy; not written if it is zero
}

// BatchAccepted counts updates.
type BatchAccepted struct {
	Job         string
	Round       uint64
	Attempt     uint32
	Batch       [32]byte
	Sum         [32]byte
	Coordinator string
	Accepted    []Accepted
}

// Accepted is one counted update.
type Accepted struct {
	Node   string
	Update [32]byte
	Weight int64
}

// RoundCut ends the collection.
type RoundCut struct {
	Job     string
	Round   uint64
	Attempt uint32
	Count   uint64
	Weight  int64
}

// Charged books the price of a round before anything made from it is released.
type Charged struct {
	Job       string
	Round     uint64
	Attempt   uint32
	Mechanism string
	Nodes     uint64
}

// RoundClosed fixes what a round made.
type RoundClosed struct {
	Job                                 string
	Round                               uint64
	Attempt                             uint32
	Count                               uint64
	Weight                              int64
	Sum                                 [32]byte
	Model                               [32]byte
	Statistics                          [32]byte
	EvalExamples, EvalCorrect, EvalLoss int64
	Strategy                            [32]byte // what is left of the strategy for the next round; not written if it is zero
}

// RoundAbandoned ends an attempt without a result.
type RoundAbandoned struct {
	Job     string
	Round   uint64
	Attempt uint32
	Reason  string
}

// Released publishes a model version.
type Released struct {
	Model    string
	Version  uint64
	Job      string
	Round    uint64
	Variants []Variant
}

// Variant is one form of a release; one that missed its gate is recorded with the reason and not published.
type Variant struct {
	Name      string
	Blob      [32]byte
	Bytes     uint64
	Published bool
	Reason    string
}

// Incident is the first refusal of a node in an attempt, two different updates of it with both digests, or a used token
// that came back (no attempt), with the key it was used with and the one it came with.
type Incident struct {
	Job           string
	Round         uint64
	Attempt       uint32
	Node          string
	Reason        string
	First, Second []byte
}

// JobEnded ends a job.
type JobEnded struct{ Job, State, Reason string }

// Reasons of incidents.
const (
	ReasonDecrypt      = "decrypt"      // the envelope did not open
	ReasonEncoding     = "encoding"     // it is not a canonical encoding, or not the bytes announced
	ReasonSignature    = "signature"    // unsigned, or signed by another key
	ReasonReplay       = "replay"       // it answers another round, attempt, plan or model
	ReasonShape        = "shape"        // wrong length, a value out of bounds, a bad weight
	ReasonEquivocation = "equivocation" // two different updates for one attempt
	ReasonTokenReuse   = "token-reuse"  // a used token came back with another key
)

// KnownReason reports whether a reason is one of the above.
func KnownReason(reason string) bool {
	switch reason {
	case ReasonDecrypt, ReasonEncoding, ReasonSignature, ReasonReplay, ReasonShape, ReasonEquivocation, ReasonTokenReuse:
		return true
	}
	return false
}

func (r *attemptFields) visit(v visitor) {
	v.str(r.job)
	v.uint(r.round)
	v.uint32(r.attempt)
}

// attemptFields are the three fields that name an attempt.
type attemptFields struct {
	job     *string
	round   *uint64
	attempt *uint32
}

func (r *Genesis) visit(v visitor) {
	v.str(&r.Cluster)
	v.bytes(&r.Root)
	list(v, &r.Coordinators, func(c *Coordinator) { c.visit(v) })
	v.int(&r.TimeMS)
	trailing(v, &r.Officers, v.digest)
}

func (c *Coordinator) visit(v visitor) {
	v.str(&c.Name)
	v.str(&c.Address)
	list(v, &c.Chain, v.bytes)
}

func (r *EpochAnnounced) visit(v visitor) {
	v.str(&r.Coordinator)
	v.uint(&r.Epoch)
	v.str(&r.Recipient)
	v.bytes(&r.Signature)
}

func (r *TokenCreated) visit(v visitor) {
	v.str(&r.ID)
	v.str(&r.Role)
	v.int(&r.ExpiresMS)
}

func (r *Enrolled) visit(v visitor) {
	v.str(&r.Node)
	v.bytes(&r.Key)
	v.str(&r.Token)
}

func (r *JobSubmitted) visit(v visitor) {
	v.str(&r.Job)
	v.digest(&r.Spec)
}

func (r *RoundOpened) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.uint8(&r.RoundKind)
	v.digest(&r.Plan)
	v.digest(&r.Model)
	list(v, &r.Candidates, v.digest)
	list(v, &r.Cohort, v.str)
	v.uint32(&r.MinimumCohort)
	v.uint32(&r.Goal)
	trailingDigest(v, &r.Strategy)
}

func (r *BatchAccepted) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.digest(&r.Batch)
	v.digest(&r.Sum)
	v.str(&r.Coordinator)
	list(v, &r.Accepted, func(a *Accepted) {
		v.str(&a.Node)
		v.digest(&a.Update)
		v.int(&a.Weight)
	})
}

func (r *RoundCut) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.uint(&r.Count)
	v.int(&r.Weight)
}

func (r *Charged) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.str(&r.Mechanism)
	v.uint(&r.Nodes)
}

func (r *RoundClosed) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.uint(&r.Count)
	v.int(&r.Weight)
	v.digest(&r.Sum)
	v.digest(&r.Model)
	v.digest(&r.Statistics)
	v.int(&r.EvalExamples)
	v.int(&r.EvalCorrect)
	v.int(&r.EvalLoss)
	trailingDigest(v, &r.Strategy)
}

func (r *RoundAbandoned) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.str(&r.Reason)
}

func (r *Released) visit(v visitor) {
	v.str(&r.Model)
	v.uint(&r.Version)
	v.str(&r.Job)
	v.uint(&r.Round)
	list(v, &r.Variants, func(x *Variant) {
		v.str(&x.Name)
		v.digest(&x.Blob)
		v.uint(&x.Bytes)
		v.bool(&x.Published)
		v.str(&x.Reason)
	})
}

func (r *Incident) visit(v visitor) {
	(&attemptFields{&r.Job, &r.Round, &r.Attempt}).visit(v)
	v.str(&r.Node)
	v.str(&r.Reason)
	v.bytes(&r.First)
	v.bytes(&r.Second)
}

func (r *JobEnded) visit(v visitor) {
	v.str(&r.Job)
	v.str(&r.State)
	v.str(&r.Reason)
}

// Kind returns the record's kind; so do the methods below.
func (*Genesis) Kind() Kind        { return KindGenesis }
func (*EpochAnnounced) Kind() Kind { return KindEpochAnnounced }
func (*TokenCreated) Kind() Kind   { return KindTokenCreated }
func (*Enrolled) Kind() Kind       { return KindEnrolled }
func (*JobSubmitted) Kind() Kind   { return KindJobSubmitted }
func (*RoundOpened) Kind() Kind    { return KindRoundOpened }
func (*BatchAccepted) Kind() Kind  { return KindBatchAccepted }
func (*RoundCut) Kind() Kind       { return KindRoundCut }
func (*Charged) Kind() Kind        { return KindCharged }
func (*RoundClosed) Kind() Kind    { return KindRoundClosed }
func (*RoundAbandoned) Kind() Kind { return KindRoundAbandoned }
func (*Released) Kind() Kind       { return KindReleased }
func (*Incident) Kind() Kind       { return KindIncident }
func (*JobEnded) Kind() Kind       { return KindJobEnded }

// blank returns an empty record of a kind, nil for an unknown one.
func blank(k Kind) Record {
	switch k {
	case KindGenesis:
		return &Genesis{}
	case KindEpochAnnounced:
		return &EpochAnnounced{}
	case KindTokenCreated:
		return &TokenCreated{}
	case KindEnrolled:
		return &Enrolled{}
	case KindJobSubmitted:
		return &JobSubmitted{}
	case KindRoundOpened:
		return &RoundOpened{}
	case KindBatchAccepted:
		return &BatchAccepted{}
	case KindRoundCut:
		return &RoundCut{}
	case KindCharged:
		return &Charged{}
	case KindRoundClosed:
		return &RoundClosed{}
	case KindRoundAbandoned:
		return &RoundAbandoned{}
	case KindReleased:
		return &Released{}
	case KindIncident:
		return &Incident{}
	case KindJobEnded:
		return &JobEnded{}
	}
	if r := blankOfMembers(k); r != nil {
		return r
	}
	return blankOfRoots(k)
}

// recordVersion starts every record.
const recordVersion = 1

// Encode is a record's canonical encoding.
func Encode(r Record) []byte {
	var w canon.Writer
	w.Uint(recordVersion)
	w.Uint(uint64(r.Kind()))
	r.visit(&writer{&w})
	return w.Buf
}

// Decode reads what Encode wrote, and nothing else. The record shares no memory with b.
func Decode(b []byte) (Record, error) {
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != recordVersion {
		return nil, fmt.Errorf("decode record: version %d is not known", v)
	}
	k := Kind(r.Uint())
	rec := blank(k)
	if r.Err() == nil && rec == nil {
		return nil, fmt.Errorf("decode record: %v is not known", k)
	}
	if rec != nil {
		rec.visit(&reader{r})
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("decode record (%v): %w", k, err)
	}
	return rec, nil
}
