package node

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A node is ready while coordinators answer its polls: not before the first, not when all of them fail, and again as
// soon as one is back. One that was revoked learns it from those that refuse it, says so once, and calls seldom.
func TestReadyWhileAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, "test")
		var down, revoked atomic.Bool
		var calls atomic.Int64
		s := &service{
			poll: func(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
				if calls.Add(1); down.Load() {
					return nil, status.Error(codes.Unavailable, "away")
				}
				return hold(ctx, r)
			},
			ended: func(r *choirv1.MembershipRequest) bool {
				id, err := seal.VerifyChain(r.Chain, p.root.Certificate(), time.Now())
				if err != nil || !seal.VerifyMembership(id.Key, r.Chain[0], r.Signature) {
					t.Errorf("who asks? %v", err)
				}
				return revoked.Load()
			},
		}
		p.coordinator("c1", s)
		p.coordinator("c2", s)
		n := p.node(t.TempDir(), nil, "c1", "c2")
		wants := func(what, text string) {
			t.Helper()
			synctest.Wait()
			err := n.ready()
			if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
				t.Errorf("%s: %v, want %q", what, err, text)
			}
		}
		wants("before it runs", "no coordinator has answered yet")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		wants("polling", "")
		down.Store(true)
		wants("during a poll", "")
		time.Sleep(n.cfg.Poll + time.Second)
		wants("all are away", "no coordinator answers: ")
		down.Store(false)
		time.Sleep(2 * lastBackoff)
		wants("one is back", "")
		down.Store(true)
		revoked.Store(true)
		time.Sleep(n.cfg.Poll + outcastAgain)
		wants("revoked", "under another name, with an empty directory and a new token")
		if !errors.Is(n.ready(), seal.ErrRevoked) || p.log.count("level=ERROR", "takes part no more") != 1 {
			t.Errorf("said: %v", p.log.count("level=ERROR"))
		}
		before := calls.Load()
		time.Sleep(10 * revokedAgain)
		if made := calls.Load() - before; made > 22 || p.log.count("level=ERROR") != 1 {
			t.Errorf("a revoked node called %d times in ten minutes", made)
		}
	})
}
