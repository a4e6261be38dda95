//go:build linux

package live_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"testing"

	"choir.example/privacy/audit"
)

// sent is what a node says about one update that left it.
type sent struct {
	Job     string
	Round   uint64
	Attempt uint32
	Update  string // digest in hex
	Outcome string // counted, refused, pending
	Index   uint64
}

// attempt names one try at a round.
type attempt struct {
	job     string
	round   uint64
	attempt uint32
}

// tally is the outcome of a recount.
type tally struct {
	rounds, receipts, counted, lost, twice int
	problems                               []string
}

// recount compares the receipts that nodes say they hold with the records that the cluster exported: each update with a
// receipt is counted once, each update that is counted has its receipt, and closed rounds hold as many as they say.
func recount(records []audit.Record, nodes map[string][]sent) tally {
	var t tally
	counted := map[attempt]map[string][]string{} // updates by node
	closed := map[attempt]*audit.RoundClosed{}
	abandoned := map[attempt]bool{}
	weight := map[attempt]int64{}
	for _, r := range records {
		switch r := r.(type) {
		case *audit.BatchAccepted:
			a := attempt{r.Job, r.Round, r.Attempt}
			if counted[a] == nil {
				counted[a] = map[string][]string{}
			}
			for _, u := range r.Accepted {
				counted[a][u.Node] = append(counted[a][u.Node], hex.EncodeToString(u.Update[:]))
				weight[a] += u.Weight
			}
		case *audit.RoundClosed:
			closed[attempt{r.Job, r.Round, r.Attempt}] = r
		case *audit.RoundAbandoned:
			abandoned[attempt{r.Job, r.Round, r.Attempt}] = true
		}
	}
	held := map[attempt]map[string]string{}
	for node, list := range nodes {
		for _, s := range list {
			a := attempt{s.Job, s.Round, s.Attempt}
			if s.Outcome != "counted" || abandoned[a] {
				continue
			}
			if held[a] == nil {
				held[a] = map[string]string{}
			}
			held[a][node] = s.Update
			t.receipts++
			if got := counted[a][node]; len(got) == 0 || got[0] != s.Update {
				t.lost++
				t.problems = append(t.problems, fmt.Sprintf("%v: node %s holds a receipt for %s, counted is %v", a, node, s.Update, got))
			}
		}
	}
	for a, c := range closed {
		t.rounds++
		n := 0
		for node, updates := range counted[a] {
			n += len(updates)
			t.twice += len(updates) - 1
			if held[a][node] == "" {
				t.problems = append(t.problems, fmt.Sprintf("%v: the update of node %s is counted, the node holds no receipt", a, node))
			}
		}
		t.counted += n
		if uint64(n) != c.Count || weight[a] != c.Weight {
			t.problems = append(t.problems, fmt.Sprintf("%v: closed with %d updates of weight %d, the batches hold %d of %d", a, c.Count, c.Weight, n, weight[a]))
		}
	}
	return t
}

// records reads the audit log that a file holds.
func records(t testing.TB, path string) []audit.Record {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := audit.DecodeBundle(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := bundle.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The recount itself notices what it is there for.
func TestRecountFinds(t *testing.T) {
	update := func(b byte) (d [32]byte) { d[0] = b; return }
	name := func(b byte) string { d := update(b); return hex.EncodeToString(d[:]) }
	batch := func(nodes ...string) *audit.BatchAccepted {
		r := &audit.BatchAccepted{Job: "j", Round: 1, Attempt: 1}
		for _, n := range nodes {
			r.Accepted = append(r.Accepted, audit.Accepted{Node: n, Update: update(n[1]), Weight: 1})
		}
		return r
	}
	close := func(count uint64) *audit.RoundClosed {
		return &audit.RoundClosed{Job: "j", Round: 1, Attempt: 1, Count: count, Weight: int64(count)}
	}
	receipts := map[string][]sent{
		"n1": {{Job: "j", Round: 1, Attempt: 1, Update: name('1'), Outcome: "counted"}},
		"n2": {{Job: "j", Round: 1, Attempt: 1, Update: name('2'), Outcome: "counted"}},
	}
	for _, c := range []struct {
		name        string
		records     []audit.Record
		lost, twice int
		fine        bool
	}{
		{"all counted once", []audit.Record{batch("n1"), batch("n2"), close(2)}, 0, 0, true},
		{"one lost", []audit.Record{batch("n1"), close(1)}, 1, 0, false},
		{"one twice", []audit.Record{batch("n1", "n2"), batch("n2"), close(3)}, 0, 1, false},
		{"one without a receipt", []audit.Record{batch("n1", "n2", "n3"), close(3)}, 0, 0, false},
		{"the close claims more", []audit.Record{batch("n1", "n2"), close(3)}, 0, 0, false},
		{"an abandoned attempt counts nobody", []audit.Record{batch("n1"), &audit.RoundAbandoned{Job: "j", Round: 1, Attempt: 1}}, 0, 0, true},
	} {
		got := recount(c.records, receipts)
		if got.lost != c.lost || got.twice != c.twice || (len(got.problems) == 0 && got.twice == 0) != c.fine {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
