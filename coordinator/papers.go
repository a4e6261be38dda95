package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
)

// papers are what this coordinator shows of itself: certificates of one root for the two keys that it keeps for life. A
// rotation of the root and a renewal replace them as one.
type papers struct {
	root       *x509.Certificate
	credential *seal.Credential
	issuer     *seal.Issuer
	since      uint64    // version of the voter list that brought them; 0: those of the founding or the joining
	expires    time.Time // when the first of identity and issuing certificate ends
}

func newPapers(root *x509.Certificate, credential *seal.Credential, issuer *seal.Issuer, since uint64) (*papers, error) {
	p := &papers{root: root, credential: credential, issuer: issuer, since: since}
	for _, der := range [][]byte{credential.Chain[0], issuer.Certificate} {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if p.expires.IsZero() || cert.NotAfter.Before(p.expires) {
			p.expires = cert.NotAfter
		}
	}
	return p, nil
}

// key is the identity's private key.
func (p *papers) key() ed25519.PrivateKey { return p.credential.Key }

// takeOver takes the certificates that the federation has agreed on for this coordinator, whenever there are others
// than it has: first to disk, then into use.
func (c *Coordinator) takeOver(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.replica.Changed()
		if err := c.takeOverOnce(c.replica.State()); err != nil {
			c.deps.Log.Error("new certificates not taken over; trying again", "error", err)
			pause(ctx, epochAgain)
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

func (c *Coordinator) takeOverOnce(s *state.State) error {
	v, ok := s.Coordinator(c.cfg.Name)
	was := c.own.Load()
	if !ok || len(v.Issuer) == 0 || c.shows(s) || !c.itself(v) || s.RosterVersion() <= was.since {
		return nil // in a log that is replayed older ones are met, too
	}
	root, err := seal.ParseRoot(s.Root)
	if err != nil {
		return err
	}
	credential := &seal.Credential{Chain: v.Chain, Key: was.key()}
	next, err := newPapers(root, credential, &seal.Issuer{Certificate: v.Issuer, Key: was.issuer.Key}, s.RosterVersion())
	if err != nil {
		return err
	}
	if c.onDisk {
		err = c.gate.write(func() error { return next.save(c.cfg.Dir, c.box) })
	}
	if err != nil {
		return err
	}
	c.own.Store(next)
	c.peers.keep(nil) // they are called again with the new ones
	c.deps.Log.Info("this coordinator's certificates were replaced", "root", seal.Fingerprint(root.Raw), "expires", next.expires)
	return nil
}

// save puts the papers into the identity's file.
func (p *papers) save(dir string, box *seal.Box) error {
	id := &identity{}
	path := filepath.Join(dir, identityFile)
	if ok, err := readSealed(path, identityFile, box, id); err != nil || !ok {
		return fmt.Errorf("read %s: %w", path, err)
	}
	id.Root, id.Chain, id.IssuerCert, id.Since = p.root.Raw, p.credential.Chain, p.issuer.Certificate, p.since
	return id.save(dir, box)
}

// shows reports whether this coordinator shows the certificates that the state holds for it, or none are known there.
func (c *Coordinator) shows(s *state.State) bool {
	v, ok := s.Coordinator(c.cfg.Name)
	own := c.own.Load()
	return ok && slices.EqualFunc(v.Chain, own.credential.Chain, bytes.Equal) &&
		(len(v.Issuer) == 0 || bytes.Equal(v.Issuer, own.issuer.Certificate))
}

// itself reports whether an entry of the voter list is this coordinator's: the name may be another's by now.
func (c *Coordinator) itself(v state.Coordinator) bool {
	return certifies(v.Chain, c.own.Load().key().Public().(ed25519.PublicKey))
}

// shown is this coordinator's chain as it goes into answers.
func (c *Coordinator) shown() [][]byte {
	return append(slices.Clone(c.own.Load().credential.Chain), c.replica.State().Crosses()...)
}

// trust is a lineage of roots, and the state that it is of.
type trust struct {
	present []byte // certificate in the state
	own     *x509.Certificate
	roots   seal.Lineage
}

// roots are the roots by which this coordinator judges certificates: those of the state. As long as that has not come to
// the root which certified this coordinator, only that one counts.
func (c *Coordinator) roots() seal.Lineage {
	s, own := c.replica.State(), c.own.Load().root
	if t := c.believed.Load(); t != nil && bytes.Equal(t.present, s.Root) && t.own == own {
		return t.roots
	}
	t := &trust{present: s.Root, own: own, roots: seal.LineageFrom(own)}
	if roots, err := lineageOf(s); err == nil {
		if _, ok := roots.Find(seal.Fingerprint(own.Raw)); ok {
			t.roots = roots
		}
	}
	c.believed.Store(t)
	return t.roots
}

// lineageOf is the roots of a state. They were verified when they were applied, at the times in their commands.
func lineageOf(s *state.State) (seal.Lineage, error) {
	var certificates [][]byte
	for _, r := range s.Roots {
		certificates = append(certificates, r.Root, r.Cross)
	}
	if s.Cluster == "" {
		return seal.Lineage{}, fmt.Errorf("the federation is not founded yet")
	}
	return seal.Recall(append(certificates, s.Root)...)
}

// serverTLS is made anew for each handshake: certificates and roots may have changed since the last one.
func (c *Coordinator) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols(),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return seal.ServerTLS(c.own.Load().credential, c.roots(), c.deps.Now, protocols(), c.greet), nil
		},
	}
}

// clientTLS is for calls to other coordinators.
func (c *Coordinator) clientTLS(proto string, want func(seal.Identity) error) *tls.Config {
	config := seal.ClientTLS(nil, c.own.Load().root, c.deps.Now, proto, nil)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		own := c.own.Load().credential
		return &tls.Certificate{Certificate: slices.Concat(own.Chain, c.roots().Crosses()), PrivateKey: own.Key}, nil
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := c.identify(cs)
		if err == nil && cs.NegotiatedProtocol != proto {
			err = fmt.Errorf("the server does not speak %s", proto)
		}
		if err == nil && id.Role != seal.RoleCoordinator {
			err = fmt.Errorf("the server is %s: %w", describe(id), seal.ErrRole)
		}
		if err == nil && want != nil {
			err = want(id)
		}
		if err != nil {
			return err
		}
		return c.greet(id)
	}
	return config
}

// identify is who is at the other end of a connection.
func (c *Coordinator) identify(cs tls.ConnectionState) (seal.Identity, error) {
	return c.callers.PeerIdentity(cs, c.roots(), c.deps.Now())
}
