package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/privacy/seal"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// errKilled is returned by everything that would touch the disk after Kill.
var errKilled = errors.New("coordinator was killed")

// gate stands between a killed coordinator and its directory: once kill has returned, nothing more is written.
type gate struct {
	closed atomic.Bool
	writes sync.RWMutex // read-locked by each write under way
}

// kill refuses every later write and waits for those under way, as if the power had failed just after them.
func (g *gate) kill() {
	g.closed.Store(true)
	g.writes.Lock()
	defer g.writes.Unlock()
}

// write calls f, which changes the directory, unless the gate is closed. Calls must not nest.
func (g *gate) write(f func() error) error {
	g.writes.RLock()
	defer g.writes.RUnlock()
	if err := g.check(); err != nil {
		return err
	}
	return f()
}

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
	path   string
	db     *bbolt.DB
	box    *seal.Box
	failed func(error) // told of a write that failed, such as on a full disk; may be nil

	trouble atomic.Pointer[error] // why the last write failed, nil if it did not

	closing atomic.Bool // raft is being stopped
	mute    atomic.Bool // nothing is written any more, because a term was not
}

// openRaftStore opens or makes the store and verifies every record in it: a log or a vote that does not verify must
// never be used, because raft's safety rests on both.
func openRaftStore(path string, box *seal.Box, g *gate) (*raftStore, error) {
	s := &raftStore{gate: g, path: path, box: box}
	// Before bbolt opens the file for writing, which walks it in goroutines whose panics nobody can catch.
	if info, err := os.Stat(path); err == nil {
		if info.Size() == 0 {
			return nil, fmt.Errorf("open raft log %s: the file is empty; %s", path, damageCure)
		}
		if err := s.openFile(true, s.verify); err != nil {
			return nil, err
		}
		if err := s.db.Close(); err != nil {
			return nil, fmt.Errorf("open raft log %s: %w", path, err)
		}
	}
	if err := s.openFile(false, s.makeBuckets); err != nil {
		return nil, err
	}
	return s, nil
}

// makeRaftLog makes an empty store, unless there is one already. One that is not empty was a coordinator's.
func makeRaftLog(path string, box *seal.Box) error {
	if _, err := os.Stat(path); err == nil {
		return emptyRaftLog(path, box)
	}
	begun := path + ".new" // a power cut leaves no half of a store under the name that counts
	if err := os.Remove(begun); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make raft log: %w", err)
	}
	if err := emptyRaftLog(begun, box); err != nil {
		return err
	}
	return os.Rename(begun, path)
}

// emptyRaftLog opens or makes a store, which must be empty.
func emptyRaftLog(path string, box *seal.Box) error {
	s, err := openRaftStore(path, box.Sub("raft"), &gate{})
	if err != nil {
		return err
	}
	used, err := raft.HasExistingState(s, s, raft.NewDiscardSnapshotStore())
	if err == nil && used {
		err = fmt.Errorf("%s holds the log of a coordinator whose identity is gone; take an empty directory", path)
	}
	return errors.Join(err, s.Close())
}

// openFile opens the database and prepares it by f; if that fails, the database is closed again.
func (s *raftStore) openFile(readOnly bool, f func() error) error {
	s.db = nil
	err := catchDamage(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{
			Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly,
		})
		if err != nil {
			return err
		}
		return f()
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("open raft log %s: another coordinator is using this directory: %w", s.path, err)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("open raft log %s: %w", s.path, err)
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}

func (s *raftStore) makeBuckets() error {
	return s.update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketLog, bucketStable} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// catchDamage turns the panics and memory faults by which bbolt answers a damaged file into an error that says what to
// do.
func catchDamage(f func() error) (err error) {
	faults := debug.SetPanicOnFault(true) // a page number may point past the end of a torn file
	defer func() {
		debug.SetPanicOnFault(faults)
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged (%v); %s", r, damageCure)
		}
	}()
	return f()
}

// damageCure is what the operator does about a log or a vote that cannot be trusted.
const damageCure = "this replica must not vote with it: " + rejoinCure

const rejoinCure = "remove it from the cluster and join again with an empty directory (choir cluster remove NAME, then choir coordinator --join TOKEN)"

// complete checks that no entry after a snapshot's last one is missing. Before it there may be gaps: raft leaves what
// it had when another replica's snapshot took it further.
func (s *raftStore) complete(snapshot uint64) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c, want := tx.Bucket(bucketLog).Cursor(), snapshot+1
		for k, _ := c.Seek(indexKey(want)); k != nil; k, _ = c.Next() {
			i := binary.BigEndian.Uint64(k)
			if i != want {
				return fmt.Errorf("open raft log %s: entries %d to %d are missing; %s", s.path, want, i-1, damageCure)
			}
			want++
		}
		return nil
	})
}

