package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// registrar certifies whoever proves a key for a token, again and again for the same key.
type registrar struct {
	p    *party
	keys map[string][]byte // by token id
	lose int               // how many answers are lost after the key was bound
}

func (r *registrar) enrol(_ context.Context, req *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
	if !seal.VerifyEnrolment(req.PublicKey, req.TokenId, req.Name, req.Proof) {
		return nil, status.Error(codes.PermissionDenied, "no proof")
	}
	if held, ok := r.keys[req.TokenId]; ok && !bytes.Equal(held, req.PublicKey) {
		return nil, status.Error(codes.PermissionDenied, "the token was used with another key")
	}
	r.keys[req.TokenId] = req.PublicKey
	if r.lose--; r.lose >= 0 {
		return nil, status.Error(codes.Unavailable, "the power failed")
	}
	chain, err := r.p.issuer("c1").CertifyNode(req.Name, req.PublicKey, time.Now(), time.Hour)
	return &choirv1.EnrolReply{Chain: chain, Root: r.p.root.Certificate().Raw}, err
}

func (p *party) registrar(name string) *registrar {
	r := &registrar{p: p, keys: map[string][]byte{}}
	p.coordinator(name, &service{enrol: r.enrol})
	return r
}

func (p *party) token(addresses ...string) *seal.Token {
	p.t.Helper()
	token, err := seal.NewToken(seal.RoleNode, p.root.Fingerprint(), addresses, nil, time.Now().Add(time.Hour), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

func configIn(dir string) Config {
	cfg := DefaultConfig()
	cfg.Name, cfg.Dir = "node-01", dir
	return cfg
}

func loadTestIdentity(t testing.TB, dir string) *identity {
	t.Helper()
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := loadIdentity(dir, box.Sub("identity"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestEnrolMakesAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		p.registrar("c2")
		if err := Enrol(t.Context(), configIn(dir), p.deps(), p.token("c1", "c2")); err != nil { // c1 is away
			t.Fatal(err)
		}
		id := loadTestIdentity(t, dir)
		who, err := seal.VerifyChain(id.chain, p.root.Certificate(), time.Now())
		if err != nil || who.Name != "node-01" || who.Role != seal.RoleNode || !who.Key.Equal(public(id.key)) || !id.root.Equal(p.root.Certificate()) {
			t.Errorf("certified as %v, %v", who, err)
		}
		for _, name := range []string{"identity", "keys/unseal.key", "keys/data.key"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		for path, body := range files(t, dir) {
			if bytes.Contains(body, id.key.Seed()) {
				t.Errorf("%s holds the key in the clear", path)
			}
		}
		if err := Enrol(t.Context(), configIn(dir), p.deps(), p.token("nowhere")); err != nil {
			t.Errorf("an enrolled node enrolled again: %v", err)
		}
		if p.log.count(`msg="node is enrolled"`) != 1 || p.log.count("the token is not used") != 1 {
			t.Errorf("said:\n%s", p.log)
		}
		if again := loadTestIdentity(t, dir); !again.key.Equal(id.key) || again.addresses[0] != "c1" {
			t.Error("enrolling again changed the identity")
		}
	})
}

// A crash between the making of the key and the certificate costs nothing: the same key is proved again.
func TestEnrolGoesOnAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		r := p.registrar("c1")
		r.lose = 1
		token := p.token("c1")
		err := Enrol(t.Context(), configIn(dir), p.deps(), token)
		wantError(t, err, "enrol node-01", "c1", "the power failed")
		if strings.Contains(err.Error(), string(token.Secret)) || strings.Contains(p.log.String(), token.String()) {
			t.Error("the token's secret was told")
		}
		half := loadTestIdentity(t, dir)
		if len(half.chain) != 0 {
			t.Error("certified before the certificate came")
		}
		_, err = New(configIn(dir), p.deps())
		wantError(t, err, "not enrolled", "token")
		if err := Enrol(t.Context(), configIn(dir), p.deps(), token); err != nil {
			t.Fatal(err)
		}
		if whole := loadTestIdentity(t, dir); !whole.key.Equal(half.key) || !bytes.Equal(r.keys[token.ID], public(half.key)) {
			t.Error("another key was enrolled")
		}
	})
}

