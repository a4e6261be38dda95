package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"choir.example/coordinator/state"
	"choir.example/privacy/seal"
)

// freePort is an address nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// diskConfig is a coordinator whose identity lies on disk.
func diskConfig(t testing.TB, dir, name string) (Config, Deps) {
	cfg := DefaultConfig()
	cfg.Name, cfg.Dir, cfg.Address, cfg.Heartbeat = name, filepath.Join(dir, name), freePort(t), steady
	return cfg, Deps{Log: quiet(), Now: time.Now, Rand: rand.Reader}
}

func founded(t testing.TB) (*seal.Root, Config, Deps) {
	t.Helper()
	root, err := seal.NewRoot("test", time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cfg, deps := diskConfig(t, t.TempDir(), "c1")
	cfg.Cluster = "test"
	if err := Found(cfg, deps, root); err != nil {
		t.Fatal(err)
	}
	return root, cfg, deps
}

// A directory that Found has furnished is a coordinator: run twice in a row it stays the same one.
func TestFoundedCoordinatorRuns(t *testing.T) {
	t.Parallel()
	_, cfg, deps := founded(t)
	for range 2 {
		c, err := New(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		within, stop := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := c.replica.Wait(within, func(s *state.State) bool { return s.Cluster == "test" })
		stop()
		cancel()
		if err != nil {
			t.Error("not founded:", err)
		} else if v, ok := s.Coordinator("c1"); !ok || v.Address != cfg.Address {
			t.Errorf("the voter is %+v", v)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectoryOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	root, cfg, deps := founded(t)
	for _, x := range []struct {
		what, want string
		change     func(*Config)
	}{
		{"another name", "belongs to coordinator c1", func(c *Config) { c.Name = "c2" }},
		{"another federation", "belongs to federation test", func(c *Config) { c.Cluster = "shop" }},
		{"another address", "remove it and join again", func(c *Config) { c.Address = "127.0.0.1:1" }},
		{"a directory that is not there", "--join TOKEN", func(c *Config) { c.Dir = filepath.Join(c.Dir, "mistyped") }},
	} {
		other := cfg
		x.change(&other)
		if _, err := New(other, deps); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "mistyped")); !errors.Is(err, os.ErrNotExist) {
		t.Error("what was only looked for was made:", err)
	}
	if err := Found(cfg, deps, root); err == nil || !strings.Contains(err.Error(), "coordinator's directory already") {
		t.Errorf("founded twice: %v", err)
	}
	late := deps
	late.Now = func() time.Time { return time.Now().Add(-24 * time.Hour) }
	if _, err := New(cfg, late); !errors.Is(err, seal.ErrExpired) || !strings.Contains(err.Error(), "clock says") {
		t.Errorf("a clock that is a day late: %v", err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	_, cfg, deps := founded(t)
	if _, err := New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), "another coordinator is using it") {
		t.Errorf("two at once: %v", err)
	}
}

// The private keys are sealed: the file names nothing in clear.
func TestIdentityIsSealed(t *testing.T) {
	t.Parallel()
	_, cfg, deps := founded(t)
	path := filepath.Join(cfg.Dir, "identity")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "IssuerKey") || strings.Contains(string(b), cfg.Address) {
		t.Fatal("in clear", err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Errorf("a flipped bit: %v", err)
	}
}

// Without its log a coordinator does not start: it would have forgotten its votes. An interrupted founding, which left an
// empty log and no identity, is done again; a log that was used is not taken over.
func TestLostRaftLogIsRefused(t *testing.T) {
	t.Parallel()
	root, cfg, deps := founded(t)
	log, id := filepath.Join(cfg.Dir, raftFile), filepath.Join(cfg.Dir, identityFile)
	if err := os.Rename(log, log+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, deps); err == nil || !strings.Contains(err.Error(), "is missing") || !strings.Contains(err.Error(), "join again") {
		t.Errorf("without its log: %v", err)
	}
	if err := errors.Join(os.Rename(log+".away", log), os.Remove(id)); err != nil {
		t.Fatal(err)
	}
	if err := Found(cfg, deps, root); err != nil {
		t.Error("founded again after an interruption:", err)
	}
	c, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	_, err = c.replica.Wait(within(t, 20*time.Second), func(s *state.State) bool { return s.Cluster == "test" })
	cancel()
	if err := errors.Join(err, <-done, os.Remove(id)); err != nil {
		t.Fatal(err)
	}
	if err := Found(cfg, deps, root); err == nil || !strings.Contains(err.Error(), "identity is gone") {
		t.Errorf("founded on a log that was used: %v", err)
	}
}

// A coordinator whose data key is gone makes no other beside what the lost one sealed, and says what is left to do.
func TestLostDataKeyIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	root, cfg, deps := founded(t)
	key := filepath.Join(cfg.Dir, "keys", "data.key")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"identity", "raft.db"} { // each alone is enough
		path := filepath.Join(cfg.Dir, file)
		_, err := New(cfg, deps)
		if file != "identity" {
			err = Found(cfg, deps, root)
		}
		if !errors.Is(err, seal.ErrKeyLost) {
			t.Fatalf("%s: %v", file, err)
		}
		for _, want := range []string{key + " is missing", path, "put back", "remove it from the cluster and join again"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", file, err, want)
			}
		}
		if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a key was made: %v", file, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := Found(cfg, deps, root); err != nil {
		t.Errorf("a directory in which nothing is sealed: %v", err)
	}
}
