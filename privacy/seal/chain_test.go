package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestVerifyChainNamesTheHolder(t *testing.T) {
	f := newFederation(t, "shop", noon)
	for role, cred := range f.creds {
		id, err := VerifyChain(cred.Chain, f.cert(), noon)
		if err != nil {
			t.Errorf("%s: %v", role, err)
			continue
		}
		if id.Cluster != "shop" || id.Role != role || id.Name != "the-"+string(role) || !id.Key.Equal(cred.Key.Public()) || id.Certificate == nil {
			t.Errorf("%s: identity %+v", role, id)
		}
	}
}

func TestVerifyChainTimes(t *testing.T) {
	f := newFederation(t, "shop", noon)
	for role, cred := range f.creds {
		for _, c := range []struct {
			at   time.Time
			want error
		}{
			{noon.Add(-skew), nil}, {noon.Add(day), nil},
			{noon.Add(-skew - time.Second), ErrExpired}, {noon.Add(day + time.Second), ErrExpired},
			{time.Time{}, ErrExpired}, {noon.Add(rootLife + time.Hour), ErrExpired},
		} {
			if _, err := VerifyChain(cred.Chain, f.cert(), c.at); !errors.Is(err, c.want) {
				t.Errorf("%s at %s: %v, want %v", role, c.at, err, c.want)
			}
		}
	}
	// A certificate does not outlive what it stands on.
	key := newKey(t)
	node, err := f.issuer.CertifyNode("n", public(key), noon, 10*day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyChain(node, f.cert(), noon.Add(2*day)); !errors.Is(err, ErrExpired) {
		t.Errorf("node under an expired issuer: %v", err)
	}
	person, err := f.root.Certify(RoleOperator, "p", public(key), noon, 2*rootLife)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyChain(person, f.cert(), noon.Add(rootLife+day)); !errors.Is(err, ErrExpired) {
		t.Errorf("operator under an expired root: %v", err)
	}
}

func TestRootDoesNotCertifyEveryRole(t *testing.T) {
	f := newFederation(t, "shop", noon)
	key := public(newKey(t))
	for _, role := range []Role{RoleNode, RoleNone, "king"} {
		if _, err := f.root.Certify(role, "x", key, noon, day); err == nil {
			t.Errorf("the root certified role %q", role)
		}
	}
	if _, err := f.root.Certify(RoleOperator, "x", key[:31], noon, day); err == nil {
		t.Error("the root certified a short key")
	}
	if _, err := (&Issuer{f.issuer.Certificate, newKey(t)}).CertifyNode("x", key, noon, day); err == nil {
		t.Error("an issuer certified with a key that is not in its certificate")
	}
	if _, err := (&Issuer{[]byte("garbage"), newKey(t)}).CertifyNode("x", key, noon, day); err == nil {
		t.Error("an issuer certified without a certificate")
	}
}

// forge makes a leaf that the honest functions refuse to make, then lets change spoil it, and signs it with by.
func (f *federation) forge(t *testing.T, parent *x509.Certificate, by ed25519.PrivateKey, role Role, change func(*x509.Certificate)) []byte {
	t.Helper()
	leaf, err := leafTemplate("shop", role, "mallory", noon, day)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(leaf)
	}
	cert, err := certify(leaf, parent, public(newKey(t)), by)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Raw
}

// forgeIssuer makes an issuing certificate under the root that change has spoiled.
func (f *federation) forgeIssuer(t *testing.T, change func(*x509.Certificate)) *Issuer {
	t.Helper()
	key := newKey(t)
	issuing := &x509.Certificate{
		Subject: pkix.Name{CommonName: "issuer"}, NotBefore: noon, NotAfter: noon.Add(day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	change(issuing)
	cert, err := certify(issuing, f.cert(), public(key), f.root.key)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{cert.Raw, key}
}

func constraint(critical bool, value string) func(*x509.Certificate) {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: issuerExtension, Critical: critical, Value: der}}
	}
}