// What failed once may be tried with another token, of other addresses, and under another name.
func TestEnrolMayBeCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		wantError(t, Enrol(t.Context(), configIn(dir), p.deps(), p.token("old")), "old: ", "nobody listens")
		p.registrar("new")
		cfg := configIn(dir)
		cfg.Name = "node-99"
		if err := Enrol(t.Context(), cfg, p.deps(), p.token("new")); err != nil {
			t.Fatal(err)
		}
		if id := loadTestIdentity(t, dir); id.name != "node-99" || len(id.addresses) != 1 || id.addresses[0] != "new" {
			t.Errorf("enrolled as %s at %q", id.name, id.addresses)
		}
		says := []string{dir, "belongs to node node-99, not node-01", "another directory"}
		wantError(t, Enrol(t.Context(), configIn(dir), p.deps(), p.token("new")), says...)
		_, err := New(configIn(dir), p.deps())
		wantError(t, err, says...)
	})
}

func TestEnrolRefusesBadTokens(t *testing.T) {
	for text, says := range map[string]string{
		"":                     "does not start with",
		"choir-token-1.":       "cut or damaged",
		"choir-token-1.!!!":    "cut or damaged",
		"choir-token-1.AAAAAA": "cut or damaged",
		"choir-token-1." + strings.Repeat("A", 100): "checksum is wrong",
	} {
		_, err := seal.ParseToken(text)
		if !errors.Is(err, seal.ErrToken) {
			t.Errorf("%q: %v", text, err)
		}
		wantError(t, err, says)
	}
	synctest.Test(t, func(t *testing.T) {
		p, dir := newParty(t, "test"), t.TempDir()
		p.coordinator("c1", &service{enrol: func(context.Context, *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
			t.Error("a coordinator was asked")
			return nil, errors.New("no")
		}})
		expired := p.token("c1")
		expired.Expires = time.Now().Add(-time.Minute)
		err := Enrol(t.Context(), configIn(dir), p.deps(), expired)
		if wantError(t, err, "enrol node-01", "expired at", "ask the operator"); !errors.Is(err, seal.ErrExpired) {
			t.Errorf("%v is not ErrExpired", err)
		}
		wrong := p.token("c1")
		wrong.Role = seal.RoleOperator
		wantError(t, Enrol(t.Context(), configIn(dir), p.deps(), wrong), "is for the role operator, not node")
		for _, name := range []string{"", "a b", "../up", "-x", strings.Repeat("n", 64), "nöde"} {
			cfg := configIn(dir)
			cfg.Name = name
			wantError(t, Enrol(t.Context(), cfg, p.deps(), p.token("c1")), "node config: Name")
		}
		if _, err := os.Stat(filepath.Join(dir, "identity")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused token left an identity: %v", err)
		}
	})
}

