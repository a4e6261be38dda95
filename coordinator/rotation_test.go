package coordinator

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// succession makes the next root and what it takes to rotate to it, as `choir cluster rotate-root` does.
func (f *testFederation) succession(retire bool) (*seal.Root, *choirv1.RotateRootRequest) {
	f.t.Helper()
	now := time.Now()
	next, err := seal.NewRoot("test", now, rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	old := sha256.Sum256(f.root.Certificate().Raw)
	req := &choirv1.RotateRootRequest{Old: old[:], Root: next.Certificate().Raw, Retire: retire}
	if req.Cross, err = f.root.CertifySuccessor(next.Certificate(), now); err != nil {
		f.t.Fatal(err)
	}
	list, err := f.operators().ListCertificates(f.ctx(), &choirv1.ListCertificatesRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range list.Coordinators {
		req.Coordinators = append(req.Coordinators, f.certifiedAnew(next, c))
	}
	return next, req
}

// certifiedAnew certifies a coordinator's keys by a root.
func (f *testFederation) certifiedAnew(by *seal.Root, c *choirv1.CertifiedCoordinator) *choirv1.CertifiedCoordinator {
	f.t.Helper()
	keys, err := audit.Issued(c.Chain, c.Issuer)
	if err != nil || len(keys.Issuer) == 0 {
		f.t.Fatalf("keys of %s: %v", c.Name, err)
	}
	out := &choirv1.CertifiedCoordinator{Name: c.Name}
	if out.Chain, err = by.Certify(seal.RoleCoordinator, c.Name, ed25519.PublicKey(keys.Key), time.Now(), CertificateLife); err != nil {
		f.t.Fatal(err)
	}
	if out.Issuer, err = by.CertifyIssuer(c.Name, ed25519.PublicKey(keys.Issuer), time.Now(), CertificateLife); err != nil {
		f.t.Fatal(err)
	}
	return out
}

// rotate puts another root in the present one's place; the test goes on with it. Its operator keeps the old certificate.
func (f *testFederation) rotate(retire bool) {
	f.t.Helper()
	next, req := f.succession(retire)
	if _, err := f.operators().RotateRoot(f.ctx(), req); err != nil {
		f.t.Fatal(err)
	}
	f.root = next
}

// takenOver waits until coordinators show certificates of the present root.
func (f *testFederation) takenOver(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.eventually(name+" shows the new root's certificate", func() bool {
			return f.member(name).own.Load().root.Equal(f.root.Certificate())
		})
	}
}

// One founder, then three voters, of which one is down while the root is rotated, twice. All take over what the new
// roots certified, also the one that was away, and after a restart from disk; what the old ones certified still counts;
// a newcomer is approved by the newest, and not by an old one; the whole verifies from the first root and from the last.
func TestRootIsRotated(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	first, nodes := f.root, f.enrol("a", "b")
	old := f.token(time.Hour)
	f.submit(testJob(t, 3))
	f.statistics(nodes)
	away := f.kill("c3")
	f.rotate(false)
	f.takenOver("c1", "c2")
	f.rotate(false)
	f.takenOver("c1", "c2")
	f.again(away)
	f.takenOver("c3")
	f.voting("c3")

	// Nodes and people of the first root work on, and who knows only that verifies what the newest certified.
	leader := f.leader()
	f.wait(leader, "statistics", func(s *state.State) bool { return s.Jobs["job"].Closed(0) != nil })
	for i, task := range f.tasks(nodes) {
		for _, k := range task.Keys {
			if id, err := seal.VerifyChain(k.Chain, first.Certificate(), time.Now()); err != nil || id.Root != f.root.Fingerprint() {
				t.Errorf("epoch key of %s: %+v, %v", k.Coordinator, id, err)
			}
		}
		nodes[i].answer(leader, task, 1)
	}
	f.round(leader, 1, state.PhaseClosed)
	f.eventually("a list of voters that all have signed with their new certificates", func() bool {
		r := f.member("c1").roster.Load()
		return r != nil && len(r.Signatures) == 3 && r.Version == f.member("c1").replica.State().Voters &&
			r.Verify(first.Certificate(), time.Now()) == nil && r.Verify(f.root.Certificate(), time.Now()) == nil
	})

	// A token from before admits; one from now names the newest root; a newcomer is the newest root's.
	if reply, err := f.enrolAt("c2", enrolment(old, "late", newKey(t))); err != nil || seal.Fingerprint(reply.Root) != f.root.Fingerprint() {
		t.Errorf("an older token: %v", err)
	}
	if token := f.token(time.Hour); token.Root != f.root.Fingerprint() {
		t.Errorf("a new token names the root %s", token.Root)
	}
	newest := f.root
	cfg, deps := diskConfig(t, f.dir, "c4")
	token, joined := f.joinToken(), make(chan error, 1)
	go func() { joined <- Join(t.Context(), cfg, deps, token) }()
	f.root = first
	if err := f.approval("c4"); err == nil || !strings.Contains(err.Error(), "not of this federation") {
		t.Errorf("approved by the first root: %v", err)
	}
	f.root = newest
	f.approve("c4")
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	f.start(cfg, deps)
	f.voting("c4")

	// From disk again, and the proof.
	m := f.kill("c1")
	f.again(m)
	f.voting("c1")
	f.takenOver("c1")
	for _, root := range []*seal.Root{first, newest} {
		if r := audit.Verify(f.bundle(), root.Fingerprint(), time.Now()); !r.OK || len(r.Roots) != 3 {
			t.Errorf("verified from %.8s: %+v", root.Fingerprint(), r)
		}
	}
}

// A retired root's people and nodes are cut off, nodes get another certificate with their key alone, tokens that nobody
// used are void. A coordinator that was away comes back all the same, by its key.
func TestRootIsRetired(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	f.join("c3")
	nodes := f.enrol("a")
	unused := f.token(time.Hour)
	thief, gone := f.root, f.operator
	away := f.kill("c3")
	f.rotate(true)
	f.takenOver("c1", "c2")
	f.operator = f.certify(seal.RoleOperator, "operator")
	f.eventually("the old root's operator is refused", func() bool { return f.listen("c1", gone) != nil })
	if _, err := nodes[0].at("c1").Poll(f.ctx(), &choirv1.PollRequest{WaitMs: 1}); err == nil {
		t.Error("a node with a certificate of the retired root is served")
	}
	if _, err := f.enrolAt("c1", enrolment(unused, "late", newKey(t))); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("an unused token: %v", err)
	}
	reply, err := nodes[0].renewed("c2")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := seal.VerifyChain(reply.Chain, f.root.Certificate(), time.Now()); err != nil || id.Name != "a" {
		t.Errorf("renewed: %+v, %v", id, err)
	}
	f.again(away)
	f.takenOver("c3")
	f.voting("c3")

	// The thief of the old key makes a coordinator, and gets nowhere.
	f.root, thief = thief, f.root
	forged := f.certify(seal.RoleCoordinator, "c2")
	f.root = thief
	if err := f.listen("c1", forged); err == nil {
		t.Error("a coordinator made up with the retired root's key is let in")
	}
}

