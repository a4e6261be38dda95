// Package state is what the coordinators agree on: who belongs to the federation, which jobs run, where each round
// stands, which updates were accepted, what was published, and the log of records that proves it.
//
// State changes only through Apply, a pure function of the state and one command: no clock, no chance, no map order,
// no I/O, and no floats that decide anything. Every replica that applies the same log holds the same state, now and
// on replay in years. A State is immutable: Apply returns a new one that shares what did not change, so a reader or a
// snapshot just keeps the pointer.
//
//	s := state.New()
//	s, refused := state.Apply(s, index, term, command)
//
// A command that does not fit is refused with an error, which is part of the answer and the same everywhere; it
// changes nothing, but for the few refusals that are recorded as incidents.
package state

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
)

// KeepRounds is how many closed rounds of a job, and as many abandoned attempts, stay available for receipts and
// refusals after they have ended.
const KeepRounds = 8

// Digest is a SHA-256, written in hex in snapshots.
type Digest [32]byte

// IsZero reports whether the digest is absent.
func (d Digest) IsZero() bool { return d == Digest{} }

// String is the digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes hex.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(d) {
		return fmt.Errorf("digest of %d characters", len(b))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// State is one version of the replicated state. Its fields are for reading only.
type State struct {
	Index        uint64 // raft index of the last command applied
	Cluster      string
	Root         []byte // root certificate, DER
	Coordinators []Coordinator
	Tokens       map[string]Token
	Nodes        map[string]Node
	Roster       uint64 // counts changes of Nodes
	Jobs         map[string]*Job
	Releases     map[string][]Release // by model name, version 1 first
	Log          audit.Log

	Voters  uint64          `json:",omitempty"` // raft index of the last change of the coordinators or their certificates; 0: the founders
	Joins   map[string]Join `json:",omitempty"` // by name: who asks to become a coordinator
	Revoked map[string]bool `json:",omitempty"` // people and removed coordinators: fingerprint of a certificate in hex

	Roots    []EarlierRoot      `json:",omitempty"` // oldest first
	Officers map[string]Officer `json:",omitempty"` // by SHA-256 of the public key in hex
}

// Coordinator is a voter.
type Coordinator struct {
	Name    string
	Address string
	Chain   [][]byte // identity certificate, leaf first
	Epoch   EpochKey // the newest; zero until announced

	Issuer []byte     `json:",omitempty"` // issuing certificate, DER; empty for founders
	Epochs []EpochKey `json:",omitempty"` // older ones that rounds still name, oldest first
}

// Join is a machine that asks to become a coordinator. It waits for the root to certify its keys.
type Join struct {
	Token     string
	Address   string
	Key       []byte // Ed25519 public key of its identity
	IssuerKey []byte // and of its issuer
	Time      int64  // Unix milliseconds
}

// EpochKey is the public half of a coordinator's epoch key. The signature is the coordinator's.
type EpochKey struct {
	Epoch     uint64
	Recipient string
	Signature []byte
}

// Token admits one node, or lets one machine ask to become a coordinator.
type Token struct {
	SecretHash Digest
	Expires    int64 // Unix milliseconds
	Role       string
	Labels     map[string]string
	Node       string // who used it
	Key        []byte // with which public key
	Incident   bool   // it came back with another key
	Revoked    bool   `json:",omitempty"`
}

// Node is an enrolled node.
type Node struct {
	Key      []byte // Ed25519 public key
	Token    string
	Labels   map[string]string
	Reserved uint32 // training rounds reserved by open rounds
	Spent    uint32 // training rounds charged
	Revoked  bool   `json:",omitempty"`
}

// Job states. A paused job opens no round until it is resumed; a stopped or finished one may be continued.
const (
	JobRunning  = "running"
	JobPaused   = "paused"
	JobStopped  = "stopped"
	JobFinished = "finished"
	JobFailed   = "failed"
)

// JobQueued is how a running job is shown that has not opened a round. No job is stored with it.
const JobQueued = "queued"

// Job is a training task and where it stands.
type Job struct {
	Name       string
	Spec       []byte // choirv1.JobSpec
	State      string
	Reason     string
	Trained    uint64 // number of the last training round closed
	Model      Digest // blob of the current global model
	Statistics Digest // blob of the federated statistics
	Release    uint64 // version published
	Rounds     []*Round
	Stopping   bool `json:",omitempty"` // it is stopped when its open round ends

	Strategy Digest `json:",omitzero"` // blob of what the strategy keeps from the last training round closed
}

// Round phases.
const (
	PhaseOpen      = "open"
	PhaseCut       = "cut"
	PhaseCharged   = "charged"
	PhaseClosed    = "closed"
	PhaseAbandoned = "abandoned"
)

// Round is one attempt at one round. Rounds older than KeepRounds lose Accepted, Cohort, Batches, Incidents and
// histograms and keep the rest.
type Round struct {
	Number     uint64
	Attempt    uint32
	Kind       choirv1.RoundKind
	Phase      string
	Reason     string
	Term       uint64 // of the leader that planned it
	Seed       uint64
	Plan       Digest
	Model      Digest
	Candidates []Digest
	Noise      []byte
	Cohort     []string
	Invited    uint32
	Goal       uint32
	Count      uint32
	Weight     int64
	Opened     uint64 // raft index
	Ended      uint64 // raft index of the close or the abandonment
	CutAt      uint64 // raft index of the cut
	Accepted   map[string]Acceptance
	Batches    []Batch
	Incidents  map[string]string // why each node was refused first, or that it equivocated
	Refused    uint32            // nodes refused
	Sum        Digest
	Next       Digest // blob of the model made
	Evaluation []Evaluation
	Epochs     map[string]uint64 `json:",omitempty"` // until it is over: the epoch of each coordinator that updates are sealed to

	Strategy Digest `json:",omitzero"`  // blob of what the round before left of the strategy
	Fleet    uint32 `json:",omitempty"` // nodes that might have taken part, were they there; 0 in jobs without an algorithm
}

