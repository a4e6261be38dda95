package coordinator

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"choir.example/coordinator/state"
	"choir.example/internal/rpc"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// CertificateLife is how long a coordinator's identity and issuing certificates are valid.
const CertificateLife = 5 * 365 * 24 * time.Hour

// ErrNoIdentity is returned for a directory that neither Found nor Join has furnished.
var ErrNoIdentity = errors.New("no coordinator's identity")

const (
	identityFile = "identity" // who this coordinator is, once it is certified
	raftFile     = "raft.db"
	joiningFile  = "joining" // the keys of one that is not yet
	joinAgain    = 2 * time.Second
)

// identity is what makes a directory a coordinator's: one file of mode 0600, sealed under its data key.
type identity struct {
	Cluster    string
	Name       string
	Address    string
	Root       []byte // certificate, DER
	Key        []byte // seed of the identity's key
	Chain      [][]byte
	IssuerKey  []byte // seed
	IssuerCert []byte
	Voters     []Voter // when it was founded, or when it joined
	Founder    bool    // the voters found raft's log; a joiner gets it from them

	Since    uint64   `json:",omitempty"` // version of the voter list that brought the certificates, if they were replaced
	Officers [][]byte `json:",omitempty"` // SHA-256 of the officers' keys that a founder pins
}

// Furnished reports whether Found or Join has made the directory a coordinator's.
func Furnished(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, identityFile))
	return err == nil
}

func noIdentity(dir string) error {
	return fmt.Errorf("%s: %w; found a federation with --bootstrap, or join one with --join TOKEN", dir, ErrNoIdentity)
}

// Found makes cfg.Dir the directory of a federation's first coordinator: keys, certificates and itself as the only
// founding voter. cfg needs Name, Cluster, Dir and Address, deps Now and Rand. It refuses a directory that is a
// coordinator's already.
func Found(cfg Config, deps Deps, root *seal.Root) error {
	if err := cfg.checkSelf(); err != nil {
		return err
	}
	if cluster := root.Certificate().Subject.CommonName; cluster != cfg.Cluster {
		return fmt.Errorf("found federation %s: the root key is of federation %s", cfg.Cluster, cluster)
	}
	box, unlock, err := openFresh(cfg, deps)
	if err != nil {
		return fmt.Errorf("found federation %s: %w", cfg.Cluster, err)
	}
	defer unlock()
	k, err := newJoinKeys(deps)
	if err != nil {
		return err
	}
	now := deps.Now()
	id := identity{Cluster: cfg.Cluster, Name: cfg.Name, Address: cfg.Address, Root: root.Certificate().Raw, Key: k.Key, IssuerKey: k.Issuer, Founder: true, Officers: cfg.Officers}
	if id.Chain, err = root.Certify(seal.RoleCoordinator, cfg.Name, k.public(), now, CertificateLife); err != nil {
		return err
	}
	if id.IssuerCert, err = root.CertifyIssuer(cfg.Name, k.issuer(), now, CertificateLife); err != nil {
		return err
	}
	id.Voters = []Voter{{Name: cfg.Name, Address: cfg.Address, Chain: id.Chain}}
	return id.save(cfg.Dir, box)
}

// Join asks a federation to let this coordinator in, by a token of role coordinator, and waits until an operator has
// approved it. The keys are made once and kept, so that the same call goes on after an interruption; it returns at once
// where the directory is a coordinator's already. cfg needs Name, Dir and Address, deps Log, Dial, Now and Rand.
func Join(ctx context.Context, cfg Config, deps Deps, token *seal.Token) error {
	if err := cfg.checkSelf(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, identityFile)); err == nil {
		return nil // Open looks at it
	}
	if token.Role != seal.RoleCoordinator {
		return fmt.Errorf("join: the token is for a %s; an operator makes one for a coordinator with: choir token create --role coordinator", token.Role)
	}
	box, unlock, err := openFresh(cfg, deps)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer unlock()
	keys, err := openJoinKeys(filepath.Join(cfg.Dir, joiningFile), box, deps)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	reply, err := awaitApproval(ctx, cfg, deps, token, keys)
	if err != nil {
		return err
	}
	id := identity{
		Cluster: reply.Cluster, Name: cfg.Name, Address: cfg.Address, Root: reply.Root, Key: keys.Key, Chain: reply.Chain,
		IssuerKey: keys.Issuer, IssuerCert: reply.Issuer,
	}
	for _, v := range reply.Coordinators {
		id.Voters = append(id.Voters, Voter{Name: v.Name, Address: v.Address, Chain: v.Chain})
	}
	if cfg.Cluster != "" && cfg.Cluster != id.Cluster {
		return fmt.Errorf("join: the token leads to federation %s, the configuration says %s", id.Cluster, cfg.Cluster)
	}
	if _, err := id.check(deps.Now()); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := id.save(cfg.Dir, box); err != nil {
		return err
	}
	return os.Remove(filepath.Join(cfg.Dir, joiningFile))
}