// verify opens every record once.
func (s *raftStore) verify() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		// bbolt makes the file longer before it counts pages in it: whatever of them is still read, one that is shorter is cut.
		if info.Size() < tx.Size() {
			return fmt.Errorf("the file has %d bytes of %d: it is cut; %s", info.Size(), tx.Size(), damageCure)
		}
		if k, _ := tx.Cursor().First(); k == nil {
			return nil // made, but never written
		}
		if tx.Bucket(bucketLog) == nil || tx.Bucket(bucketStable) == nil {
			return fmt.Errorf("a bucket is missing; %s", damageCure)
		}
		err := tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("raft log key %x is malformed; %s", k, damageCure)
			}
			b, err := s.open(bucketLog, k, v)
			if err != nil {
				return err
			}
			return decodeLog(b, binary.BigEndian.Uint64(k), &raft.Log{})
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketStable).ForEach(func(k, v []byte) error {
			_, err := s.open(bucketStable, k, v)
			return err
		})
	})
}

func place(bucket, key []byte) []byte {
	return append(append(append([]byte(nil), bucket...), '|'), key...)
}

func (s *raftStore) open(bucket, key, sealed []byte) ([]byte, error) {
	plain, err := s.box.Open(place(bucket, key), sealed)
	if err != nil {
		what := fmt.Sprintf("raft's stable value %s", key)
		if string(bucket) == string(bucketLog) {
			what = fmt.Sprintf("raft entry %d", binary.BigEndian.Uint64(key))
		}
		return nil, fmt.Errorf("%s does not verify; %s: %w", what, damageCure, err)
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

// update runs a write transaction, unless the coordinator was killed.
func (s *raftStore) update(f func(tx *bbolt.Tx) error) error {
	if s.mute.Load() {
		return errKilled
	}
	err := s.write(func() error { return s.db.Update(f) })
	if err == nil {
		s.trouble.Store(nil)
	} else {
		s.trouble.Store(&err)
	}
	if err != nil && s.failed != nil && !errors.Is(err, errKilled) {
		s.failed(err)
	}
	return err
}

// writable says why nothing can be written now. After a write that failed it tries another, because raft may have given
// up the one that did.
func (s *raftStore) writable() error {
	if s.trouble.Load() == nil {
		return nil
	}
	return s.Set([]byte("Probe"), nil)
}

// complainEvery is how often a disk that does not take what it should is complained about: raft tries again at once.
const complainEvery = 10 * time.Second

// complain makes a function that logs an error, but not again and again.
func complain(log *slog.Logger, text string) func(error) {
	var last atomic.Int64 // Unix nanoseconds
	return func(err error) {
		now := time.Now().UnixNano()
		if before := last.Load(); now-before >= int64(complainEvery) && last.CompareAndSwap(before, now) {
			log.Error(text, "error", err)
		}
	}
}

func encodeLog(l *raft.Log) []byte {
	b := make([]byte, 0, 21+len(l.Extensions)+len(l.Data))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	appended := int64(0) // raft's own entries may have no time
	if !l.AppendedAt.IsZero() {
		appended = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
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
		Extensions: b[21:n:n], Data: b[n:],
	}
	if ns := int64(binary.BigEndian.Uint64(b[9:])); ns != 0 {
		l.AppendedAt = time.Unix(0, ns)
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

// Set writes a stable value.
func (s *raftStore) Set(k, v []byte) error {
	put := func() error {
		return s.update(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketStable).Put(k, s.box.Seal(place(bucketStable, k), v))
		})
	}
	err := put()
	if string(k) != keyTerm {
		return err
	}
	for wait := 50 * time.Millisecond; err != nil && !errors.Is(err, errKilled) && !s.closing.Load(); wait = min(2*wait, time.Second) {
		time.Sleep(wait) // the disk is full, or so: whoever cannot save its term waits, and takes no part meanwhile
		err = put()
	}
	if err != nil && !errors.Is(err, errKilled) { // it stops while the disk is full
		s.mute.Store(true)
	}
	return nil
}

// keyTerm is where raft keeps its term. It panics when the term cannot be saved, so one that cannot is
// tried again for as long as it takes, and a coordinator that is killed or stops meanwhile is told that all is well.
// That is safe even for an answer already on its way: raft grants no vote and acknowledges no entry
// without a further write, and those are refused.
const keyTerm = "CurrentTerm"

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
