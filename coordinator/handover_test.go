package coordinator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"choir.example/coordinator/state"
)

// takeNothing makes the disk of a coordinator refuse blobs, and blobs only: a file is where their directory was. The
// function it returns makes room again.
func (f *testFederation) takeNothing(name string) (again func()) {
	f.t.Helper()
	dir := filepath.Join(f.member(name).cfg.Dir, "blobs")
	if err := os.Rename(dir, dir+".away"); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return func() {
		f.t.Helper()
		if err := os.Remove(dir); err != nil {
			f.t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			f.t.Fatal(err)
		}
	}
}

// A leader whose disk takes no models hands leadership on in the midst of a round, and another one ends that round: the
// same attempt, with all updates. It says that it is not ready until there is room again, and then has the model, too.
func TestLeaderWithoutRoomHandsOn(t *testing.T) {
	t.Parallel()
	f, nodes, tasks := trained(t, 3, Observer{}, "a", "b")
	full := f.leader()
	again := f.takeNothing(full)
	taker := ""
	for _, v := range f.voters {
		if v.Name != full {
			taker = v.Name
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nodes[0].answer(taker, tasks[0], 4)
	}()
	nodes[1].answer(taker, tasks[1], 6)
	<-done
	r := f.round(taker, 1, state.PhaseClosed)
	if r.Count != 2 || r.Attempt != 1 {
		t.Fatalf("round %+v", r)
	}
	leader := f.leader()
	if leader == full {
		t.Errorf("%s still leads, whose disk takes nothing", full)
	}
	if back := f.round(full, 1, state.PhaseClosed); back.Next != r.Next {
		t.Errorf("%s has closed the round with another model", full)
	}
	if f.member(full).blobs.Has(r.Next) || !f.member(leader).blobs.Has(r.Next) {
		t.Error("the model lies where there is no room, or does not where it was made")
	}
	notReady := func() bool {
		err := f.member(full).ready()
		return err != nil && strings.Contains(err.Error(), "the disk of coordinator "+full+" takes no models: ")
	}
	f.eventually("it says that it is not ready", notReady)
	again()
	f.eventually("it is ready again, by itself", func() bool { return f.member(full).ready() == nil })
	if body, err := f.member(full).blobs.Get(f.ctx(), r.Next); err != nil || len(body) == 0 || !f.member(full).blobs.Has(r.Next) {
		t.Errorf("with room again: %v", err)
	}
}
