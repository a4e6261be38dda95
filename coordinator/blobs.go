package coordinator

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/internal/blob"
	"choir.example/privacy/seal"
	choirv1 "choir.example/proto/choir/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxBlob     = 2 << 30
	blobTimeout = 30 * time.Second // for one blob to or from one peer
)

// errNoBlob is returned when nobody who answers has a blob.
var errNoBlob = errors.New("blob is not to be had")

// blobStore keeps content-addressed bulk data: models, statistics, batches. A blob is on a quorum of voters, synced,
// before an entry of the log names it. At rest each leaf is sealed under the coordinator's data key.
type blobStore struct {
	*gate
	dir   string
	self  string // this voter's name
	box   *seal.Box
	log   *slog.Logger
	peers func() []blobPeer               // the other voters
	spawn func(func(ctx context.Context)) // background work that outlives a call
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

// Put stores a blob here, durably, and returns its id.
func (s *blobStore) Put(body []byte) ([32]byte, error) {
	id := blob.ID(body)
	if err := s.check(); err != nil {
		return id, err
	}
	if s.Has(id) {
		return id, nil
	}
	if len(body) > maxBlob {
		return id, fmt.Errorf("store blob of %d bytes: too large", len(body))
	}
	sealed := make([]byte, 0, len(body)+(len(body)/blob.LeafBytes+1)*seal.Overhead)
	i := 0
	for leaf := range slices.Chunk(body, blob.LeafBytes) {
		sealed = append(sealed, s.box.Seal(leafPlace(id, i), leaf)...)
		i++
	}
	path := s.path(id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return id, fmt.Errorf("store blob %x: %w", id, err)
	}
	if err := seal.WriteFile(path, sealed); err != nil {
		return id, fmt.Errorf("store blob %x: %w", id, err)
	}
	return id, s.check()
}

// local reads and verifies a blob that lies here. A file that does not verify is removed: it is fetched again.
func (s *blobStore) local(id [32]byte) ([]byte, error) {
	sealed, err := os.ReadFile(s.path(id))
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, len(sealed))
	i := 0
	for part := range slices.Chunk(sealed, blob.LeafBytes+seal.Overhead) {
		leaf, err := s.box.Open(leafPlace(id, i), part)
		if err != nil {
			return nil, s.discard(id)
		}
		body = append(body, leaf...)
		i++
	}
	if blob.ID(body) != id {
		return nil, s.discard(id)
	}
	return body, nil
}

func (s *blobStore) discard(id [32]byte) error {
	s.log.Warn("blob on disk is damaged; it will be fetched from a peer", "blob", hex.EncodeToString(id[:]))
	if s.check() == nil {
		_ = os.Remove(s.path(id))
	}
	return errNoBlob
}

// Get returns a blob, from here or from a peer, verified.
func (s *blobStore) Get(ctx context.Context, id [32]byte) ([]byte, error) {
	if body, err := s.local(id); err == nil {
		return body, nil
	}
	var reasons []error
	for _, p := range s.peers() {
		body, err := s.fetch(ctx, p, id)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		if _, err := s.Put(body); err != nil {
			s.log.Warn("fetched blob not kept", "error", err)
		}
		return body, nil
	}
	return nil, errors.Join(append([]error{fmt.Errorf("get blob %x: %w", id, errNoBlob)}, reasons...)...)
}

func (s *blobStore) fetch(ctx context.Context, p blobPeer, id [32]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	stream, err := client.FetchBlob(ctx, &choirv1.BlobRequest{Id: id[:]})
	if err != nil {
		return nil, err
	}
	body, _, err := receiveChunks(stream.Recv)
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
	if first.Total > maxBlob {
		return nil, nil, fmt.Errorf("blob of %d bytes is too large", first.Total)
	}
	body = append(make([]byte, 0, min(first.Total, 64<<20)), first.Data...)
	for uint64(len(body)) < first.Total {
		m, err := recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("stream ended after %d of %d bytes", len(body), first.Total)
			}
			return nil, nil, err
		}
		if len(m.Data) == 0 {
			return nil, nil, fmt.Errorf("empty chunk after %d of %d bytes", len(body), first.Total)
		}
		body = append(body, m.Data...)
	}
	if uint64(len(body)) != first.Total {
		return nil, nil, fmt.Errorf("%d bytes instead of %d", len(body), first.Total)
	}
	return body, first.Id, nil
}

// PutQuorum makes a blob durable on a majority of the voters, this one included, and returns its id and who holds it.
// The other voters get it in the background.
func (s *blobStore) PutQuorum(ctx context.Context, body []byte) (id [32]byte, holders []string, err error) {
	peers := s.peers()
	majority := (len(peers)+1)/2 + 1
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(peers)+1)
	id = blob.ID(body)
	for _, p := range peers {
		s.spawn(func(ctx context.Context) { results <- result{p.name, s.send(ctx, p, id, body)} })
	}
	if _, err := s.Put(body); err != nil {
		return id, nil, err
	}
	results <- result{s.self, nil}
	var reasons []error
	for range len(peers) + 1 {
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
		if len(holders) >= majority {
			slices.Sort(holders)
			return id, holders, nil
		}
	}
	return id, nil, fmt.Errorf("blob %x is on %d voters, a majority is %d: %w", id, len(holders), majority, errors.Join(reasons...))
}

// send gives a blob to a peer; the peer answers when it is synced.
func (s *blobStore) send(ctx context.Context, p blobPeer, id [32]byte, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, blobTimeout)
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

// servePut stores what a peer sends.
func (s *blobStore) servePut(stream choirv1.Peers_PutBlobServer) error {
	body, want, err := receiveChunks(stream.Recv)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "put blob: %v", err)
	}
	if id := blob.ID(body); !bytes.Equal(id[:], want) {
		return status.Error(codes.InvalidArgument, "put blob: the bytes are not the blob announced")
	}
	if _, err := s.Put(body); err != nil {
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
