package seal

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// ServerTLS is the configuration of a coordinator's port. A client certificate is optional, because enrolment has none;
// one that is presented must verify and pass check, which is asked at every handshake (revocation). The server sends
// its root as the last certificate, for clients that know its fingerprint only. now is called at each handshake. check
// must not be nil; it runs before the client has proved that it holds the key, so it must change nothing.
func ServerTLS(cred *Credential, root *x509.Certificate, now func() time.Time, protos []string, check func(Identity) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protos, Time: now,
		Certificates:           []tls.Certificate{cred.tls(root.Raw)},
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // a resumed session would not be checked again
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == "" {
				return fmt.Errorf("no application protocol was negotiated")
			}
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			id, err := PeerIdentity(cs, root, now())
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
	id, err := PeerIdentity(cs, root, now)
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

// PinnedTLS is the configuration for enrolment: the caller has no certificate and knows the root's fingerprint only.
func PinnedTLS(fingerprint string, now func() time.Time, proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{proto}, Time: now,
		InsecureSkipVerify: true, // VerifyConnection checks the chain up to the pinned root
		VerifyConnection: func(cs tls.ConnectionState) error {
			last := len(cs.PeerCertificates) - 1
			if last < 1 || Fingerprint(cs.PeerCertificates[last].Raw) != fingerprint {
				return fmt.Errorf("the server's root is not the one in the token: %w", ErrForeign)
			}
			return verifyServer(cs, cs.PeerCertificates[last], now(), proto, nil)
		},
	}
}

// PeerIdentity is who the other side of a connection is, verified at the time now.
func PeerIdentity(cs tls.ConnectionState, root *x509.Certificate, now time.Time) (Identity, error) {
	chain := cs.PeerCertificates
	if last := len(chain) - 1; last >= 0 && chain[last].Equal(root) {
		chain = chain[:last] // servers send it too
	}
	return verifyChain(chain, root, now)
}
