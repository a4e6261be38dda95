//go:build linux

package live_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fails wants a process to end by itself, with exit code 1 and a text.
func (s *site) fails(p *process, texts ...string) {
	s.t.Helper()
	if code := p.wait(s.t, 15*time.Second); code != 1 {
		s.t.Errorf("%s: exit %d, want 1", p.name, code)
	}
	for _, text := range texts {
		if !strings.Contains(p.log.String(), text) {
			s.t.Errorf("%s does not say %q:\n%s", p.name, text, last(p.log.String(), 5))
		}
	}
}

// flip changes one byte in the middle of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// cut drops the second half of a file, as a power cut may.
func cut(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// What a coordinator refuses to start with: a log or vote it cannot trust, keys that are not whole.
func TestTornCoordinator(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file string
		damage     func(testing.TB, string)
		says       []string
	}{
		{"raft log cut", "raft.db", func(t testing.TB, path string) {
			if err := os.Truncate(path, 24<<10); err != nil {
				t.Fatal(err)
			}
		}, []string{"raft.db", "remove it from the cluster and join again"}},
		{"raft log empty", "raft.db", func(t testing.TB, path string) { write(t, path, "") }, []string{"the file is empty", "join again"}},
		{"raft log gone", "raft.db", func(t testing.TB, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{"raft.db is missing", "remove it from the cluster and join again"}},
		{"epoch key flipped", "keys/epoch-*.key", flip, []string{"epoch key", "does not verify"}},
		{"data key flipped", "keys/data.key", flip, []string{"data.key", "does not verify"}},
		{"identity flipped", "identity", flip, []string{"identity", "damaged", "join again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stopped(t)
			paths, err := filepath.Glob(s.path("c2", c.file))
			if err != nil || len(paths) == 0 {
				t.Fatalf("there is no %s: %v", c.file, err)
			}
			c.damage(t, paths[0])
			p := s.again("c2")
			s.fails(p, append(c.says, "choir: error:")...)
			t.Log(last(p.log.String(), 2))
		})
	}
}

// Every blob of one coordinator is damaged: it says so, and has them again from the others.
func TestTornBlobs(t *testing.T) {
	t.Parallel()
	s := federation(t)
	s.submit("first", small(2))
	s.ended("first", 60*time.Second)
	s.procs["c1"].kill()
	n := 0
	err := filepath.WalkDir(s.path("c1", "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			flip(t, path)
			n++
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("%d blobs damaged: %v", n, err)
	}
	s.again("c1")
	s.ready("c1")
	// Only c1 is asked, and it holds nothing whole.
	context := s.path("only-c1")
	if out, err := exec.Command("cp", "-a", s.path(".config", "choir"), context).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	file := filepath.Join(context, "context.yaml")
	text, _, _ := strings.Cut(read(t, file), "addresses:")
	_, address, _ := strings.Cut(addressLine.FindString(read(t, s.path("c1.yaml"))), ":")
	write(t, file, text+"addresses: ["+strings.TrimSpace(address)+"]\n")
	s.choir("model", "pull", "--context", context, "purchase", "--variant", "int8", "--to", "model.safetensors")
	s.submit("second", small(1))
	s.ended("second", 60*time.Second)
	s.exact("second")
}

// A node whose store is torn says so and does not start; its updates are not made of half a store.
func TestTornStore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(testing.TB, string)
	}{{"cut", cut}, {"flipped", flip}} {
		t.Run(c.name, func(t *testing.T) {
			s := stopped(t)
			c.damage(t, s.path("n1", "store.db"))
			p := s.again("n1")
			s.fails(p, "store.db", "choir: error:")
			t.Log(last(p.log.String(), 2))
		})
	}
}
