package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"choir.example/internal/canon"
	"choir.example/privacy/seal"
)

const rootsFile = "roots"

// rootBook keeps the roots that the node has learnt of since it enrolled, each certified by the one before. Coordinators
// show that row at each handshake, so a node that was away for several rotations follows them all at once. Only the newest
// root judges certificates: who has an older one's key cannot lead the node back.
type rootBook struct {
	path string
	box  *seal.Box
	log  *slog.Logger

	mu    sync.Mutex // guards roots
	roots seal.Lineage
}

// openRoots reads what was learnt since the root of the enrolment.
func openRoots(dir string, enrolled *x509.Certificate, box *seal.Box, log *slog.Logger) (*rootBook, error) {
	b := &rootBook{path: filepath.Join(dir, rootsFile), box: box, log: log, roots: seal.LineageFrom(enrolled)}
	sealed, err := os.ReadFile(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	plain, err := box.Open([]byte(rootsFile), sealed)
	if err != nil {
		return nil, fmt.Errorf("roots %s: %w: it is damaged; remove it, and the coordinators show them again", b.path, err)
	}
	r := canon.NewReader(plain)
	certificates := [][]byte{}
	for n := r.Len(1); len(certificates) < n && r.Err() == nil; {
		certificates = append(certificates, r.Bytes())
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("roots %s: %w", b.path, err)
	}
	known, err := seal.Recall(certificates...)
	if err != nil {
		return nil, fmt.Errorf("roots %s: %w", b.path, err)
	}
	if _, ok := known.Find(seal.Fingerprint(enrolled.Raw)); ok { // otherwise the node has enrolled anew since
		b.roots = known
	}
	return b, nil
}

// present is the newest root known.
func (b *rootBook) present() *x509.Certificate {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roots.Present()
}

// knows reports whether a fingerprint is of a root that is known, or was before.
func (b *rootBook) knows(fingerprint string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.roots.Find(fingerprint)
	return ok
}

// learn follows the roots that a coordinator has shown, whose own certificate was verified, and keeps them.
func (b *rootBook) learn(shown []*x509.Certificate, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.roots.Learn(shown, now)
	if next.Len() == b.roots.Len() {
		return
	}
	if err := b.save(next); err != nil {
		b.log.Error("new root not kept", "root", seal.Fingerprint(next.Present().Raw), "error", err)
		return // the next handshake shows it again
	}
	b.log.Warn("the federation has another root, which the one known so far has certified",
		"was", seal.Fingerprint(b.roots.Present().Raw), "is", seal.Fingerprint(next.Present().Raw))
	b.roots = next
}

func (b *rootBook) save(roots seal.Lineage) error {
	var w canon.Writer
	certificates := roots.Row()
	w.Uint(uint64(len(certificates)))
	for _, c := range certificates {
		w.Bytes(c)
	}
	return seal.WriteFile(b.path, b.box.Seal([]byte(rootsFile), w.Buf))
}

// trusted is the root by which the node judges others.
func (id *identity) trusted() *x509.Certificate {
	if id.roots == nil {
		return id.root
	}
	return id.roots.present()
}

// outdated reports whether the node's certificate is by a root that another one has followed.
func (id *identity) outdated(chain [][]byte, now time.Time) bool {
	who, err := seal.VerifyChain(chain, id.trusted(), now)
	return errors.Is(err, seal.ErrForeign) || err == nil && who.Root != seal.Fingerprint(id.trusted().Raw)
}

// tls is the configuration for a coordinator of the roster. Each handshake is judged by the root known by then, and
// teaches those that came after.
func (c *client) tls(cred *seal.Credential) *tls.Config {
	config := seal.ClientTLS(cred, c.id.trusted(), c.now, "h2", nil)
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		judge := seal.ClientTLS(nil, c.id.trusted(), c.now, "h2", c.id.roster.check)
		if err := judge.VerifyConnection(cs); err != nil {
			return err
		}
		if c.id.roots != nil {
			c.id.roots.learn(cs.PeerCertificates, c.now())
		}
		return nil
	}
	return sayClock(config, c.now)
}
