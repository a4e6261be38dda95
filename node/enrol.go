package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"choir.example/internal/canon"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// identity is who the node is in its federation. It is kept sealed, the key from before it is certified, so that a
// token whose answer was lost can be used again.
type identity struct {
	name      string
	key       ed25519.PrivateKey
	chain     [][]byte // empty until enrolled
	root      *x509.Certificate
	addresses []string // of coordinators

	roster *rosterBook // whom to believe among the coordinators; not part of the file, nor is the next
	roots  *rootBook   // that came after root
	known  *seal.Known // coordinators whose certificates were verified before; nil: none are remembered
}

const identityFile = "identity"

func (id *identity) save(dir string, box *seal.Box) error {
	var w canon.Writer
	w.Uint(1)
	w.String(id.name)
	w.Bytes(id.key.Seed())
	w.Uint(uint64(len(id.chain)))
	for _, c := range id.chain {
		w.Bytes(c)
	}
	if id.root != nil {
		w.Bytes(id.root.Raw)
	} else {
		w.Bytes(nil)
	}
	w.Uint(uint64(len(id.addresses)))
	for _, a := range id.addresses {
		w.String(a)
	}
	return seal.WriteFile(filepath.Join(dir, identityFile), box.Seal([]byte(identityFile), w.Buf))
}

// loadIdentity returns nil if there is none yet.
func loadIdentity(dir string, box *seal.Box) (*identity, error) {
	sealed, err := seal.ReadPrivate(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	b, err := box.Open([]byte(identityFile), sealed)
	if err != nil {
		return nil, fmt.Errorf("identity in %s: %w: it is damaged, or was sealed under other keys than those that lie beside it", dir, err)
	}
	r := canon.NewReader(b)
	if v := r.Uint(); r.Err() == nil && v != 1 {
		return nil, fmt.Errorf("identity in %s: version %d is not known", dir, v)
	}
	id := &identity{name: r.String()}
	seed := r.Bytes()
	for n := r.Len(1); len(id.chain) < n && r.Err() == nil; {
		id.chain = append(id.chain, r.Bytes())
	}
	root := r.Bytes()
	for n := r.Len(1); len(id.addresses) < n && r.Err() == nil; {
		id.addresses = append(id.addresses, r.String())
	}
	if err := r.Close(); err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("identity in %s is malformed", dir)
	}
	id.key = ed25519.NewKeyFromSeed(seed)
	if len(root) > 0 {
		if id.root, err = x509.ParseCertificate(root); err != nil {
			return nil, fmt.Errorf("identity in %s: %w", dir, err)
		}
	}
	return id, nil
}

// of checks that a directory belongs to the node that is configured.
func (id *identity) of(cfg Config) error {
	if id.name != cfg.Name {
		return fmt.Errorf("directory %s belongs to node %s, not %s; take that name or another directory", cfg.Dir, id.name, cfg.Name)
	}
	return nil
}

// renewable is how long after its end a certificate can be renewed: after that a token is wanted.
const renewable = 30 * 24 * time.Hour

// lost reports whether a node that was enrolled has to enrol again.
func (id *identity) lost(now time.Time) bool {
	leaf, err := x509.ParseCertificate(id.chain[0])
	return err == nil && now.Sub(leaf.NotAfter) > renewable
}

