package coordinator

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	choirv1 "choir.example/proto/choir/v1"

	"choir.example/privacy/seal"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// What one identity may have under way at a coordinator at once. A node that keeps to the protocol has one poll and one
// upload; a connection that broke unnoticed may leave another of each behind.
const (
	pollsEach   = 4
	uploadsEach = 2
	callsEach   = 32
	strangers   = 16               // calls of one address without a certificate
	chunkStall  = 10 * time.Second // an upload that brings no chunk for so long is given up
)

// limits counts what each identity has under way.
type limits struct {
	mu    sync.Mutex // guards the fields below
	calls map[string]int
	bytes map[string]int64
	lanes map[string]chan struct{} // by address: one enrolment at a time
	users map[string]int           // of a lane
}

func newLimits() *limits {
	return &limits{calls: map[string]int{}, bytes: map[string]int64{}, lanes: map[string]chan struct{}{}, users: map[string]int{}}
}

// enter counts a call of somebody; it is refused when too many are under way.
func (l *limits) enter(who string, most int) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls[who] >= most {
		return nil, status.Errorf(codes.ResourceExhausted, "%s has %d calls under way, which is the limit; try again", who, most)
	}
	l.calls[who]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.calls[who]--; l.calls[who] == 0 {
			delete(l.calls, who)
		}
	}, nil
}

// carry counts the bytes of an upload of a node.
func (l *limits) carry(node string, n, most int64) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes[node] > 0 && l.bytes[node]+n > most {
		return nil, status.Errorf(codes.ResourceExhausted, "node %s has %d bytes under way; %d more would pass %d", node, l.bytes[node], n, most)
	}
	l.bytes[node] += n
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.bytes[node] -= n; l.bytes[node] == 0 {
			delete(l.bytes, node)
		}
	}, nil
}

// alone waits until no other enrolment of the address is under way.
func (l *limits) alone(ctx context.Context, address string) (done func(), err error) {
	l.mu.Lock()
	lane, ok := l.lanes[address]
	if !ok {
		lane = make(chan struct{}, 1)
		l.lanes[address] = lane
	}
	l.users[address]++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.users[address]--; l.users[address] == 0 {
			delete(l.users, address)
			delete(l.lanes, address)
		}
	}
	select {
	case lane <- struct{}{}:
		return func() { <-lane; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, status.Errorf(codes.ResourceExhausted, "another enrolment from %s is under way; try again", address)
	}
}

// admitCall counts a call against the limits of its caller.
func (c *Coordinator) admitCall(ctx context.Context, method string) (leave func(), err error) {
	id := caller(ctx)
	switch {
	case id.Role == seal.RoleCoordinator: // batches come in bursts; the voters are few and known
		return func() {}, nil
	case id.Role == seal.RoleNone:
		return c.limits.enter("address "+hostOf(ctx), strangers)
	case method == choirv1.Nodes_Poll_FullMethodName:
		return c.limits.enter(describe(id)+", polling,", pollsEach)
	case method == choirv1.Nodes_Upload_FullMethodName:
		return c.limits.enter(describe(id)+", uploading,", uploadsEach)
	}
	return c.limits.enter(describe(id), callsEach)
}

// enrolling waits for a place among those who enrol or ask to join: one of an address, few in all.
func (c *Coordinator) enrolling(ctx context.Context) (done func(), err error) {
	leave, err := c.limits.alone(ctx, hostOf(ctx))
	if err != nil {
		return nil, err
	}
	select {
	case c.enrolments <- struct{}{}:
		return func() { <-c.enrolments; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, status.Error(codes.ResourceExhausted, "too many enrolments at once; try again")
	}
}

// hostOf is the address a call comes from, without the port.
func hostOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return strings.ToLower(host)
}

// prompt is an upload whose next message must come within a time: one that stalls frees its place.
type prompt struct {
	messages chan received
	within   time.Duration
}

type received struct {
	m   *choirv1.UploadRequest
	err error
}

// newPrompt reads a stream ahead by one message. Its goroutine ends with the stream, which ends when the handler
// returns.
func newPrompt(stream choirv1.Nodes_UploadServer, within time.Duration) *prompt {
	p := &prompt{messages: make(chan received), within: within}
	go func() {
		for {
			m, err := stream.Recv()
			select {
			case p.messages <- received{m, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// next is the next message.
func (p *prompt) next(ctx context.Context) (*choirv1.UploadRequest, error) {
	timer := time.NewTimer(p.within)
	defer timer.Stop()
	select {
	case r := <-p.messages:
		return r.m, r.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), io.ErrUnexpectedEOF)
	case <-timer.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "upload: nothing came for %v; send again", p.within)
	}
}
