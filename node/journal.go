package node

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"choir.example/fedavg"
	"choir.example/internal/jobspec"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// Sent is one update that left this machine.
type Sent struct {
	Job       string    `json:"job"`              // its name
	Round     uint64    `json:"round"`            // of the job; 0 is the statistics round
	Attempt   uint32    `json:"attempt"`          // at the round, from 1
	Kind      string    `json:"kind"`             // statistics, train or evaluate
	Time      time.Time `json:"time"`             // when its first byte was about to leave
	Bytes     int       `json:"bytes"`            // of the sealed envelope
	Update    string    `json:"update"`           // digest of the signed update, in hex: what receipts and records name
	Policy    string    `json:"policy"`           // plain: the coordinators see this node's update
	Mechanism string    `json:"mechanism"`        // what noise was added: none
	Clip      float64   `json:"clip"`             // L2 norm that the update was clipped to; 0: not clipped
	Outcome   string    `json:"outcome"`          // pending, counted or refused
	Index     uint64    `json:"index"`            // in the coordinators' log, of the receipt or refusal
	Reason    string    `json:"reason,omitempty"` // of a refusal
}

// Outcomes of what was sent.
const (
	OutcomePending = "pending"
	OutcomeCounted = "counted"
	OutcomeRefused = "refused"
)

// maxSent is how many updates the journal remembers.
const maxSent = 1000

const journalFile = "sent.log"

// journal remembers what left this machine: a JSON object a line in a file of the node's directory, which its owner may
// read. A line stands there before the first byte of an update leaves. It survives restarts; what was cut off by one is
// a line at the end that does not decode, and is dropped.
type journal struct {
	path  string
	brief bool // of an experiment, where nobody reads it: nothing waits for the disk

	mu    sync.Mutex // guards the fields below
	sent  []Sent     // oldest first
	file  *os.File
	lines int // in file
}

func openJournal(dir string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile)}
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read what was sent: %w", err)
	}
	for line := range bytes.Lines(b) {
		var s Sent
		if json.Unmarshal(line, &s) == nil {
			j.add(s)
		}
	}
	return j, j.rewrite()
}

// rewrite leaves one line an entry in the file.
func (j *journal) rewrite() error {
	var kept []byte
	for _, s := range j.sent {
		kept = append(kept, s.line()...)
	}
	if err := seal.WriteFile(j.path, kept); err != nil {
		return fmt.Errorf("write what was sent: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write what was sent: %w", err)
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file, j.lines = file, len(j.sent)
	return err
}

func (s *Sent) line() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a struct of texts and numbers encodes
	}
	return append(b, '\n')
}

// add puts an entry in its place: over the one of the same update, or at the end.
func (j *journal) add(s Sent) {
	same := func(o Sent) bool {
		return o.Update == s.Update && o.Job == s.Job && o.Round == s.Round && o.Attempt == s.Attempt
	}
	if i := slices.IndexFunc(j.sent, same); i >= 0 {
		j.sent[i] = s
		return
	}
	j.sent = append(j.sent, s)
	if extra := len(j.sent) - maxSent; extra > 0 {
		j.sent = slices.Delete(j.sent, 0, extra)
	}
}

// write makes an entry durable.
func (j *journal) write(s Sent) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.add(s)
	if j.lines++; j.lines > 4*maxSent {
		return j.rewrite()
	}
	_, err := j.file.Write(s.line())
	if err == nil && !j.brief {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write what is sent: %w", err)
	}
	return nil
}

// clipNorm is what a job's updates are clipped to.
func clipNorm(job *choirv1.JobSpec) float64 {
	s, err := jobspec.Settings(job)
	if err != nil {
		return 0 // no update was made by it
	}
	return s.Privacy.Clip
}

// sending notes an update before its first byte leaves. One that goes out again keeps its entry.
func (j *journal) sending(t *choirv1.Task, update [32]byte, envelope int, now time.Time) error {
	s := Sent{
		Job: t.Key.Job, Round: t.Key.Round, Attempt: t.Key.Attempt, Kind: kindName(t.Kind), Time: now.UTC(), Bytes: envelope,
		Update: hex.EncodeToString(update[:]), Policy: "plain", Mechanism: "none", Clip: clipNorm(t.Job), Outcome: OutcomePending,
	}
	if old, ok := j.find(s.Job, s.Round, s.Attempt, s.Update); ok && old.Outcome == OutcomePending {
		return nil
	}
	return j.write(s)
}

// answered notes the outcome of an update that was sent.
func (j *journal) answered(h fedavg.Header, update [32]byte, a *answer) error {
	s, ok := j.find(h.Job, h.Round, h.Attempt, hex.EncodeToString(update[:]))
	if !ok {
		return nil // so long ago that it is forgotten
	}
	if a.receipt != nil {
		s.Outcome, s.Index = OutcomeCounted, a.receipt.Index
	} else {
		s.Outcome, s.Index, s.Reason = OutcomeRefused, a.refusal.Index, a.refusal.Reason
	}
	return j.write(s)
}

func (j *journal) find(job string, round uint64, attempt uint32, update string) (Sent, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.sent, func(s Sent) bool {
		return s.Update == update && s.Job == job && s.Round == round && s.Attempt == attempt
	})
	if i < 0 {
		return Sent{}, false
	}
	return j.sent[i], true
}

// all is what was sent, oldest first.
func (j *journal) all() []Sent {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.sent)
}

func (j *journal) close() error { return j.file.Close() }

// kindName is a round's kind as people read it.
func kindName(k choirv1.RoundKind) string {
	switch k {
	case choirv1.RoundKind_ROUND_KIND_STATISTICS:
		return "statistics"
	case choirv1.RoundKind_ROUND_KIND_TRAIN:
		return "train"
	case choirv1.RoundKind_ROUND_KIND_EVALUATE:
		return "evaluate"
	}
	return "unknown"
}