// Enrol makes the node a member of the federation that the token is of: it makes a key, proves it, and keeps the
// certificate it gets. A node that is enrolled already is left as it is, unless its certificate has expired and cannot be
// renewed. Enrol may be repeated, with the same token or, as long as it has not succeeded, with another one or another
// name: the key stays the same.
func Enrol(ctx context.Context, cfg Config, deps Deps, token *seal.Token) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	box, err := deps.dataKey(cfg.Dir)
	if err != nil {
		return err
	}
	box = box.Sub("identity")
	id, err := loadIdentity(cfg.Dir, box)
	if err != nil {
		return err
	}
	if id != nil && len(id.chain) > 0 {
		if err := id.of(cfg); err != nil {
			return err
		}
		if id.roots, err = openRoots(cfg.Dir, id.root, box, deps.Log); err != nil {
			return err
		}
		if !id.lost(deps.Now()) {
			if err := id.sameFederation(token); err != nil {
				return err
			}
			deps.Log.Info("this node is enrolled already; the token is not used")
			return nil
		}
	}
	if err := token.Check(deps.Now()); err != nil {
		return fmt.Errorf("enrol %s: %w", cfg.Name, clockError(err, deps.Now()))
	}
	if token.Role != seal.RoleNode {
		return fmt.Errorf("enrol %s: the token is for the role %s, not node: %w", cfg.Name, token.Role, seal.ErrRole)
	}
	if id == nil {
		id = &identity{}
		if id.key, err = seal.NewKey(deps.Rand); err != nil {
			return err
		}
	}
	id.name, id.addresses = cfg.Name, token.Addresses
	if err := id.save(cfg.Dir, box); err != nil {
		return err
	}
	if err := id.enrol(ctx, deps, token); err != nil {
		return fmt.Errorf("enrol %s: %w", cfg.Name, err)
	}
	if err := (officers{known: true, keys: token.Officers}).save(cfg.Dir, box); err != nil {
		return err
	}
	if err := id.save(cfg.Dir, box); err != nil {
		return err
	}
	deps.Log.Info("node is enrolled")
	return nil
}

// enrol asks the token's coordinators, one after the other.
func (id *identity) enrol(ctx context.Context, deps Deps, token *seal.Token) error {
	req := &choirv1.EnrolRequest{
		TokenId: token.ID, TokenSecret: token.Secret, Name: id.name, PublicKey: id.key.Public().(ed25519.PublicKey),
		Proof: seal.ProveEnrolment(id.key, token.ID, id.name),
	}
	var errs []error
	for _, address := range token.Addresses {
		err := id.enrolAt(ctx, deps, token, address, req)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return errors.Join(errs...)
}

func (id *identity) enrolAt(ctx context.Context, deps Deps, token *seal.Token, address string, req *choirv1.EnrolRequest) error {
	var present atomic.Pointer[x509.Certificate]
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithContextDialer(deps.Dial),
		grpc.WithTransportCredentials(credentials.NewTLS(sayClock(id.pinned(token, deps, &present), deps.Now))))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := choirv1.NewEnrolmentClient(conn).Enrol(ctx, req)
	if err != nil {
		return err
	}
	root := present.Load()
	if !bytes.Equal(reply.Root, root.Raw) {
		return fmt.Errorf("the reply's root is not the token's, nor one that follows it")
	}
	id.root, id.roots = root, nil
	if err := id.accepts(reply.Chain, deps.Now()); err != nil {
		return err
	}
	id.chain = reply.Chain
	return nil
}

// pinned is the configuration for enrolment. The handshake says which root is the present one of the token's federation.
// A node that comes back after long knows a root already, which must be that one or lead to it.
func (id *identity) pinned(token *seal.Token, deps Deps, present *atomic.Pointer[x509.Certificate]) *tls.Config {
	config := seal.PinnedTLS(token.Root, deps.Now, "h2", func(l seal.Lineage) { present.Store(l.Present()) })
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil || id.root == nil {
			return err
		}
		known := seal.LineageFrom(id.trusted()).Learn(cs.PeerCertificates, deps.Now())
		if !known.Present().Equal(present.Load()) {
			return foreignToken(id, token)
		}
		return nil
	}
	return config
}

// sameFederation refuses a token that is of none of the roots which the node knows.
func (id *identity) sameFederation(token *seal.Token) error {
	if id.roots.knows(token.Root) {
		return nil
	}
	return foreignToken(id, token)
}

func foreignToken(id *identity, token *seal.Token) error {
	return fmt.Errorf("this directory belongs to a node of federation %s (root %.16s), and the token is of another (root %.16s); take another directory; if the federation only has another root since, start the node without the token, and it learns that: %w",
		id.root.Subject.CommonName, seal.Fingerprint(id.trusted().Raw), token.Root, seal.ErrForeign)
}
