package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// MaxCommand is the largest encoded command: entries carry decisions and digests, never weights.
const MaxCommand = 64 << 10

// version is the only version of commands so far.
const version = 1

// Errors that callers branch on. Every refusal of Apply is an error; these are the ones with a meaning beyond their text.
var (
	ErrStale  = errors.New("the round has moved on")        // compare-and-set on round, attempt, phase or plan term failed
	ErrBudget = errors.New("budget spent")                  // fewer than the minimum cohort will ever have budget left
	ErrCohort = errors.New("too few nodes")                 // fewer than the minimum cohort, now
	ErrToken  = errors.New("token refused")                 // unknown, used with another key, expired or with a wrong secret
	ErrExists = errors.New("exists already")                // a name is taken
	ErrFormat = errors.New("command not understood")        // not decodable, of another version, or with unknown fields
	ErrNewer  = errors.New("a newer version wrote it")      // with ErrFormat; to skip it would make this replica another than the others
	ErrTaken  = errors.New("node's update already counted") // matched by *DuplicateError
	ErrState  = errors.New("not in its present state")      // a job cannot do that now
)

// DuplicateError refuses a batch that names nodes already counted, or revoked since they sent. The proposer subtracts
// them and proposes again.
type DuplicateError struct {
	Nodes   []string // all of them
	Revoked []string // those among them that were revoked
}

func (e *DuplicateError) Error() string {
	if len(e.Revoked) > 0 {
		return fmt.Sprintf("%v, or revoked: %s", ErrTaken, strings.Join(e.Nodes, ", "))
	}
	return fmt.Sprintf("%v: %s", ErrTaken, strings.Join(e.Nodes, ", "))
}

// Is makes errors.Is(err, ErrTaken) true.
func (e *DuplicateError) Is(target error) bool { return target == ErrTaken }

// Encode sets the command's version and encodes it for the log.
func Encode(c *choirv1.Command) ([]byte, error) {
	c.Version = version
	b, err := canonical(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	if len(b) > MaxCommand {
		return nil, fmt.Errorf("encode command: %d bytes, at most %d are allowed", len(b), MaxCommand)
	}
	return b, nil
}

// canonical is the one encoding of a command that is understood.
func canonical(c *choirv1.Command) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(c)
}

// DecodeCommand reads what Encode wrote. It is strict: another version, an unknown field, a missing body and a second way to write the same command are
// errors. Their texts are the same on every replica: those of the protobuf package may differ from build to build.
func DecodeCommand(b []byte) (*choirv1.Command, error) {
	c := &choirv1.Command{}
	switch {
	case len(b) > MaxCommand:
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrFormat, len(b), MaxCommand)
	case proto.Unmarshal(b, c) != nil:
		return nil, fmt.Errorf("%w: malformed", ErrFormat)
	case c.Version > version:
		return nil, fmt.Errorf("%w: version %d, want %d: %w", ErrFormat, c.Version, version, ErrNewer)
	case c.Version != version:
		return nil, fmt.Errorf("%w: version %d, want %d", ErrFormat, c.Version, version)
	case hasUnknown(c.ProtoReflect()):
		return nil, fmt.Errorf("%w: unknown field: %w", ErrFormat, ErrNewer)
	case c.Body == nil:
		return nil, fmt.Errorf("%w: no body", ErrFormat)
	}
	if again, err := canonical(c); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not the canonical encoding", ErrFormat)
	}
	return c, nil
}

// hasUnknown looks for unknown fields in a message and all messages inside it.
func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				found = found || hasUnknown(v.List().Get(i).Message())
			}
		default:
			found = hasUnknown(v.Message())
		}
		return !found
	})
	return found
}

// Apply returns the state after one log entry, and why the command was refused, if it was. It never fails otherwise
// and never changes s. index and term are those of the entry.
func Apply(s *State, index, term uint64, command []byte) (*State, error) {
	next := *s
	next.Index = index
	c, err := DecodeCommand(command)
	if err != nil {
		return &next, err
	}
	if next.Cluster == "" && c.GetGenesis() == nil {
		return &next, errors.New("the federation is not founded yet")
	}
	t := &transition{State: &next, index: index, term: term}
	refused := t.apply(c)
	if refused != nil && !t.incident { // a refused command leaves nothing behind but an incident
		undone := *s
		undone.Index = index
		return &undone, refused
	}
	return &next, refused
}

// transition is a state in the making: it is changed by replacing what it shares with its predecessor.
type transition struct {
	*State
	index, term uint64
	incident    bool // the refusal itself was recorded
}

