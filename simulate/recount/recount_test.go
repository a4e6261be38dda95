package recount

import (
	"strings"
	"testing"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
)

// history makes a closed round of three nodes with one-coordinate updates 1, 2, 3 and weights 1, 2, 3, and what the
// nodes hold of it. The sum is 1·1 + 2·2 + 3·3 = 14.
func history(t *testing.T) ([]Held, []audit.Record) {
	t.Helper()
	var held []Held
	batch := &audit.BatchAccepted{Job: "j", Round: 1, Attempt: 1}
	sum := fedavg.NewSum(fedavg.Shape{Vectors: []int{1}})
	for i, node := range []string{"a", "b", "c"} {
		p := fedavg.Payload{
			Header: fedavg.Header{Job: "j", Round: 1, Attempt: 1, Node: node},
			Update: fedavg.Update{Vectors: [][]int32{{int32(i + 1)}}, Weight: int64(i + 1)},
		}
		payload := p.Encode()
		digest := seal.UpdateDigest(payload)
		held = append(held, Held{audit.Receipt{Job: "j", Round: 1, Attempt: 1, Node: node, Update: digest}, payload})
		batch.Accepted = append(batch.Accepted, audit.Accepted{Node: node, Update: digest, Weight: int64(i + 1)})
		if err := sum.Add(&p.Update); err != nil {
			t.Fatal(err)
		}
	}
	if sum.Vectors[0][0] != 14 {
		t.Fatalf("sum is %d, want 14", sum.Vectors[0][0])
	}
	closed := &audit.RoundClosed{Job: "j", Round: 1, Attempt: 1, Count: 3, Weight: 6, Sum: sum.Digest()}
	return held, []audit.Record{batch, closed}
}

// sumOf is the digest of the sum of what nodes hold, with the count and weight that a liar would give it.
func sumOf(held []Held, count, weight int64) [32]byte {
	sum := fedavg.NewSum(fedavg.Shape{Vectors: []int{1}})
	for _, h := range held {
		p, err := fedavg.DecodePayload(h.Payload)
		if err != nil {
			panic(err) // our own
		}
		if err := sum.Add(&p.Update); err != nil {
			panic(err)
		}
	}
	sum.Count, sum.Weight = count, weight
	return sum.Digest()
}

// An abandoned attempt counts nobody: receipts for it are no loss.
func TestRecountAbandoned(t *testing.T) {
	held, records := history(t)
	records[1] = &audit.RoundAbandoned{Job: "j", Round: 1, Attempt: 1, Reason: "too few"}
	if tally := Recount(held, records); !tally.OK() || tally.Rounds != 0 || tally.Receipts != 0 {
		t.Fatalf("tally %+v", tally)
	}
}

func TestRecountAgrees(t *testing.T) {
	held, records := history(t)
	tally := Recount(held, records)
	if !tally.OK() || tally.Receipts != 3 || tally.Counted != 3 || tally.Rounds != 1 {
		t.Fatalf("tally %+v", tally)
	}
	if again := Recount(append(held, held[1]), records); !again.OK() || again.Receipts != 3 {
		t.Fatalf("a receipt handed out again: %+v", again)
	}
}

func TestRecountFinds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(held []Held, batch *audit.BatchAccepted, closed *audit.RoundClosed) []Held
		lost   int
		twice  int
		text   string
	}{
		{"an update dropped from the records", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			b.Accepted = b.Accepted[:2]
			return h
		}, 1, 0, "not counted"},
		{"an update counted twice", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			b.Accepted = append(b.Accepted, b.Accepted[0])
			return h
		}, 0, 1, ""},
		{"a node counted with two updates", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			b.Accepted = append(b.Accepted, audit.Accepted{Node: "a", Update: [32]byte{9}, Weight: 1})
			return h
		}, 0, 1, "nodes hold 3 receipts"},
		{"an update counted without a receipt", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			return h[1:]
		}, 0, 0, "nodes hold 2 receipts"},
		{"another sum committed", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			c.Sum[0] ^= 1
			return h
		}, 0, 0, "not the sum"},
		{"an update dropped from the sum", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			c.Sum = sumOf(h[:2], 3, 6)
			return h
		}, 0, 0, "not the sum"},
		{"an update doubled in the sum", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			c.Sum = sumOf(append(h[:3:3], h[0]), 3, 6)
			return h
		}, 0, 0, "not the sum"},
		{"an update doubled in sum and counts", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			c.Sum, c.Count, c.Weight = sumOf(append(h[:3:3], h[0]), 4, 7), 4, 7
			b.Accepted = append(b.Accepted, b.Accepted[0])
			return h
		}, 0, 1, "closed with 4 updates"},
		{"a receipt of a round nobody recorded", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			p := fedavg.Payload{
				Header: fedavg.Header{Job: "j", Round: 2, Attempt: 1, Node: "a"},
				Update: fedavg.Update{Vectors: [][]int32{{1}}, Weight: 1},
			}
			payload := p.Encode()
			return append(h, Held{audit.Receipt{Job: "j", Round: 2, Attempt: 1, Node: "a", Update: seal.UpdateDigest(payload)}, payload})
		}, 1, 0, "no recorded end"},
		{"another payload than the receipt's", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			h[0].Payload = h[1].Payload
			return h
		}, 0, 0, "another update"},
		{"another weight closed", func(h []Held, b *audit.BatchAccepted, c *audit.RoundClosed) []Held {
			c.Weight++
			return h
		}, 0, 0, "weight 7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			held, records := history(t)
			held = tt.change(held, records[0].(*audit.BatchAccepted), records[1].(*audit.RoundClosed))
			tally := Recount(held, records)
			if tally.OK() || tally.Lost != tt.lost || tally.Twice != tt.twice || !strings.Contains(strings.Join(tally.Problems, "\n"), tt.text) {
				t.Fatalf("tally %+v", tally)
			}
		})
	}
}
