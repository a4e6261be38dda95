package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"choir.example/internal/blob"
	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

const (
	ackTimeout   = 2 * time.Second  // an upload whose chunk is not acknowledged for so long moves on
	waitTimeout  = 10 * time.Second // for the outcome after the last chunk
	callTimeout  = 15 * time.Second // for a small call
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 2 * time.Second
	maxBlob      = 2 << 30
)

// client talks to the coordinators: any of them will do, so a call that fails goes to the next.
type client struct {
	id   *identity
	dial func(ctx context.Context, address string) (net.Conn, error)
	now  func() time.Time

	mu        sync.Mutex // guards the fields below
	addresses []string   // in the order in which to try them
	conns     map[string]*grpc.ClientConn
}

func newClient(id *identity, deps Deps) *client {
	return &client{id: id, dial: deps.Dial, now: deps.Now, addresses: slices.Clone(id.addresses), conns: map[string]*grpc.ClientConn{}}
}

// prefer changes the order of addresses to what a coordinator advised.
func (c *client) prefer(addresses []*choirv1.UploadAddress) {
	if len(addresses) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addresses = c.addresses[:0]
	for _, a := range addresses {
		c.addresses = append(c.addresses, a.Address)
	}
}

// demote moves an address that failed to the end.
func (c *client) demote(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.addresses, address); i >= 0 {
		c.addresses = append(slices.Delete(c.addresses, i, i+1), address)
	}
}

// at returns a client for the first address.
func (c *client) at() (choirv1.NodesClient, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	address := c.addresses[0]
	conn, ok := c.conns[address]
	if !ok {
		cred := &seal.Credential{Chain: c.id.chain, Key: c.id.key}
		var err error
		conn, err = grpc.NewClient("passthrough:///"+address, append(rpc.Client(), grpc.WithContextDialer(c.dial),
			grpc.WithTransportCredentials(credentials.NewTLS(seal.ClientTLS(cred, c.id.root, c.now, "h2", nil))),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 10 * time.Second},
				MinConnectTimeout: 5 * time.Second,
			}))...)
		if err != nil {
			return nil, address, fmt.Errorf("connect to %s: %w", address, err)
		}
		c.conns[address] = conn
	}
	return choirv1.NewNodesClient(conn), address, nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close() // its calls end with it
	}
}

// try calls f on coordinators, one after the other, until it succeeds, fails for good, or ctx ends. The pause between
// grows once all were tried.
func (c *client) try(ctx context.Context, f func(ctx context.Context, n choirv1.NodesClient) error) error {
	wait := firstBackoff
	for attempt := 1; ; attempt++ {
		n, address, err := c.at()
		if err == nil {
			err = f(ctx, n)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		if final := (*finalError)(nil); errors.As(err, &final) {
			return err
		}
		c.demote(address)
		if attempt%len(c.id.addresses) == 0 {
			if pause(ctx, wait) != nil {
				return err
			}
			wait = min(2*wait, lastBackoff)
		}
	}
}

// finalError is an error that no other coordinator can help with.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// pause waits for d; its error is ctx's.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// poll asks for work.
func (c *client) poll(ctx context.Context, req *choirv1.PollRequest) (reply *choirv1.PollReply, err error) {
	err = c.try(ctx, func(ctx context.Context, n choirv1.NodesClient) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(req.WaitMs)*time.Millisecond+callTimeout)
		defer cancel()
		reply, err = n.Poll(ctx, req)
		return err
	})
	return reply, err
}

// release describes a release.
func (c *client) release(ctx context.Context, model string, version uint64) (rel *choirv1.Release, err error) {
	err = c.try(ctx, func(ctx context.Context, n choirv1.NodesClient) (err error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		rel, err = n.GetRelease(ctx, &choirv1.ReleaseRequest{Model: model, Version: version})
		return err
	})
	return rel, err
}

// fetch returns a blob, verified against its id.
func (c *client) fetch(ctx context.Context, id []byte) (body []byte, err error) {
	if len(id) != 32 {
		return nil, fmt.Errorf("fetch blob: id of %d bytes", len(id))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = c.try(ctx, func(ctx context.Context, n choirv1.NodesClient) (err error) {
		body, err = fetchFrom(ctx, n, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch blob %x: %w", id, err)
	}
	return body, nil
}

func fetchFrom(ctx context.Context, n choirv1.NodesClient, id []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return nil, err
	}
	var body []byte
	var total uint64
	for first := true; first || uint64(len(body)) < total; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("stream ended after %d of %d bytes", len(body), total)
		}
		if err != nil {
			return nil, err
		}
		if first {
			if total = m.Total; total > maxBlob {
				return nil, fmt.Errorf("blob of %d bytes is too large", total)
			}
			body = make([]byte, 0, min(total, 64<<20))
		}
		body = append(body, m.Data...)
	}
	if got := blob.ID(body); string(got[:]) != string(id) {
		return nil, fmt.Errorf("what the coordinator sent is not the blob asked for")
	}
	return body, nil
}

// upload sends one sealed update to one coordinator and returns the outcome it answers with.
func upload(ctx context.Context, n choirv1.NodesClient, h *choirv1.UploadHeader, envelope []byte) (*choirv1.Outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sum := sha256.Sum256(envelope)
	h.Size, h.Envelope = uint64(len(envelope)), sum[:]
	watchdog := time.AfterFunc(ackTimeout, func() {
		cancel(status.Error(codes.DeadlineExceeded, "the coordinator does not acknowledge"))
	})
	defer watchdog.Stop()
	stream, err := n.Upload(ctx)
	if err != nil {
		return nil, err
	}
	go func() { // the sender ends with the stream
		if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: h}}) != nil {
			return
		}
		for chunk := range slices.Chunk(envelope, rpc.ChunkBytes) {
			if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: chunk}}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, fmt.Errorf("upload: %w", err)
		}
		if out := m.GetOutcome(); out != nil {
			return out, nil
		}
		if m.GetAcknowledged() >= h.Size {
			watchdog.Reset(waitTimeout)
		} else {
			watchdog.Reset(ackTimeout)
		}
	}
}
