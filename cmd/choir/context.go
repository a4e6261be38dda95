package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"choir.example/privacy/seal"
)

// A context is a directory that says which federation to talk to and as whom:
//
//	context.yaml              cluster, fingerprint of the root, addresses of coordinators
//	root.crt                  the root's certificate; behind it those of earlier roots, with the links between them
//	ROLE.crt, ROLE.key        one person's certificate and key; ROLE is operator, officer or auditor
//	issued/                   certificates that were made from here, and which were revoked, for `choir credential list`
//	node.yaml                 where this machine's node is, for `choir data`, `predict` and `feedback`

// contextFlag finds the context.
type contextFlag struct {
	Context string `help:"Directory with the cluster's addresses and your credential. Default: ~/.config/choir." placeholder:"DIR" env:"CHOIR_CONTEXT"`
}

// dir is the context's directory.
func (c contextFlag) dir() (string, error) {
	if c.Context != "" {
		return c.Context, nil
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", &usageError{fmt.Sprintf("where is the context? %v", err), "name its directory with --context DIR or CHOIR_CONTEXT"}
	}
	return filepath.Join(base, "choir"), nil
}

// contextFile is context.yaml.
type contextFile struct {
	Cluster   string   `yaml:"cluster"`
	Root      string   `yaml:"root"`
	Addresses []string `yaml:"addresses"`
}

// federation is an opened context.
type federation struct {
	contextFile
	dir        string
	root       *x509.Certificate // the present one
	roots      seal.Lineage      // as far as they are known here
	talk       io.Writer         // where it is told what is learnt, and who is waited for
	role       seal.Role
	name       string
	credential *seal.Credential
}

// people are the roles that a credential of a context may have, in the order in which they are looked for.
var people = []seal.Role{seal.RoleOperator, seal.RoleOfficer, seal.RoleAuditor}

// open reads the context and the credential in it.
func (c contextFlag) open(t *terminal) (*federation, error) {
	dir, err := c.dir()
	if err != nil {
		return nil, err
	}
	f, err := openContext(dir)
	if err != nil {
		return nil, err
	}
	f.talk = t.err
	if err := f.loadCredential(); err != nil {
		return nil, err
	}
	f.warnOfExpiry(t, now())
	return f, nil
}

const contextHint = "choir coordinator --bootstrap writes a context; copy one, or name its directory with --context DIR or CHOIR_CONTEXT"

// openContext reads what the context says about the federation.
func openContext(dir string) (*federation, error) {
	f := &federation{dir: dir, talk: io.Discard}
	path := filepath.Join(dir, "context.yaml")
	switch err := readYAML(path, &f.contextFile); {
	case errors.Is(err, os.ErrNotExist):
		return nil, &hinted{fmt.Errorf("no context in %s", dir), contextHint}
	case err != nil:
		return nil, fmt.Errorf("read context: %w", err)
	}
	if len(f.Addresses) == 0 {
		return nil, &hinted{fmt.Errorf("%s: addresses: none is given", path), "list the coordinators' addresses, such as [10.0.0.1:7100]"}
	}
	der, err := readPEM(filepath.Join(dir, "root.crt"), "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("read context: %w", err)
	}
	slices.Reverse(der)
	if f.roots, err = seal.Recall(der...); err != nil {
		return nil, &hinted{fmt.Errorf("read context: %s: %w", filepath.Join(dir, "root.crt"), err), "copy it anew from another context of this federation"}
	}
	f.root = f.roots.Present()
	got := seal.Fingerprint(f.root.Raw)
	if _, ok := f.roots.Find(strings.ToLower(f.Root)); ok {
		f.Root = got // root.crt is written first when another root is learnt
	}
	if !strings.EqualFold(got, f.Root) {
		return nil, &hinted{fmt.Errorf("%s holds the root %s, but context.yaml names %s", filepath.Join(dir, "root.crt"), got, f.Root), "one of them is of another federation; copy both anew"}
	}
	return f, nil
}

