package node

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	choirv1 "choir.example/proto/choir/v1"
)

// Status is how a node is doing, and what left its machine.
type Status struct {
	Name               string       `json:"name"`                // of the node
	Federation         string       `json:"federation"`          // its name
	Running            bool         `json:"running"`             // false: what is told was read from the directory
	NotReady           string       `json:"not_ready,omitempty"` // why a running node cannot do its work
	Coordinators       []string     `json:"coordinators"`        // addresses, in the order in which they are tried
	CertificateExpires time.Time    `json:"certificate_expires"` // of the node's own, which is renewed well before
	Schema             string       `json:"schema,omitempty"`    // name of the data's schema
	Rows               map[Part]int `json:"rows"`                // in the store, by part
	Resting            string       `json:"resting,omitempty"`   // why the node takes no task now
	Doing              string       `json:"doing,omitempty"`     // the task under way
	Models             []ModelInUse `json:"models"`              // that answer predictions
	Waiting            int          `json:"waiting"`             // updates kept until there is an answer about them
	Jobs               []JobPart    `json:"jobs"`                // summed over sent
	Sent               []Sent       `json:"sent"`                // what left this machine, oldest first, at most 1,000
	Declined           []Declined   `json:"declined"`            // oldest first, at most 100, since the node started
}

// ModelInUse is a release that answers predictions.
type ModelInUse struct {
	Name    string `json:"name"`    // of the model
	Version uint64 `json:"version"` // of the release, from 1
	Variant string `json:"variant"` // float32, int8, student or student-int8
	Digest  string `json:"digest"`  // blob id of the model file, in hex
}

// JobPart is a node's part in a job.
type JobPart struct {
	Job     string    `json:"job"`     // its name
	Counted int       `json:"counted"` // updates with a receipt
	Refused int       `json:"refused"` // updates with a signed refusal
	Bytes   int64     `json:"bytes"`   // of all envelopes
	Last    time.Time `json:"last"`    // when the newest was about to leave
}

// Declined is a task that the node did not do.
type Declined struct {
	Job     string    `json:"job"`     // its name
	Round   uint64    `json:"round"`   // of the job
	Attempt uint32    `json:"attempt"` // at the round
	Time    time.Time `json:"time"`    // when it was declined, on the node's clock
	Reason  string    `json:"reason"`  // in words for its owner
}

const maxDeclined = 100

// progress is what the node is at, for those who ask.
type progress struct {
	mu       sync.Mutex // guards the fields below
	doing    string
	declined []Declined
}

func (p *progress) begin(t *choirv1.Task) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing = fmt.Sprintf("round %d of job %s, attempt %d: %s", t.Key.GetRound(), t.Key.GetJob(), t.Key.GetAttempt(), kindName(t.Kind))
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.doing = ""
	}
}

func (p *progress) decline(t *choirv1.Task, now time.Time, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := Declined{t.Key.GetJob(), t.Key.GetRound(), t.Key.GetAttempt(), now.UTC(), why.Error()}
	p.declined = append(p.declined[max(0, len(p.declined)-maxDeclined+1):], d)
}

// Status is how the node is doing.
func (n *Node) Status() (*Status, error) {
	s := &Status{
		Name: n.id.name, Federation: n.id.root.Subject.CommonName, Coordinators: n.client.all(),
		CertificateExpires: n.client.leaf().NotAfter, Rows: map[Part]int{}, Resting: n.rests(), Sent: n.journal.all(),
	}
	if schema := n.store.Schema(); schema != nil {
		s.Schema = schema.Name
	}
	var errs []error
	for _, part := range Parts() {
		count, err := n.store.Count(part)
		s.Rows[part] = count
		errs = append(errs, err)
	}
	waiting, err := n.spool.names()
	s.Waiting = len(waiting)
	errs = append(errs, err)
	if n.serve != nil {
		s.Models = n.serve.inUse()
	}
	s.Jobs = jobParts(s.Sent)
	n.progress.mu.Lock()
	defer n.progress.mu.Unlock()
	s.Doing, s.Declined = n.progress.doing, slices.Clone(n.progress.declined)
	return s, errors.Join(errs...)
}

// jobParts sums up what was sent, by job in the order of names.
func jobParts(sent []Sent) []JobPart {
	var out []JobPart
	for _, s := range sent {
		i := slices.IndexFunc(out, func(p JobPart) bool { return p.Job == s.Job })
		if i < 0 {
			i = len(out)
			out = append(out, JobPart{Job: s.Job})
		}
		p := &out[i]
		p.Bytes, p.Last = p.Bytes+int64(s.Bytes), s.Time
		switch s.Outcome {
		case OutcomeCounted:
			p.Counted++
		case OutcomeRefused:
			p.Refused++
		}
	}
	slices.SortFunc(out, func(a, b JobPart) int { return cmp.Compare(a.Job, b.Job) })
	return out
}
