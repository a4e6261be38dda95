package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/internal/rpc"
	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	handshakeTimeout = 10 * time.Second
	maxHandshakes    = 128                  // at once; one more makes the oldest give way, so nobody can block the door
	acceptPause      = 5 * time.Millisecond // after a failed accept; doubles up to a second
)

// wire is the coordinator's one port and all its connections. Every accepted connection is TLS 1.3; the protocol
// negotiated in the handshake picks gRPC, raft, gossip or the console. All connections, in and out, are tracked, so
// that kill cuts them at once.
type wire struct {
	listener  net.Listener
	dialTCP   func(ctx context.Context, address string) (net.Conn, error)
	serverTLS *tls.Config
	clientTLS func(proto string, want func(seal.Identity) error) *tls.Config
	identify  func(tls.ConnectionState) (seal.Identity, error)
	log       *slog.Logger
	refused   func() // counts
	address   net.Addr
	queues    map[string]*connQueue
	wg        sync.WaitGroup
	killed    chan struct{} // closed by kill

	mu      sync.Mutex // guards the fields below
	conns   map[*trackedConn]bool
	waiting []*trackedConn // for the end of their handshake, oldest first
	dead    bool
}

// addressOf is an address by its text.
type addressOf string

func (a addressOf) Network() string { return "tcp" }
func (a addressOf) String() string  { return string(a) }

// prepare makes the queues of the protocols; start accepts connections until close or kill.
func (w *wire) prepare() {
	w.conns = map[*trackedConn]bool{}
	w.killed = make(chan struct{})
	w.queues = map[string]*connQueue{}
	for _, proto := range protocols() {
		w.queues[proto] = &connQueue{address: w.address, conns: make(chan net.Conn), closed: make(chan struct{})}
	}
}

func (w *wire) start() { w.wg.Go(w.accept) }

