package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"
)

// party is a federation's keys and an in-memory wire between coordinators, good and bad, and one node.
type party struct {
	t    testing.TB
	root *seal.Root
	past *seal.Lineage // that led to root; nil if it is the first
	wire map[string]*bufconn.Listener
	log  *logBuffer
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count is how many lines hold all of the texts.
func (l *logBuffer) count(texts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			n++
		}
	}
	return n
}

func newParty(t testing.TB, cluster string) *party {
	t.Helper()
	root, err := seal.NewRoot(cluster, time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &party{t: t, root: root, wire: map[string]*bufconn.Listener{}, log: &logBuffer{}}
}

func (p *party) key() ed25519.PrivateKey {
	p.t.Helper()
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// certify makes a credential of any role.
func (p *party) certify(role seal.Role, name string) *seal.Credential {
	p.t.Helper()
	key := p.key()
	var chain [][]byte
	var err error
	if role == seal.RoleNode {
		chain, err = p.issuer("c1").CertifyNode(name, public(key), time.Now(), 30*24*time.Hour)
	} else {
		chain, err = p.root.Certify(role, name, public(key), time.Now(), 30*24*time.Hour)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return &seal.Credential{Chain: chain, Key: key}
}

func (p *party) issuer(name string) *seal.Issuer {
	p.t.Helper()
	key := p.key()
	cert, err := p.root.CertifyIssuer(name, public(key), time.Now(), 30*24*time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	return &seal.Issuer{Certificate: cert, Key: key}
}

// identity is an enrolled node's, who knows these addresses.
func (p *party) identity(name string, addresses ...string) *identity {
	cred := p.certify(seal.RoleNode, name)
	return &identity{name: name, key: cred.Key, chain: cred.Chain, root: p.root.Certificate(), addresses: addresses}
}

// service is a coordinator whose every answer a test chooses. A call without a function is unimplemented.
type service struct {
	choirv1.UnimplementedNodesServer
	choirv1.UnimplementedEnrolmentServer
	enrol   func(context.Context, *choirv1.EnrolRequest) (*choirv1.EnrolReply, error)
	renew   func(*choirv1.RenewRequest) (*choirv1.EnrolReply, error)
	ended   func(*choirv1.MembershipRequest) bool
	poll    func(context.Context, *choirv1.PollRequest) (*choirv1.PollReply, error)
	upload  func(choirv1.Nodes_UploadServer) error
	outcome func(*choirv1.OutcomeRequest) (*choirv1.Outcome, error)
	blob    func(*choirv1.BlobRequest, choirv1.Nodes_GetBlobServer) error
	release func(*choirv1.ReleaseRequest) (*choirv1.Release, error)
}

func (s *service) Enrol(ctx context.Context, r *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
	if s.enrol == nil {
		return s.UnimplementedEnrolmentServer.Enrol(ctx, r)
	}
	return s.enrol(ctx, r)
}

func (s *service) Renew(ctx context.Context, r *choirv1.RenewRequest) (*choirv1.EnrolReply, error) {
	if s.renew == nil {
		return s.UnimplementedEnrolmentServer.Renew(ctx, r)
	}
	return s.renew(r)
}

func (s *service) Membership(ctx context.Context, r *choirv1.MembershipRequest) (*choirv1.MembershipReply, error) {
	if s.ended == nil {
		return s.UnimplementedEnrolmentServer.Membership(ctx, r)
	}
	return &choirv1.MembershipReply{Ended: s.ended(r)}, nil
}

func (s *service) Poll(ctx context.Context, r *choirv1.PollRequest) (*choirv1.PollReply, error) {
	if s.poll == nil {
		return s.UnimplementedNodesServer.Poll(ctx, r)
	}
	return s.poll(ctx, r)
}

func (s *service) Upload(stream choirv1.Nodes_UploadServer) error {
	if s.upload == nil {
		return s.UnimplementedNodesServer.Upload(stream)
	}
	return s.upload(stream)
}

func (s *service) GetOutcome(ctx context.Context, r *choirv1.OutcomeRequest) (*choirv1.Outcome, error) {
	if s.outcome == nil {
		return s.UnimplementedNodesServer.GetOutcome(ctx, r)
	}
	return s.outcome(r)
}

func (s *service) GetBlob(r *choirv1.BlobRequest, stream choirv1.Nodes_GetBlobServer) error {
	if s.blob == nil {
		return s.UnimplementedNodesServer.GetBlob(r, stream)
	}
	return s.blob(r, stream)
}

func (s *service) GetRelease(ctx context.Context, r *choirv1.ReleaseRequest) (*choirv1.Release, error) {
	if s.release == nil {
		return s.UnimplementedNodesServer.GetRelease(ctx, r)
	}
	return s.release(r)
}

// serve lets a service answer at an address with a credential, which need not be a coordinator's nor of this party.
func (p *party) serve(address string, cred *seal.Credential, root *seal.Root, s *service) {
	l := bufconn.Listen(1 << 20)
	p.wire[address] = l
	roots := seal.LineageFrom(root.Certificate())
	if p.past != nil && root == p.root {
		roots = *p.past
	}
	config := seal.ServerTLS(cred, roots, time.Now, []string{"h2"}, func(seal.Identity) error { return nil })
	server := grpc.NewServer(append(rpc.Server(), grpc.Creds(credentials.NewTLS(config)))...)
	choirv1.RegisterNodesServer(server, s)
	choirv1.RegisterEnrolmentServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	p.t.Cleanup(func() {
		server.Stop()
		<-done
	})
}

// coordinator lets a service answer as a coordinator of this party and returns its credential.
func (p *party) coordinator(name string, s *service) *seal.Credential {
	cred := p.certify(seal.RoleCoordinator, name)
	p.serve(name, cred, p.root, s)
	return cred
}

// deps dial the party's wire only.
func (p *party) deps() Deps {
	return Deps{
		Log: slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			l, ok := p.wire[address]
			if !ok {
				return nil, fmt.Errorf("dial %s: nobody listens", address)
			}
			return l.DialContext(ctx)
		},
		Now: time.Now, Rand: rand.Reader,
	}
}

// client is a client of an enrolled node.
func (p *party) client(addresses ...string) *client {
	c := newClient(p.identity("node-01", addresses...), p.deps())
	p.t.Cleanup(c.close)
	return c
}

// node is an enrolled node in a directory, not running.
func (p *party) node(dir string, tune func(*Config, *Deps), addresses ...string) *Node {
	p.t.Helper()
	box, err := seal.OpenKeys(dir+"/keys", rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	id, err := loadIdentity(dir, box.Sub("identity"))
	if id == nil && err == nil {
		err = p.identity("node-01", addresses...).save(dir, box.Sub("identity"))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	cfg, deps := DefaultConfig(), p.deps()
	cfg.Name, cfg.Dir, cfg.Control = "node-01", dir, false // a real socket holds up time in a bubble
	if tune != nil {
		tune(&cfg, &deps)
	}
	n, err := New(cfg, deps)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = n.Close() })
	return n
}

// drain receives an upload to its end, acknowledging it, and returns header and envelope.
func drain(stream choirv1.Nodes_UploadServer) (*choirv1.UploadHeader, []byte, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	h := first.GetHeader()
	var envelope []byte
	for uint64(len(envelope)) < h.GetSize() {
		m, err := stream.Recv()
		if err != nil {
			return h, envelope, err
		}
		envelope = append(envelope, m.GetChunk()...)
		if err := stream.Send(acknowledge(uint64(len(envelope)))); err != nil {
			return h, envelope, err
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return h, envelope, fmt.Errorf("more than was announced: %v", err)
	}
	return h, envelope, nil
}

func acknowledge(n uint64) *choirv1.UploadReply {
	return &choirv1.UploadReply{Body: &choirv1.UploadReply_Acknowledged{Acknowledged: n}}
}

func answerWith(out *choirv1.Outcome) *choirv1.UploadReply {
	return &choirv1.UploadReply{Body: &choirv1.UploadReply_Outcome{Outcome: out}}
}

// fakeListener stands where a port would: a real one would stop the clock of a bubble.
type fakeListener struct{}

func (fakeListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (fakeListener) Close() error              { return nil }
func (fakeListener) Addr() net.Addr            { return &net.TCPAddr{} }
