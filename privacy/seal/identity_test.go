package seal

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"io"
	"testing"
	"time"
)

// noon is the time at which the tests' federation lives.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// federation is a root with one credential of each role.
type federation struct {
	root   *Root
	issuer *Issuer
	creds  map[Role]*Credential
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// newFederation makes certificates from now on that live for a day; the root lives longer.
func newFederation(t testing.TB, cluster string, now time.Time) *federation {
	t.Helper()
	return federationOf(t, cluster, now, rand.Reader)
}

// federationOf draws its keys from random: the same bytes make the same certificates.
func federationOf(t testing.TB, cluster string, now time.Time, random io.Reader) *federation {
	t.Helper()
	newKey := func(t testing.TB) ed25519.PrivateKey {
		key, err := NewKey(random)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	root, err := NewRoot(cluster, now, random)
	if err != nil {
		t.Fatal(err)
	}
	f := &federation{root: root, creds: map[Role]*Credential{}}
	for _, role := range []Role{RoleCoordinator, RoleOperator, RoleOfficer, RoleAuditor} {
		key := newKey(t)
		chain, err := root.Certify(role, "the-"+string(role), public(key), now, day)
		if err != nil {
			t.Fatal(err)
		}
		f.creds[role] = &Credential{chain, key}
	}
	issuing, key := newKey(t), newKey(t)
	der, err := root.CertifyIssuer("the-coordinator", public(issuing), now, day)
	if err != nil {
		t.Fatal(err)
	}
	f.issuer = &Issuer{der, issuing}
	chain, err := f.issuer.CertifyNode("the-node", public(key), now, day)
	if err != nil {
		t.Fatal(err)
	}
	f.creds[RoleNode] = &Credential{chain, key}
	return f
}

func (f *federation) cert() *x509.Certificate { return f.root.Certificate() }

func TestNamesThatCannotStandInACertificate(t *testing.T) {
	f := newFederation(t, "shop", noon)
	key := public(newKey(t))
	long := make([]byte, maxName+1)
	for i := range long {
		long[i] = 'a'
	}
	for _, name := range []string{"", "a/b", "a b", "../x", "a\nb", "a%2fb", "ü", "a?b", "a#b", ".hidden", "a@b", string(long)} {
		if _, err := f.root.Certify(RoleOperator, name, key, noon, day); err == nil {
			t.Errorf("Certify(%q) did not fail", name)
		}
		if _, err := f.issuer.CertifyNode(name, key, noon, day); err == nil {
			t.Errorf("CertifyNode(%q) did not fail", name)
		}
	}
	for _, name := range []string{"a", "Ada", "region-1.eu_west", string(long[1:])} {
		chain, err := f.issuer.CertifyNode(name, key, noon, day)
		if err != nil {
			t.Errorf("CertifyNode(%q): %v", name, err)
			continue
		}
		if id, err := VerifyChain(chain, f.cert(), noon); err != nil || id.Name != name {
			t.Errorf("VerifyChain of %q = %q, %v", name, id.Name, err)
		}
	}
	for _, cluster := range []string{"", "Shop", "a b", "a/b", "-a", "a.", "a..b", "user@host", "host:80", string(long)} {
		if _, err := NewRoot(cluster, noon, rand.Reader); err == nil {
			t.Errorf("NewRoot(%q) did not fail", cluster)
		}
	}
	for _, cluster := range []string{"a", "shop", "shop-2.example"} {
		newFederation(t, cluster, noon)
	}
}

func TestFingerprintIsOfTheCertificate(t *testing.T) {
	f, g := newFederation(t, "shop", noon), newFederation(t, "shop", noon)
	if f.root.Fingerprint() != Fingerprint(f.cert().Raw) || len(f.root.Fingerprint()) != 64 {
		t.Errorf("fingerprint %q", f.root.Fingerprint())
	}
	if f.root.Fingerprint() == g.root.Fingerprint() {
		t.Error("two roots share a fingerprint")
	}
}
