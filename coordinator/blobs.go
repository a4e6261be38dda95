package coordinator

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"choir.example/internal/blob"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxBlob      = 1 << 30
	blobTimeout  = 30 * time.Second // for one blob to a peer, and a second more for each MiB
	stallTimeout = 3 * time.Second  // a peer that sends nothing for so long is given up
	blobLane     = 4                // blobs under way to one peer; a peer that is behind fetches the rest when it needs them
)

// errNoBlob is returned when nobody who answers has a blob.
var errNoBlob = errors.New("blob is not to be had")

// blobStore keeps content-addressed bulk data: models, statistics, batches. A blob is on a quorum of voters, synced,
// before an entry of the log names it. At rest each leaf is sealed under the coordinator's data key, bound to the
// blob's id and its place in it.
type blobStore struct {
	*gate
	dir   string
	self  string // this voter's name
	box   *seal.Box
	log   *slog.Logger
	peers func() []blobPeer               // the other voters
	spawn func(func(ctx context.Context)) // background work that outlives a call
	swept sync.Once
	room  room

	mu      sync.Mutex                 // guards the fields below
	lanes   map[string]chan struct{}   // by peer
	reading map[[32]byte]chan struct{} // closed when the reader is done
	memory  blobMemory
}

// blobPeer is another voter as the blob store sees it.
type blobPeer struct {
	name   string
	client func() (choirv1.PeersClient, error)
}

func (s *blobStore) path(id [32]byte) string {
	name := hex.EncodeToString(id[:])
	return filepath.Join(s.dir, name[:2], name[2:])
}

func leafPlace(id [32]byte, i int) []byte { return fmt.Appendf(nil, "%x|%d", id, i) }

// Has reports whether the blob lies here. It does not verify it.
func (s *blobStore) Has(id [32]byte) bool {
	_, err := os.Stat(s.path(id))
	return err == nil
}

// Put stores a blob here, durably, and returns its id. Who holds a blob is counted towards a quorum, so one that lies
// here already is verified.
func (s *blobStore) Put(body []byte) ([32]byte, error) {
	id := blob.ID(body)
	return id, s.put(id, body)
}

// put is Put of a blob whose id was computed from the body.
func (s *blobStore) put(id [32]byte, body []byte) error {
	if len(body) > maxBlob {
		return fmt.Errorf("store blob of %d bytes: at most %d are allowed", len(body), maxBlob)
	}
	if _, err := s.local(id); err == nil {
		return s.check()
	}
	err := s.write(func() error { return s.store(id, body) })
	s.room.note(err, len(body))
	if err != nil {
		return fmt.Errorf("store blob %x: %w", id, err)
	}
	return nil
}

// store writes a blob so that it is there whole or not at all, also after a power cut: sealed leaf by leaf under a
// temporary name, sync, rename, sync of the directory.
func (s *blobStore) store(id [32]byte, body []byte) error {
	path := s.path(id)
	if err := makeDirs(s.dir, filepath.Dir(path)); err != nil {
		return err
	}
	draft, err := s.draft(id, slices.Chunk(body, blob.LeafBytes))
	defer os.Remove(draft) // nothing to remove once it is renamed
	if err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// draft writes a blob under a temporary name, which it returns, also of what it could not end.
func (s *blobStore) draft(id [32]byte, leaves iter.Seq[[]byte]) (name string, err error) {
	s.swept.Do(s.sweep)
	f, err := os.CreateTemp(s.dir, ".new-*") // mode 0600
	if err != nil {
		return "", err
	}
	i, buf := 0, []byte(nil)
	for leaf := range leaves {
		buf = s.box.AppendSeal(slices.Grow(buf[:0], len(leaf)+seal.Overhead), leafPlace(id, i), leaf)
		if _, err = f.Write(buf); err != nil {
			break
		}
		i++
	}
	if err == nil {
		err = f.Sync()
	}
	return f.Name(), errors.Join(err, f.Close())
}

// sweep removes what a crash left half written.
func (s *blobStore) sweep() {
	left, _ := filepath.Glob(filepath.Join(s.dir, ".new-*")) // the pattern is well formed
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			s.log.Warn("half-written blob not removed", "error", err)
		}
	}
}

