package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// readRequest reads what choir credential request wrote, and sees that whoever made it holds the key.
func readRequest(path string) (name string, key ed25519.PublicKey, err error) {
	der, err := readPEM(path, "CERTIFICATE REQUEST")
	if err != nil {
		return "", nil, missing("request", err)
	}
	req, err := x509.ParseCertificateRequest(der[0])
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return "", nil, fmt.Errorf("request %s: %w", path, err)
	}
	key, ok := req.PublicKey.(ed25519.PublicKey)
	if !ok {
		return "", nil, fmt.Errorf("request %s is for a %T, want Ed25519", path, req.PublicKey)
	}
	return req.Subject.CommonName, key, nil
}

// admit has the federation count an officer's key, unless it does: a certificate that is renewed needs no admission.
func (c *credentialCreate) admit(ctx context.Context, t *terminal, f *federation, root *seal.Root, name string, key ed25519.PublicKey) error {
	print := seal.KeyFingerprint(key)
	var replaces [32]byte
	if c.Replace != "" {
		b, err := hex.DecodeString(strings.ToLower(c.Replace))
		if err != nil || len(b) != len(replaces) {
			return &usageError{fmt.Sprintf("--replaces is %q, want the fingerprint of an officer's key: 64 hex digits", c.Replace), "choir cluster status shows those that count"}
		}
		replaces = [32]byte(b)
	}
	if f.credential == nil {
		if err := f.loadCredential(); err != nil {
			return err
		}
	}
	f.talk = t.err
	list, err := f.certificates(ctx)
	if err != nil {
		return err
	}
	for _, o := range list.Officers {
		if string(o.Key) == string(print[:]) && !o.Replaced && c.Replace == "" {
			return nil
		}
	}
	if root.Fingerprint() != f.Root { // learnt a moment ago
		return &hinted{fmt.Errorf("%s is the root key %s, which was replaced: the federation's root is %s since", c.RootKey, root.Fingerprint(), f.Root), "name the new root key with --root-key"}
	}
	req := &choirv1.AdmitOfficerRequest{Key: print[:], Name: name, Signature: root.AdmitOfficer(print, replaces, name)}
	if c.Replace != "" {
		req.Replaces = replaces[:]
	}
	if _, err := f.operators().AdmitOfficer(ctx, req); err != nil {
		return said(err)
	}
	_, err = fmt.Fprintf(t.err, "the federation counts the key of officer %s from now on\n", name)
	return err
}
