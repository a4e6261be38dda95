package coordinator

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"choir.example/coordinator/state"
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

// A coordinator that is told to stop while an update is on its way to it, or waits there for its batch, sends the node
// elsewhere. The same bytes go to another coordinator, and count once.
func TestStopWithUploadsUnderWay(t *testing.T) {
	t.Parallel()
	spooled := make(chan string, 8)
	f := startFederation(t, 3, func(c *Config) { c.BatchDelay = 10 * time.Second }, Observer{
		Spooled: func(coordinator string, _ RoundEvent, _ string) { spooled <- coordinator },
	})
	nodes := f.enrol("a", "b")
	f.submit(testJob(t, 1, 16_000)) // an update that does not come in one piece
	f.statistics(nodes)
	tasks := f.tasks(nodes)
	for len(spooled) > 0 {
		<-spooled
	}
	leader := f.leader()
	victim := f.other(leader)
	envelopes, digests := make([][]byte, 2), make([][32]byte, 2)
	for i, n := range nodes {
		envelopes[i], digests[i] = n.sealed(tasks[i], n.payload(tasks[i], int32(i+1)))
	}
	// The first sends a part of it, so that the second, which has sent all, waits for it.
	stream, err := nodes[0].at(victim).Upload(f.ctx())
	if err != nil {
		t.Fatal(err)
	}
	h := &choirv1.UploadHeader{Key: tasks[0].Key, Update: digests[0][:], Size: uint64(len(envelopes[0]))}
	for _, m := range []*choirv1.UploadRequest{
		{Body: &choirv1.UploadRequest_Header{Header: h}}, {Body: &choirv1.UploadRequest_Chunk{Chunk: envelopes[0][:1000]}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := nodes[1].upload(f.ctx(), victim, tasks[1].Key, envelopes[1], digests[1])
		waits <- err
	}()
	if at := <-spooled; at != victim {
		t.Fatalf("spooled at %s", at)
	}

	f.mu.Lock()
	m := f.running[victim]
	delete(f.running, victim)
	f.mu.Unlock()
	m.cancel()
	if err := <-m.done; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the upload under way ended with %v", err)
	}
	if err := <-waits; status.Code(err) != codes.Unavailable {
		t.Errorf("the upload that waited for its batch ended with %v", err)
	}
	for i, n := range nodes {
		out, err := n.upload(f.ctx(), leader, tasks[i].Key, envelopes[i], digests[i])
		if err != nil {
			t.Fatal(err)
		}
		n.receipt(out)
	}
	if r := f.round(leader, 1, state.PhaseClosed); r.Count != 2 || len(r.Incidents) > 0 {
		t.Errorf("%d updates counted, incidents %v", r.Count, r.Incidents)
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
