package seal

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"
)

// Whatever was verified before, Known says what a verification says: for this chain and another, under this root and
// another, before, within and after the time in which all of it is valid.
func TestKnownSaysWhatVerifyingSays(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	root, err := NewRoot("shop", noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewRoot("shop", noon, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain := func(r *Root, role Role, name string) [][]byte {
		key, err := NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Certify(role, name, key.Public().(ed25519.PublicKey), noon, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	chains := [][][]byte{chain(root, RoleCoordinator, "c1"), chain(root, RoleOperator, "o1"), chain(other, RoleCoordinator, "c1"), {{1, 2}}, {}}
	var nobody *Known
	k := &Known{}
	for i := range 3 {
		if i == 2 {
			if _, err := nobody.VerifyChain(chains[0], root.Certificate(), noon); err != nil {
				t.Error(err)
			}
		}
		for _, c := range chains {
			for _, r := range []*Root{root, other} {
				for _, after := range []time.Duration{0, 30 * time.Minute, -2 * time.Hour, 2 * time.Hour, 59 * time.Minute, 400 * 24 * time.Hour} {
					now := noon.Add(after)
					want, wantErr := VerifyChain(c, r.Certificate(), now)
					got, err := k.VerifyChain(c, r.Certificate(), now)
					if same(err, wantErr) != nil || got.Name != want.Name || got.Role != want.Role || got.Root != want.Root || !got.Key.Equal(want.Key) {
						t.Fatalf("after %v: %+v, %v, want %+v, %v", after, got, err, want, wantErr)
					}
					peer := tls.ConnectionState{}
					for _, der := range c {
						if cert, err := x509.ParseCertificate(der); err == nil {
							peer.PeerCertificates = append(peer.PeerCertificates, cert)
						}
					}
					want, wantErr = PeerIdentity(peer, LineageFrom(r.Certificate()), now)
					if got, err = k.PeerIdentity(peer, LineageFrom(r.Certificate()), now); same(err, wantErr) != nil || got.Name != want.Name || got.Role != want.Role {
						t.Fatalf("peer after %v: %+v, %v, want %+v, %v", after, got, err, want, wantErr)
					}
				}
			}
		}
	}
	if len(k.chains) != 3 {
		t.Errorf("%d chains are known, want the 3 that are somebody's", len(k.chains))
	}
	for range maxKnown + 1 {
		k.chains[[32]byte{byte(len(k.chains)), byte(len(k.chains) >> 8)}] = known{}
	}
	if _, err := k.VerifyChain(chains[1], root.Certificate(), noon.Add(time.Minute)); err != nil || len(k.chains) > maxKnown+8 {
		t.Errorf("%d chains, %v", len(k.chains), err)
	}
}

// same is nil if both errors say the same.
func same(a, b error) error {
	if (a == nil) != (b == nil) || a != nil && a.Error() != b.Error() {
		return errors.New("they differ")
	}
	return nil
}

// BenchmarkKnown is what a chain costs that was verified before, beside one that was not.
func BenchmarkKnown(b *testing.B) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	root, err := NewRoot("shop", noon, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key, err := NewKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	chain, err := root.Certify(RoleCoordinator, "c1", key.Public().(ed25519.PublicKey), noon, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for name, verify := range map[string]func([][]byte, *x509.Certificate, time.Time) (Identity, error){
		"first": VerifyChain, "again": new(Known).VerifyChain,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := verify(chain, root.Certificate(), noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
