package coordinator

import (
	"errors"
	"iter"
	"os"
	"sync"
	"time"

	"choir.example/internal/blob"
)

// room is whether the disk takes blobs, as far as the last try tells.
type room struct {
	mu    sync.Mutex // guards the fields below
	err   error      // why it did not take the last one; nil if it did
	bytes int        // the largest that it did not take since
	tried time.Time  // when writable last tried
}

// roomEvery is how often a disk that takes no blobs is tried, however many ask.
const roomEvery = time.Second

// note is told how a blob of so many bytes was written. A smaller one says nothing about one that did not fit.
func (r *room) note(err error, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, errKilled): // nobody has tried
	case err != nil:
		r.err, r.bytes = err, max(r.bytes, bytes)
	case bytes >= r.bytes:
		r.err, r.bytes = nil, 0
	}
}

// due is how many bytes to try now, if it is time to.
func (r *room) due(now time.Time) (bytes int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if due = r.err != nil && now.Sub(r.tried) >= roomEvery; due {
		r.tried = now
	}
	return r.bytes, due
}

func (r *room) look() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// writable says why the disk takes no blobs, nil if it does. After one that it did not take it tries as many bytes again:
// nobody may come with another blob, now that leaders and rounds are elsewhere.
func (s *blobStore) writable() error {
	if bytes, due := s.room.due(time.Now()); due {
		s.room.note(s.write(func() error { return s.probe(bytes) }), bytes)
	}
	return s.room.look()
}

// probe writes a blob of so many bytes, and removes it again.
func (s *blobStore) probe(bytes int) error {
	if err := makeDirs(s.dir); err != nil {
		return err
	}
	name, err := s.draft([32]byte{}, zeros(bytes))
	_ = os.Remove(name) // where there is one; the next start sweeps what stays
	return err
}

// zeros are the leaves of a blob of so many bytes. Sealed, they are no zeros that a file system would leave out.
func zeros(bytes int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		leaf := make([]byte, min(bytes, blob.LeafBytes))
		for left := bytes; left > 0 && yield(leaf[:min(left, len(leaf))]); left -= len(leaf) {
		}
	}
}
