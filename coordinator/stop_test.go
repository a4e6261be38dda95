package coordinator

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A leader that is told to stop sends its callers elsewhere, hands leadership on, and ends without an error.
func TestLeaderStopsInGoodOrder(t *testing.T) {
	t.Parallel()
	f := startFederation(t, 3, nil, Observer{})
	node := f.enrol("a")[0]
	leader := f.leader()
	m := f.member(leader)
	polled := make(chan error, 1)
	client := node.at(leader)
	go func() {
		_, err := client.Poll(f.ctx(), &choirv1.PollRequest{Done: node.done, WaitMs: 30_000, Roster: 1})
		polled <- err
	}()
	f.eventually("the node polls", func() bool { return m.presence.recent(time.Now())["a"] })
	f.mu.Lock()
	delete(f.running, leader)
	f.mu.Unlock()
	begun := time.Now()
	m.cancel()
	if err := <-polled; status.Code(err) != codes.Unavailable {
		t.Errorf("the poll ended with %v", err)
	}
	if err := <-m.done; err != nil {
		t.Errorf("stopped with %v", err)
	}
	f.eventually("another leads", func() bool {
		for _, v := range f.voters {
			if other := f.member(v.Name); other != nil {
				if l, _ := other.replica.Leader(); l != "" && l != leader {
					return true
				}
			}
		}
		return false
	})
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("handed on after %v", took)
	}
}

// A crash between overwriting a key and removing its file leaves zeros: the key is gone, and the coordinator starts.
func TestKeyThatWasBeingDestroyed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box, err := seal.OpenKeys(dir, bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := openKeyring(dir, box, &gate{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	old := ring.newest().Epoch
	if err := ring.rotate(); err != nil {
		t.Fatal(err)
	}
	path := ring.path(old)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, info.Size()), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openKeyring(dir, box, &gate{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if keys := again.all(); len(keys) != 1 || keys[0].Epoch != ring.newest().Epoch {
		t.Errorf("%d keys", len(keys))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "epoch-*")); len(left) != 1 {
		t.Errorf("files %v", left)
	}
	if err := os.WriteFile(again.path(again.newest().Epoch), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyring(dir, box, &gate{}, time.Now); err == nil {
		t.Error("a damaged key is passed over")
	}
}
