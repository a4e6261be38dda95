package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"choir.example/internal/blob"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// holder is one voter's blob store behind its service.
type holder struct {
	choirv1.UnimplementedPeersServer
	*blobStore
	client  choirv1.PeersClient
	down    atomic.Bool   // refuses everything
	frozen  chan struct{} // if not nil, answers only when it is closed
	lie     []byte        // if not nil, what it sends instead of any blob
	fetches atomic.Int64
	stored  chan struct{} // one for each blob that arrived
}

func (h *holder) hold(ctx context.Context) error {
	if h.down.Load() {
		return status.Error(codes.Unavailable, "out for lunch")
	}
	if h.frozen != nil {
		select {
		case <-h.frozen:
		case <-ctx.Done():
		}
	}
	return nil
}

func (h *holder) PutBlob(stream choirv1.Peers_PutBlobServer) error {
	if err := h.hold(stream.Context()); err != nil {
		return err
	}
	err := h.servePut(stream)
	if err == nil {
		h.stored <- struct{}{}
	}
	return err
}

func (h *holder) FetchBlob(req *choirv1.BlobRequest, stream choirv1.Peers_FetchBlobServer) error {
	h.fetches.Add(1)
	if err := h.hold(stream.Context()); err != nil {
		return err
	}
	if h.lie != nil {
		return sendChunks(req.Id, h.lie, stream.Send)
	}
	return h.serveFetch(req, stream)
}

// holders makes voters whose blob stores reach each other by gRPC over memory.
func holders(t *testing.T, names ...string) []*holder {
	t.Helper()
	var all []*holder
	for _, name := range names {
		tasks := &group{}
		ctx, cancel := context.WithCancel(t.Context())
		tasks.begin(ctx)
		t.Cleanup(func() { cancel(); tasks.wait() })
		h := &holder{stored: make(chan struct{}, 100)}
		h.blobStore = &blobStore{
			gate: &gate{}, dir: filepath.Join(t.TempDir(), "blobs"), self: name, box: newTestBox(t), log: quiet(), spawn: tasks.spawn,
		}
		h.peers = func() (out []blobPeer) {
			for _, p := range all {
				if p != h {
					out = append(out, blobPeer{p.self, func() (choirv1.PeersClient, error) { return p.client, nil }})
				}
			}
			return out
		}
		h.client = serveHolder(t, h)
		all = append(all, h)
	}
	return all
}

func serveHolder(t *testing.T, h *holder) choirv1.PeersClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true)) // they write to a directory that goes next
	choirv1.RegisterPeersServer(server, h)
	go func() { _ = server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop() })
	return choirv1.NewPeersClient(conn)
}

// body is a blob of n bytes, different for each seed.
func body(seed uint64, n int) []byte {
	b := make([]byte, n)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func TestBlobsKeepEverySize(t *testing.T) {
	t.Parallel()
	h := holders(t, "ada")[0]
	for i, n := range []int{0, 1, blob.LeafBytes - 1, blob.LeafBytes, blob.LeafBytes + 1, 3 * blob.LeafBytes} {
		want := body(uint64(i), n)
		id, err := h.Put(want)
		if err != nil {
			t.Fatal(err)
		}
		if id != blob.ID(want) || !h.Has(id) {
			t.Errorf("%d bytes: id %x, want %x", n, id, blob.ID(want))
		}
		for range 3 { // from disk, from disk, from memory
			if got, err := h.Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back as %d bytes, %v", n, len(got), err)
			}
		}
		info, err := os.Stat(h.path(id))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file mode %v, %v; want 0600", info.Mode(), err)
		}
		if sealed, err := os.ReadFile(h.path(id)); err != nil || n > 100 && bytes.Contains(sealed, want[:50]) {
			t.Errorf("%d bytes lie there in the clear, or %v", n, err)
		}
	}
}

func TestPutQuorumReachesAMajority(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob", "cyd")
	hs[1].down.Store(true)
	want := body(1, 2*blob.LeafBytes+7)
	id, by, err := hs[0].PutQuorum(t.Context(), want)
	if err != nil || !slices.Equal(by, []string{"ada", "cyd"}) {
		t.Fatalf("held by %v, %v; want ada and cyd", by, err)
	}
	if !hs[0].Has(id) || !hs[2].Has(id) {
		t.Error("a holder does not hold it")
	}
	hs[2].down.Store(true)
	_, _, err = hs[0].PutQuorum(t.Context(), body(2, 100))
	for _, want := range []string{"on 1 voters, a majority is 2", "bob:", "cyd:", "out for lunch"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without a majority: %v, which does not say %q", err, want)
		}
	}
}

// The voter that stores a blob is always among its holders, also when its peers are faster: a batch whose folder does
// not hold it is refused.
func TestPutQuorumHasItsCallerAmongTheHolders(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob", "cyd")
	slow := &hs[0].gate.writes
	slow.Lock()
	held := make(chan []string, 1)
	go func() {
		_, by, err := hs[0].PutQuorum(t.Context(), body(1, 100))
		if err != nil {
			t.Error(err)
		}
		held <- by
	}()
	<-hs[1].stored
	<-hs[2].stored
	slow.Unlock()
	if by := <-held; !slices.Contains(by, "ada") || len(by) < 2 {
		t.Errorf("held by %v, want ada and another", by)
	}
}

