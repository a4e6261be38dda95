package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// errKilled is returned by everything that would touch the disk after Kill.
var errKilled = errors.New("coordinator was killed")

// gate stands between a killed coordinator and its directory: once closed, nothing more is written.
type gate struct{ closed atomic.Bool }

func (g *gate) kill() { g.closed.Store(true) }

func (g *gate) check() error {
	if g.closed.Load() {
		return errKilled
	}
	return nil
}

var (
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")
)

// errNotFound has the text by which raft knows that a stable key was never set.
var errNotFound = errors.New("not found")

// deleteSlice is how many log entries one transaction deletes.
const deleteSlice = 1000

// raftStore is raft's log and stable store on bbolt. Every value is sealed under the coordinator's data key with its
// bucket and key as associated data, so a changed, swapped or torn record does not verify. One StoreLogs is one fsync.
type raftStore struct {
	*gate
	path string
	db   *bbolt.DB
	box  *seal.Box
}

// openRaftStore opens or makes the store and verifies every record in it: a log or a vote that does not verify must
// never be used, because raft's safety rests on both.
func openRaftStore(path string, box *seal.Box) (*raftStore, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s (is another coordinator using this directory?): %w", path, err)
	}
	s := &raftStore{gate: &gate{}, path: path, db: db, box: box}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketLog, bucketStable} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.verify()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), db.Close())
	}
	return s, nil
}

// verify opens every record once.
func (s *raftStore) verify() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{bucketLog, bucketStable} {
			err := tx.Bucket(bucket).ForEach(func(k, v []byte) error {
				_, err := s.open(bucket, k, v)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func place(bucket, key []byte) []byte {
	return append(append(append([]byte(nil), bucket...), '|'), key...)
}

func (s *raftStore) open(bucket, key, sealed []byte) ([]byte, error) {
	plain, err := s.box.Open(place(bucket, key), sealed)
	if err != nil {
		return nil, fmt.Errorf("record %s/%x does not verify; this replica must not vote with it: "+
			"remove it from the cluster and join again with an empty directory: %w", bucket, key, err)
	}
	return plain, nil
}

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// Close releases the file.
func (s *raftStore) Close() error { return s.db.Close() }

// FirstIndex is the first index in the log, 0 if it is empty.
func (s *raftStore) FirstIndex() (uint64, error) {
	return s.edge(func(c *bbolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex is the last index in the log, 0 if it is empty.
func (s *raftStore) LastIndex() (uint64, error) {
	return s.edge(func(c *bbolt.Cursor) []byte { k, _ := c.Last(); return k })
}

func (s *raftStore) edge(at func(*bbolt.Cursor) []byte) (i uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k := at(tx.Bucket(bucketLog).Cursor()); k != nil {
			i = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return i, err
}

// GetLog reads one entry.
func (s *raftStore) GetLog(i uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		k := indexKey(i)
		sealed := tx.Bucket(bucketLog).Get(k)
		if sealed == nil {
			return raft.ErrLogNotFound
		}
		b, err := s.open(bucketLog, k, sealed)
		if err != nil {
			return err
		}
		return decodeLog(b, i, l)
	})
}

// StoreLog writes one entry.
func (s *raftStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries in one transaction.
func (s *raftStore) StoreLogs(ls []*raft.Log) error {
	return s.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.95
		for _, l := range ls {
			k := indexKey(l.Index)
			if err := b.Put(k, s.box.Seal(place(bucketLog, k), encodeLog(l))); err != nil {
				return err
			}
		}
		return nil
	})
}

// update runs a write transaction, unless the coordinator was killed, also meanwhile.
func (s *raftStore) update(f func(tx *bbolt.Tx) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := s.check(); err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		return s.check()
	})
}

func encodeLog(l *raft.Log) []byte {
	b := make([]byte, 0, 21+len(l.Extensions)+len(l.Data))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.UnixNano()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	return append(b, l.Data...)
}

func decodeLog(b []byte, i uint64, l *raft.Log) error {
	if len(b) < 21 || uint64(binary.BigEndian.Uint32(b[17:])) > uint64(len(b)-21) {
		return fmt.Errorf("raft entry %d of %d bytes is malformed", i, len(b))
	}
	n := 21 + int(binary.BigEndian.Uint32(b[17:]))
	*l = raft.Log{
		Index: i, Term: binary.BigEndian.Uint64(b), Type: raft.LogType(b[8]),
		AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(b[9:]))),
		Extensions: b[21:n:n], Data: b[n:],
	}
	return nil
}

// DeleteRange removes entries lo to hi, in slices, so that no transaction is long.
func (s *raftStore) DeleteRange(lo, hi uint64) error {
	for more := true; more; {
		more = false
		err := s.update(func(tx *bbolt.Tx) error {
			c := tx.Bucket(bucketLog).Cursor()
			n := 0
			for k, _ := c.Seek(indexKey(lo)); k != nil && binary.BigEndian.Uint64(k) <= hi; k, _ = c.Seek(indexKey(lo)) {
				if n++; n > deleteSlice {
					more = true
					return nil
				}
				if err := c.Delete(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("delete raft entries %d to %d: %w", lo, hi, err)
		}
	}
	return nil
}

// Set writes a stable value. Raft panics when a term cannot be saved; once killed, nobody hears this replica any more,
// so it is told that all is well.
func (s *raftStore) Set(k, v []byte) error {
	err := s.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketStable).Put(k, s.box.Seal(place(bucketStable, k), v))
	})
	if errors.Is(err, errKilled) {
		return nil
	}
	return err
}

// Get reads a stable value.
func (s *raftStore) Get(k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		sealed := tx.Bucket(bucketStable).Get(k)
		if sealed == nil {
			return errNotFound
		}
		v, err = s.open(bucketStable, k, sealed)
		return err
	})
	return v, err
}

// SetUint64 writes a stable number.
func (s *raftStore) SetUint64(k []byte, v uint64) error { return s.Set(k, indexKey(v)) }

// GetUint64 reads a stable number.
func (s *raftStore) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("stable value %s has %d bytes", k, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
