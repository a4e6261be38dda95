package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	"choir.example/privacy/seal"
)

// learning guards what a context learns: the console's connections are made at the same time.
var learning sync.Mutex

// tls is the configuration for a coordinator. A root that has followed the context's is learnt in the handshake.
func (f *federation) tls(proto string) *tls.Config {
	config := seal.ClientTLS(f.credential, f.root, now, proto, nil)
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		learning.Lock()
		defer learning.Unlock()
		if err := seal.ClientTLS(nil, f.root, now, proto, nil).VerifyConnection(cs); err != nil {
			return err
		}
		return f.learnt(f.roots.Learn(cs.PeerCertificates, now()))
	}
	return config
}

// learnt takes longer a lineage of roots into the context, and says so.
func (f *federation) learnt(roots seal.Lineage) error {
	if roots.Len() <= f.roots.Len() {
		return nil
	}
	was := f.Root
	f.roots, f.root, f.Root = roots, roots.Present(), seal.Fingerprint(roots.Present().Raw)
	fmt.Fprintf(f.talk, "the federation %s has another root, which the one known here has certified\n  was  %s\n  is   %s\n", f.Cluster, was, f.Root)
	if err := saveContext(f.dir, f.contextFile, roots); err != nil {
		fmt.Fprintf(f.talk, "choir: warning: it is not kept in the context: %v\n", err) // the next command learns it again
	}
	return nil
}

// earlier reports whether a certificate is of a root that another one has followed.
func (f *federation) earlier(root *x509.Certificate) bool {
	found, ok := f.roots.Find(seal.Fingerprint(root.Raw))
	return ok && !found.Equal(f.root)
}
