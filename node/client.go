package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	stallTimeout = 5 * time.Second  // a blob of which nothing comes for so long is fetched elsewhere
	fetchTimeout = 2 * time.Minute  // for a blob, from whomever
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 2 * time.Second
	maxBlob      = 2 << 30
)

// maxAddresses bounds how many coordinators are known at once: a federation has at most seven.
const maxAddresses = 16

// client talks to the coordinators: any of them will do, so a call that fails goes to the next.
type client struct {
	id   *identity
	log  *slog.Logger
	dial func(ctx context.Context, address string) (net.Conn, error)
	now  func() time.Time

	fresh   func(ctx context.Context) // sees to the certificate after a call that failed; nil for a node that does not run
	contact contact

	mu        sync.Mutex // guards the fields below
	chain     [][]byte   // the node's certificate
	addresses []string   // in the order in which to try them, never empty
	conns     map[string]*grpc.ClientConn
}

func newClient(id *identity, deps Deps) *client {
	return &client{
		id: id, log: deps.Log, dial: deps.Dial, now: deps.Now, chain: id.chain,
		addresses: slices.Clone(id.addresses), conns: map[string]*grpc.ClientConn{},
	}
}

// certificate is the node's, leaf first.
func (c *client) certificate() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chain
}

// leaf is the first of certificate.
func (c *client) leaf() *x509.Certificate {
	leaf, err := x509.ParseCertificate(c.certificate()[0])
	if err != nil {
		panic(err) // it was parsed before it was kept
	}
	return leaf
}

// certify takes a new certificate for the next connection, and leaves those made with the old one.
func (c *client) certify(chain [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chain = chain
	c.hangUp(func(string) bool { return true })
}

// hangUpAll has the next call to each coordinator make a new connection.
func (c *client) hangUpAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangUp(func(string) bool { return true })
}

// all are the addresses in the order in which to try them.
func (c *client) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.addresses)
}

// hangUp closes connections; c.mu is held.
func (c *client) hangUp(which func(address string) bool) {
	for address, conn := range c.conns {
		if which(address) {
			_ = conn.Close() // its calls end with it
			delete(c.conns, address)
		}
	}
}

// sayClock has a configuration name the clock where a time does not fit.
func sayClock(config *tls.Config, now func() time.Time) *tls.Config {
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error { return clockError(verify(cs), now()) }
	return config
}

// prefer changes the order of addresses to what a coordinator advised. Those that the token named stay the last resort.
func (c *client) prefer(advised []*choirv1.UploadAddress) {
	if len(advised) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addresses = c.addresses[:0]
	for _, a := range advised {
		if a.Address != "" && !slices.Contains(c.addresses, a.Address) && len(c.addresses) < maxAddresses {
			c.addresses = append(c.addresses, a.Address)
		}
	}
	for _, a := range c.id.addresses {
		if !slices.Contains(c.addresses, a) {
			c.addresses = append(c.addresses, a)
		}
	}
	c.hangUp(func(address string) bool { return !slices.Contains(c.addresses, address) }) // nothing is sent there any more
}

// demote moves an address that failed to the end, and returns how many there are.
func (c *client) demote(address string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.addresses, address); i >= 0 {
		c.addresses = append(slices.Delete(c.addresses, i, i+1), address)
	}
	return len(c.addresses)
}

