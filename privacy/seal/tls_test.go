package seal

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

func clock(at time.Time) func() time.Time { return func() time.Time { return at } }

// connect returns both ends of a connection. Not net.Pipe: it has no buffer, so a side that refuses in the middle of the
// other's flight waits for it to read, and both wait for the deadline.
func connect(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// handshake runs both sides and returns what each of them made of it. In TLS 1.3 a client is done before the
// server has looked at its certificate, so the client then reads one byte, which the server writes when it is content.
func handshake(t *testing.T, client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := connect(t)
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	serverConn := tls.Server(b, server)
	go func() {
		defer b.Close()
		if err := serverConn.Handshake(); err != nil {
			done <- err
			return
		}
		_, err := serverConn.Write([]byte{1})
		done <- err
	}()
	conn := tls.Client(a, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	a.Close()
	serverErr = <-done
	return serverConn.ConnectionState(), clientErr, serverErr
}

func admitAll(Identity) error { return nil }

func (f *federation) server(protos ...string) *tls.Config {
	return ServerTLS(f.creds[RoleCoordinator], LineageFrom(f.cert()), clock(noon), protos, admitAll)
}

func (f *federation) client(role Role) *tls.Config {
	return ClientTLS(f.creds[role], f.cert(), clock(noon), "h2", nil)
}

func TestHandshakeOfEachRole(t *testing.T) {
	f := newFederation(t, "shop", noon)
	for _, role := range Roles() {
		state, clientErr, serverErr := handshake(t, f.client(role), f.server("h2", "choir-raft"))
		if clientErr != nil || serverErr != nil {
			t.Errorf("%q: client %v, server %v", role, clientErr, serverErr)
			continue
		}
		if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
			t.Errorf("%q: version %x, protocol %q", role, state.Version, state.NegotiatedProtocol)
		}
		if role == RoleNone {
			if _, err := PeerIdentity(state, LineageFrom(f.cert()), noon); !errors.Is(err, ErrForeign) {
				t.Errorf("no certificate: PeerIdentity %v", err)
			}
			continue
		}
		id, err := PeerIdentity(state, LineageFrom(f.cert()), noon)
		if err != nil || id.Role != role {
			t.Errorf("%s: peer %+v, %v", role, id, err)
		}
		if _, err := PeerIdentity(state, LineageFrom(f.cert()), noon.Add(2*day)); !errors.Is(err, ErrExpired) {
			t.Errorf("%s: on a connection that outlived its certificate: %v", role, err)
		}
	}
}

func TestServerRefusesClients(t *testing.T) {
	f, g := newFederation(t, "shop", noon), newFederation(t, "shop", noon)
	expired := func(role Role) *Credential {
		key := newKey(t)
		if role == RoleNode {
			chain, err := f.issuer.CertifyNode("n", public(key), noon.Add(-2*day), day)
			if err != nil {
				t.Fatal(err)
			}
			return &Credential{chain, key}
		}
		chain, err := f.root.Certify(role, "n", public(key), noon.Add(-2*day), day)
		if err != nil {
			t.Fatal(err)
		}
		return &Credential{chain, key}
	}
	issuer := &Credential{[][]byte{f.issuer.Certificate}, f.issuer.Key}
	root := &Credential{[][]byte{f.cert().Raw}, f.root.key}
	for name, c := range map[string]struct {
		cred *Credential
		want error
	}{
		"foreign node":     {g.creds[RoleNode], ErrForeign},
		"foreign operator": {g.creds[RoleOperator], ErrForeign},
		"expired node":     {expired(RoleNode), ErrExpired},
		"expired operator": {expired(RoleOperator), ErrExpired},
		"issuer as leaf":   {issuer, ErrRole},
		"root as leaf":     {root, ErrForeign},
		"node alone":       {&Credential{f.creds[RoleNode].Chain[:1], f.creds[RoleNode].Key}, ErrForeign},
	} {
		client := ClientTLS(c.cred, f.cert(), clock(noon), "h2", nil)
		_, clientErr, serverErr := handshake(t, client, f.server("h2"))
		if !errors.Is(serverErr, c.want) || clientErr == nil {
			t.Errorf("%s: server %v, want %v; client %v", name, serverErr, c.want, clientErr)
		}
	}
	// A certificate without its key.
	stolen := &Credential{f.creds[RoleOperator].Chain, newKey(t)}
	if _, clientErr, serverErr := handshake(t, ClientTLS(stolen, f.cert(), clock(noon), "h2", nil), f.server("h2")); serverErr == nil || clientErr == nil {
		t.Error("a certificate was accepted from one who lacks its key")
	}
}

func TestServerAsksForRevocation(t *testing.T) {
	f := newFederation(t, "shop", noon)
	revoked := map[string]bool{}
	server := ServerTLS(f.creds[RoleCoordinator], LineageFrom(f.cert()), clock(noon), []string{"h2"}, func(id Identity) error {
		if revoked[id.Name] {
			return fmt.Errorf("%s %s: %w", id.Role, id.Name, ErrRevoked)
		}
		return nil
	})
	client := f.client(RoleNode)
	if _, clientErr, serverErr := handshake(t, client, server); clientErr != nil || serverErr != nil {
		t.Fatalf("before: client %v, server %v", clientErr, serverErr)
	}
	revoked["the-node"] = true
	// The same configuration, which could have kept a session to resume.
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if _, clientErr, serverErr := handshake(t, client, server); clientErr == nil || !errors.Is(serverErr, ErrRevoked) {
		t.Errorf("after: client %v, server %v", clientErr, serverErr)
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	f := newFederation(t, "shop", noon)
	server, client := f.server("h2"), f.client(RoleNode)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client.ServerName = "coordinator"
	for range 3 {
		state, clientErr, serverErr := handshake(t, client, server)
		if clientErr != nil || serverErr != nil || state.DidResume {
			t.Errorf("client %v, server %v, resumed %v", clientErr, serverErr, state.DidResume)
		}
	}
}

func TestClientRefusesServers(t *testing.T) {
	f, g := newFederation(t, "shop", noon), newFederation(t, "shop", noon)
	serve := func(g *federation, role Role) *tls.Config {
		return ServerTLS(g.creds[role], LineageFrom(g.cert()), clock(noon), []string{"h2"}, admitAll)
	}
	late := ClientTLS(f.creds[RoleNode], f.cert(), clock(noon.Add(2*day)), "h2", nil)
	other := errors.New("another coordinator")
	picky := ClientTLS(f.creds[RoleNode], f.cert(), clock(noon), "h2", func(id Identity) error {
		if id.Role != RoleCoordinator || id.Name != "the-coordinator" {
			t.Errorf("want was asked about %s %s", id.Role, id.Name)
		}
		return other
	})
	for name, c := range map[string]struct {
		client, server *tls.Config
		want           error
	}{
		"node as server":     {f.client(RoleNode), serve(f, RoleNode), ErrRole},
		"operator as server": {f.client(RoleNode), serve(f, RoleOperator), ErrRole},
		"auditor as server":  {f.client(RoleNone), serve(f, RoleAuditor), ErrRole},
		"foreign":            {f.client(RoleNone), serve(g, RoleCoordinator), ErrForeign},
		"expired":            {late, serve(f, RoleCoordinator), ErrExpired},
		"another":            {picky, serve(f, RoleCoordinator), other},
	} {
		if _, clientErr, serverErr := handshake(t, c.client, c.server); !errors.Is(clientErr, c.want) || serverErr == nil {
			t.Errorf("%s: client %v, want %v; server %v", name, clientErr, c.want, serverErr)
		}
	}
}

func TestProtocolMustBeNegotiated(t *testing.T) {
	f := newFederation(t, "shop", noon)
	wrong := ClientTLS(f.creds[RoleNode], f.cert(), clock(noon), "smtp", nil)
	none := f.client(RoleNode)
	none.NextProtos = nil
	old := f.client(RoleNode)
	old.NextProtos = []string{"http/1.1"}
	for name, client := range map[string]*tls.Config{"wrong": wrong, "none": none, "http/1.1": old} {
		if _, clientErr, serverErr := handshake(t, client, f.server("h2", "choir-raft")); clientErr == nil || serverErr == nil {
			t.Errorf("%s protocol: client %v, server %v", name, clientErr, serverErr)
		}
	}
	// A server that ignores protocols does not satisfy a client either.
	silent := f.server("h2")
	silent.NextProtos, silent.VerifyConnection = nil, nil
	if _, clientErr, _ := handshake(t, f.client(RoleNode), silent); clientErr == nil {
		t.Error("the client accepted a server without protocol")
	}
}

func TestOnlyTLS13(t *testing.T) {
	f := newFederation(t, "shop", noon)
	client := f.client(RoleNode)
	client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, clientErr, serverErr := handshake(t, client, f.server("h2")); clientErr == nil || serverErr == nil {
		t.Errorf("the server spoke TLS 1.2: client %v, server %v", clientErr, serverErr)
	}
	server := f.server("h2")
	server.MinVersion, server.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, client := range map[string]*tls.Config{"client": f.client(RoleNode), "pinned": PinnedTLS(f.root.Fingerprint(), clock(noon), "h2", nil)} {
		if _, clientErr, _ := handshake(t, client, server); clientErr == nil {
			t.Errorf("the %s spoke TLS 1.2", name)
		}
	}
}

func TestPinnedRoot(t *testing.T) {
	f, g := newFederation(t, "shop", noon), newFederation(t, "shop", noon)
	state, clientErr, serverErr := handshake(t, PinnedTLS(f.root.Fingerprint(), clock(noon), "h2", nil), f.server("h2"))
	if clientErr != nil || serverErr != nil || len(state.PeerCertificates) != 0 {
		t.Errorf("the right root: client %v, server %v, %d certificates", clientErr, serverErr, len(state.PeerCertificates))
	}
	// A foreign coordinator that sends our root behind its own chain.
	borrowed := g.server("h2")
	borrowed.Certificates = []tls.Certificate{g.creds[RoleCoordinator].tls(f.cert().Raw)}
	rootless := f.server("h2")
	rootless.Certificates = []tls.Certificate{f.creds[RoleCoordinator].tls()}
	rootAsLeaf := f.server("h2")
	rootAsLeaf.Certificates = []tls.Certificate{{Certificate: [][]byte{f.cert().Raw}, PrivateKey: f.root.key}}
	for name, c := range map[string]struct {
		fingerprint string
		server      *tls.Config
		at          time.Time
		want        error
	}{
		"another root":        {g.root.Fingerprint(), f.server("h2"), noon, ErrForeign},
		"empty fingerprint":   {"", f.server("h2"), noon, ErrForeign},
		"borrowed root":       {f.root.Fingerprint(), borrowed, noon, ErrForeign},
		"no root":             {f.root.Fingerprint(), rootless, noon, ErrForeign},
		"root as the server":  {f.root.Fingerprint(), rootAsLeaf, noon, ErrForeign},
		"node as server":      {f.root.Fingerprint(), ServerTLS(f.creds[RoleNode], LineageFrom(f.cert()), clock(noon), []string{"h2"}, admitAll), noon, ErrRole},
		"expired coordinator": {f.root.Fingerprint(), f.server("h2"), noon.Add(2 * day), ErrExpired},
	} {
		_, clientErr, _ := handshake(t, PinnedTLS(c.fingerprint, clock(c.at), "h2", nil), c.server)
		if !errors.Is(clientErr, c.want) {
			t.Errorf("%s: %v, want %v", name, clientErr, c.want)
		}
	}
}

// Roots behind the holder's certificate teach, and prove nothing.
func TestPeerIdentityDropsRootsOnlyAtTheEnd(t *testing.T) {
	f := newFederation(t, "shop", noon)
	leaf, err := x509.ParseCertificate(f.creds[RoleOperator].Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		certs []*x509.Certificate
		ok    bool
	}{
		{[]*x509.Certificate{leaf}, true},
		{[]*x509.Certificate{leaf, f.cert()}, true},
		{[]*x509.Certificate{f.cert(), leaf}, false},
		{[]*x509.Certificate{leaf, f.cert(), f.cert()}, true},
		{[]*x509.Certificate{leaf, leaf}, false},
		{[]*x509.Certificate{leaf, f.cert(), leaf}, false},
		{[]*x509.Certificate{f.cert()}, false},
		{nil, false},
	} {
		_, err := PeerIdentity(tls.ConnectionState{PeerCertificates: c.certs}, LineageFrom(f.cert()), noon)
		if (err == nil) != c.ok {
			t.Errorf("%d certificates: %v", len(c.certs), err)
		}
	}
}
