package coordinator

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// enrolAt enrols as a new node does, without a certificate.
func (f *testFederation) enrolAt(coordinator string, req *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
	f.t.Helper()
	return choirv1.NewEnrolmentClient(f.connect(coordinator, nil)).Enrol(f.ctx(), req)
}

// admitted checks that an enrolment's reply is a certificate that lets the node in as that node.
func (f *testFederation) admitted(coordinator, name string, key ed25519.PrivateKey, reply *choirv1.EnrolReply) {
	f.t.Helper()
	if !bytes.Equal(reply.Root, f.root.Certificate().Raw) {
		f.t.Errorf("%s: the root is not the federation's", name)
	}
	id, err := seal.VerifyChain(reply.Chain, f.root.Certificate(), time.Now())
	if err != nil || id.Role != seal.RoleNode || id.Name != name || !id.Key.Equal(key.Public()) {
		f.t.Errorf("%s: certificate of %s %s, %v", name, id.Role, id.Name, err)
	}
	node := choirv1.NewNodesClient(f.connect(coordinator, &seal.Credential{Chain: reply.Chain, Key: key}))
	if _, err := node.Poll(f.ctx(), &choirv1.PollRequest{Roster: 1, WaitMs: 1}); err != nil {
		f.t.Errorf("%s polls: %v", name, err)
	}
}

// reused lists the incidents of tokens that came back with another key.
func reused(t *testing.T, s *state.State) (out []*audit.Incident) {
	t.Helper()
	for i := range s.Log.Size() {
		r, err := audit.Decode(s.Log.Record(i))
		if err != nil {
			t.Fatal(err)
		}
		if x, ok := r.(*audit.Incident); ok && x.Reason == audit.ReasonTokenReuse {
			out = append(out, x)
		}
	}
	return out
}

// Each way to enrol wrongly is refused with its reason, enrols nobody, spends no token, and takes no place in the log:
// the caller has no certificate. The token admits its node afterwards.
func TestBadEnrolments(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	f.enrol("taken")
	m := f.member("c1")
	token, expired, key, other := f.token(time.Hour), f.token(time.Millisecond), newKey(t), newKey(t)
	f.eventually("the token has expired", func() bool { return time.Now().After(expired.Expires.Add(time.Millisecond)) })
	before := m.replica.State()
	for _, c := range []struct {
		name  string
		token *seal.Token
		node  string
		key   ed25519.PrivateKey
		spoil func(*choirv1.EnrolRequest)
		code  codes.Code
		text  string
	}{
		{name: "wrong secret", spoil: func(r *choirv1.EnrolRequest) { r.TokenSecret = bytes.Repeat([]byte{1}, 32) },
			code: codes.PermissionDenied, text: "token refused: its secret is wrong"},
		{name: "no secret", spoil: func(r *choirv1.EnrolRequest) { r.TokenSecret = nil },
			code: codes.PermissionDenied, text: "token refused: its secret is wrong"},
		{name: "expired token", token: expired, code: codes.PermissionDenied, text: "token refused: it has expired"},
		{name: "unknown token", token: &seal.Token{ID: "0123456789abcdef", Secret: token.Secret},
			code: codes.PermissionDenied, text: "token refused: it is not known"},
		{name: "name of another node", node: "taken", code: codes.AlreadyExists, text: "node taken exists already, enrolled with another token"},
		{name: "no name", node: "-", spoil: func(r *choirv1.EnrolRequest) { r.Name, r.Proof = "", seal.ProveEnrolment(key, r.TokenId, "") },
			code: codes.InvalidArgument, text: `node name "": want 1 to 63 of a-z, 0-9`},
		{name: "name like a path", node: "../a", code: codes.InvalidArgument, text: `node name "../a": want 1 to 63 of`},
		{name: "name in capitals", node: "Ada", code: codes.InvalidArgument, text: `node name "Ada": want 1 to 63 of`},
		{name: "name with a line break", node: "a\nb", code: codes.InvalidArgument, text: `node name "a\nb": want 1 to 63 of`},
		{name: "long name", node: strings.Repeat("a", 64), code: codes.InvalidArgument, text: "want 1 to 63 of"},
		{name: "name of 64 KiB", node: strings.Repeat("a", 64<<10), code: codes.InvalidArgument, text: "at most 65536 are allowed"},
		{name: "short key", spoil: func(r *choirv1.EnrolRequest) { r.PublicKey = r.PublicKey[:31] },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "no key", spoil: func(r *choirv1.EnrolRequest) { r.PublicKey = nil },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "no proof", spoil: func(r *choirv1.EnrolRequest) { r.Proof = nil },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "proof by another key", spoil: func(r *choirv1.EnrolRequest) { r.Proof = seal.ProveEnrolment(other, r.TokenId, r.Name) },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "proof for another name", spoil: func(r *choirv1.EnrolRequest) { r.Proof = seal.ProveEnrolment(key, r.TokenId, "b") },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "proof for another token", spoil: func(r *choirv1.EnrolRequest) { r.Proof = seal.ProveEnrolment(key, expired.ID, r.Name) },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
		{name: "nothing", spoil: func(r *choirv1.EnrolRequest) { *r = choirv1.EnrolRequest{} },
			code: codes.InvalidArgument, text: "the request is not signed by its own key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			with, node := token, "a"
			if c.token != nil {
				with = c.token
			}
			if c.node != "" {
				node = c.node
			}
			req := enrolment(with, node, key)
			if c.spoil != nil {
				c.spoil(req)
			}
			_, err := f.enrolAt("c1", req)
			f.refused(t, err, c.code, "enrol: ", c.text)
		})
	}
	if after := m.replica.State(); after.Index != before.Index || !maps.EqualFunc(after.Nodes, before.Nodes, func(a, b state.Node) bool {
		return reflect.DeepEqual(a, b)
	}) {
		t.Errorf("the log grew from %d to %d; nodes %v, were %v", before.Index, after.Index, after.Nodes, before.Nodes)
	}
	reply, err := f.enrolAt("c1", enrolment(token, "a", key))
	if err != nil {
		t.Fatal(err)
	}
	f.admitted("c1", "a", key, reply)
}

