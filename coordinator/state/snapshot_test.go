package state_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"choir.example/coordinator/state"
)

// framed puts the line with the digest above a state's JSON, as Encode does.
func framed(body string) []byte {
	return append(fmt.Appendf(nil, "choir state 1 %x\n", sha256.Sum256([]byte(body))), body...)
}

func bodyOf(t testing.TB, s *state.State) string {
	t.Helper()
	_, body, _ := strings.Cut(snap(t, s), "\n")
	return body
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	s, _ := stateAt(t, "job", "training charged")
	whole := []byte(snap(t, s))
	if !bytes.Equal(whole, framed(bodyOf(t, s))) {
		t.Fatal("a snapshot is not framed as these tests think")
	}
	refuse := func(what string, b []byte) {
		if _, err := state.Decode(b); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("a bit of byte %d flipped", i), b)
		refuse(fmt.Sprintf("cut after %d bytes", i), whole[:i])
	}
	refuse("a line more", append(bytes.Clone(whole), '\n'))
	refuse("another version", bytes.Replace(whole, []byte("state 1"), []byte("state 2"), 1))
}

// A snapshot may be whole and yet hold what no log leads to. Apply would trip over it much later.
func TestASnapshotOfAnImpossibleStateIsRefused(t *testing.T) {
	s, _ := stateAt(t, "job", "released")
	body := bodyOf(t, s)
	for _, c := range []struct{ old, spoilt, want string }{
		{`{"Index"`, `{"Extra":1,"Index"`, `unknown field "Extra"`},
		{`{"Index"`, `{"Index":-1,"Index"`, `cannot unmarshal`},
		{body, body + "{}", `something follows`},
		{body, `null`, `a table is missing`},
		{body, `{}`, `a table is missing`},
		{`"Nodes":{`, `"Nodes":null,"N":{`, `unknown field "N"`},
		{`"Name":"ada"`, `"Name":"zoe"`, `coordinator bob is out of order`},
		{`"Chain":["YWRhJ3M="]`, `"Chain":[]`, `coordinator ada has no certificate`},
		{`"Chain":["YWRhJ3M="]`, `"Chain":null`, `coordinator ada has no certificate`},
		{`"purchase":{`, `"purchase":{"Stopping":true,`, `it is to stop when its open round ends, and has none`},
		{`"purchase":{"Name":"purchase"`, `"purchase":null,"other":{"Name":"purchase"`, `job other: it is missing, or has another name`},
		{`"Spec":"`, `"Spec":"AAAA`, `decode specification of job purchase`},
		{`"Rounds":[{`, `"Rounds":[null,{`, `its round in place 0`},
		{`"Phase":"closed"`, `"Phase":"open"`, `its round in place 0`},
		{`"Cohort":["east","north"`, `"Cohort":["north","east"`, `not a sorted list of nodes`},
		{`"Cohort":["east"`, `"Cohort":["eve"`, `not a sorted list of nodes`},
		{`"Incidents":{}`, `"Incidents":null`, `not a sorted list of nodes`},
		{`"Count":3`, `"Count":4`, `it counts 4 updates and holds 3`},
		{`"Cohort":["east","north","south","west"]`, `"Cohort":["east","north","south"]`, `counts node west, which is not in its cohort`},
		{`"Version":1`, `"Version":2`, `release 1 of model buyer is out of order`},
		{`"Records":["`, `"Records":["","`, `do not give the root`},
	} {
		if !strings.Contains(body, c.old) {
			t.Fatalf("the snapshot has no %s", c.old)
		}
		_, err := state.Decode(framed(strings.Replace(body, c.old, c.spoilt, 1)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %v, want %q", c.spoilt, err, c.want)
		}
	}
}

func TestAJobsLastRoundHasItsDetails(t *testing.T) {
	s, _ := stateAt(t, "job", "statistics open")
	body := strings.Replace(bodyOf(t, s), `"Accepted":{}`, `"Accepted":null`, 1)
	if _, err := state.Decode(framed(body)); err == nil || !strings.Contains(err.Error(), "without its details") {
		t.Errorf("restored, or %v", err)
	}
}

// Nothing in a snapshot claims a length: what a hostile one makes a replica allocate grows with its own.
func TestARestoreTakesMemoryInProportion(t *testing.T) {
	for _, element := range []string{`{"Jobs":{"a":{"Rounds":[{}%s]}}}`, `{"Coordinators":[{}%s]}`, `{"Log":{"Records":[""%s]}}`} {
		unit := element[strings.Index(element, "[")+1 : strings.Index(element, "%")]
		b := framed(fmt.Sprintf(element, strings.Repeat(","+unit, 30_000)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := state.Decode(b); err == nil {
			t.Errorf("%.20s: restored", element)
		}
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(len(b))*3000; got > most {
			t.Errorf("%.20s: %d bytes allocated for a snapshot of %d", element, got, len(b))
		}
	}
}

func FuzzRestore(f *testing.F) {
	for _, tr := range transcripts(f) {
		s := state.New()
		for _, e := range tr.entries(f) {
			s, _ = e.apply(s)
		}
		f.Add([]byte(bodyOf(f, s)))
	}
	var next [][]byte
	for _, g := range good {
		next = append(next, encoded(f, g.command))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := state.Decode(body); err == nil {
			t.Fatal("restored without its digest")
		}
		s, err := state.Decode(framed(string(body)))
		if err != nil {
			return
		}
		again := snap(t, s)
		if snap(t, restore(t, again)) != again {
			t.Fatal("a snapshot of the restored state restores another")
		}
		for _, data := range next { // whatever it is, it must not panic
			_, _ = state.Apply(s, s.Index+1, 1, data)
			_, _ = state.Apply(s, s.Index+1, 2, data)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, tr := range transcripts(f) {
		for _, e := range tr.entries(f) {
			f.Add(e.data)
		}
	}
	for _, g := range good {
		f.Add(encoded(f, g.command))
	}
	stages := []string{"submitted", "training open", "training charged", "evaluation closed"}
	var states []*state.State
	var snaps []string
	for _, stage := range stages {
		s, _ := stateAt(f, "job", stage)
		states, snaps = append(states, s), append(snaps, snap(f, s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for i, s := range states {
			next, err := state.Apply(s, s.Index+1, 2, data)
			if err != nil && next.Log.Size() == s.Log.Size() {
				undone := *next
				undone.Index = s.Index
				if !reflect.DeepEqual(&undone, s) {
					t.Fatalf("refused (%v), and the state changed", err)
				}
				continue
			}
			if snap(t, s) != snaps[i] {
				t.Fatal("Apply changed its state")
			}
			if again := snap(t, next); snap(t, restore(t, again)) != again {
				t.Fatal("the state changes in a snapshot")
			}
		}
	})
}