func (w *wire) accept() {
	for pause := acceptPause; ; {
		conn, err := w.listener.Accept()
		if errors.Is(err, net.ErrClosed) || err != nil && w.isDead() {
			if !w.isDead() { // somebody else closed it: let gRPC, and so Run, end instead of listening to nothing
				_ = w.queues[protoGRPC].Close()
			}
			return
		}
		if err != nil { // such as too many open files
			w.log.Warn("accept connection", "error", err, "again_in", pause)
			select {
			case <-time.After(pause):
			case <-w.killed:
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = acceptPause
		tracked, err := w.track(conn)
		if err != nil {
			return
		}
		w.greeted(tracked)
		w.wg.Go(func() { w.welcome(tracked) })
	}
}

// greeted notes that a handshake begins. Callers that only hold a connection open make room for those who come later.
func (w *wire) greeted(t *trackedConn) {
	w.mu.Lock()
	w.waiting = append(w.waiting, t)
	var oldest *trackedConn
	if len(w.waiting) > maxHandshakes {
		oldest = w.waiting[0]
		w.waiting = w.waiting[1:]
	}
	w.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
}

// through notes that a handshake has ended.
func (w *wire) through(t *trackedConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = slices.DeleteFunc(w.waiting, func(o *trackedConn) bool { return o == t })
}

// welcome shakes hands and hands the connection to its protocol.
func (w *wire) welcome(conn *trackedConn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	tc := tls.Server(conn, w.serverTLS)
	err := tc.HandshakeContext(ctx)
	w.through(conn)
	if err != nil {
		w.refused()
		w.log.Debug("handshake refused", "from", conn.RemoteAddr().String(), "error", err)
		_ = conn.Close()
		return
	}
	proto := tc.ConnectionState().NegotiatedProtocol
	id := seal.Identity{Role: seal.RoleNone}
	if len(tc.ConnectionState().PeerCertificates) > 0 {
		id, _ = w.identify(tc.ConnectionState()) // verified in the handshake
	}
	conn.is(id)
	if proto != protoGRPC { // gRPC looks at each call
		if !allowed(proto, id.Role) {
			w.refused()
			w.log.Warn("connection refused", "protocol", proto, "caller", describe(id))
			_ = tc.Close()
			return
		}
	}
	w.queues[proto].push(tc)
}

// track wraps a raw connection; a dead wire closes it at once.
func (w *wire) track(conn net.Conn) (*trackedConn, error) {
	t := &trackedConn{Conn: conn, wire: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	w.conns[t] = true
	return t, nil
}

func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// trackedConn leaves the wire's books when it is closed.
type trackedConn struct {
	net.Conn
	wire *wire
	peer atomic.Pointer[seal.Identity] // who is at the other end, once that is known
}

// is notes who is at the other end; a caller without certificate is nobody.
func (t *trackedConn) is(id seal.Identity) {
	if id.Role != seal.RoleNone {
		t.peer.Store(&id)
	}
}

// dismiss closes the connections of those who are not welcome any more.
func (w *wire) dismiss(check func(seal.Identity) error) {
	w.mu.Lock()
	var gone []*trackedConn
	for t := range w.conns {
		if id := t.peer.Load(); id != nil && check(*id) != nil {
			gone = append(gone, t)
		}
	}
	w.mu.Unlock()
	for _, t := range gone {
		id := t.peer.Load()
		w.log.Info("connection closed: the caller is not welcome any more", "caller", describe(*id), "from", t.RemoteAddr().String())
		_ = t.Close()
	}
}

// Close closes the connection.
func (t *trackedConn) Close() error {
	t.wire.mu.Lock()
	delete(t.wire.conns, t)
	t.wire.mu.Unlock()
	return t.Conn.Close()
}

// dial opens a raw, tracked connection.
func (w *wire) dial(ctx context.Context, address string) (*trackedConn, error) {
	if w.isDead() {
		return nil, net.ErrClosed
	}
	conn, err := w.dialTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	return w.track(conn)
}

// dialRaw is dial for gRPC.
func (w *wire) dialRaw(ctx context.Context, address string) (net.Conn, error) {
	conn, err := w.dial(ctx, address)
	if err != nil {
		return nil, err // no typed nil
	}
	return conn, nil
}

// dialTLS opens a connection to a coordinator that speaks proto.
func (w *wire) dialTLS(proto, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := w.dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("dial %s at %s: %w", proto, address, err)
	}
	tc := tls.Client(conn, w.clientTLS(proto, nil))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s at %s: %w", proto, address, err), conn.Close())
	}
	if id, err := w.identify(tc.ConnectionState()); err == nil { // it was verified in the handshake
		conn.is(id)
	}
	return tc, nil
}

// dialPeer makes a gRPC connection to the coordinator of a name; the handshake checks that it is that one.
func (w *wire) dialPeer(name, address string) (*grpc.ClientConn, error) {
	config := w.clientTLS(protoGRPC, func(id seal.Identity) error {
		if id.Name != name {
			return fmt.Errorf("coordinator %s answers instead of %s", id.Name, name)
		}
		return nil
	})
	return grpc.NewClient("passthrough:///"+address, append(rpc.Client(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithContextDialer(w.dialRaw),
		grpc.WithConnectParams(peerBackoff))...)
}

// kill cuts every connection both ways and refuses new ones, now and from now on. It may be called again.
func (w *wire) kill() {
	w.mu.Lock()
	if !w.dead {
		close(w.killed)
	}
	w.dead = true
	conns := w.conns
	w.conns = map[*trackedConn]bool{}
	w.mu.Unlock()
	_ = w.listener.Close()
	for t := range conns {
		_ = t.Conn.Close()
	}
}

// close is kill, and waits for what start began.
func (w *wire) close() {
	w.kill()
	for _, q := range w.queues {
		_ = q.Close()
	}
	w.wg.Wait()
}

// serverCredentials tells gRPC that the handshake is done.
func (w *wire) serverCredentials() credentials.TransportCredentials { return handshaken{} }

func (w *wire) grpcListener() net.Listener { return w.queues[protoGRPC] }

// handshaken are server credentials over connections that have shaken hands already.
type handshaken struct {
	credentials.TransportCredentials
}

func (handshaken) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, fmt.Errorf("connection of type %T has no TLS", conn)
	}
	return conn, credentials.TLSInfo{
		State: tc.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

// connQueue is a listener of connections that arrive elsewhere.
type connQueue struct {
	address net.Addr
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (q *connQueue) push(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.closed:
		_ = conn.Close()
	}
}

// Accept returns the next connection.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept fail.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr is the coordinator's address.
func (q *connQueue) Addr() net.Addr { return q.address }

// raftStream is raft's view of the wire.
type raftStream struct {
	*connQueue
	wire *wire
}

// Dial opens a raft connection to a peer.
func (s raftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.wire.dialTLS(protoRaft, string(address), timeout)
}

func (w *wire) raftStream() raftStream { return raftStream{w.queues[protoRaft], w} }
