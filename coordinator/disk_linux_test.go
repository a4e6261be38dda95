package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"choir.example/coordinator/state"
	choirv1 "choir.example/proto/choir/v1"
)

// smallDisk mounts a file system of so many KiB, if this may be done here.
func smallDisk(t *testing.T, kib int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all space that is left; the function it returns gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// A full disk is said in the log; what was asked for meanwhile fails; when there is space again the coordinator goes on
// by itself, and its directory opens again afterwards.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	root, cfg, deps := founded(t)
	disk := smallDisk(t, 2048)
	cfg.Dir = filepath.Join(disk, "c1")
	if err := Found(cfg, deps, root); err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	deps.Log = slog.New(slog.NewTextHandler(log, nil))
	run := func() (c *Coordinator, stop func()) {
		c, err := New(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		return c, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	c, stop := run()
	within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	wait := func(what string, cond func(*state.State) bool) {
		t.Helper()
		if _, err := c.replica.Wait(within, cond); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	wait("founded", func(s *state.State) bool { return s.Cluster != "" && s.Coordinators[0].Epoch.Epoch > 0 })
	token := func(i int) *choirv1.Command {
		return &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{
			Id: fmt.Sprintf("t%d", i), SecretHash: bytes.Repeat([]byte{1}, 32), ExpiresMs: 1 << 50, Role: "node",
			Labels: map[string]string{"x": strings.Repeat("y", 200)},
		}}}
	}
	free := fill(t, disk)
	made := 0
	for err := error(nil); err == nil; made++ {
		if made > 20_000 {
			t.Fatal("the full disk took everything")
		}
		try, cancel := context.WithTimeout(within, time.Second)
		err = c.command(try, token(made), nil)
		cancel()
	}
	eventually(t, "the log says what is the matter", func() bool { return log.has("no space left on device") })
	free()
	if err := c.command(within, token(1_000_000), func(s *state.State) bool { _, ok := s.Tokens["t1000000"]; return ok }); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	stop()
	c, stop = run()
	defer stop()
	wait("opened again", func(s *state.State) bool { _, ok := s.Tokens["t1000000"]; return ok && len(s.Tokens) >= made })
}
