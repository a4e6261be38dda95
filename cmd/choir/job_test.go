package main

import (
	"strings"
	"testing"
)

// A watcher reads where a job stands whenever that is news, each ended round once, and the end from the command itself.
func TestWatched(t *testing.T) {
	var out strings.Builder
	w := watched{out: &out, seen: map[[2]uint64]bool{}}
	one := roundView{Round: 1, Attempt: 1, Kind: "train", State: "closed", Invited: 3, Accepted: 3}
	two := roundView{Round: 2, Attempt: 1, Kind: "train", State: "abandoned", Invited: 3, Accepted: 1, Rejected: 1, Reason: "too few"}
	for _, v := range []jobView{
		{State: "queued"},
		{State: "queued"},
		{State: "queued", Reason: "3 of 50 nodes"},
		{State: "queued", Reason: "4 of 50 nodes"},
		{State: "running", Rounds: []roundView{{Round: 1, Attempt: 1, State: "open"}}},
		{State: "running", Rounds: []roundView{one}},
		{State: "paused", Rounds: []roundView{one}},
		{State: "running", Rounds: []roundView{one, two}},
		{State: "failed", Reason: "too often", Rounds: []roundView{one, two}},
	} {
		v.Name = "j"
		if err := w.print(v); err != nil {
			t.Fatal(err)
		}
	}
	want := `j: queued
j: queued (3 of 50 nodes)
j: queued (4 of 50 nodes)
j: running
j: round 1 (train) closed: 3 of 3 updates
j: paused
j: round 2 (train) abandoned: 1 of 3 updates, 1 rejected (too few)
j: running
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
