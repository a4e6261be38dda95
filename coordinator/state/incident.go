package state

import (
	"bytes"
	"fmt"
	"maps"

	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// recordIncident records the first refusal of a node in an attempt, and counts the nodes refused. Two different signed
// updates are more than a refusal: they are recorded, once, whatever came before.
func (t *transition) recordIncident(c *choirv1.RecordIncident) error {
	j, r, err := t.at(c.Key, PhaseOpen, PhaseCut, PhaseCharged, PhaseClosed, PhaseAbandoned)
	if err != nil {
		return err
	}
	if err := checkIncident(c); err != nil {
		return err
	}
	if !r.Invites(c.Node) {
		return fmt.Errorf("incident of node %q, which is not in the cohort of round %d", c.Node, r.Number)
	}
	known, refused := r.Incidents[c.Node]
	if known == audit.ReasonEquivocation || refused && c.Reason != audit.ReasonEquivocation {
		return nil
	}
	r.Incidents = maps.Clone(r.Incidents)
	r.Incidents[c.Node] = c.Reason
	r.Refused = uint32(len(r.Incidents))
	t.record(&audit.Incident{
		Job: j.Name, Round: r.Number, Attempt: r.Attempt, Node: c.Node, Reason: c.Reason, First: c.First, Second: c.Second,
	})
	return nil
}

// checkIncident refuses a reason that is not one of a round's, and an equivocation without its two updates.
func checkIncident(c *choirv1.RecordIncident) error {
	if !audit.KnownReason(c.Reason) || c.Reason == audit.ReasonTokenReuse {
		return fmt.Errorf("%w: incident reason %q", ErrFormat, c.Reason)
	}
	if c.Reason != audit.ReasonEquivocation {
		if len(c.First)+len(c.Second) > 0 {
			return fmt.Errorf("%w: incident %s names updates", ErrFormat, c.Reason)
		}
		return nil
	}
	for _, b := range [][]byte{c.First, c.Second} {
		if _, err := digest("update", b); err != nil {
			return err
		}
	}
	if bytes.Equal(c.First, c.Second) {
		return fmt.Errorf("%w: an equivocation of one update with itself", ErrFormat)
	}
	return nil
}
