package seal

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// dynasty is a root and its successors, each certified by the one before.
type dynasty struct {
	t       *testing.T
	random  *rand.ChaCha8
	roots   []*Root
	crosses [][]byte
}

func newDynasty(t *testing.T, n int) *dynasty {
	d := &dynasty{t: t, random: rand.NewChaCha8([32]byte{9})}
	for i := range n {
		d.roots = append(d.roots, d.root("shop", noon.Add(time.Duration(i)*time.Hour)))
		if i > 0 {
			d.crosses = append(d.crosses, d.cross(d.roots[i-1], d.roots[i]))
		}
	}
	return d
}

func (d *dynasty) root(cluster string, at time.Time) *Root {
	d.t.Helper()
	r, err := NewRoot(cluster, at, d.random)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func (d *dynasty) cross(old, next *Root) []byte {
	d.t.Helper()
	c, err := old.CertifySuccessor(next.cert, next.cert.NotBefore.Add(skew))
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (d *dynasty) lineage(from int) Lineage {
	d.t.Helper()
	l := LineageFrom(d.roots[from].cert)
	for i := from + 1; i < len(d.roots); i++ {
		var err error
		if l, err = l.Succeed(d.crosses[i-1], d.roots[i].cert.Raw, d.now()); err != nil {
			d.t.Fatal(err)
		}
	}
	return l
}

// now is when all roots are valid.
func (d *dynasty) now() time.Time { return noon.Add(time.Duration(len(d.roots)) * time.Hour) }

func (d *dynasty) credential(by *Root, role Role, name string) *Credential {
	d.t.Helper()
	key, err := NewKey(d.random)
	if err != nil {
		d.t.Fatal(err)
	}
	chain, err := by.Certify(role, name, key.Public().(ed25519.PublicKey), d.now(), day)
	if err != nil {
		d.t.Fatal(err)
	}
	return &Credential{Chain: chain, Key: key}
}

// Whoever knows any root verifies what a later one certified, and what an earlier one certified by the whole lineage.
func TestChainsOverRotations(t *testing.T) {
	d := newDynasty(t, 4)
	all := d.lineage(0)
	for by, root := range d.roots {
		cred := d.credential(root, RoleCoordinator, "c1")
		chain := append(append([][]byte(nil), cred.Chain...), all.Crosses()...)
		for known, knows := range d.roots {
			id, err := VerifyChain(chain, knows.cert, d.now())
			if known > by {
				if !errors.Is(err, ErrForeign) {
					t.Errorf("root %d judges a certificate of root %d: %v", known, by, err)
				}
				continue
			}
			if err != nil || id.Root != root.Fingerprint() || id.Name != "c1" {
				t.Errorf("root %d judges a certificate of root %d: %+v, %v", known, by, id, err)
			}
		}
		if id, err := all.VerifyChain(cred.Chain, d.now()); err != nil || id.Root != root.Fingerprint() {
			t.Errorf("the lineage judges a certificate of root %d: %+v, %v", by, id, err)
		}
	}
	if _, err := VerifyChain(append(d.credential(d.roots[3], RoleCoordinator, "c1").Chain, d.crosses[2]), d.roots[0].cert, d.now()); !errors.Is(err, ErrForeign) {
		t.Errorf("a link is missing: %v", err)
	}
}

// A handshake teaches the newest root to whoever knows any of them, or only a fingerprint.
func TestHandshakeTeachesTheRoots(t *testing.T) {
	d := newDynasty(t, 3)
	server := ServerTLS(d.credential(d.roots[2], RoleCoordinator, "c1"), d.lineage(0), clock(d.now()), []string{"h2"}, admitAll)
	for i, r := range d.roots {
		var learnt, pinned Lineage
		client := ClientTLS(d.credential(r, RoleOperator, "ada"), r.cert, clock(d.now()), "h2", nil)
		verify := client.VerifyConnection
		client.VerifyConnection = func(cs tls.ConnectionState) error {
			learnt = LineageFrom(r.cert).Learn(cs.PeerCertificates, d.now())
			return verify(cs)
		}
		if _, clientErr, serverErr := handshake(t, client, server); clientErr != nil || serverErr != nil || !learnt.Present().Equal(d.roots[2].cert) {
			t.Errorf("root %d: client %v, server %v", i, clientErr, serverErr)
		}
		_, clientErr, serverErr := handshake(t, PinnedTLS(r.Fingerprint(), clock(d.now()), "h2", func(l Lineage) { pinned = l }), server)
		if clientErr != nil || serverErr != nil || !pinned.Present().Equal(d.roots[2].cert) {
			t.Errorf("pinned to root %d: client %v, server %v", i, clientErr, serverErr)
		}
	}
}

// A cross certificate is a link to one root and nothing else; nothing else is a link.
func TestSuccessionRefuses(t *testing.T) {
	d := newDynasty(t, 2)
	old, next := d.roots[0], d.roots[1]
	other, foreign := d.root("shop", noon), d.root("mill", noon)
	issuer, err := old.CertifyIssuer("c1", next.key.Public().(ed25519.PublicKey), noon, day)
	if err != nil {
		t.Fatal(err)
	}
	twin := &Root{next.key, d.twin(next)}
	renamed := d.forge(old, "mill", next)
	for name, c := range map[string]struct {
		cross []byte
		root  *Root
		want  error
	}{
		"by another root":      {d.cross(other, next), next, ErrForeign},
		"for another root":     {d.crosses[0], other, ErrForeign},
		"another certificate":  {d.crosses[0], twin, ErrForeign},
		"an issuer's":          {issuer, next, ErrRole},
		"a root's own":         {next.cert.Raw, next, ErrForeign},
		"of another name":      {renamed, next, ErrRole},
		"the same key again":   {d.cross(old, &Root{old.key, d.twin(old)}), &Root{old.key, d.twin(old)}, nil},
		"no certificate":       {[]byte("x"), next, ErrForeign},
		"of another's cluster": {d.crosses[0], foreign, ErrForeign},
	} {
		_, err := LineageFrom(old.cert).Succeed(c.cross, c.root.cert.Raw, d.now())
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := old.CertifySuccessor(foreign.cert, noon); !errors.Is(err, ErrForeign) {
		t.Errorf("a root of another federation was certified: %v", err)
	}
	if _, err := LineageFrom(old.cert).Succeed(d.crosses[0], next.cert.Raw, old.cert.NotAfter.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("after the old root's end: %v", err)
	}
	for i := range d.crosses[0] {
		for bit := range 8 {
			broken := append([]byte(nil), d.crosses[0]...)
			broken[i] ^= 1 << bit
			if _, err := LineageFrom(old.cert).Succeed(broken, next.cert.Raw, d.now()); err == nil {
				t.Fatalf("bit %d of byte %d flipped, and the link holds", bit, i)
			}
		}
	}
	// The link's holder speaks for nobody, and certifies no node by itself.
	if _, err := VerifyChain([][]byte{d.crosses[0]}, old.cert, d.now()); !errors.Is(err, ErrRole) {
		t.Errorf("a cross certificate as an identity: %v", err)
	}
	node := &Issuer{Certificate: d.crosses[0], Key: next.key}
	chain, err := node.CertifyNode("n1", next.key.Public().(ed25519.PublicKey), d.now(), day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyChain(chain, old.cert, d.now()); err == nil {
		t.Error("a cross certificate as an issuer's")
	}
}

// twin is another certificate that a root made for its own key.
func (d *dynasty) twin(r *Root) *x509.Certificate {
	d.t.Helper()
	t := &x509.Certificate{Subject: r.cert.Subject, NotBefore: noon, NotAfter: noon.Add(400 * day), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	cert, err := certify(t, t, r.key.Public().(ed25519.PublicKey), r.key)
	if err != nil {
		d.t.Fatal(err)
	}
	return cert
}

// forge is a cross certificate with another federation's name in it.
func (d *dynasty) forge(by *Root, name string, next *Root) []byte {
	d.t.Helper()
	good, err := x509.ParseCertificate(d.cross(by, next))
	if err != nil {
		d.t.Fatal(err)
	}
	t := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: noon, NotAfter: noon.Add(day), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	for _, e := range good.Extensions {
		if e.Id.Equal(successorExtension) {
			t.ExtraExtensions = []pkix.Extension{e}
		}
	}
	cert, err := certify(t, by.cert, next.key.Public().(ed25519.PublicKey), by.key)
	if err != nil {
		d.t.Fatal(err)
	}
	return cert.Raw
}