func (f *federation) loadCredential() error {
	for _, role := range people {
		crt := filepath.Join(f.dir, string(role)+".crt")
		chain, err := readPEM(crt, "CERTIFICATE")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read credential: %w", err)
		}
		key, err := readKey(filepath.Join(f.dir, string(role)+".key"))
		if err != nil {
			return err
		}
		id, err := f.roots.VerifyChain(chain, now())
		if err != nil {
			return &hinted{fmt.Errorf("credential %s: %w", crt, err), credentialHint(err, role)}
		}
		if !id.Key.Equal(key.Public()) || id.Role != role {
			return &hinted{fmt.Errorf("credential %s: the key beside it is of another certificate, or its role is %s", crt, id.Role), "put back the pair of files that were made together"}
		}
		f.role, f.name, f.credential = role, id.Name, &seal.Credential{Chain: chain, Key: key}
		return nil
	}
	return &hinted{fmt.Errorf("no credential in %s: want operator.crt and operator.key, or an officer's or auditor's", f.dir), "who has the root key makes one: choir credential create operator --name NAME"}
}

func credentialHint(err error, role seal.Role) string {
	switch {
	case errors.Is(err, seal.ErrExpired):
		return fmt.Sprintf("is this machine's clock right? It says %s. If so, renew it with the root key: choir credential create %s --renew --root-key FILE", clockText(), role)
	case errors.Is(err, seal.ErrForeign):
		return "it is of another federation; use the context that belongs to it"
	}
	return ""
}

// clockText is what a message about a wrong clock says.
func clockText() string { return now().UTC().Format("2006-01-02 15:04:05 MST") }

// readPEM reads all blocks of a kind from a file.
func readPEM(path, kind string) ([][]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parsePEM(path, kind, b)
}

func parsePEM(path, kind string, b []byte) ([][]byte, error) {
	var out [][]byte
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			return nil, fmt.Errorf("%s holds a %s, want a %s", path, block.Type, kind)
		}
		out = append(out, block.Bytes)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no %s in PEM form", path, kind)
	}
	return out, nil
}

// writePEM writes blocks of a kind to a file of mode 0600.
func writePEM(path, kind string, blocks ...[]byte) error {
	var b []byte
	for _, body := range blocks {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: body})...)
	}
	return seal.WriteFile(path, b)
}

// readKey reads a private key that nobody else may read.
func readKey(path string) (ed25519.PrivateKey, error) {
	b, err := readSecret("private key", path)
	if err != nil {
		return nil, err
	}
	der, err := parsePEM(path, "PRIVATE KEY", b)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der[0])
	if err != nil {
		return nil, fmt.Errorf("read private key %s: %w", path, err)
	}
	if k, ok := key.(ed25519.PrivateKey); ok {
		return k, nil
	}
	return nil, fmt.Errorf("private key %s is a %T, want Ed25519", path, key)
}

// saveCredential writes a credential into a context's directory.
func saveCredential(dir string, role seal.Role, c *seal.Credential) error {
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	if err := writePEM(filepath.Join(dir, string(role)+".key"), "PRIVATE KEY", der); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, string(role)+".crt"), "CERTIFICATE", c.Chain...)
}

// saveContext writes what a context says about the federation.
func saveContext(dir string, f contextFile, roots seal.Lineage) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Which federation the commands of choir talk to. Written by choir; addresses may be edited.\ncluster: %q\nroot: %s # fingerprint of root.crt\naddresses:\n", f.Cluster, f.Root)
	for _, a := range f.Addresses {
		fmt.Fprintf(&b, "  - %q\n", a)
	}
	row := roots.Row()
	slices.Reverse(row) // the present root comes first
	if err := writePEM(filepath.Join(dir, "root.crt"), "CERTIFICATE", row...); err != nil {
		return err
	}
	return seal.WriteFile(filepath.Join(dir, "context.yaml"), []byte(b.String()))
}

// learn keeps the coordinators' addresses, so that any of them can be asked next time.
func (f *federation) learn(addresses []string) error {
	addresses = slices.Clone(addresses)
	slices.Sort(addresses)
	if len(addresses) == 0 || slices.Equal(addresses, f.Addresses) {
		return nil
	}
	f.Addresses = addresses
	return saveContext(f.dir, f.contextFile, f.roots)
}