// The token's root is the only one that is believed, and the certificate must be the one asked for.
func TestEnrolTrustsTheTokenOnly(t *testing.T) {
	certify := func(p *party, name string, key ed25519.PublicKey) [][]byte {
		chain, err := p.issuer("c1").CertifyNode(name, key, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	for name, c := range map[string]struct {
		serve func(p, foreign *party)
		say   string
	}{
		"server of another root": {func(p, foreign *party) {
			p.serve("c1", foreign.certify(seal.RoleCoordinator, "c1"), foreign.root, &service{})
		}, "root is not the one in the token"},
		"server that claims the root": {func(p, foreign *party) {
			p.serve("c1", foreign.certify(seal.RoleCoordinator, "c1"), p.root, &service{})
		}, "c1: "},
		"server that is a node": {func(p, _ *party) { p.serve("c1", p.certify(seal.RoleNode, "n"), p.root, &service{}) }, "the server is node n"},
		"reply with another root": {func(p, foreign *party) {
			p.coordinator("c1", &service{enrol: func(_ context.Context, r *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return &choirv1.EnrolReply{Chain: certify(foreign, r.Name, r.PublicKey), Root: foreign.root.Certificate().Raw}, nil
			}})
		}, "reply's root is not the token's"},
		"certificate of another root": {func(p, foreign *party) {
			p.coordinator("c1", &service{enrol: func(_ context.Context, r *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return &choirv1.EnrolReply{Chain: certify(foreign, r.Name, r.PublicKey), Root: p.root.Certificate().Raw}, nil
			}})
		}, "c1: "},
		"certificate for another name": {func(p, _ *party) {
			p.coordinator("c1", &service{enrol: func(_ context.Context, r *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return &choirv1.EnrolReply{Chain: certify(p, "node-02", r.PublicKey), Root: p.root.Certificate().Raw}, nil
			}})
		}, "certificate is for node node-02"},
		"certificate for another key": {func(p, _ *party) {
			p.coordinator("c1", &service{enrol: func(_ context.Context, r *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return &choirv1.EnrolReply{Chain: certify(p, r.Name, public(p.key())), Root: p.root.Certificate().Raw}, nil
			}})
		}, "certificate is for node node-01"},
		"no certificate": {func(p, _ *party) {
			p.coordinator("c1", &service{enrol: func(context.Context, *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return &choirv1.EnrolReply{Root: p.root.Certificate().Raw}, nil
			}})
		}, "c1: "},
		"refusal": {func(p, _ *party) {
			p.coordinator("c1", &service{enrol: func(context.Context, *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				return nil, status.Error(codes.PermissionDenied, "the token is not known")
			}})
		}, "the token is not known"},
		"silence": {func(p, _ *party) {
			p.coordinator("c1", &service{enrol: func(ctx context.Context, _ *choirv1.EnrolRequest) (*choirv1.EnrolReply, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}})
		}, "no answer within 15s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, dir := newParty(t, "test"), t.TempDir()
				c.serve(p, newParty(t, "test"))
				err := Enrol(t.Context(), configIn(dir), p.deps(), p.token("c1"))
				wantError(t, err, "enrol node-01", "c1", c.say)
				if id := loadTestIdentity(t, dir); len(id.chain) != 0 {
					t.Error("it is enrolled all the same")
				}
				p.registrar("c2") // the next address helps
				if err := Enrol(t.Context(), configIn(dir), p.deps(), p.token("c1", "c2")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Any flipped bit in the identity is found, and other keys beside it are named as the cause.
func TestDamagedIdentityIsRefused(t *testing.T) {
	p, dir := newParty(t, "test"), t.TempDir()
	n := p.node(dir, nil, "c1")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(b []byte) {
		t.Helper()
		write(t, path, b)
		_, err := New(configIn(dir), p.deps())
		wantError(t, err, "identity in "+dir, "does not verify", "damaged, or was sealed under other keys")
	}
	for at := 0; at < len(whole); at += 41 {
		b := bytes.Clone(whole)
		b[at] ^= 1 << (at % 8)
		refused(b)
	}
	refused(nil)
	refused(whole[:len(whole)-1])
	write(t, path, whole)
	if n, err = New(configIn(dir), p.deps()); err != nil {
		t.Fatal(err)
	}
	_ = n.Close()
}

func TestEnrolWhereNothingCanBeWritten(t *testing.T) {
	p, file := newParty(t, "test"), filepath.Join(t.TempDir(), "file")
	write(t, file, nil)
	wantError(t, Enrol(context.Background(), configIn(filepath.Join(file, "node")), p.deps(), p.token("c1")), file, "not a directory")
}

func TestConfigNamesTheField(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		say    string
	}{
		"no name":              {func(c *Config) { c.Name = "" }, "Name and Dir are required"},
		"no directory":         {func(c *Config) { c.Dir = "" }, "Name and Dir are required"},
		"poll too short":       {func(c *Config) { c.Poll = time.Millisecond }, "Poll is 1ms, want 100ms to 30s"},
		"poll too long":        {func(c *Config) { c.Poll = time.Minute }, "Poll is 1m0s"},
		"unknown variant":      {func(c *Config) { c.Variant = "int4" }, `Variant is "int4", want float32`},
		"no port":              {func(c *Config) { c.HTTP = "127.0.0.1" }, "HTTP: "},
		"every interface":      {func(c *Config) { c.HTTP = ":8080" }, "HTTP is :8080, want a loopback address"},
		"every interface by 0": {func(c *Config) { c.HTTP = "0.0.0.0:8080" }, "want a loopback address"},
		"every interface, v6":  {func(c *Config) { c.HTTP = "[::]:8080" }, "want a loopback address"},
		"an address outside":   {func(c *Config) { c.HTTP = "192.168.1.7:80" }, "want a loopback address"},
		"a name outside":       {func(c *Config) { c.HTTP = "localhost.example.com:80" }, "want a loopback address"},
	} {
		cfg := configIn("dir")
		c.change(&cfg)
		if wantError(t, cfg.Validate(), "node config: ", c.say); t.Failed() {
			t.Log(name)
		}
	}
	for _, address := range []string{"", "127.0.0.1:0", "localhost:8080", "[::1]:8080", "127.9.9.9:1"} {
		cfg := configIn("dir")
		if cfg.HTTP = address; cfg.Validate() != nil {
			t.Errorf("%s: %v", address, cfg.Validate())
		}
	}
}

// Asking for a node that is not enrolled leaves no keys behind: they would race with those of an enrolment.
func TestLookingMakesNothing(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Name, cfg.Dir = "n1", filepath.Join(t.TempDir(), "n1")
	if _, err := New(cfg, newParty(t, "test").deps()); err == nil || !strings.Contains(err.Error(), "not enrolled") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("New made %s: %v", cfg.Dir, err)
	}
}
