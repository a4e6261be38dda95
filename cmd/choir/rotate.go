package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"choir.example/privacy/audit"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"
)

// clusterRotate is `choir cluster rotate-root`.
type clusterRotate struct {
	contextFlag
	rootFlags
	outputFlag
	New           string `name:"new-root-key" help:"The new root key file to write. One that an interrupted rotation left is taken." required:"" placeholder:"FILE" type:"path"`
	NewPassphrase string `name:"new-passphrase-file" help:"Like --passphrase-file, for the new root key. Default: the same file." placeholder:"FILE"`
	Retire        bool   `name:"retire-old" help:"The old root key was stolen: what it certified for people and nodes, and unused tokens, count no more."`
	Yes           bool   `help:"Do not ask."`
}

// Help is what --help explains.
func (clusterRotate) Help() string {
	return `Makes a new root key, has the old one certify it, certifies all coordinators by it, and puts it in the old one's place.
Coordinators, nodes and people learn it by themselves; certificates of the old root count until they end. All coordinators
must have answered once since they were founded; those that are down now catch up. After an interruption give the same
command again. With --retire-old people need new certificates at once (yours is made here), nodes get theirs by themselves.

Example: choir cluster rotate-root --root-key root.key --new-root-key root-2.key`
}

// Run rotates the root.
func (c *clusterRotate) Run(ctx context.Context, t *terminal) error {
	if c.New == c.RootKey {
		return &usageError{"--new-root-key is the file of the present root key", "name a file that does not exist yet"}
	}
	f, err := c.contextFlag.open(t)
	if err != nil {
		return err
	}
	if !c.Yes {
		if ok, err := confirm(t, "rotate the root of federation "+f.Cluster+"?"); err != nil || !ok {
			return orAbort(err)
		}
	}
	next, err := c.next(t, f)
	if err != nil {
		return err
	}
	list, err := f.certificates(ctx)
	switch done := bytes.Equal(f.root.Raw, next.Certificate().Raw); {
	case done: // also where the answer was to refuse this context's certificate, which the old root had made
		fmt.Fprintf(t.err, "%s is the federation's root already\n", c.New)
	case err != nil:
		return err
	case f.earlier(next.Certificate()):
		return &hinted{fmt.Errorf("%s is an earlier root key of the federation", c.New), "name a file that does not exist with --new-root-key"}
	default:
		if err := c.rotate(ctx, t, f, next, list); err != nil {
			return err
		}
	}
	if err := f.recertify(t, next); err != nil {
		return err
	}
	return c.tell(t, t.err, map[string]any{"cluster": f.Cluster, "root": next.Fingerprint(), "root_key": c.New},
		"the root of federation %s is\n  root key     %s (keep it off this machine, and destroy copies of the old one)\n  fingerprint  %s", f.Cluster, c.New, next.Fingerprint())
}

// rotate has the federation agree.
func (c *clusterRotate) rotate(ctx context.Context, t *terminal, f *federation, next *seal.Root, list *choirv1.ListCertificatesReply) error {
	old, err := c.openRoot(t, f)
	if err != nil {
		return err
	}
	now := now()
	was := sha256.Sum256(old.Certificate().Raw)
	req := &choirv1.RotateRootRequest{Old: was[:], Root: next.Certificate().Raw, Retire: c.Retire}
	if req.Cross, err = old.CertifySuccessor(next.Certificate(), now); err != nil {
		return err
	}
	for _, e := range list.Coordinators {
		anew, err := certifyAnew(next, e, now)
		if err != nil {
			return err
		}
		req.Coordinators = append(req.Coordinators, anew)
	}
	_, err = f.operators().RotateRoot(ctx, req)
	if err != nil {
		_, _ = f.certificates(ctx) // the handshake tells whether it was done all the same
	}
	if bytes.Equal(f.root.Raw, req.Root) {
		return nil // a coordinator that was asked showed it, whatever became of the answer
	}
	if err != nil {
		return &hinted{said(err), "the same command goes on with " + c.New + ", or says that it is done"}
	}
	roots, err := f.roots.Succeed(req.Cross, req.Root, now)
	if err != nil {
		return err
	}
	return f.learnt(roots)
}