func (t *transition) apply(c *choirv1.Command) error {
	switch b := c.Body.(type) {
	case *choirv1.Command_Genesis:
		return t.genesis(b.Genesis)
	case *choirv1.Command_AnnounceEpoch:
		return t.announceEpoch(b.AnnounceEpoch)
	case *choirv1.Command_CreateToken:
		return t.createToken(b.CreateToken)
	case *choirv1.Command_Enrol:
		return t.enrol(b.Enrol)
	case *choirv1.Command_SubmitJob:
		return t.submitJob(b.SubmitJob)
	case *choirv1.Command_OpenRound:
		return t.openRound(b.OpenRound)
	case *choirv1.Command_AcceptBatch:
		return t.acceptBatch(b.AcceptBatch)
	case *choirv1.Command_CutRound:
		return t.cutRound(b.CutRound)
	case *choirv1.Command_Charge:
		return t.charge(b.Charge)
	case *choirv1.Command_CloseRound:
		return t.closeRound(b.CloseRound)
	case *choirv1.Command_AbandonRound:
		return t.abandonRound(b.AbandonRound)
	case *choirv1.Command_PublishRelease:
		return t.publishRelease(b.PublishRelease)
	case *choirv1.Command_RecordIncident:
		return t.recordIncident(b.RecordIncident)
	case *choirv1.Command_EndJob:
		return t.endJob(b.EndJob)
	case *choirv1.Command_RevokeToken:
		return t.revokeToken(b.RevokeToken)
	case *choirv1.Command_RevokeNode:
		return t.revokeNode(b.RevokeNode)
	case *choirv1.Command_RevokePerson:
		return t.revokePerson(b.RevokePerson)
	case *choirv1.Command_RequestJoin:
		return t.requestJoin(b.RequestJoin)
	case *choirv1.Command_ApproveCoordinator:
		return t.approveCoordinator(b.ApproveCoordinator)
	case *choirv1.Command_RemoveCoordinator:
		return t.removeCoordinator(b.RemoveCoordinator)
	case *choirv1.Command_ControlJob:
		return t.controlJob(b.ControlJob)
	case *choirv1.Command_RotateRoot:
		return t.rotateRoot(b.RotateRoot)
	case *choirv1.Command_RenewCoordinator:
		return t.renewCoordinator(b.RenewCoordinator)
	case *choirv1.Command_AdmitOfficer:
		return t.admitOfficer(b.AdmitOfficer)
	}
	return fmt.Errorf("%w: unknown command", ErrFormat)
}

// record appends a leaf to the audit log: in the same transition as the decision it records.
func (t *transition) record(r audit.Record) { t.Log = t.Log.Append(audit.Encode(r)) }

// put returns a copy of a table, which may be nil, with one entry changed.
func put[V any](table map[string]V, key string, v V) map[string]V {
	out := make(map[string]V, len(table)+1)
	maps.Copy(out, table)
	out[key] = v
	return out
}

// without returns a copy of a table without one entry, nil if it was the last: an empty table is not in a snapshot.
func without[V any](table map[string]V, key string) map[string]V {
	out := maps.Clone(table)
	delete(out, key)
	if len(out) == 0 {
		return nil
	}
	return out
}

// job returns a copy of a job, already in its place, that may be changed.
func (t *transition) job(name string) (*Job, error) {
	old, ok := t.Jobs[name]
	if !ok {
		return nil, fmt.Errorf("job %q does not exist", name)
	}
	j := *old
	t.Jobs = maps.Clone(t.Jobs)
	t.Jobs[name] = &j
	return &j, nil
}

// edit returns a copy of the job's last round, already in its place, that may be changed.
func (j *Job) edit() *Round {
	r := *j.Current()
	j.Rounds = slices.Clone(j.Rounds)
	j.Rounds[len(j.Rounds)-1] = &r
	return &r
}

// digest converts the wire bytes of a digest that must be there.
func digest(field string, b []byte) (Digest, error) {
	if len(b) != len(Digest{}) {
		return Digest{}, fmt.Errorf("%w: %s: digest of %d bytes, want 32", ErrFormat, field, len(b))
	}
	if d := Digest(b); !d.IsZero() {
		return d, nil
	}
	return Digest{}, fmt.Errorf("%w: %s: a digest of zeros stands for an absent one", ErrFormat, field)
}

// optional converts the wire bytes of a digest that may be absent: it stays zero.
func optional(field string, b []byte) (Digest, error) {
	if len(b) == 0 {
		return Digest{}, nil
	}
	return digest(field, b)
}

// checkText refuses a text that is absent or too long to be kept in every replica.
func checkText(field, text string, most int) error {
	if text == "" || len(text) > most {
		return fmt.Errorf("%w: %s of %d bytes, want 1 to %d", ErrFormat, field, len(text), most)
	}
	return nil
}

// checkTime refuses a clock that stands before 1970.
func checkTime(ms int64) error {
	if ms <= 0 {
		return fmt.Errorf("%w: time %d ms is not after 1970", ErrFormat, ms)
	}
	return nil
}
