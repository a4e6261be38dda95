package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// snapshotHeader starts a snapshot: the version of its format and the digest of the JSON that follows.
const snapshotHeader = "choir state 1 %x\n"

// Encode writes the state as JSON with sorted keys below a line with its digest: the same state has the same bytes on
// every replica.
func (s *State) Encode() ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(header(body), body...), nil
}

func header(body []byte) []byte { return fmt.Appendf(nil, snapshotHeader, sha256.Sum256(body)) }

// Decode reads what Encode wrote. It refuses another version, damage anywhere, unknown fields, and a state that no log
// leads to as far as Apply relies on it; the audit log's root is computed again.
func Decode(b []byte) (*State, error) {
	line, body, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.Equal(append(line, '\n'), header(body)) {
		return nil, errors.New("decode state: the snapshot is damaged, or of a version that is not known")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	s := &State{}
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode state: something follows the state")
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return s, nil
}

// check refuses a state in which Apply would meet what it never makes.
func (s *State) check() error {
	if s.Tokens == nil || s.Nodes == nil || s.Jobs == nil || s.Releases == nil {
		return errors.New("a table is missing")
	}
	for i, c := range s.Coordinators {
		if i > 0 && s.Coordinators[i-1].Name >= c.Name {
			return fmt.Errorf("coordinator %s is out of order", c.Name)
		}
		if len(c.Chain) == 0 {
			return fmt.Errorf("coordinator %s has no certificate", c.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Jobs)) {
		if err := s.checkJob(name, s.Jobs[name]); err != nil {
			return fmt.Errorf("job %s: %w", name, err)
		}
	}
	for model, rs := range s.Releases {
		for i, r := range rs {
			if r.Model != model || r.Version != uint64(i)+1 {
				return fmt.Errorf("release %d of model %s is out of order", i+1, model)
			}
		}
	}
	return nil
}

func (s *State) checkJob(name string, j *Job) error {
	if j == nil || j.Name != name {
		return errors.New("it is missing, or has another name")
	}
	if _, err := j.JobSpec(); err != nil {
		return err
	}
	if j.Stopping && j.Active() == nil {
		return errors.New("it is to stop when its open round ends, and has none")
	}
	for i, r := range j.Rounds {
		if r == nil || !r.Over() && i < len(j.Rounds)-1 || r.Accepted == nil && i == len(j.Rounds)-1 {
			return fmt.Errorf("its round in place %d is missing, not the last, or without its details", i)
		}
		if err := s.checkRound(r); err != nil {
			return fmt.Errorf("round %d attempt %d: %w", r.Number, r.Attempt, err)
		}
	}
	return nil
}

func (s *State) checkRound(r *Round) error {
	if r.Accepted == nil {
		return nil // too old: nobody counts with it
	}
	enrolled := func(name string) bool { _, ok := s.Nodes[name]; return ok }
	strangers := slices.ContainsFunc(r.Cohort, func(name string) bool { return !enrolled(name) })
	if strangers || !slices.IsSorted(r.Cohort) || r.Incidents == nil {
		return errors.New("its cohort is not a sorted list of nodes")
	}
	if int(r.Count) != len(r.Accepted) {
		return fmt.Errorf("it counts %d updates and holds %d", r.Count, len(r.Accepted))
	}
	for name := range r.Accepted {
		if !r.Invites(name) {
			return fmt.Errorf("it counts node %s, which is not in its cohort", name)
		}
	}
	if want := r.evaluated(); r.Phase == PhaseClosed && len(r.Evaluation) != want {
		return fmt.Errorf("it has %d evaluations, want %d", len(r.Evaluation), want)
	}
	return nil
}