// Acceptance is one counted update.
type Acceptance struct {
	Update Digest
	Weight int64
	Batch  Digest
	Index  uint64 // raft index of the batch
}

// Batch is a committed batch of updates.
type Batch struct {
	ID          Digest
	Sum         Digest
	Coordinator string
	Nodes       []string
	Weight      int64
	Index       uint64
	Term        uint64
}

// Evaluation is a sum of evaluations over Nodes nodes, at least the minimum cohort of those with examples. It is of no
// node and empty where fewer had some, and of no node for a public set. The histograms are dropped after KeepRounds; AUC
// stays.
type Evaluation struct {
	Nodes, Examples, Correct, Loss int64
	Positives, Negatives           []int64 `json:",omitempty"`
	AUC                            int64   // in millionths, from the histograms
}

// Release is a published version of a model.
type Release struct {
	Model    string
	Version  uint64
	Job      string
	Round    uint64
	Index    uint64
	Variants []Variant
}

// Variant is one form of a release.
type Variant struct {
	Name       string
	Blob       Digest
	Bytes      uint64
	Published  bool
	Reason     string
	Evaluation Evaluation
}

// New returns the empty state, before genesis.
func New() *State {
	return &State{
		Tokens: map[string]Token{}, Nodes: map[string]Node{},
		Jobs: map[string]*Job{}, Releases: map[string][]Release{},
	}
}

// NodeNames lists the enrolled nodes in order: the list that an availability bitmap indexes.
func (s *State) NodeNames() []string { return slices.Sorted(maps.Keys(s.Nodes)) }

// Coordinator returns a voter by name.
func (s *State) Coordinator(name string) (Coordinator, bool) {
	for _, c := range s.Coordinators {
		if c.Name == name {
			return c, true
		}
	}
	return Coordinator{}, false
}

// RosterVersion numbers the list of coordinators: the raft index of its last change, 1 for the founders. It is never 0,
// so that whoever holds no list has an older one.
func (s *State) RosterVersion() uint64 { return max(s.Voters, 1) }

// Majority is how many voters make one.
func (s *State) Majority() int { return len(s.Coordinators)/2 + 1 }

// JobSpec decodes a job's specification.
func (j *Job) JobSpec() (*choirv1.JobSpec, error) {
	spec := &choirv1.JobSpec{}
	if err := proto.Unmarshal(j.Spec, spec); err != nil {
		return nil, fmt.Errorf("decode specification of job %s: %w", j.Name, err)
	}
	return spec, nil
}

// Current is the job's last round, nil if it has none.
func (j *Job) Current() *Round {
	if len(j.Rounds) == 0 {
		return nil
	}
	return j.Rounds[len(j.Rounds)-1]
}

// Active is the job's round that has not ended, nil if none.
func (j *Job) Active() *Round {
	if r := j.Current(); r != nil && !r.Over() {
		return r
	}
	return nil
}

// Find returns the round of an attempt, nil if the job never had it.
func (j *Job) Find(number uint64, attempt uint32) *Round {
	for _, r := range slices.Backward(j.Rounds) {
		if r.Number == number && r.Attempt == attempt {
			return r
		}
	}
	return nil
}

// Closed returns the closed attempt of a round, nil if there is none.
func (j *Job) Closed(number uint64) *Round {
	for _, r := range slices.Backward(j.Rounds) {
		if r.Number == number && r.Phase == PhaseClosed {
			return r
		}
	}
	return nil
}

// Ended reports whether nothing more happens in the job, unless it is continued.
func (j *Job) Ended() bool {
	return j.State == JobStopped || j.State == JobFinished || j.State == JobFailed
}

// Shown is the job's state in words for people: its own, or queued while it waits for its first round.
func (j *Job) Shown() string {
	if j.State == JobRunning && len(j.Rounds) == 0 {
		return JobQueued
	}
	return j.State
}

// Full reports whether the round has the updates it wants: it takes no more, and waits to be cut.
func (r *Round) Full() bool { return r.Count >= r.Goal }

// Over reports whether the round is closed or abandoned.
func (r *Round) Over() bool { return r.Phase == PhaseClosed || r.Phase == PhaseAbandoned }

// Invites reports whether the node is in the cohort.
func (r *Round) Invites(node string) bool {
	_, ok := slices.BinarySearch(r.Cohort, node)
	return ok
}

// Key names the attempt on the wire.
func (r *Round) Key(job string) *choirv1.RoundKey {
	return &choirv1.RoundKey{Job: job, Round: r.Number, Attempt: r.Attempt}
}

// Release returns a version of a model, the newest for version 0.
func (s *State) Release(model string, version uint64) (Release, bool) {
	rs := s.Releases[model]
	if version == 0 {
		version = uint64(len(rs))
	}
	if version == 0 || version > uint64(len(rs)) {
		return Release{}, false
	}
	return rs[version-1], true
}
