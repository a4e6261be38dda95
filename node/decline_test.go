package node

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	choirv1 "choir.example/proto/choir/v1"
)

// A node that does not do a task tells why with its next poll, once, and in words that say nothing of its data.
func TestDeclineIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		cred := p.certify("coordinator", "c1")
		empty, few, broken := p.statisticsTask(cred, "c1"), p.statisticsTask(cred, "c1"), p.statisticsTask(cred, "c1")
		few.Key.Round, few.Job.MinimumExamples = 4, 6
		broken.Key.Round, broken.Kind, broken.Model = 5, choirv1.RoundKind_ROUND_KIND_TRAIN, make([]byte, 32)
		tasks := []*choirv1.Task{empty, few, broken}
		var mu sync.Mutex // guards what follows
		var n *Node
		var told []*choirv1.Decline
		polls := 0
		s := &service{poll: func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
			mu.Lock()
			defer mu.Unlock() // one node polls once at a time
			told = append(told, r.Declined...)
			if polls++; polls == 2 {
				if err := n.store.SetSchema(toySchema(t)); err != nil {
					t.Error(err)
				}
				importCSV(t, n.store, Train, toyCSV(5))
			}
			if len(tasks) == 0 {
				return hold(ctx, r)
			}
			task := tasks[0]
			tasks = tasks[1:]
			return &choirv1.PollReply{Task: task}, nil
		}}
		p.serve("c1", cred, p.root, s)
		mu.Lock()
		n = p.node(t.TempDir(), nil, "c1")
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := n.Run(ctx); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		want := []string{"it has no data", "it has fewer than 6 training examples", untold}
		if len(told) != len(want) {
			t.Fatalf("told %v, want %q", told, want)
		}
		for i, d := range told {
			if d.Reason != want[i] || d.Key.Round != uint64(3+i) {
				t.Errorf("told %v, want %q", d, want[i])
			}
		}
		status, err := n.Status()
		if err != nil || len(status.Declined) != 3 || !strings.Contains(status.Declined[1].Reason, "this node has 5") {
			t.Errorf("the owner reads %+v, %v", status.Declined, err)
		}
		n.tell(ctx, few, errors.New("it stops"))
		if len(n.declined) > 0 {
			t.Error("a node that stops declines")
		}
	})
}