// at returns a client for the first address.
func (c *client) at() (choirv1.NodesClient, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	address := c.addresses[0]
	conn, ok := c.conns[address]
	if !ok {
		cred := &seal.Credential{Chain: c.chain, Key: c.id.key}
		var err error
		conn, err = grpc.NewClient("passthrough:///"+address, append(rpc.Client(), grpc.WithContextDialer(c.dial),
			grpc.WithTransportCredentials(credentials.NewTLS(c.tls(cred))),
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

func (c *client) close() { c.hangUpAll() }

// try calls f on coordinators, one after the other, until it succeeds, fails for good, or ctx ends. The pause after all
// were tried grows.
func (c *client) try(ctx context.Context, f func(ctx context.Context, n choirv1.NodesClient) error) error {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		err := c.once(ctx, func(ctx context.Context, n choirv1.NodesClient, _ string) error { return f(ctx, n) })
		if err == nil || ctx.Err() != nil || isFinal(err) {
			return err
		}
		if wait == firstBackoff { // once, not for as long as a network is down
			c.log.Warn("no coordinator did what was asked; trying on", "error", err)
		}
		if pause(ctx, wait) != nil {
			return err
		}
	}
}

// once calls f on each coordinator, one after the other, until it succeeds, fails for good, or ctx ends. The error is the
// last one's.
func (c *client) once(ctx context.Context, f func(ctx context.Context, n choirv1.NodesClient, address string) error) error {
	for tries := 1; ; tries++ {
		n, address, err := c.at()
		if err == nil {
			err = f(ctx, n, address)
		}
		if err == nil || ctx.Err() != nil || isFinal(err) {
			return err
		}
		if c.fresh != nil {
			c.fresh(ctx)
		}
		c.log.Debug("coordinator did not do what was asked", "address", address, "error", err)
		if tries >= c.demote(address) {
			return err
		}
	}
}

// finalError is an error that no other coordinator can help with.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

func isFinal(err error) bool {
	var final *finalError
	return errors.As(err, &final)
}

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

// poll asks for work. Who is out of touch with the coordinators does not wait for work, but for an answer.
func (c *client) poll(ctx context.Context, req *choirv1.PollRequest) (reply *choirv1.PollReply, err error) {
	patient, failed := req.WaitMs, 0
	err = c.try(ctx, func(ctx context.Context, n choirv1.NodesClient) (err error) {
		if req.WaitMs = patient; c.contact.isLost() {
			req.WaitMs = 0
		}
		within, cancel := context.WithTimeout(ctx, time.Duration(req.WaitMs)*time.Millisecond+callTimeout)
		reply, err = n.Poll(within, req)
		cancel()
		if err == nil {
			c.contact.ok()
			return nil
		}
		if failed++; failed%len(c.all()) == 0 && ctx.Err() == nil {
			c.unanswered(ctx, err)
		}
		return err
	})
	return reply, err
}

// release asks for a release at one coordinator after the other, once, until take accepts what is answered.
func (c *client) release(ctx context.Context, ref *choirv1.ReleaseRef, take func(rel *choirv1.Release, address string) error) error {
	return c.once(ctx, func(ctx context.Context, n choirv1.NodesClient, address string) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		rel, err := n.GetRelease(ctx, &choirv1.ReleaseRequest{Model: ref.Model, Version: ref.Version})
		if err != nil {
			return err
		}
		return take(rel, address)
	})
}

// fetch returns a blob, verified against its id.
func (c *client) fetch(ctx context.Context, id []byte) (body []byte, err error) {
	if len(id) != 32 {
		return nil, fmt.Errorf("fetch blob: id of %d bytes", len(id))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
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

// watch cancels a call, with the error given, unless its timer is reset in time.
func watch(ctx context.Context, d time.Duration, why string) (_ context.Context, timer *time.Timer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer = time.AfterFunc(d, func() { cancel(status.Error(codes.DeadlineExceeded, why)) })
	return ctx, timer, func() {
		timer.Stop()
		cancel(nil)
	}
}

// because is why a call under watch ended.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func fetchFrom(ctx context.Context, n choirv1.NodesClient, id []byte) ([]byte, error) {
	ctx, timer, stop := watch(ctx, stallTimeout, "the coordinator stopped sending")
	defer stop()
	stream, err := n.GetBlob(ctx, &choirv1.BlobRequest{Id: id})
	if err != nil {
		return nil, because(ctx, err)
	}
	var body []byte
	var total uint64
	for first := true; first || uint64(len(body)) < total; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("stream ended after %d of %d bytes", len(body), total)
		}
		if err != nil {
			return nil, because(ctx, err)
		}
		if first {
			if total = m.Total; total > maxBlob {
				return nil, fmt.Errorf("blob of %d bytes is too large", total)
			}
			body = make([]byte, 0, min(total, 64<<20))
		}
		if len(m.Data) == 0 || uint64(len(body)+len(m.Data)) > total {
			return nil, fmt.Errorf("chunk of %d bytes after %d of %d", len(m.Data), len(body), total)
		}
		body = append(body, m.Data...)
		timer.Reset(stallTimeout)
	}
	if got := blob.ID(body); string(got[:]) != string(id) {
		return nil, fmt.Errorf("what the coordinator sent is not the blob asked for")
	}
	return body, nil
}

// upload sends one sealed update to one coordinator and returns the outcome it answers with. It moves on when the
// coordinator does not acknowledge more than before in time.
func upload(ctx context.Context, n choirv1.NodesClient, h *choirv1.UploadHeader, envelope []byte) (*choirv1.Outcome, error) {
	ctx, timer, stop := watch(ctx, ackTimeout, "the coordinator does not acknowledge")
	h.Size = uint64(len(envelope))
	stream, err := n.Upload(ctx)
	if err != nil {
		defer stop()
		return nil, fmt.Errorf("upload: %w", because(ctx, err))
	}
	sent := make(chan struct{})
	defer func() {
		stop() // ends the sender
		<-sent
	}()
	go func() {
		defer close(sent)
		send(stream, h, envelope)
	}()
	var acknowledged uint64
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("upload: %w", because(ctx, err))
		}
		if out := m.GetOutcome(); out != nil {
			return out, nil
		}
		if m.GetAcknowledged() <= acknowledged {
			continue
		}
		acknowledged = m.GetAcknowledged()
		if acknowledged > h.Size {
			return nil, fmt.Errorf("upload: %d of %d bytes acknowledged", acknowledged, h.Size)
		}
		if acknowledged == h.Size {
			timer.Reset(waitTimeout)
		} else {
			timer.Reset(ackTimeout)
		}
	}
}

// send sends header and chunks. What fails is told by the stream's other end.
func send(stream choirv1.Nodes_UploadClient, h *choirv1.UploadHeader, envelope []byte) {
	if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Header{Header: h}}) != nil {
		return
	}
	for chunk := range slices.Chunk(envelope, rpc.ChunkBytes) {
		if stream.Send(&choirv1.UploadRequest{Body: &choirv1.UploadRequest_Chunk{Chunk: chunk}}) != nil {
			return
		}
	}
	_ = stream.CloseSend() // the outcome tells
}