// makeDirs makes directories, each in the one before it, and syncs where one was made.
func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			err = syncDir(filepath.Dir(dir))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// local reads and verifies a blob that lies here. A file that does not verify is removed: it is fetched again.
func (s *blobStore) local(id [32]byte) ([]byte, error) {
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, info.Size())
	buf := make([]byte, min(info.Size(), blob.LeafBytes+seal.Overhead))
	for i := 0; ; i++ {
		n, err := io.ReadFull(f, buf)
		if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("read blob %x: %w", id, err)
		}
		if body, err = s.box.AppendOpen(body, leafPlace(id, i), buf[:n]); err != nil {
			return nil, s.discard(id)
		}
	}
	if blob.ID(body) != id {
		return nil, s.discard(id)
	}
	return body, nil
}

func (s *blobStore) discard(id [32]byte) error {
	s.log.Warn("blob on disk is damaged; it will be fetched from a peer", "blob", hex.EncodeToString(id[:]))
	err := s.write(func() error { return os.Remove(s.path(id)) })
	if err != nil && !errors.Is(err, errKilled) {
		s.log.Warn("damaged blob not removed", "error", err)
	}
	return errNoBlob
}

// Get returns a blob, from here or from a peer, verified. The bytes are shared: they must not be changed.
func (s *blobStore) Get(ctx context.Context, id [32]byte) ([]byte, error) {
	done, err := s.turn(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("get blob %x: %w", id, err)
	}
	defer done()
	if body, ok := s.recall(id); ok {
		return body, nil
	}
	body, err := s.local(id)
	if err != nil {
		body, err = s.fetchAny(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.add(id, body)
	return body, nil
}

// expect keeps a blob in memory that many will ask for soon. body must not change afterwards.
func (s *blobStore) expect(id [32]byte, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.memory.get(id); !ok {
		s.memory.keep(id, body)
	}
}

func (s *blobStore) recall(id [32]byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory.get(id)
}

// turn waits until nobody else reads or fetches the blob: a whole cohort asks for the same model at once.
func (s *blobStore) turn(ctx context.Context, id [32]byte) (done func(), err error) {
	for {
		s.mu.Lock()
		busy, ok := s.reading[id]
		if !ok {
			break
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer s.mu.Unlock()
	if s.reading == nil {
		s.reading = map[[32]byte]chan struct{}{}
	}
	mine := make(chan struct{})
	s.reading[id] = mine
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.reading, id)
		close(mine)
	}, nil
}

// fetchAny asks one peer after the other and keeps what it gets.
func (s *blobStore) fetchAny(ctx context.Context, id [32]byte) ([]byte, error) {
	reasons := []error{fmt.Errorf("get blob %x: %w", id, errNoBlob)}
	for _, p := range s.peers() {
		body, err := s.fetch(ctx, p, id)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		if err := s.put(id, body); err != nil {
			s.log.Warn("fetched blob not kept", "error", err)
		}
		return body, nil
	}
	return nil, errors.Join(reasons...)
}

// fetch asks one peer, as long as it goes on sending.
func (s *blobStore) fetch(ctx context.Context, p blobPeer, id [32]byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	stalled := time.AfterFunc(stallTimeout, cancel)
	defer stalled.Stop()
	stream, err := client.FetchBlob(ctx, &choirv1.BlobRequest{Id: id[:]})
	if err != nil {
		return nil, err
	}
	body, _, err := receiveChunks(func() (*choirv1.BlobChunk, error) {
		m, err := stream.Recv()
		stalled.Reset(stallTimeout)
		return m, err
	})
	if err != nil {
		return nil, err
	}
	if blob.ID(body) != id {
		return nil, fmt.Errorf("what it sent is not blob %x", id)
	}
	return body, nil
}

// receiveChunks reads a blob stream to its end.
func receiveChunks(recv func() (*choirv1.BlobChunk, error)) (body, id []byte, err error) {
	first, err := recv()
	if err != nil {
		return nil, nil, err
	}
	body, err = receiveRest(first, recv)
	return body, first.Id, err
}

// receiveRest reads a blob stream from its second chunk to its end. The sender may lie about anything: memory grows
// with what arrives, beyond a first allocation.
func receiveRest(first *choirv1.BlobChunk, recv func() (*choirv1.BlobChunk, error)) ([]byte, error) {
	if first.Total > maxBlob {
		return nil, fmt.Errorf("blob of %d bytes, at most %d are allowed", first.Total, maxBlob)
	}
	body := append(make([]byte, 0, min(first.Total, 64<<20)), first.Data...)
	for uint64(len(body)) < first.Total {
		m, err := recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("stream ended after %d of %d bytes", len(body), first.Total)
			}
			return nil, err
		}
		if len(m.Data) == 0 {
			return nil, fmt.Errorf("empty chunk after %d of %d bytes", len(body), first.Total)
		}
		body = append(body, m.Data...)
	}
	if uint64(len(body)) != first.Total {
		return nil, fmt.Errorf("%d bytes instead of %d", len(body), first.Total)
	}
	return body, nil
}

