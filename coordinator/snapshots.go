package coordinator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
)

// sealedSnapshots keeps raft's snapshot files sealed under the coordinator's data key; what travels between replicas
// is the plaintext, inside mutual TLS. The index, term and voters that raft writes beside a snapshot are bound to it.
type sealedSnapshots struct {
	files  *raft.FileSnapshotStore
	dir    string // of files
	box    *seal.Box
	gate   *gate
	logs   raft.LogStore
	failed func(error) // told of a snapshot that could not be written; may be nil

	mu    sync.Mutex      // guards begun, and keeps sweep from what is just being made
	begun map[string]bool // ids of those being written
}

// begin makes a snapshot's directory and its first files.
func (s *sealedSnapshots) begin(create func() (raft.SnapshotSink, error)) (sink raft.SnapshotSink, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sink, err = create(); err != nil {
		return nil, err
	}
	if s.begun == nil {
		s.begun = map[string]bool{}
	}
	s.begun[sink.ID()] = true
	return sink, nil
}

// end forgets a snapshot that is written or given up, and sweeps.
func (s *sealedSnapshots) end(id string) error {
	s.mu.Lock()
	delete(s.begun, id)
	s.mu.Unlock()
	return s.sweep()
}

// sweep removes what raft leaves of snapshots that it could not write to their end: on a full disk that is all that still
// fitted, and it would stay for ever.
func (s *sealedSnapshots) sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := filepath.Glob(filepath.Join(s.dir, "*.tmp"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if s.begun[strings.TrimSuffix(filepath.Base(path), ".tmp")] {
			continue
		}
		_ = os.Truncate(filepath.Join(path, "state.bin"), 0) // raft may have left it open, which would keep its space
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("sweep snapshots: %w", err)
		}
	}
	return nil
}

// tell passes on why a snapshot was not written.
func (s *sealedSnapshots) tell(err error) error {
	if err != nil && s.failed != nil && !errors.Is(err, errKilled) {
		s.failed(err)
	}
	return err
}

// verify opens every snapshot once and returns what the newest one says of itself, zero if there is none.
func (s *sealedSnapshots) verify() (newest raft.SnapshotMeta, err error) {
	metas, err := s.List()
	if err != nil {
		return newest, fmt.Errorf("list snapshots: %w", err)
	}
	for _, m := range metas {
		_, rc, err := s.Open(m.ID)
		if err != nil {
			return newest, err
		}
		if err := rc.Close(); err != nil {
			return newest, fmt.Errorf("open snapshot %s: %w", m.ID, err)
		}
	}
	if len(metas) > 0 {
		newest = *metas[0]
	}
	return newest, nil
}

// anchor sees to it that the log has an entry of the right term where the newest snapshot ends. A snapshot from another
// replica comes without it; raft then finds no predecessor for the entries that follow, should they be sent twice, and
// asks for the same snapshot forever. The anchor stands first in the log: whoever needs it gets the snapshot instead,
// so it is never sent and never applied.
func (s *sealedSnapshots) anchor(index, term uint64) error {
	var l raft.Log
	if err := s.logs.GetLog(index, &l); index <= 1 || err == nil && l.Term == term {
		return nil
	} else if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err := s.logs.DeleteRange(0, index-1); err != nil {
		return err
	}
	return s.logs.StoreLog(&raft.Log{Index: index, Term: term, Type: raft.LogNoop})
}

// snapshotsDir is raft's name for the directory of snapshots.
const snapshotsDir = "snapshots"

// ownersOnly takes from others what they may do with a directory and all in it: raft makes snapshots readable for all.
func ownersOnly(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return os.Chmod(path, mode)
	})
}

// ours sees to it that nobody else reads a snapshot that has just been begun.
func (s *sealedSnapshots) ours(sink raft.SnapshotSink, err error) (raft.SnapshotSink, error) {
	if err != nil {
		return nil, err
	}
	if err := ownersOnly(filepath.Join(s.dir, sink.ID()+".tmp")); err != nil { // its name until it is complete
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// snapshotPlace is what a snapshot's seal binds it to.
func snapshotPlace(index, term uint64, c raft.Configuration, ci uint64) []byte {
	return fmt.Appendf(nil, "snapshot|%d|%d|%d|%x", index, term, ci, raft.EncodeConfiguration(c))
}

// Create starts a snapshot file.
func (s *sealedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (sink raft.SnapshotSink, err error) {
	err = s.gate.write(func() error {
		file, err := s.begin(func() (raft.SnapshotSink, error) { return s.ours(s.files.Create(v, index, term, c, ci, t)) })
		if err != nil {
			return errors.Join(err, s.sweep())
		}
		sink = &sealedSink{SnapshotSink: file, store: s, index: index, term: term, place: snapshotPlace(index, term, c, ci)}
		return nil
	})
	if err != nil {
		return nil, s.tell(fmt.Errorf("create snapshot: %w", err))
	}
	return sink, nil
}

// List lists snapshots, newest first.
func (s *sealedSnapshots) List() ([]*raft.SnapshotMeta, error) { return s.files.List() }

// Open opens a snapshot's plaintext.
func (s *sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := s.files.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w; %s", id, err, damageCure)
	}
	sealed, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, nil, fmt.Errorf("read snapshot %s: %w", id, err)
	}
	plain, err := s.box.Open(snapshotPlace(meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex), sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s does not verify; %s: %w", id, damageCure, err)
	}
	meta.Size = int64(len(plain))
	return meta, io.NopCloser(bytes.NewReader(plain)), nil
}

// sealedSink gathers a snapshot and seals it when it is complete.
type sealedSink struct {
	raft.SnapshotSink
	store *sealedSnapshots
	index uint64
	term  uint64
	place []byte
	plain bytes.Buffer
	ended bool
}

// Write takes more of the plaintext.
func (s *sealedSink) Write(b []byte) (int, error) { return s.plain.Write(b) }

// Close seals the snapshot and makes it durable. Raft closes again what Persist has closed.
func (s *sealedSink) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	err := s.store.gate.write(func() error {
		_, err := s.SnapshotSink.Write(s.store.box.Seal(s.place, s.plain.Bytes()))
		if err == nil {
			err = s.SnapshotSink.Close()
		} else {
			_ = s.SnapshotSink.Cancel() // it fails as the write did
		}
		return errors.Join(err, s.store.end(s.ID()))
	})
	if err == nil {
		err = s.store.anchor(s.index, s.term)
	}
	return s.store.tell(err)
}

// Cancel removes what was begun.
func (s *sealedSink) Cancel() error {
	s.ended = true
	return s.store.gate.write(func() error { return errors.Join(s.SnapshotSink.Cancel(), s.store.end(s.ID())) })
}
