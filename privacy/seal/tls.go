package seal

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// ServerTLS is the configuration of a coordinator's port. A client certificate is optional, because enrolment has none;
// one that is presented must verify and pass check, which is asked at every handshake (revocation). The server sends
// the whole lineage of roots behind its certificate: for clients that know a fingerprint only, or an earlier root. now is
// called at each handshake. check must not be nil; it runs before the client has proved that it holds the key, so it must
// change nothing.
func ServerTLS(cred *Credential, roots Lineage, now func() time.Time, protos []string, check func(Identity) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protos, Time: now,
		Certificates:           []tls.Certificate{cred.tls(roots.Certificates()...)},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // a resumed session would not be checked again
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == "" {
				return fmt.Errorf("no application protocol was negotiated")
			}
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			id, err := PeerIdentity(cs, roots, now())
			if err != nil {
				return err
			}
			return check(id)
		},
	}
}

// ClientTLS is the configuration of a caller of a coordinator: it presents cred, if that is not nil, and accepts a
// coordinator of the federation only, one that want accepts if that is not nil.
func ClientTLS(cred *Credential, root *x509.Certificate, now func() time.Time, proto string, want func(Identity) error) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: now,
		InsecureSkipVerify: true, // names are roles here; VerifyConnection verifies the chain
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyServer(cs, root, now(), proto, want)
		},
	}
	if cred != nil {
		own := cred.tls()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	return c
}

func verifyServer(cs tls.ConnectionState, root *x509.Certificate, now time.Time, proto string, want func(Identity) error) error {
	if cs.NegotiatedProtocol != proto {
		return fmt.Errorf("the server does not speak %s", proto)
	}
	id, err := verifyChain(withoutRoots(cs.PeerCertificates), root, now)
	if err != nil {
		return err
	}
	if id.Role != RoleCoordinator {
		return fmt.Errorf("the server is %s %s: %w", id.Role, id.Name, ErrRole)
	}
	if want != nil {
		return want(id)
	}
	return nil
}

// PinnedTLS is the configuration for enrolment: the caller has no certificate and knows the fingerprint of a root only,
// which may be an earlier one. learn, if it is not nil, is told the lineage from that root on.
func PinnedTLS(fingerprint string, now func() time.Time, proto string, learn func(Lineage)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: now,
		InsecureSkipVerify: true, // VerifyConnection checks the chain up to the pinned root
		VerifyConnection: func(cs tls.ConnectionState) error {
			i := slices.IndexFunc(cs.PeerCertificates, func(c *x509.Certificate) bool { return Fingerprint(c.Raw) == fingerprint })
			if i < 1 || !isRoot(cs.PeerCertificates[i]) {
				return fmt.Errorf("the server's root is not the one in the token: %w", ErrForeign)
			}
			root := cs.PeerCertificates[i]
			if err := verifyServer(cs, root, now(), proto, nil); err != nil {
				return err
			}
			if learn != nil {
				learn(LineageFrom(root).Learn(cs.PeerCertificates, now()))
			}
			return nil
		},
	}
}

// PeerIdentity is who the other side of a connection is, verified at the time now.
func PeerIdentity(cs tls.ConnectionState, roots Lineage, now time.Time) (Identity, error) {
	return roots.verify(withoutRoots(cs.PeerCertificates), now)
}

// withoutRoots drops the roots' own certificates that a server sends behind its chain: they teach, and prove nothing.
func withoutRoots(certs []*x509.Certificate) []*x509.Certificate {
	for len(certs) > 0 && isRoot(certs[len(certs)-1]) {
		certs = certs[:len(certs)-1]
	}
	return certs
}