// PutQuorum makes a blob durable on a majority of the voters, this one included, and returns its id and who holds it.
// The other voters get it in the background, unless they are behind. body must not change afterwards.
func (s *blobStore) PutQuorum(ctx context.Context, body []byte) (id [32]byte, holders []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	peers := s.peers()
	majority := (len(peers)+1)/2 + 1
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(peers))
	id = blob.ID(body)
	for _, p := range peers {
		s.spawn(func(background context.Context) { results <- result{p.name, s.offer(background, ctx, p, id, body)} })
	}
	if err := s.put(id, body); err != nil {
		return id, nil, &ownDiskError{err}
	}
	holders = []string{s.self} // always one of them, however slow its disk: Apply insists
	var reasons []error
	for range peers {
		if len(holders) >= majority {
			break
		}
		select {
		case r := <-results:
			if r.err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", r.name, r.err))
			} else {
				holders = append(holders, r.name)
			}
		case <-ctx.Done():
			return id, nil, ctx.Err()
		}
	}
	if len(holders) < majority {
		return id, nil, fmt.Errorf("blob %x is on %d voters, a majority is %d: %w", id, len(holders), majority, errors.Join(reasons...))
	}
	slices.Sort(holders)
	return id, holders, nil
}

// ownDiskError says that this coordinator's disk did not take a blob.
type ownDiskError struct{ error }

func (e *ownDiskError) Unwrap() error { return e.error }

// offer waits for a place on the way to a peer, as long as the caller waits for the quorum, and then sends the blob,
// whether the caller still waits or not.
func (s *blobStore) offer(background, caller context.Context, p blobPeer, id [32]byte, body []byte) error {
	lane := s.lane(p.name)
	select {
	case lane <- struct{}{}:
		defer func() { <-lane }()
		return s.send(background, p, id, body)
	case <-caller.Done():
		return caller.Err()
	}
}

func (s *blobStore) lane(peer string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes == nil {
		s.lanes = map[string]chan struct{}{}
	}
	if s.lanes[peer] == nil {
		s.lanes[peer] = make(chan struct{}, blobLane)
	}
	return s.lanes[peer]
}

// send gives a blob to a peer; the peer answers when it is synced, at once if it holds it.
func (s *blobStore) send(ctx context.Context, p blobPeer, id [32]byte, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout+time.Duration(len(body)>>20)*time.Second)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return err
	}
	stream, err := client.PutBlob(ctx)
	if err != nil {
		return err
	}
	if err := sendChunks(id[:], body, stream.Send); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// servePut stores what a peer sends. What lies here already is not read to its end.
func (s *blobStore) servePut(stream choirv1.Peers_PutBlobServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if len(first.Id) != 32 {
		return status.Error(codes.InvalidArgument, "put blob: no id")
	}
	id := [32]byte(first.Id)
	if _, err := s.local(id); err == nil && s.check() == nil {
		return stream.SendAndClose(&choirv1.PutBlobReply{})
	}
	body, err := receiveRest(first, stream.Recv)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "put blob: %v", err)
	}
	if blob.ID(body) != id {
		return status.Error(codes.InvalidArgument, "put blob: the bytes are not the blob announced")
	}
	if err := s.put(id, body); err != nil {
		s.log.Warn("blob of a peer not kept", "error", err)
		return status.Errorf(codes.Unavailable, "put blob: %v", err)
	}
	return stream.SendAndClose(&choirv1.PutBlobReply{})
}

// serveFetch streams a blob that lies here.
func (s *blobStore) serveFetch(req *choirv1.BlobRequest, stream choirv1.Peers_FetchBlobServer) error {
	if len(req.Id) != 32 {
		return status.Error(codes.InvalidArgument, "fetch blob: no id")
	}
	body, err := s.local([32]byte(req.Id))
	if err != nil {
		return status.Errorf(codes.NotFound, "fetch blob %x: not here", req.Id)
	}
	return sendChunks(req.Id, body, stream.Send)
}