// awaitApproval posts the request, at one address after the other, until it is approved or refused.
func awaitApproval(ctx context.Context, cfg Config, deps Deps, token *seal.Token, keys *joinKeys) (*choirv1.JoinReply, error) {
	req := &choirv1.JoinRequest{
		TokenId: token.ID, TokenSecret: token.Secret, Name: cfg.Name, Address: cfg.Address,
		PublicKey: keys.public(), IssuerKey: keys.issuer(),
	}
	req.Proof = seal.ProveJoin(keys.key(), req.TokenId, req.Name, req.Address, keys.issuer())
	said := ""
	for i := 0; ; i++ {
		address := token.Addresses[i%len(token.Addresses)]
		reply, err := postJoin(ctx, deps, token, address, req)
		switch code := status.Code(err); {
		case err == nil && reply.Approved:
			return reply, nil
		case err == nil && said != "posted":
			said = "posted"
			deps.Log.Info("request to join is posted; it waits for approval",
				"fingerprint", fmt.Sprintf("%x", sha256.Sum256(req.PublicKey)), "cure", "choir cluster approve "+cfg.Name)
		case code == codes.PermissionDenied || code == codes.InvalidArgument || code == codes.AlreadyExists:
			return nil, fmt.Errorf("join: %s", status.Convert(err).Message())
		case err != nil && ctx.Err() == nil && said != err.Error():
			said = err.Error()
			deps.Log.Warn("request to join is not posted; trying again", "address", address, "error", err)
		}
		pause(ctx, joinAgain)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("join: not approved yet; the same command asks again: %w", ctx.Err())
		}
	}
}

