// Package recount checks from the outside that a federation counted each accepted update exactly once. It takes what
// the nodes hold, their receipts and the very payloads they signed, adds those up again and compares with what the audit
// records say. It knows nothing of coordinators or of their state: it shares with them only the definition of a sum.
//
//	tally := recount.Recount(held, records)
//	if !tally.OK() { … tally.Problems … }
//
// It takes receipts and records as they are: signatures are for privacy/seal and privacy/audit to check.
package recount

import (
	"fmt"
	"slices"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

// Held is what a node holds of one update: a coordinator's receipt, and the payload it is for.
type Held struct {
	Receipt audit.Receipt
	Payload []byte
}

// Tally is the outcome of a recount.
type Tally struct {
	Rounds   int // closed rounds recounted
	Receipts int // receipts that nodes hold, but for attempts that were abandoned
	Counted  int // updates that the records count in these rounds
	Lost     int // receipts whose update is not counted
	Twice    int // nodes counted again in one attempt, with the same update or another
	Problems []string
}

// OK reports whether every receipt is counted once and every closed round's committed sum is the sum of its updates.
func (t Tally) OK() bool { return t.Lost == 0 && t.Twice == 0 && len(t.Problems) == 0 }

type attempt struct {
	job     string
	round   uint64
	attempt uint32
}

// round is what the records say of one attempt.
type round struct {
	counted   map[[32]byte]int // updates by digest
	nodes     map[string]int
	closed    *audit.RoundClosed
	abandoned bool
}

// Recount adds up the payloads with receipts, round by round, and compares with the records.
func Recount(held []Held, records []audit.Record) Tally {
	rounds := map[attempt]*round{}
	var order []attempt
	at := func(a attempt) *round {
		if rounds[a] == nil {
			rounds[a] = &round{counted: map[[32]byte]int{}, nodes: map[string]int{}}
			order = append(order, a)
		}
		return rounds[a]
	}
	for _, r := range records {
		switch r := r.(type) {
		case *audit.BatchAccepted:
			x := at(attempt{r.Job, r.Round, r.Attempt})
			for _, u := range r.Accepted {
				x.counted[u.Update]++
				x.nodes[u.Node]++
			}
		case *audit.RoundClosed:
			at(attempt{r.Job, r.Round, r.Attempt}).closed = r
		case *audit.RoundAbandoned:
			at(attempt{r.Job, r.Round, r.Attempt}).abandoned = true
		}
	}
	mine := map[attempt][]Held{}
	for _, h := range distinct(held) {
		a := attempt{h.Receipt.Job, h.Receipt.Round, h.Receipt.Attempt}
		at(a)
		mine[a] = append(mine[a], h)
	}
	var t Tally
	for _, a := range order {
		switch r := rounds[a]; {
		case r.closed != nil:
			t.round(a, r, mine[a])
		case !r.abandoned: // an abandoned attempt counts nobody, and says so
			t.Receipts += len(mine[a])
			t.Lost += len(mine[a])
			t.problem(a, fmt.Errorf("nodes hold %d receipts, the attempt has no recorded end", len(mine[a])))
		}
	}
	return t
}

// round recounts one closed round.
func (t *Tally) round(a attempt, r *round, held []Held) {
	t.Rounds++
	for _, n := range r.nodes {
		t.Counted += n
		t.Twice += n - 1
	}
	t.Receipts += len(held)
	sum, err := add(a, held)
	if err != nil {
		t.problem(a, err)
		return
	}
	for _, h := range held {
		if r.counted[h.Receipt.Update] == 0 {
			t.Lost++
			t.problem(a, fmt.Errorf("node %s holds a receipt, its update is not counted", h.Receipt.Node))
		}
	}
	switch {
	case len(held) != len(r.counted):
		t.problem(a, fmt.Errorf("%d updates are counted, nodes hold %d receipts", len(r.counted), len(held)))
	case sum.Count != int64(r.closed.Count) || sum.Weight != r.closed.Weight:
		t.problem(a, fmt.Errorf("closed with %d updates of weight %d, the receipts are for %d of %d", r.closed.Count, r.closed.Weight, sum.Count, sum.Weight))
	case sum.Digest() != r.closed.Sum:
		t.problem(a, fmt.Errorf("the committed sum is not the sum of the updates with receipts"))
	}
}

func (t *Tally) problem(a attempt, err error) {
	t.Problems = append(t.Problems, fmt.Sprintf("job %s round %d attempt %d: %v", a.job, a.round, a.attempt, err))
}

// distinct drops a receipt that a node was handed again, for the same update.
func distinct(held []Held) []Held {
	seen := map[[32]byte]bool{} // an update's digest covers its attempt
	return slices.DeleteFunc(slices.Clone(held), func(h Held) bool {
		again := seen[h.Receipt.Update]
		seen[h.Receipt.Update] = true
		return again
	})
}

// add sums the payloads, after checking that each is the one its receipt is for.
func add(a attempt, held []Held) (*fedavg.Sum, error) {
	sum := &fedavg.Sum{}
	for i, h := range held {
		p, err := fedavg.DecodePayload(h.Payload)
		if err != nil {
			return nil, err
		}
		if seal.UpdateDigest(h.Payload) != h.Receipt.Update || p.Node != h.Receipt.Node || p.Job != a.job || p.Round != a.round || p.Attempt != a.attempt {
			return nil, fmt.Errorf("the receipt of node %s is for another update", h.Receipt.Node)
		}
		if i == 0 {
			sum = fedavg.NewSum(shapeOf(p))
		}
		if err := sum.Add(&p.Update); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func shapeOf(p *fedavg.Payload) fedavg.Shape {
	s := fedavg.Shape{Scalars: len(p.Scalars), Evaluations: len(p.Evaluations)}
	for _, v := range p.Vectors {
		s.Vectors = append(s.Vectors, len(v))
	}
	return s
}