func TestPutQuorumReachesTheRestLater(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob", "cyd")
	hs[2].frozen = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	want := body(1, 1000)
	id, by, err := hs[0].PutQuorum(ctx, want)
	if err != nil || !slices.Equal(by, []string{"ada", "bob"}) {
		t.Fatalf("held by %v, %v; want ada and bob", by, err)
	}
	cancel() // the caller is gone
	close(hs[2].frozen)
	<-hs[2].stored
	if got, err := hs[2].local(id); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the third voter holds %d bytes, %v", len(got), err)
	}
}

func TestPutQuorumDoesNotPileUpBeforeAFrozenPeer(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob", "cyd")
	hs[2].frozen = make(chan struct{})
	for i := range 3 * blobLane {
		if _, _, err := hs[0].PutQuorum(t.Context(), body(uint64(i), 100)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(hs[0].lane("cyd")); n > blobLane {
		t.Errorf("%d blobs wait for a frozen peer, at most %d may", n, blobLane)
	}
	close(hs[2].frozen)
	for range blobLane {
		<-hs[2].stored
	}
}

func TestPutQuorumEndsWithItsContext(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob")
	hs[1].frozen = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, _, err := hs[0].PutQuorum(ctx, body(1, 10))
		ended <- err
	}()
	eventually(t, "stored here", func() bool { return hs[0].Has(blob.ID(body(1, 10))) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	close(hs[1].frozen)
}

func TestLoneVoterIsItsOwnMajority(t *testing.T) {
	h := holders(t, "ada")[0]
	if _, by, err := h.PutQuorum(t.Context(), body(1, 10)); err != nil || !slices.Equal(by, []string{"ada"}) {
		t.Fatalf("held by %v, %v", by, err)
	}
}

func TestDamagedBlobIsFetchedAgain(t *testing.T) {
	t.Parallel()
	want := body(1, 2*blob.LeafBytes+100)
	part := blob.LeafBytes + 40 // a sealed leaf
	for name, damage := range map[string]func([]byte) []byte{
		"flipped bit in the first leaf": func(b []byte) []byte { b[99] ^= 1; return b },
		"flipped bit in the last leaf":  func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"torn":                          func(b []byte) []byte { return b[:len(b)/2] },
		"torn between leaves":           func(b []byte) []byte { return b[:2*part] },
		"empty":                         func([]byte) []byte { return nil },
		"leaves swapped":                func(b []byte) []byte { return slices.Concat(b[part:2*part], b[:part], b[2*part:]) },
		"leaf twice":                    func(b []byte) []byte { return append(b, b[2*part:]...) },
		"gone":                          nil,
	} {
		t.Run(name, func(t *testing.T) {
			hs := holders(t, "ada", "bob")
			id, _, err := hs[0].PutQuorum(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			path := hs[0].path(id)
			if damage == nil {
				err = os.Remove(path)
			} else {
				var sealed []byte
				sealed, err = os.ReadFile(path)
				err = errors.Join(err, os.WriteFile(path, damage(sealed), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := hs[0].Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
			if got, err := hs[0].local(id); err != nil || !bytes.Equal(got, want) {
				t.Errorf("not repaired on disk: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestDamagedBlobDoesNotCountTowardsAQuorum(t *testing.T) {
	hs := holders(t, "ada", "bob")
	want := body(1, 1000)
	id, _, err := hs[0].PutQuorum(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		if err := os.WriteFile(h.path(id), []byte("rotten"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := hs[0].PutQuorum(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		if got, err := h.local(id); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was counted and holds %d bytes, %v", h.self, len(got), err)
		}
	}
}

func TestBlobThatNobodyHas(t *testing.T) {
	hs := holders(t, "ada", "bob", "cyd")
	hs[1].down.Store(true)
	_, err := hs[0].Get(t.Context(), blob.ID([]byte("lost")))
	for _, want := range []string{"bob:", "cyd:", "not here"} {
		if !errors.Is(err, errNoBlob) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestLyingPeerIsPassedOver(t *testing.T) {
	hs := holders(t, "ada", "bob", "cyd")
	hs[1].lie = []byte("trust me")
	want := body(1, 500)
	id, err := hs[2].Put(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := hs[0].Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestACohortFetchesABlobOnce(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob")
	want := body(1, 3*blob.LeafBytes)
	id, err := hs[1].Put(want)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := hs[0].Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := hs[1].fetches.Load(); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}

func TestConcurrentPutsOfOneBlob(t *testing.T) {
	t.Parallel()
	hs := holders(t, "ada", "bob", "cyd")
	want := body(1, blob.LeafBytes+1)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if id, _, err := hs[i%3].PutQuorum(t.Context(), want); err != nil || id != blob.ID(want) {
				t.Errorf("put as %x, %v", id, err)
			}
		})
	}
	wg.Wait()
	for _, h := range hs {
		eventually(t, "held by "+h.self, func() bool {
			got, err := h.local(blob.ID(want))
			return err == nil && bytes.Equal(got, want)
		})
	}
}

func TestKilledBlobStoreWritesNothing(t *testing.T) {
	h := holders(t, "ada", "bob")[0]
	id, err := h.Put(body(1, 1000))
	if err != nil {
		t.Fatal(err)
	}
	h.kill()
	if err := os.WriteFile(h.path(id), []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, h.dir)
	if _, err := h.Put(body(2, 1000)); !errors.Is(err, errKilled) {
		t.Errorf("put after the kill: %v", err)
	}
	if _, _, err := h.PutQuorum(t.Context(), body(1, 1000)); !errors.Is(err, errKilled) {
		t.Errorf("put on a quorum after the kill: %v", err)
	}
	if _, err := h.local(id); err == nil {
		t.Error("a damaged blob was read")
	}
	if got, err := h.Get(t.Context(), id); err == nil && !bytes.Equal(got, body(1, 1000)) { // bob may have got it before the put failed
		t.Error("a damaged blob was fetched")
	}
	if contents(t, h.dir) != before {
		t.Error("the directory changed after the kill")
	}
}

func TestHalfWrittenBlobsAreSwept(t *testing.T) {
	h := holders(t, "ada")[0]
	left := filepath.Join(h.dir, ".new-123")
	if err := errors.Join(os.MkdirAll(h.dir, 0o700), os.WriteFile(left, []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Put(body(1, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a blob is still there: %v", err)
	}
}

// stalledPeer begins to answer and never goes on.
type stalledPeer struct{ choirv1.PeersClient }

type stalledStream struct {
	grpc.ServerStreamingClient[choirv1.BlobChunk]
	ctx   context.Context
	begun bool
}

func (stalledPeer) FetchBlob(ctx context.Context, _ *choirv1.BlobRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[choirv1.BlobChunk], error) {
	return &stalledStream{ctx: ctx}, nil
}

func (s *stalledStream) Recv() (*choirv1.BlobChunk, error) {
	if !s.begun {
		s.begun = true
		return &choirv1.BlobChunk{Total: 10, Data: []byte("x")}, nil
	}
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func TestStalledPeerIsGivenUp(t *testing.T) {
	dir, box := t.TempDir(), newTestBox(t)
	synctest.Test(t, func(t *testing.T) {
		s := &blobStore{gate: &gate{}, dir: dir, box: box, log: quiet(), peers: func() []blobPeer {
			return []blobPeer{{"bob", func() (choirv1.PeersClient, error) { return stalledPeer{}, nil }}}
		}}
		began := time.Now()
		_, err := s.Get(t.Context(), blob.ID([]byte("slow")))
		if took := time.Since(began); !errors.Is(err, errNoBlob) || took != stallTimeout {
			t.Errorf("gave up after %v with %v, want after %v", took, err, stallTimeout)
		}
	})
}

func TestMemoryKeepsWhatIsAskedForAgain(t *testing.T) {
	var m blobMemory
	id := func(i int) [32]byte { return blob.ID(fmt.Append(nil, i)) }
	for i := range 10 {
		m.add(id(i), make([]byte, 100))
		if _, ok := m.get(id(i)); ok {
			t.Fatalf("blob %d is kept after one reader", i)
		}
	}
	for i := range 10 {
		m.add(id(i), make([]byte, 100))
		m.get(id(0)) // stays the most used
	}
	if _, ok := m.get(id(0)); !ok || len(m.kept) != memoryBlobs {
		t.Errorf("%d blobs kept, the first among them: %v", len(m.kept), ok)
	}
	for range 2 {
		m.add(id(77), make([]byte, memoryBytes+1))
		m.add(id(78), make([]byte, memoryBytes))
	}
	if len(m.kept) != 1 || m.kept[0].id != id(78) {
		t.Errorf("%d blobs kept beside the largest", len(m.kept))
	}
}

func FuzzReceiveChunks(f *testing.F) {
	f.Add(uint64(3), []byte("abc"), uint8(2))
	f.Add(uint64(0), []byte{}, uint8(1))
	f.Add(uint64(maxBlob+1), []byte("abc"), uint8(1))
	f.Add(uint64(5), []byte("abc"), uint8(0))
	f.Add(uint64(2), []byte("abc"), uint8(9))
	f.Fuzz(func(t *testing.T, total uint64, data []byte, size uint8) {
		rest := data
		first := true
		got, _, err := receiveChunks(func() (*choirv1.BlobChunk, error) {
			if len(rest) == 0 && !first {
				return nil, io.EOF
			}
			m := &choirv1.BlobChunk{Data: rest[:min(int(size), len(rest))]}
			if rest = rest[len(m.Data):]; first {
				m.Total, first = total, false
			}
			return m, nil
		})
		if err == nil && (uint64(len(got)) != total || !bytes.HasPrefix(data, got)) {
			t.Fatalf("%d bytes announced, %d taken", total, len(got))
		}
	})
}
