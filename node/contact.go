package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	outcastAgain   = 30 * time.Second // how often a node that nobody answers asks whether it was revoked
	outcastTimeout = 3 * time.Second
	revokedAgain   = time.Minute // how often a revoked node calls: nothing is to be expected
)

// contact is whether coordinators answer the node's polls.
type contact struct {
	mu       sync.Mutex // guards the fields below
	answered bool       // one has, and since then not all of them failed
	revoked  bool
	why      error // nobody answers
	asked    time.Time
}

func (c *contact) ok() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered, c.revoked, c.why, c.asked = true, false, nil, time.Time{}
}

// lost notes that all coordinators were tried in vain. It reports whether it is time to ask whether it was revoked.
func (c *contact) lost(why error, now time.Time) (ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered, c.why = false, why
	if c.revoked || now.Sub(c.asked) < outcastAgain {
		return false
	}
	c.asked = now
	return true
}

func (c *contact) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.answered
}

func (c *contact) isRevoked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked = true
}

// errRevoked says what a revoked node can do.
var errRevoked = fmt.Errorf("the federation has revoked this node, for good; to take part again it enrols under another name, with an empty directory and a new token: %w", seal.ErrRevoked)

// check is why the node is out of touch: nil if it is not.
func (c *contact) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.answered:
		return nil
	case c.revoked:
		return errRevoked
	case c.why == nil:
		return errors.New("no coordinator has answered yet")
	}
	return fmt.Errorf("no coordinator answers: %w", c.why)
}

// unanswered notes that a poll failed at all coordinators, and asks whether the node was revoked, which they cannot say at
// the handshake. A node that was waits before it calls again.
func (c *client) unanswered(ctx context.Context, why error) {
	if c.contact.lost(why, c.now()) && c.wasRevoked(ctx) {
		c.contact.isRevoked()
		c.log.Error("this node takes part no more", "error", errRevoked)
	}
	if errors.Is(c.contact.check(), errRevoked) {
		_ = pause(ctx, revokedAgain) // ctx ends the call
	}
}

// wasRevoked asks the coordinators one after the other, without a certificate. The word of one is enough: what its log
// shows as revoked stays so.
func (c *client) wasRevoked(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, outcastTimeout)
	defer cancel()
	chain := c.certificate()
	req := &choirv1.MembershipRequest{Chain: chain, Signature: seal.ProveMembership(c.id.key, chain[0])}
	for _, address := range c.all() {
		if reply, err := c.membershipAt(ctx, address, req); err == nil && reply.Ended {
			return true
		}
	}
	return false
}

func (c *client) membershipAt(ctx context.Context, address string, req *choirv1.MembershipRequest) (*choirv1.MembershipReply, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, rpc.Patience(), grpc.WithContextDialer(c.dial),
		grpc.WithTransportCredentials(credentials.NewTLS(c.tls(nil))))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return choirv1.NewEnrolmentClient(conn).Membership(ctx, req)
}
