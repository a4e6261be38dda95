package seal

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// Known remembers whom chains of certificates speak for, so that the signatures of one that comes again and again are
// checked once. A chain is known under the roots it was verified with, and as long as each of its certificates and each
// of the roots is valid: at any other time, and under other roots, it is verified as if it had never been seen. The zero
// value knows nobody, and a nil one never will. It is safe for concurrent use.
type Known struct {
	mu     sync.Mutex // guards chains
	chains map[[32]byte]known
}

type known struct {
	Identity
	from, to time.Time
}

// maxKnown bounds how many chains are remembered; when there are more, all are forgotten.
const maxKnown = 4096

// PeerIdentity is the function of that name.
func (k *Known) PeerIdentity(cs tls.ConnectionState, roots Lineage, now time.Time) (Identity, error) {
	chain := make([][]byte, len(cs.PeerCertificates))
	for i, c := range cs.PeerCertificates {
		chain[i] = c.Raw
	}
	certs := func() ([]*x509.Certificate, error) { return cs.PeerCertificates, nil }
	return k.verify(chain, certs, roots.roots, now, func(certs []*x509.Certificate) (Identity, error) { return PeerIdentity(cs, roots, now) })
}

// VerifyChain is the function of that name.
func (k *Known) VerifyChain(chain [][]byte, root *x509.Certificate, now time.Time) (Identity, error) {
	certs := func() ([]*x509.Certificate, error) { return parseAll(chain) }
	return k.verify(chain, certs, []*x509.Certificate{root}, now, func(certs []*x509.Certificate) (Identity, error) { return verifyChain(certs, root, now) })
}

func (k *Known) verify(chain [][]byte, parse func() ([]*x509.Certificate, error), roots []*x509.Certificate, now time.Time,
	check func([]*x509.Certificate) (Identity, error)) (Identity, error) {
	if k == nil {
		certs, err := parse()
		if err != nil {
			return Identity{}, err
		}
		return check(certs)
	}
	key := chainKey(chain, roots)
	k.mu.Lock()
	old, ok := k.chains[key]
	k.mu.Unlock()
	if ok && !now.Before(old.from) && !now.After(old.to) {
		return old.Identity, nil
	}
	certs, err := parse()
	if err != nil {
		return Identity{}, err
	}
	id, err := check(certs)
	if err != nil {
		return id, err
	}
	fresh := known{Identity: id, from: roots[0].NotBefore, to: roots[0].NotAfter}
	for _, c := range append(certs[:len(certs):len(certs)], roots...) {
		if c.NotBefore.After(fresh.from) {
			fresh.from = c.NotBefore
		}
		if c.NotAfter.Before(fresh.to) {
			fresh.to = c.NotAfter
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.chains == nil || len(k.chains) >= maxKnown {
		k.chains = map[[32]byte]known{}
	}
	k.chains[key] = fresh
	return id, nil
}

// chainKey is the digest of a chain and the roots it is verified with.
func chainKey(chain [][]byte, roots []*x509.Certificate) [32]byte {
	h := sha256.New()
	part := func(b []byte) {
		sum := sha256.Sum256(b) // of one length, so that no two lists are written alike
		h.Write(sum[:])
	}
	for _, der := range chain {
		part(der)
	}
	part(nil)
	for _, r := range roots {
		part(r.Raw)
	}
	return [32]byte(h.Sum(nil))
}
