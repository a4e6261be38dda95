package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// mayCall is written down apart from the role table: who may call a service's methods.
var mayCall = map[string][]seal.Role{
	"choir.v1.Enrolment": {seal.RoleNone, seal.RoleNode},
	"choir.v1.Nodes":     {seal.RoleNode},
	"choir.v1.Operators": {seal.RoleOperator},
	"choir.v1.Peers":     {seal.RoleCoordinator},
}

// mayCallAlone holds the methods that differ from the rest of their service.
var mayCallAlone = map[string][]seal.Role{
	"/choir.v1.Enrolment/Join":       {seal.RoleNone}, // whoever has a certificate is somebody else already
	"/choir.v1.Enrolment/Membership": {seal.RoleNone}, // whoever gets in by a certificate need not ask

	// what people who only watch may read
	"/choir.v1.Operators/GetBundle":    {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/GetStatus":    {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/ListNodes":    {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/ListJobs":     {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/GetJob":       {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/WatchJob":     {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/ListReleases": {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
	"/choir.v1.Operators/GetRelease":   {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
}

// may is who may call a method.
func (r servedRPC) may() []seal.Role {
	if alone, ok := mayCallAlone[r.full()]; ok {
		return alone
	}
	return mayCall[r.service]
}

// servedRPC is a method as the running server knows it.
type servedRPC struct {
	service, method string
	stream          grpc.StreamDesc
}

func (r servedRPC) full() string { return "/" + r.service + "/" + r.method }

// served lists what a coordinator's server serves.
func served(c *Coordinator) (out []servedRPC) {
	info := c.server().GetServiceInfo()
	for _, service := range slices.Sorted(maps.Keys(info)) {
		for _, m := range info[service].Methods {
			out = append(out, servedRPC{service, m.Name, grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: m.IsServerStream}})
		}
	}
	return out
}

// call calls a method with an empty message. What the handler makes of that does not matter here.
func (r servedRPC) call(ctx context.Context, conn *grpc.ClientConn) error {
	if !r.stream.ClientStreams && !r.stream.ServerStreams {
		return conn.Invoke(ctx, r.full(), &emptypb.Empty{}, &emptypb.Empty{})
	}
	s, err := conn.NewStream(ctx, &r.stream, r.full())
	if err != nil {
		return err
	}
	if err := s.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// mayConnect is the same for the protocols beside gRPC.
var mayConnect = map[string][]seal.Role{
	protoRaft:   {seal.RoleCoordinator},
	protoGossip: {seal.RoleCoordinator},
	protoHTTP:   {seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor},
}

// greetings are, by protocol, the first bytes of a caller that make the handler behind it answer: an HTTP/2 preface, an
// empty AppendEntries, a ping of memberlist's on a stream, a request for a page.
var greetings = map[string]string{
	protoGRPC:   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	protoRaft:   "\x00\x80",
	protoGossip: "s\x00\x81\xa5SeqNo\x07",
	protoHTTP:   "GET /style.css HTTP/1.1\r\nHost: console\r\n\r\n",
}

// knock opens a connection and greets. It is nil if whoever serves the protocol answered.
func (f *testFederation) knock(name, proto string, cred *seal.Credential) error {
	f.t.Helper()
	return f.shake(name, proto, cred, greetings[proto])
}

// listen opens a connection and waits for what comes, an alert if the caller is not welcome.
func (f *testFederation) listen(name string, cred *seal.Credential) error {
	f.t.Helper()
	return f.shake(name, protoGRPC, cred, "")
}

func (f *testFederation) shake(name, proto string, cred *seal.Credential, greeting string) error {
	f.t.Helper()
	conn, err := dialTCP(f.ctx(), f.member(name).cfg.Address)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	tc := tls.Client(conn, seal.ClientTLS(cred, f.root.Certificate(), time.Now, proto, nil))
	if err := tc.Handshake(); err != nil {
		return err
	}
	if _, err := io.WriteString(tc, greeting); err != nil {
		return err
	}
	_, err = io.ReadFull(tc, make([]byte, 1))
	return err
}

// person is somebody who knocks.
type person struct {
	who  string
	cred *seal.Credential
	role seal.Role
}

// people returns those whom a coordinator lets in, each with the role, and those whom it turns away at the door.
func (f *testFederation) people() (welcome, strangers []person) {
	f.t.Helper()
	node := f.enrol("a")[0].cred
	member := f.member("c1").deps
	foreign, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	another := &testFederation{t: f.t, root: foreign}
	welcome = []person{
		{"no certificate", nil, seal.RoleNone},
		{"node", node, seal.RoleNode},
		{"operator", f.operator, seal.RoleOperator},
		{"coordinator", member.Credential, seal.RoleCoordinator},
		{"officer", f.certify(seal.RoleOfficer, "olga"), seal.RoleOfficer},
		{"auditor", f.certify(seal.RoleAuditor, "ada"), seal.RoleAuditor},
	}
	strangers = []person{
		{"coordinator that is no voter", f.certify(seal.RoleCoordinator, "c9"), seal.RoleCoordinator},
		{"coordinator with a voter's name and another key", f.certify(seal.RoleCoordinator, "c1"), seal.RoleCoordinator},
		{"node that never enrolled", f.certifyNode("ghost", time.Now(), time.Hour), seal.RoleNode},
		{"node with an enrolled name and another key", f.certifyNode("a", time.Now(), time.Hour), seal.RoleNode},
		{"operator under a foreign root", another.certify(seal.RoleOperator, "operator"), seal.RoleOperator},
		{"coordinator under a foreign root", another.certify(seal.RoleCoordinator, "c1"), seal.RoleCoordinator},
		{"operator, expired", f.certifyFor(seal.RoleOperator, "operator", time.Now().Add(-2*time.Hour), time.Hour), seal.RoleOperator},
		{"operator, not valid yet", f.certifyFor(seal.RoleOperator, "operator", time.Now().Add(time.Hour), time.Hour), seal.RoleOperator},
		{"node, expired", f.recertify(node, "a", time.Now().Add(-2*time.Hour)), seal.RoleNode},
		{"operator whose key is another", &seal.Credential{Chain: f.operator.Chain, Key: node.Key}, seal.RoleOperator},
	}
	return welcome, strangers
}

// certifyFor is certify for a span of time.
func (f *testFederation) certifyFor(role seal.Role, name string, from time.Time, life time.Duration) *seal.Credential {
	f.t.Helper()
	cred := f.certify(role, name)
	chain, err := f.root.Certify(role, name, cred.Key.Public().(ed25519.PublicKey), from, life)
	if err != nil {
		f.t.Fatal(err)
	}
	return &seal.Credential{Chain: chain, Key: cred.Key}
}

// certifyNode is a node's certificate by c1's issuer for a key that nobody enrolled.
func (f *testFederation) certifyNode(name string, from time.Time, life time.Duration) *seal.Credential {
	f.t.Helper()
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	chain, err := f.member("c1").deps.Issuer.CertifyNode(name, key.Public().(ed25519.PublicKey), from, life)
	if err != nil {
		f.t.Fatal(err)
	}
	return &seal.Credential{Chain: chain, Key: key}
}

// recertify is an enrolled node's certificate of another hour.
func (f *testFederation) recertify(cred *seal.Credential, name string, from time.Time) *seal.Credential {
	f.t.Helper()
	chain, err := f.member("c1").deps.Issuer.CertifyNode(name, cred.Key.Public().(ed25519.PublicKey), from, time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	return &seal.Credential{Chain: chain, Key: cred.Key}
}

// Every RPC has a row in the role table, and the table has no other rows but the protocols beside gRPC.
func TestRoleTableIsComplete(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	rows := slices.Collect(maps.Keys(mayConnect))
	for _, r := range served(f.member("c1").Coordinator) {
		rows = append(rows, r.full())
		if want := r.may(); len(want) == 0 || !slices.Equal(roles[r.full()], want) {
			t.Errorf("%s may be called by %q, want %q", r.full(), roles[r.full()], want)
		}
	}
	services := choirv1.File_choir_v1_choir_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for k := range methods.Len() {
			m := methods.Get(k)
			if full := "/" + string(services.Get(i).FullName()) + "/" + string(m.Name()); !slices.Contains(rows, full) {
				t.Errorf("%s is in the protocol, but nobody serves it", full)
			}
		}
	}
	slices.Sort(rows)
	if table := slices.Sorted(maps.Keys(roles)); !slices.Equal(table, rows) {
		t.Errorf("the role table has the rows %q, want %q", table, rows)
	}
}

// Every row of the role table × every identity, over TLS, to a running coordinator.
func TestRoles(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	welcome, strangers := f.people()
	for _, p := range welcome {
		t.Run(p.who, func(t *testing.T) {
			for proto, may := range mayConnect {
				if err := f.knock("c1", proto, p.cred); (err == nil) != slices.Contains(may, p.role) {
					t.Errorf("%s: %v", proto, err)
				}
			}
			if err := f.knock("c1", protoGRPC, p.cred); err != nil {
				t.Fatalf("%s: %v", protoGRPC, err)
			}
			conn := f.connect("c1", p.cred)
			for _, r := range served(f.member("c1").Coordinator) {
				err := r.call(f.ctx(), conn)
				code, text := status.Code(err), status.Convert(err).Message()
				switch may := slices.Contains(r.may(), p.role); {
				case may && (code == codes.PermissionDenied || code == codes.Unauthenticated || code == codes.Unimplemented || code == codes.DeadlineExceeded):
					t.Errorf("%s is refused: %v", r.full(), err)
				case !may && (code != codes.PermissionDenied || !strings.HasSuffix(text, " may not call "+r.full())):
					t.Errorf("%s is not refused as it should be: %v", r.full(), err)
				}
			}
		})
	}
	for _, p := range strangers {
		t.Run(p.who, func(t *testing.T) {
			for proto := range greetings {
				if err := f.knock("c1", proto, p.cred); err == nil {
					t.Errorf("%s: let in", proto)
				}
			}
			conn := f.connect("c1", p.cred)
			for _, r := range served(f.member("c1").Coordinator) {
				if err := r.call(f.ctx(), conn); status.Code(err) != codes.Unavailable {
					t.Errorf("%s: %v", r.full(), err)
				}
			}
		})
	}
}

// A method or protocol that the table does not name is nobody's.
func TestNoRowNoRole(t *testing.T) {
	for _, what := range []string{"/choir.v1.Nodes/Dance", "choir-dance", ""} {
		for _, role := range seal.Roles() {
			if allowed(what, role) {
				t.Errorf("%q may use %q", role, what)
			}
		}
	}
}

// A certificate that expires while its connection is open is worth nothing from then on.
func TestExpiryOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	const life = 2 * time.Second
	operator := choirv1.NewOperatorsClient(f.connect("c1", f.certifyFor(seal.RoleOperator, "brief", time.Now(), life)))
	if _, err := operator.GetStatus(f.ctx(), &choirv1.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	var err error
	f.eventually("the certificate has expired", func() bool {
		_, err = operator.GetStatus(f.ctx(), &choirv1.StatusRequest{})
		return err != nil
	})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), seal.ErrExpired.Error()) {
		t.Fatal(err)
	}
}