// A rotation is what both roots signed, and for exactly the coordinators that there are.
func TestRotationRefuses(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	_, good := f.succession(false)
	stranger := &testFederation{t: t, dir: t.TempDir()}
	var err error
	if stranger.root, err = seal.NewRoot("test", time.Now(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(r *choirv1.RotateRootRequest)
		want   string
	}{
		"another root's place": {func(r *choirv1.RotateRootRequest) { r.Old = slices.Repeat([]byte{1}, 32) }, "the present root is"},
		"no link":              {func(r *choirv1.RotateRootRequest) { r.Cross = r.Root }, "cross certificate"},
		"another root":         {func(r *choirv1.RotateRootRequest) { r.Root = stranger.root.Certificate().Raw }, "for another root"},
		"half of them":         {func(r *choirv1.RotateRootRequest) { r.Coordinators = r.Coordinators[:1] }, "exactly the coordinators"},
		"the old certificates": {func(r *choirv1.RotateRootRequest) {
			r.Coordinators[0].Chain = f.member("c1").own.Load().credential.Chain
		}, "coordinator c1: certificate is not of this federation"},
		"keys exchanged": {func(r *choirv1.RotateRootRequest) {
			r.Coordinators[0].Issuer, r.Coordinators[1].Issuer = r.Coordinators[1].Issuer, r.Coordinators[0].Issuer
		}, "for another key"},
	} {
		_, bad := f.succession(false)
		c.change(bad)
		if _, err := f.operators().RotateRoot(f.ctx(), bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := f.operators().RotateRoot(f.ctx(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := f.operators().RotateRoot(f.ctx(), good); err != nil {
		t.Errorf("the same again: %v", err)
	}
	_, late := f.succession(false) // f.root is the old one still
	if _, err := f.operators().RotateRoot(f.ctx(), late); err == nil || !strings.Contains(err.Error(), "the present root is") {
		t.Errorf("a second rotation of the same root: %v", err)
	}
}

// A coordinator's certificates are renewed in place, without a removal.
func TestCoordinatorIsRenewed(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	f.join("c2")
	list, err := f.operators().ListCertificates(f.ctx(), &choirv1.ListCertificatesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Coordinators {
		was := f.member(c.Name).own.Load().credential.Chain
		next := f.certifiedAnew(f.root, c)
		if _, err := f.operators().RenewCoordinator(f.ctx(), &choirv1.RenewCoordinatorRequest{Coordinator: next}); err != nil {
			t.Fatal(err)
		}
		f.eventually(c.Name+" shows its new certificate", func() bool {
			return slices.EqualFunc(f.member(c.Name).own.Load().credential.Chain, next.Chain, slices.Equal)
		})
		if c.Name == "c1" && slices.EqualFunc(was, next.Chain, slices.Equal) {
			t.Fatal("nothing was renewed")
		}
		m := f.kill(c.Name)
		f.again(m)
		f.voting(c.Name)
	}
	if r := audit.Verify(f.bundle(), f.root.Fingerprint(), time.Now()); !r.OK {
		t.Errorf("%+v", r)
	}
}

// Officers count by their keys: who is neither pinned nor admitted is refused, whatever the root certified, and so is
// one who was replaced.
func TestOfficersArePinned(t *testing.T) {
	t.Parallel()
	f := startOnDisk(t)
	olga := f.certify(seal.RoleOfficer, "olga") // and admitted
	if err := f.knock("c1", protoHTTP, olga); err != nil {
		t.Errorf("an admitted officer: %v", err)
	}
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	chain, err := f.root.Certify(seal.RoleOfficer, "olga", public, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	second := &seal.Credential{Chain: chain, Key: key}
	if err := f.knock("c1", protoHTTP, second); err == nil {
		t.Error("an officer whose key nobody admitted is let in")
	}
	lost := seal.KeyFingerprint(olga.Key.Public().(ed25519.PublicKey))
	f.admit("olga", public, lost)
	if err := f.knock("c1", protoHTTP, second); err != nil {
		t.Errorf("the officer's next key: %v", err)
	}
	if err := f.knock("c1", protoHTTP, olga); err == nil {
		t.Error("an officer's replaced key is let in")
	}
	if err := f.admission("olga", olga.Key.Public().(ed25519.PublicKey), [32]byte{}); err == nil || !strings.Contains(err.Error(), "replaced, for good") {
		t.Errorf("a replaced key admitted again: %v", err)
	}
	reply, err := f.operators().GetStatus(f.ctx(), &choirv1.StatusRequest{})
	if print := sha256.Sum256(public); err != nil || len(reply.Officers) != 1 || !slices.Equal(reply.Officers[0], print[:]) {
		t.Errorf("status: %v, %v", reply, err)
	}
	r := audit.Verify(f.bundle(), f.root.Fingerprint(), time.Now())
	if want := []string{fmt.Sprintf("%x", sha256.Sum256(public))}; !r.OK || !slices.Equal(r.Officers, want) {
		t.Errorf("audit: %+v", r)
	}
}

// renewed asks for another certificate, as a node does with its key alone.
func (n *testNode) renewed(coordinator string) (*choirv1.EnrolReply, error) {
	now := time.Now().UnixMilli()
	return choirv1.NewEnrolmentClient(n.f.connect(coordinator, nil)).Renew(n.f.ctx(), &choirv1.RenewRequest{
		Name: n.name, TimeMs: now, Chain: n.cred.Chain, Signature: seal.ProveRenewal(n.cred.Key, "test", n.name, now),
	})
}

// bundle exports the audit log.
func (f *testFederation) bundle() []byte {
	f.t.Helper()
	var out []byte
	f.eventually("a bundle", func() bool {
		stream, err := f.operators().GetBundle(f.ctx(), &choirv1.BundleRequest{})
		for out = nil; err == nil; {
			var m *choirv1.BlobChunk
			if m, err = stream.Recv(); err == nil {
				out = append(out, m.Data...)
			}
		}
		return errors.Is(err, io.EOF)
	})
	return out
}