func TestIssuerCertifiesNodesOnly(t *testing.T) {
	f := newFederation(t, "shop", noon)
	issuer, err := x509.ParseCertificate(f.issuer.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []Role{RoleCoordinator, RoleOperator, RoleOfficer, RoleAuditor} {
		chain := [][]byte{f.forge(t, issuer, f.issuer.Key, role, nil), f.issuer.Certificate}
		if _, err := VerifyChain(chain, f.cert(), noon); !errors.Is(err, ErrRole) {
			t.Errorf("%s under an issuer: %v", role, err)
		}
		if _, err := VerifyChain(chain[:1], f.cert(), noon); !errors.Is(err, ErrForeign) {
			t.Errorf("%s under an issuer that is not shown: %v", role, err)
		}
	}
	direct := [][]byte{f.forge(t, f.cert(), f.root.key, RoleNode, nil)}
	if _, err := VerifyChain(direct, f.cert(), noon); !errors.Is(err, ErrRole) {
		t.Errorf("node under the root: %v", err)
	}
	if _, err := VerifyChain([][]byte{f.issuer.Certificate}, f.cert(), noon); !errors.Is(err, ErrRole) {
		t.Errorf("issuer speaking for itself: %v", err)
	}
	if _, err := VerifyChain([][]byte{f.cert().Raw}, f.cert(), noon); !errors.Is(err, ErrRole) {
		t.Errorf("root speaking for itself: %v", err)
	}
	// An issuer cannot make another issuer, and a node nobody.
	node := f.creds[RoleNode]
	leaf, err := x509.ParseCertificate(node.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	byNode := [][]byte{f.forge(t, leaf, node.Key, RoleNode, nil), node.Chain[0]}
	if _, err := VerifyChain(byNode, f.cert(), noon); !errors.Is(err, ErrForeign) {
		t.Errorf("node under a node: %v", err)
	}
	three := append([][]byte{byNode[0]}, node.Chain...)
	if _, err := VerifyChain(three, f.cert(), noon); !errors.Is(err, ErrForeign) {
		t.Errorf("chain of three: %v", err)
	}
}

func TestIssuerNeedsItsConstraint(t *testing.T) {
	f := newFederation(t, "shop", noon)
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   error
	}{
		"as it should be": {constraint(true, string(RoleNode)), nil},
		"absent":          {func(*x509.Certificate) {}, ErrRole},
		"not critical":    {constraint(false, string(RoleNode)), ErrRole},
		"for people":      {constraint(true, string(RoleOperator)), ErrRole},
		"empty":           {constraint(true, ""), ErrRole},
		"not a string": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: issuerExtension, Critical: true, Value: []byte{0x02, 0x01, 0x00}}}
		}, ErrRole},
		"with another critical one": {func(c *x509.Certificate) {
			constraint(true, string(RoleNode))(c)
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 25, 77}, Critical: true, Value: []byte{5, 0}})
		}, ErrRole},
		"no authority": {func(c *x509.Certificate) {
			constraint(true, string(RoleNode))(c)
			c.IsCA = false
		}, ErrRole},
	} {
		issuer := f.forgeIssuer(t, c.change)
		chain, err := issuer.CertifyNode("n", public(newKey(t)), noon, day)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := VerifyChain(chain, f.cert(), noon); !errors.Is(err, c.want) {
			t.Errorf("issuer's constraint %s: %v, want %v", name, err, c.want)
		}
	}
}

func TestVerifyChainRefusesOtherSpellings(t *testing.T) {
	f := newFederation(t, "shop", noon)
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				u, err := url.Parse(text)
				if err != nil {
					panic(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   error
	}{
		"right":            {uri("choir://shop/operator/mallory"), nil},
		"none":             {uri(), ErrRole},
		"two":              {uri("choir://shop/operator/mallory", "choir://shop/officer/mallory"), ErrRole},
		"scheme":           {uri("spiffe://shop/operator/mallory"), ErrRole},
		"cluster":          {uri("choir://stall/operator/mallory"), ErrForeign},
		"cluster in upper": {uri("choir://SHOP/operator/mallory"), ErrForeign},
		"port":             {uri("choir://shop:1/operator/mallory"), ErrForeign},
		"user":             {uri("choir://x@shop/operator/mallory"), ErrRole},
		"role":             {uri("choir://shop/king/mallory"), ErrRole},
		"no role":          {uri("choir://shop//mallory"), ErrRole},
		"no name":          {uri("choir://shop/operator/"), ErrRole},
		"no path":          {uri("choir://shop"), ErrRole},
		"deeper":           {uri("choir://shop/operator/mallory/x"), ErrRole},
		"escaped":          {uri("choir://shop/operator/%6dallory"), ErrRole},
		"query":            {uri("choir://shop/operator/mallory?x=1"), ErrRole},
		"fragment":         {uri("choir://shop/operator/mallory#x"), ErrRole},
		"authority":        {func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }, ErrRole},
		"critical extension": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 25, 77}, Critical: true, Value: []byte{5, 0}}}
		}, ErrRole},
	} {
		chain := [][]byte{f.forge(t, f.cert(), f.root.key, RoleOperator, c.change)}
		if id, err := VerifyChain(chain, f.cert(), noon); !errors.Is(err, c.want) {
			t.Errorf("%s: %v (%s %s), want %v", name, err, id.Role, id.Name, c.want)
		}
	}
}