// next opens the new root key, or makes it.
func (c *clusterRotate) next(t *terminal, f *federation) (*seal.Root, error) {
	flags := rootFlags{RootKey: c.New, Passphrase: c.NewPassphrase}
	if flags.Passphrase == "" && c.Passphrase != "-" {
		flags.Passphrase = c.Passphrase
	}
	if _, err := os.Lstat(c.New); err == nil {
		root, err := flags.open(t)
		if err == nil && root.Certificate().Subject.CommonName != f.Cluster {
			err = fmt.Errorf("%s is the root key of federation %s", c.New, root.Certificate().Subject.CommonName)
		}
		if err != nil {
			return nil, &hinted{err, "name a file that does not exist with --new-root-key"}
		}
		return root, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if _, err := readSecret("root key", c.RootKey); err != nil {
		return nil, err // before a key is made for nothing
	}
	pass, err := flags.passphrase(t, true)
	if err != nil {
		return nil, err
	}
	root, err := seal.NewRoot(f.Cluster, now(), random)
	if err != nil {
		return nil, err
	}
	return root, seal.WriteRootKey(c.New, root, pass, t.work)
}

// certificates asks for roots, coordinators and officers.
func (f *federation) certificates(ctx context.Context) (*choirv1.ListCertificatesReply, error) {
	reply, err := f.operators().ListCertificates(ctx, &choirv1.ListCertificatesRequest{})
	if err != nil {
		return nil, said(err)
	}
	var certs []*x509.Certificate
	for _, r := range reply.Roots { // a coordinator that has not taken over yet shows them here only
		for _, der := range [][]byte{r.Certificate, r.Cross} {
			if cert, err := x509.ParseCertificate(der); err == nil {
				certs = append(certs, cert)
			}
		}
	}
	return reply, f.learnt(f.roots.Learn(certs, now()))
}

// certifyAnew certifies a coordinator's keys by a root.
func certifyAnew(root *seal.Root, c *choirv1.CertifiedCoordinator, now time.Time) (*choirv1.CertifiedCoordinator, error) {
	keys, err := audit.Issued(c.Chain, c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("coordinator %s: %w", c.Name, err)
	}
	if len(keys.Issuer) == 0 {
		return nil, &hinted{fmt.Errorf("coordinator %s does not answer, and nobody else knows its issuing key", c.Name), "start it, and try again"}
	}
	out := &choirv1.CertifiedCoordinator{Name: c.Name}
	if out.Chain, err = root.Certify(seal.RoleCoordinator, c.Name, ed25519.PublicKey(keys.Key), now, coordinatorLife); err != nil {
		return nil, err
	}
	out.Issuer, err = root.CertifyIssuer(c.Name, ed25519.PublicKey(keys.Issuer), now, coordinatorLife)
	return out, err
}

// recertify certifies the credential of this context by the root, unless that has done so.
func (f *federation) recertify(t *terminal, root *seal.Root) error {
	id, err := f.roots.VerifyChain(f.credential.Chain, now())
	if err != nil || id.Root == root.Fingerprint() {
		return err
	}
	chain, err := root.Certify(f.role, f.name, id.Key, now(), personLife)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(f.dir, string(f.role)+".crt"), "CERTIFICATE", chain...); err != nil {
		return err
	}
	fmt.Fprintf(t.err, "the certificate of %s %s is by the new root\n", f.role, f.name)
	f.credential = &seal.Credential{Chain: chain, Key: f.credential.Key}
	return issued(f.dir, chain[0])
}

// clusterRenew is `choir cluster renew`.
type clusterRenew struct {
	contextFlag
	rootFlags
	outputFlag
	Name string `arg:"" help:"The coordinator's name."`
}

// Help is what --help explains.
func (clusterRenew) Help() string {
	return `A coordinator keeps its keys; its certificates end after two years. choir cluster status shows when. It takes the new ones
over while it runs, or when it starts again before the old ones have ended.

Example: choir cluster renew c2 --root-key root.key`
}

// Run renews a coordinator's certificates.
func (c *clusterRenew) Run(ctx context.Context, t *terminal) error {
	f, err := c.contextFlag.open(t)
	if err != nil {
		return err
	}
	list, err := f.certificates(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range list.Coordinators {
		if names = append(names, e.Name); e.Name != c.Name {
			continue
		}
		root, err := c.openRoot(t, f)
		if err != nil {
			return err
		}
		anew, err := certifyAnew(root, e, now())
		if err != nil {
			return err
		}
		if _, err := f.operators().RenewCoordinator(ctx, &choirv1.RenewCoordinatorRequest{Coordinator: anew}); err != nil {
			return said(err)
		}
		leaf, err := x509.ParseCertificate(anew.Chain[0])
		if err != nil {
			return err
		}
		ends := day(leaf.NotAfter.UnixMilli())
		return c.tell(t, t.err, map[string]any{"name": c.Name, "expires": ends}, "%s is certified until %s", c.Name, ends)
	}
	return &hinted{fmt.Errorf("coordinator %q is not a voter", c.Name), suggest(c.Name, names)}
}