// postJoin asks one coordinator. A reply is taken only if it names the root to which that coordinator's own certificates
// lead from the token's.
func postJoin(ctx context.Context, deps Deps, token *seal.Token, address string, req *choirv1.JoinRequest) (*choirv1.JoinReply, error) {
	dial := deps.Dial
	if dial == nil {
		dial = dialDirect
	}
	var present atomic.Pointer[x509.Certificate]
	conn, err := grpc.NewClient("passthrough:///"+address, append(rpc.Client(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(credentials.NewTLS(seal.PinnedTLS(token.Root, deps.Now, protoGRPC, func(l seal.Lineage) { present.Store(l.Present()) }))))...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := choirv1.NewEnrolmentClient(conn).Join(ctx, req)
	if err == nil && reply.Approved && !bytes.Equal(reply.Root, present.Load().Raw) {
		return nil, fmt.Errorf("the answer names another root than the coordinator's certificates: %w", seal.ErrForeign)
	}
	return reply, err
}

func dialDirect(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// openFresh opens the data key of a directory that must not be a coordinator's yet, and locks it. It leaves an empty raft
// log there: from then on a log that is missing was lost.
func openFresh(cfg Config, deps Deps) (box *seal.Box, unlock func(), err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	release, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	if Furnished(cfg.Dir) {
		return nil, nil, fmt.Errorf("%s is a coordinator's directory already; start it without --bootstrap and --join, or take an empty directory", cfg.Dir)
	}
	if box, err = deps.dataKey(cfg.Dir); err != nil {
		return nil, nil, err
	}
	return box, release, makeRaftLog(filepath.Join(cfg.Dir, raftFile), box)
}

// joinKeys are the seeds of a coordinator's two keys.
type joinKeys struct{ Key, Issuer []byte }

func newJoinKeys(deps Deps) (*joinKeys, error) {
	key, err := seal.NewKey(deps.Rand)
	if err != nil {
		return nil, err
	}
	issuer, err := seal.NewKey(deps.Rand)
	if err != nil {
		return nil, err
	}
	return &joinKeys{key.Seed(), issuer.Seed()}, nil
}

func (k *joinKeys) key() ed25519.PrivateKey   { return ed25519.NewKeyFromSeed(k.Key) }
func (k *joinKeys) public() ed25519.PublicKey { return k.key().Public().(ed25519.PublicKey) }
func (k *joinKeys) issuer() ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(k.Issuer).Public().(ed25519.PublicKey)
}

// openJoinKeys reads the keys of a request made earlier, or makes them.
func openJoinKeys(path string, box *seal.Box, deps Deps) (*joinKeys, error) {
	k := &joinKeys{}
	if ok, err := readSealed(path, joiningFile, box, k); err != nil || ok {
		return k, err
	}
	k, err := newJoinKeys(deps)
	if err != nil {
		return nil, err
	}
	return k, writeSealed(path, joiningFile, box, k)
}

func (id *identity) save(dir string, box *seal.Box) error {
	return writeSealed(filepath.Join(dir, identityFile), identityFile, box, id)
}

func writeSealed(path, place string, box *seal.Box, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return seal.WriteFile(path, box.Seal([]byte(place), b))
}

func readSealed(path, place string, box *seal.Box, v any) (ok bool, err error) {
	sealed, err := seal.ReadPrivate(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	plain, err := box.Open([]byte(place), sealed)
	if err == nil {
		err = json.Unmarshal(plain, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: it is damaged or sealed under another data key; %s: %w", path, damageCure, err)
	}
	return true, nil
}

// check sees that keys and certificates belong together and are valid now.
func (id *identity) check(now time.Time) (*x509.Certificate, error) {
	root, err := x509.ParseCertificate(id.Root)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	if len(id.Key) != ed25519.SeedSize || len(id.IssuerKey) != ed25519.SeedSize {
		return nil, errors.New("a key is missing")
	}
	who, err := seal.VerifyChain(id.Chain, root, now)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w (this machine's clock says %s)", id.Name, err, now.UTC().Format(time.DateTime))
	}
	keys := joinKeys{id.Key, id.IssuerKey}
	if who.Role != seal.RoleCoordinator || who.Name != id.Name || who.Cluster != id.Cluster || !who.Key.Equal(keys.public()) {
		return nil, fmt.Errorf("certificate is of %s %s of federation %s, want coordinator %s of %s, with its own key",
			who.Role, who.Name, who.Cluster, id.Name, id.Cluster)
	}
	issuer := &seal.Issuer{Certificate: id.IssuerCert, Key: ed25519.NewKeyFromSeed(id.IssuerKey)}
	probe, err := issuer.CertifyNode("probe", keys.public(), now, time.Minute)
	if err == nil {
		_, err = seal.VerifyChain(probe, root, now)
	}
	if err != nil {
		return nil, fmt.Errorf("issuing certificate: %w", err)
	}
	return root, nil
}

// openIdentity completes configuration and dependencies from the directory, where the caller has not given an identity.
func openIdentity(cfg *Config, deps *Deps, box *seal.Box) (founder bool, since uint64, err error) {
	id := &identity{}
	ok, err := readSealed(filepath.Join(cfg.Dir, identityFile), identityFile, box, id)
	if err != nil {
		return false, 0, err
	}
	if !ok {
		return false, 0, noIdentity(cfg.Dir)
	}
	switch {
	case cfg.Name != id.Name:
		return false, 0, fmt.Errorf("%s belongs to coordinator %s, the configuration says %s; set the name or the directory right", cfg.Dir, id.Name, cfg.Name)
	case cfg.Cluster != "" && cfg.Cluster != id.Cluster:
		return false, 0, fmt.Errorf("%s belongs to federation %s, the configuration says %s; set the cluster or the directory right", cfg.Dir, id.Cluster, cfg.Cluster)
	case cfg.Address != id.Address:
		return false, 0, fmt.Errorf("coordinator %s is known to its federation at %s, the configuration says %s; to move it, remove it and join again", id.Name, id.Address, cfg.Address)
	}
	root, err := id.check(deps.Now())
	if err != nil {
		return false, 0, fmt.Errorf("%s: %w", filepath.Join(cfg.Dir, identityFile), err)
	}
	path := filepath.Join(cfg.Dir, raftFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return false, 0, fmt.Errorf("raft log %s is missing, and with it the votes that this replica gave: it must not vote again: %s", path, rejoinCure)
	}
	cfg.Cluster, cfg.Voters, cfg.Officers = id.Cluster, id.Voters, id.Officers
	deps.Root = root
	deps.Credential = &seal.Credential{Chain: id.Chain, Key: ed25519.NewKeyFromSeed(id.Key)}
	deps.Issuer = &seal.Issuer{Certificate: id.IssuerCert, Key: ed25519.NewKeyFromSeed(id.IssuerKey)}
	return id.Founder, id.Since, nil
}

// checkSelf refuses a configuration in which a coordinator cannot be founded or join.
func (c Config) checkSelf() error {
	if err := state.CheckName("coordinator", c.Name); err != nil {
		return fmt.Errorf("coordinator config: Name: %w", err)
	}
	i := slices.IndexFunc([]string{c.Dir, c.Address}, func(s string) bool { return s == "" })
	if i >= 0 {
		return fmt.Errorf("coordinator config: %s is missing", []string{"Dir", "Address"}[i])
	}
	return c.checkAddresses()
}
