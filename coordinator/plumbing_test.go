package coordinator

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"choir.example/privacy/seal"
)

// steady is a heartbeat that a busy machine keeps up with, so that leaders change only where a test changes them.
const steady = 400 * time.Millisecond

// site is a federation's certificates and the addresses of its coordinators, for tests of what lies below the services.
type site struct {
	root    *seal.Root
	voters  []Voter
	creds   map[string]*seal.Credential
	revoked map[string]bool
}

func newSite(t *testing.T, names ...string) *site {
	t.Helper()
	root, err := seal.NewRoot("shop", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{root: root, creds: map[string]*seal.Credential{}, revoked: map[string]bool{}}
	for _, name := range names {
		key, err := seal.NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := root.Certify(seal.RoleCoordinator, name, key.Public().(ed25519.PublicKey), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s.creds[name] = &seal.Credential{Chain: chain, Key: key}
		s.voters = append(s.voters, Voter{Name: name, Address: freeAddress(t), Chain: chain})
	}
	return s
}

// freeAddress is a loopback address on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *site) address(name string) string {
	for _, v := range s.voters {
		if v.Name == name {
			return v.Address
		}
	}
	return ""
}

// wire makes a coordinator's wire, listening but not started.
func (s *site) wire(t *testing.T, name string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", s.address(name))
	if err != nil {
		t.Fatal(err)
	}
	admit := func(id seal.Identity) error {
		if s.revoked[id.Name] {
			return seal.ErrRevoked
		}
		return nil
	}
	root := s.root.Certificate()
	w := &wire{
		listener: l, log: quiet(), refused: func() {}, address: addressOf(s.address(name)),
		dialTCP: func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		serverTLS: seal.ServerTLS(s.creds[name], seal.LineageFrom(root), time.Now, []string{protoGRPC, protoRaft, protoGossip}, admit),
		clientTLS: func(proto string, want func(seal.Identity) error) *tls.Config {
			return seal.ClientTLS(s.creds[name], root, time.Now, proto, want)
		},
		identify: func(cs tls.ConnectionState) (seal.Identity, error) {
			return seal.PeerIdentity(cs, seal.LineageFrom(root), time.Now())
		},
	}
	w.prepare()
	t.Cleanup(w.close)
	return w
}

// quiet logs to nowhere, as a daemon does, which adds its own name to each line.
func quiet() *slog.Logger { return slog.New(keysOnce{}).With("coordinator", "c1") }

// keysOnce is a handler that no line gives the same key twice: in JSON one of the two would be lost.
type keysOnce struct{ keys []string }

func (keysOnce) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h keysOnce) WithGroup(string) slog.Handler              { return h }
func (h keysOnce) WithAttrs(attrs []slog.Attr) slog.Handler {
	keys := slices.Clone(h.keys)
	for _, a := range attrs {
		keys = append(keys, a.Key)
	}
	return keysOnce{keys}
}

func (h keysOnce) Handle(_ context.Context, r slog.Record) error {
	keys := slices.Clone(h.keys)
	r.Attrs(func(a slog.Attr) bool {
		if slices.Contains(keys, a.Key) {
			panic(fmt.Sprintf("%q is logged with two attributes %s", r.Message, a.Key))
		}
		keys = append(keys, a.Key)
		return true
	})
	return nil
}

// within is a context that ends soon enough for a test to say where it hung.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually looks again and again until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// contents is the digest of every file under a directory, by path.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var out string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out += fmt.Sprintf("%s %x\n", path, sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newTestBox(t *testing.T) *seal.Box {
	t.Helper()
	box, err := seal.OpenKeys(t.TempDir(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return box
}
