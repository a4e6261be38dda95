package simulate

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"choir.example/fedavg"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	"choir.example/simulate/recount"
)

// countedRound is a closed round over so many updates, with what their nodes hold.
func countedRound(t *testing.T, nodes int) (held []recount.Held, records []audit.Record) {
	t.Helper()
	sum := fedavg.NewSum(fedavg.Shape{Vectors: []int{1}})
	batch := &audit.BatchAccepted{Job: "j", Round: 1, Attempt: 1}
	for i := range nodes {
		p := fedavg.Payload{
			Header: fedavg.Header{Job: "j", Round: 1, Attempt: 1, Node: NodeName(i)},
			Update: fedavg.Update{Vectors: [][]int32{{int32(i)}}, Weight: 1},
		}
		if err := sum.Add(&p.Update); err != nil {
			t.Fatal(err)
		}
		payload := p.Encode()
		update := seal.UpdateDigest(payload)
		held = append(held, recount.Held{Receipt: audit.Receipt{Job: "j", Round: 1, Attempt: 1, Node: p.Node, Update: update}, Payload: payload})
		batch.Accepted = append(batch.Accepted, audit.Accepted{Node: p.Node, Update: update, Weight: 1})
	}
	closed := &audit.RoundClosed{Job: "j", Round: 1, Attempt: 1, Count: uint64(nodes), Weight: int64(nodes), Sum: sum.Digest()}
	return held, []audit.Record{batch, closed}
}

func testDemo(t *testing.T) *demo {
	t.Helper()
	d, err := newDemo(DemoConfig{Coordinators: 1, Nodes: 2, Rounds: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A job is finished before the last receipts have come to their nodes: the recount waits for them, and for one that never
// comes not for ever.
func TestRecountWaitsForTheLastReceipts(t *testing.T) {
	held, records := countedRound(t, 3)
	synctest.Test(t, func(t *testing.T) {
		d := testDemo(t)
		d.hold(held[0])
		done := make(chan recount.Tally, 1)
		go func() { done <- d.settled(t.Context(), records) }()
		for _, h := range held[1:] {
			synctest.Wait()
			select {
			case tally := <-done:
				t.Fatalf("it did not wait: %+v", tally)
			default:
			}
			d.hold(h)
		}
		if tally := <-done; !tally.OK() || tally.Receipts != 3 || tally.Counted != 3 {
			t.Errorf("tally %+v", tally)
		}
		d.held = d.held[:2]
		if tally := d.settled(t.Context(), records); tally.OK() || tally.Receipts != 2 || tally.Counted != 3 {
			t.Errorf("a receipt that never comes: %+v", tally)
		}
	})
}

// What the recount finds makes the demo fail, whether a leader was killed or not.
func TestTallyIsJudgedWithoutAKill(t *testing.T) {
	for _, c := range []struct {
		tally recount.Tally
		said  string
	}{
		{recount.Tally{Receipts: 9, Counted: 9}, ""},
		{recount.Tally{Receipts: 9, Counted: 9, Twice: 1}, "9 receipts, 9 counted, 0 lost, 1 twice"},
		{recount.Tally{Receipts: 9, Counted: 9, Lost: 1}, "9 receipts, 9 counted, 1 lost, 0 twice"},
		{recount.Tally{Receipts: 9, Counted: 8}, "9 receipts, 8 counted, 0 lost, 0 twice"},
		{recount.Tally{Receipts: 9, Counted: 9, Problems: []string{"x"}}, "9 receipts, 9 counted"},
		{recount.Tally{}, "0 receipts, 0 counted"},
	} {
		d := testDemo(t)
		d.tally, d.result.Rounds = c.tally, d.cfg.Rounds
		d.judge()
		if said := strings.Join(d.result.Problems, "; "); (said == "") != (c.said == "") || !strings.Contains(said, c.said) {
			t.Errorf("%+v: problems %q, want %q", c.tally, said, c.said)
		}
	}
}