// The same key may fetch its certificate again, with and without the old one, under its name only.
func TestEnrolAgain(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	token, key := f.token(time.Hour), newKey(t)
	first, err := f.enrolAt("c1", enrolment(token, "a", key))
	if err != nil {
		t.Fatal(err)
	}
	f.admitted("c1", "a", key, first)
	before := f.member("c1").replica.State()
	for _, cred := range []*seal.Credential{nil, {Chain: first.Chain, Key: key}} {
		again, err := choirv1.NewEnrolmentClient(f.connect("c1", cred)).Enrol(f.ctx(), enrolment(token, "a", key))
		if err != nil {
			t.Fatal(err)
		}
		f.admitted("c1", "a", key, again)
	}
	_, err = f.enrolAt("c1", enrolment(token, "b", key))
	f.refused(t, err, codes.PermissionDenied, "enrol: token refused: it was used by node a")
	if after := f.member("c1").replica.State(); len(after.Nodes) != 1 || after.Roster != before.Roster || after.Log.Size() != before.Log.Size() {
		t.Errorf("nodes %v, roster %d, was %d, %d records, were %d", after.Nodes, after.Roster, before.Roster, after.Log.Size(), before.Log.Size())
	}
}

// A used token that comes back with another key is refused and is an incident with both keys, recorded once. The node
// that used it stays.
func TestUsedTokenIsAnIncident(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 1, nil, Observer{})
	token, key := f.token(time.Hour), newKey(t)
	reply, err := f.enrolAt("c1", enrolment(token, "a", key))
	if err != nil {
		t.Fatal(err)
	}
	thief := newKey(t)
	for _, name := range []string{"a", "b", "b"} {
		_, err := f.enrolAt("c1", enrolment(token, name, thief))
		f.refused(t, err, codes.PermissionDenied, "enrol: token refused: it was used by node a with another key")
	}
	s := f.member("c1").replica.State()
	found := reused(t, s)
	if len(found) != 1 || found[0].Node != "a" || !bytes.Equal(found[0].First, key.Public().(ed25519.PublicKey)) ||
		!bytes.Equal(found[0].Second, thief.Public().(ed25519.PublicKey)) {
		t.Errorf("incidents %+v", found)
	}
	if n := s.Nodes["a"]; len(s.Nodes) != 1 || !bytes.Equal(n.Key, key.Public().(ed25519.PublicKey)) {
		t.Errorf("nodes %v", s.Nodes)
	}
	f.admitted("c1", "a", key, reply)
}

// A follower enrols as the leader does, a token made elsewhere a moment ago included, also when the leader dies. Every
// coordinator lets the node in.
func TestEnrolAtAFollower(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	leader := f.leader()
	follower := f.other(leader)
	for _, name := range []string{"a", "b"} {
		token, key := f.token(time.Hour), newKey(t)
		if name == "b" {
			f.wait(follower, "the token", func(s *state.State) bool { _, ok := s.Tokens[token.ID]; return ok })
			f.kill(leader)
		}
		reply, err := f.enrolAt(follower, enrolment(token, name, key))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range f.voters {
			if f.member(v.Name) == nil {
				continue
			}
			f.wait(v.Name, name+" enrolled", func(s *state.State) bool { _, ok := s.Nodes[name]; return ok })
			f.admitted(v.Name, name, key, reply)
		}
	}
}

// One token, many keys at once, at all coordinators: one key gets in.
func TestOneTokenOneKey(t *testing.T) {
	f := startFederation(t, 3, nil, Observer{})
	token := f.token(time.Hour)
	for _, v := range f.voters {
		f.wait(v.Name, "the token", func(s *state.State) bool { _, ok := s.Tokens[token.ID]; return ok })
	}
	var mu sync.Mutex
	var in []string
	var enrolling sync.WaitGroup
	for i := range 9 {
		name, key, at := fmt.Sprintf("n%d", i), newKey(t), f.voters[i%3].Name
		enrolling.Go(func() {
			_, err := f.enrolAt(at, enrolment(token, name, key))
			if err != nil {
				f.refused(t, err, codes.PermissionDenied, "with another key")
				return
			}
			mu.Lock()
			defer mu.Unlock()
			in = append(in, name)
		})
	}
	enrolling.Wait()
	s := f.member(f.leader()).replica.State()
	if _, ok := s.Nodes[append(in, "")[0]]; len(in) != 1 || len(s.Nodes) != 1 || !ok {
		t.Errorf("%v got in; nodes %v", in, s.Nodes)
	}
	if found := reused(t, s); len(found) != 1 {
		t.Errorf("%d incidents, want 1", len(found))
	}
}
