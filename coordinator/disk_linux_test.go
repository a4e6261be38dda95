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
	"testing/synctest"
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

// A disk that did not take a blob is said until it takes as much again, whatever smaller ones fit meanwhile and whether
// or not anybody comes with another.
func TestRoomForBlobs(t *testing.T) {
	disk := smallDisk(t, 512)
	synctest.Test(t, func(t *testing.T) { // its clock stands in for the waits between tries
		s := &blobStore{gate: &gate{}, dir: filepath.Join(disk, "blobs"), box: newTestBox(t), log: quiet()}
		put := func(n int) error { _, err := s.Put(body(1, n)); return err }
		full := func(when string) {
			t.Helper()
			for range 3 {
				if err := s.writable(); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v", when, err)
				}
				time.Sleep(roomEvery / 2)
			}
		}
		if err := put(1000); err != nil || s.writable() != nil {
			t.Fatalf("there is room: %v, %v", err, s.writable())
		}
		if err := put(1 << 20); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a blob larger than the disk: %v", err)
		}
		full("the disk is too small")
		if err := put(2000); err != nil {
			t.Fatal(err)
		}
		full("a small one fits")
		if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(roomEvery)
		if err := s.writable(); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.dir, ".new-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// onSmallDisk gives a replica a directory on a small disk.
func (x *seat) onSmallDisk(t *testing.T, kib int) *seat {
	t.Helper()
	x.disk = smallDisk(t, kib)
	x.dir = filepath.Join(x.disk, x.name)
	if err := os.Mkdir(x.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return x
}

// tokens proposes tokens with long labels: a state of many kilobytes.
func tokens(t *testing.T, x *seat, lo, hi int) (index uint64) {
	t.Helper()
	for i := lo; i < hi; i++ {
		index = propose(t, x, encode(t, &choirv1.Command{Body: &choirv1.Command_CreateToken{CreateToken: &choirv1.CreateToken{
			Id: fmt.Sprintf("t%d", i), SecretHash: bytes.Repeat([]byte{1}, 32), ExpiresMs: 1 << 50, Role: "node",
			Labels: map[string]string{"x": strings.Repeat("y", 255), "z": strings.Repeat("y", 255)},
		}}}))
	}
	return index
}

// snapshots lists what lies in a replica's directory of snapshots.
func (x *seat) snapshots(t *testing.T) (whole, begun []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(x.dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			begun = append(begun, e.Name())
		} else {
			whole = append(whole, e.Name())
		}
	}
	return whole, begun
}

// A snapshot for which the disk has no room is said in the log and leaves nothing behind; the one before and the log stay,
// the replica goes on, and with room the next one succeeds.
func TestSnapshotOnAFullDisk(t *testing.T) {
	for _, room := range []struct {
		name string
		kib  int64
	}{{"for nothing", 0}, {"for a part of it", 64}} {
		t.Run(room.name, func(t *testing.T) {
			s := newSite(t, "ada")
			x := s.seat(t, "ada").onSmallDisk(t, 4096)
			log := &lines{}
			x.log = slog.New(slog.NewTextHandler(log, nil))
			s.open(t, x, steady)
			leader(t, []*seat{x})
			propose(t, x, s.genesis(t))
			tokens(t, x, 0, 200)
			if err := x.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			before, _ := x.snapshots(t)
			index := tokens(t, x, 200, 300)
			free := fill(t, x.disk)
			if err := os.Truncate(filepath.Join(x.disk, "filler"), size(t, filepath.Join(x.disk, "filler"))-room.kib<<10); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := x.raft.Snapshot().Error(); err == nil {
					t.Fatal("a snapshot on a full disk")
				}
				if whole, begun := x.snapshots(t); len(whole) != len(before) || whole[0] != before[0] || len(begun) > 0 {
					t.Fatalf("snapshots %v, begun %v, before there were %v", whole, begun, before)
				}
			}
			if !log.has("the disk takes no snapshot") {
				t.Error("the log does not say so")
			}
			x.stop(false) // what is there opens, on the disk as it is
			s.open(t, x, steady)
			if at := x.State().Index; at == 0 {
				t.Error("the snapshot before is not used")
			}
			free() // it may vote for itself again
			leader(t, []*seat{x})
			agreeAt(t, index, x)
			if err := x.raft.Snapshot().Error(); err != nil {
				t.Fatalf("with room again: %v", err)
			}
			if whole, begun := x.snapshots(t); len(whole) != 2 || len(begun) > 0 {
				t.Errorf("snapshots %v, begun %v", whole, begun)
			}
			agreeAt(t, tokens(t, x, 300, 301), x)
		})
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A replica that needs a snapshot of another and has no room for it says so, is asked again, and takes it when there is.
func TestSnapshotFromAfarOnAFullDisk(t *testing.T) {
	s := newSite(t, "ada", "bob", "cyd")
	log := &lines{}
	var all []*seat
	for _, v := range s.voters {
		x := s.seat(t, v.Name).onSmallDisk(t, 8192)
		x.log = slog.New(slog.NewTextHandler(log, nil))
		s.open(t, x, steady)
		all = append(all, x)
	}
	first, others := leader(t, all)
	away := others[0]
	agreeAt(t, propose(t, first, s.genesis(t)), all...)
	away.stop(false)
	first, _ = leader(t, []*seat{first, others[1]})
	tokens(t, first, 0, 300)
	forget(t, first)
	index := tokens(t, first, 300, 302)
	free := fill(t, away.disk)
	if err := os.Truncate(filepath.Join(away.disk, "filler"), size(t, filepath.Join(away.disk, "filler"))-128<<10); err != nil {
		t.Fatal(err)
	}
	s.open(t, away, steady)
	eventually(t, "it says why it takes no snapshot", func() bool { return log.has("the disk takes no snapshot") })
	if whole, _ := away.snapshots(t); len(whole) > 0 || away.State().Index >= index {
		t.Errorf("at entry %d with snapshots %v", away.State().Index, whole)
	}
	free()
	agreeAt(t, index, first, others[1], away)
	away.stop(false)
	if whole, begun := away.snapshots(t); len(whole) == 0 || len(begun) > 0 {
		t.Errorf("snapshots %v, begun %v", whole, begun)
	}
	s.open(t, away, steady)
	agreeAt(t, index, first, away)
}
