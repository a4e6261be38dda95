package node

import (
	"crypto/tls"
	"errors"
	"slices"
	"testing"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// rosterOf lists coordinators, signed by some of them.
func rosterOf(version uint64, members map[string]*seal.Credential, signers ...string) []byte {
	r := audit.Roster{Cluster: "test", Version: version}
	for _, name := range []string{"c1", "c2", "c3", "c4", "c5"} {
		if c, ok := members[name]; ok {
			r.Coordinators = append(r.Coordinators, audit.Coordinator{Name: name, Address: name, Chain: c.Chain})
		}
	}
	for _, name := range signers {
		r.Signatures = append(r.Signatures, r.Sign(name, members[name].Key))
	}
	return r.Encode()
}

// A roster is taken when it is newer, of this federation and signed by a majority, of its own and of the one before; what
// is kept survives a restart.
func TestRosterIsTakenFromAMajority(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	all := map[string]*seal.Credential{}
	for _, name := range []string{"c1", "c2", "c3", "c4", "c5"} {
		all[name] = p.certify(seal.RoleCoordinator, name)
	}
	some := func(names ...string) map[string]*seal.Credential {
		out := map[string]*seal.Credential{}
		for _, n := range names {
			out[n] = all[n]
		}
		return out
	}
	foreign := newParty(t, "test").certify(seal.RoleCoordinator, "c1")
	n := p.node(dir, nil, "c1")
	three := some("c1", "c2", "c3")
	for _, c := range []struct {
		name    string
		roster  []byte
		taken   bool
		say     string
		version uint64
	}{
		{"nonsense", []byte("x"), false, "decode roster", 0},
		{"signed by one of three", rosterOf(5, three, "c1"), false, "1 of 3 coordinators signed, a majority is 2", 0},
		{"of another root", rosterOf(5, map[string]*seal.Credential{"c1": foreign}, "c1"), false, "not of this federation", 0},
		{"signed by two of three", rosterOf(5, three, "c1", "c3"), true, "", 5},
		{"the same again", rosterOf(5, three, "c1", "c2"), false, "", 5},
		{"older", rosterOf(4, some("c1"), "c1"), false, "", 5},
		{"of the removed alone", rosterOf(9, some("c3"), "c3"), false, "not signed by a majority of roster 5", 5},
		{"of a minority and strangers", rosterOf(9, some("c3", "c4", "c5"), "c3", "c4", "c5"), false, "not signed by a majority of roster 5", 5},
		{"one replaced", rosterOf(7, some("c1", "c2", "c4"), "c1", "c2"), true, "", 7},
	} {
		taken, err := n.id.roster.take(c.roster, n.id, time.Now())
		if taken != c.taken || n.id.roster.version() != c.version {
			t.Errorf("%s: taken is %v, version %d", c.name, taken, n.id.roster.version())
		}
		if c.say != "" {
			wantError(t, err, c.say)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again := p.node(dir, nil, "c1")
	if again.id.roster.version() != 7 {
		t.Errorf("after a restart the roster is %d", again.id.roster.version())
	}
	flip(t, dir+"/"+rosterFile)
	_ = again.Close()
	_, err := New(again.cfg, p.deps())
	wantError(t, err, rosterFile, "it is damaged; remove it")
}

// A coordinator that is not in the roster is refused: at the handshake, as a recipient of updates, as a signer of
// receipts. Its certificate alone, which the root signed, is worth nothing.
func TestRemovedCoordinatorIsRefused(t *testing.T) {
	p := newParty(t, "test")
	stays, removed := p.coordinator("c1", newShop().service()), p.coordinator("c2", newShop().service())
	n := p.node(t.TempDir(), nil, "c1", "c2")
	handshake := func(address string) error {
		conn, err := p.deps().Dial(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return tls.Client(conn, n.client.tls(nil)).HandshakeContext(t.Context())
	}
	if err := handshake("c2"); err != nil {
		t.Fatalf("before the roster: %v", err)
	}
	n.enlist(rosterOf(3, map[string]*seal.Credential{"c1": stays}, "c1"))
	if err := handshake("c1"); err != nil {
		t.Errorf("the one that stays: %v", err)
	}
	if err := handshake("c2"); !errors.Is(err, errNotListed) {
		t.Errorf("the removed one: %v", err)
	}
	keys := []*choirv1.EpochKey{epochKey(t, stays, "test", "c1", nil), epochKey(t, removed, "test", "c2", nil)}
	to, err := recipients(n.id, "test", keys, n.deps)
	if err != nil || !slices.Equal(to, []string{keys[0].Recipient}) {
		t.Errorf("sealed to %v, %v", to, err)
	}
	_, err = recipients(n.id, "test", keys[1:], n.deps)
	wantError(t, err, "no epoch key to seal to")
	h := header("node-01")
	_, err = verifyAnswer(n.id, n.deps, h, [32]byte{1}, signedReceipt(removed, "c2", receiptFor(h, [32]byte{1})))
	if !errors.Is(err, errNotListed) {
		t.Errorf("its receipt: %v", err)
	}
}
