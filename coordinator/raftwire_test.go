package coordinator

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"choir.example/privacy/seal"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// nodeCredential is a node's, certified by a coordinator's issuer.
func (s *site) nodeCredential(t *testing.T) *seal.Credential {
	t.Helper()
	issuing, err := seal.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.root.CertifyIssuer("ada", issuing.Public().(ed25519.PublicKey), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := (&seal.Issuer{Certificate: cert, Key: issuing}).CertifyNode("till-1", key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &seal.Credential{Chain: chain, Key: key}
}

// call dials a wire as the holder of a credential, or of none.
func (s *site) call(t *testing.T, name, proto string, cred *seal.Credential) (*tls.Conn, error) {
	t.Helper()
	raw, err := net.Dial("tcp", s.address(name))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Client(raw, seal.ClientTLS(cred, s.root.Certificate(), time.Now, proto, nil))
	return conn, conn.HandshakeContext(within(t, 10*time.Second))
}

func TestWireHandsEachProtocolToItsQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob")
	ada, bob := s.wire(t, "ada"), s.wire(t, "bob")
	ada.start()
	for _, proto := range []string{protoGRPC, protoRaft, protoGossip} {
		out, err := bob.dialTLS(proto, s.address("ada"), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		in, err := ada.queues[proto].Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(proto)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(proto))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != proto {
			t.Errorf("%s: got %q, %v", proto, got, err)
		}
		if err := errors.Join(out.Close(), in.Close()); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "closed connections are forgotten", func() bool {
		ada.mu.Lock()
		defer ada.mu.Unlock()
		return len(ada.conns) == 0
	})
}

func TestWireRefuses(t *testing.T) {
	t.Parallel()
	s, foreign := newSite(t, "ada", "bob"), newSite(t, "ada", "bob")
	s.revoked["bob"] = true
	ada := s.wire(t, "ada")
	ada.start()
	node := s.nodeCredential(t)
	for _, c := range []struct {
		name, proto string
		cred        *seal.Credential
	}{
		{"a node at raft", protoRaft, node},
		{"a node at gossip", protoGossip, node},
		{"nobody at raft", protoRaft, nil},
		{"nobody at gossip", protoGossip, nil},
		{"a revoked coordinator at raft", protoRaft, s.creds["bob"]},
		{"a revoked coordinator at gRPC", protoGRPC, s.creds["bob"]},
		{"a foreign coordinator at raft", protoRaft, foreign.creds["bob"]},
		{"an unknown protocol", "http/1.1", s.creds["ada"]},
		{"no protocol", "", s.creds["ada"]},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := s.call(t, "ada", c.proto, c.cred)
			if err == nil { // in TLS 1.3 the caller learns of a refusal when it reads
				_, err = conn.Read(make([]byte, 1))
			}
			if err == nil {
				t.Fatal("accepted")
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatalf("left hanging: %v", err)
			}
		})
	}
	for proto, q := range ada.queues {
		select {
		case <-q.conns:
			t.Errorf("a refused connection reached %s", proto)
		default:
		}
	}
	for _, cred := range []*seal.Credential{node, nil} { // gRPC looks at each call
		if _, err := s.call(t, "ada", protoGRPC, cred); err != nil {
			t.Fatal(err)
		}
		in, err := ada.queues[protoGRPC].Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
	}
}

func TestClientRefusesAnotherFederation(t *testing.T) {
	s, foreign := newSite(t, "ada"), newSite(t, "ada")
	s.wire(t, "ada").start()
	w := foreign.wire(t, "ada")
	if _, err := w.dialTLS(protoRaft, s.address("ada"), 10*time.Second); !errors.Is(err, seal.ErrForeign) {
		t.Fatalf("dialled a foreign coordinator: %v", err)
	}
}

func TestGRPCOverTheWire(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob")
	ada, bob := s.wire(t, "ada"), s.wire(t, "bob")
	server := grpc.NewServer(grpc.Creds(ada.serverCredentials()))
	healthpb.RegisterHealthServer(server, health.NewServer())
	ada.start()
	go func() { _ = server.Serve(ada.grpcListener()) }()
	t.Cleanup(server.Stop)
	for name, want := range map[string]string{"ada": "", "bob": "coordinator ada answers instead of bob"} {
		conn, err := bob.dialPeer(name, s.address("ada"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = healthpb.NewHealthClient(conn).Check(within(t, 10*time.Second), &healthpb.HealthCheckRequest{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("as %s: %v, want %q", name, err, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestKillCutsBothWays(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob")
	ada, bob := s.wire(t, "ada"), s.wire(t, "bob")
	ada.start()
	bob.start()
	toBob, err := ada.dialTLS(protoRaft, s.address("bob"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	atBob, err := bob.queues[protoRaft].Accept()
	if err != nil {
		t.Fatal(err)
	}
	toAda, err := bob.dialTLS(protoRaft, s.address("ada"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	atAda, err := ada.queues[protoRaft].Accept()
	if err != nil {
		t.Fatal(err)
	}
	ada.kill()
	ada.kill()
	for what, conn := range map[string]net.Conn{"from ada at ada": toBob, "from ada at bob": atBob, "to ada at bob": toAda, "to ada at ada": atAda} {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		_, err := conn.Read(make([]byte, 1))
		var timeout net.Error
		if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the connection %s lives: %v", what, err)
		}
	}
	if _, err := ada.dialTLS(protoRaft, s.address("bob"), time.Second); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the dead dialled: %v", err)
	}
	if _, err := s.call(t, "ada", protoRaft, s.creds["bob"]); err == nil {
		t.Error("the dead accepted")
	}
	if _, err := bob.dialTLS(protoRaft, s.address("bob"), 10*time.Second); err != nil {
		t.Errorf("bob, who lives, cannot be reached: %v", err)
	}
}

func TestKillCutsAHandshake(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada")
	ada := s.wire(t, "ada")
	ada.start()
	raw, err := net.Dial("tcp", s.address("ada"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	eventually(t, "accepted", func() bool { ada.mu.Lock(); defer ada.mu.Unlock(); return len(ada.waiting) == 1 })
	ada.kill()
	if _, err := raw.Read(make([]byte, 1)); err == nil {
		t.Error("a silent caller got an answer")
	}
}

// Callers that open connections and say nothing do not keep others out, however many there are.
func TestIdleCallersDoNotBlockTheDoor(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob")
	ada, bob := s.wire(t, "ada"), s.wire(t, "bob")
	ada.start()
	for range maxHandshakes + 20 {
		raw, err := net.Dial("tcp", s.address("ada"))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
	}
	conn, err := bob.dialTLS(protoGossip, s.address("ada"), handshakeTimeout/2) // before the idle ones time out
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	in, err := ada.queues[protoGossip].Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
}

// faultyListener fails a few times, as when there are too many open files.
type faultyListener struct {
	net.Listener
	failures atomic.Int64
}

func (l *faultyListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestWireOutlivesFailedAccepts(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ada", "bob")
	ada, bob := s.wire(t, "ada"), s.wire(t, "bob")
	l := &faultyListener{Listener: ada.listener}
	l.failures.Store(3)
	ada.listener = l
	ada.start()
	conn, err := bob.dialTLS(protoGossip, s.address("ada"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	in, err := ada.queues[protoGossip].Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
}