func TestVerifyChainRefusesForeignAndDamaged(t *testing.T) {
	f, g := newFederation(t, "shop", noon), newFederation(t, "shop", noon)
	for role, cred := range f.creds {
		if _, err := VerifyChain(cred.Chain, g.cert(), noon); !errors.Is(err, ErrForeign) {
			t.Errorf("%s under another root of the same name: %v", role, err)
		}
		if _, err := VerifyChain(append(slices.Clone(cred.Chain), f.cert().Raw), f.cert(), noon); err == nil {
			t.Errorf("%s: a chain with its root was accepted", role)
		}
		if _, err := VerifyChain([][]byte{cred.Chain[0], g.issuer.Certificate}, f.cert(), noon); !errors.Is(err, ErrForeign) {
			t.Errorf("%s with a foreign issuer: %v", role, err)
		}
		for bit := range len(cred.Chain[0]) * 8 {
			der := slices.Clone(cred.Chain[0])
			der[bit/8] ^= 1 << (bit % 8)
			chain := slices.Clone(cred.Chain)
			chain[0] = der
			if id, err := VerifyChain(chain, f.cert(), noon); err == nil {
				t.Fatalf("%s: bit %d flipped, still %s %s", role, bit, id.Role, id.Name)
			}
		}
	}
	for _, chain := range [][][]byte{nil, {}, {nil}, {[]byte("x")}, {f.creds[RoleNode].Chain[0], []byte("x")}} {
		if _, err := VerifyChain(chain, f.cert(), noon); !errors.Is(err, ErrForeign) {
			t.Errorf("chain %x: %v", chain, err)
		}
	}
}

func TestVerifyChainRefusesOtherKeys(t *testing.T) {
	f := newFederation(t, "shop", noon)
	leaf, err := leafTemplate("shop", RoleOperator, "ada", noon, day)
	if err != nil {
		t.Fatal(err)
	}
	leaf.SerialNumber = big.NewInt(7)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, f.cert(), key.Public(), f.root.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyChain([][]byte{der}, f.cert(), noon); !errors.Is(err, ErrRole) {
		t.Errorf("certificate of a P-256 key: %v", err)
	}
}

// The standard library's verifier, which knows nothing of roles, agrees on signatures and dates, and refuses issuers
// because their constraint is critical and unknown to it.
func TestStandardVerifierAgrees(t *testing.T) {
	f := newFederation(t, "shop", noon)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(f.cert())
	issuer, err := x509.ParseCertificate(f.issuer.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	between.AddCert(issuer)
	for role, cred := range f.creds {
		leaf, err := x509.ParseCertificate(cred.Chain[0])
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: noon})
		if (err == nil) != (role != RoleNode) {
			t.Errorf("%s: standard verifier: %v", role, err)
		}
	}
}

func FuzzVerifyChain(f *testing.F) {
	// Fixed keys: each fuzzing process runs this function anew, and must know the others' certificates.
	var random bytes.Buffer
	for i := range byte(8) {
		random.Write(bytes.Repeat([]byte{i}, ed25519.SeedSize))
	}
	fed := federationOf(f, "shop", noon, &random)
	node := fed.creds[RoleNode].Chain
	f.Add(node[0], node[1])
	f.Add(fed.creds[RoleOperator].Chain[0], []byte(nil))
	f.Fuzz(func(t *testing.T, leaf, issuer []byte) {
		chain := [][]byte{leaf}
		if len(issuer) > 0 {
			chain = append(chain, issuer)
		}
		id, err := VerifyChain(chain, fed.cert(), noon)
		if err == nil && fed.creds[id.Role] == nil {
			t.Fatalf("verified %+v, which nobody certified", id)
		}
	})
}

func BenchmarkVerifyChain(b *testing.B) {
	f := newFederation(b, "shop", noon)
	for b.Loop() {
		if _, err := VerifyChain(f.creds[RoleNode].Chain, f.cert(), noon); err != nil {
			b.Fatal(err)
		}
	}
}
