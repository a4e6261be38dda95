package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// A bbolt file never gets smaller: what deleted rows took is kept for later ones. An import of gigabytes that was refused
// at its last row would so cost gigabytes for ever. shrink copies what is left into a new file, once that is worth it, and
// puts it in the place of the old one. Readers go on meanwhile; the caller, and who wants to write, waits. On a disk
// without room for the copy the space is kept for later rows.
func (s *Store) shrink() error {
	var old *bbolt.DB
	err := s.catchDamage(func() (err error) {
		old, err = s.moveToSmaller()
		return err
	})
	if isDiskFull(err) {
		err = s.update(func(tx *bbolt.Tx) error {
			left, err := leftovers(tx)
			for _, id := range left {
				err = errors.Join(err, tx.Bucket(bucketRows).DeleteBucket(id))
			}
			return err
		})
	}
	switch {
	case isDiskFull(err):
		return nil
	case err != nil:
		return fmt.Errorf("give disk space of %s back: %w", s.path, err)
	case old == nil:
		return nil
	}
	return old.Close() // waits for who still reads it
}

// manyErased is from how many rows on erase leaves rows to shrink. To take them out one by one would bring every page of
// theirs into memory; to leave them behind does not.
const manyErased = 100_000

// leftovers are the imports that are erased, and whose rows are still there.
func leftovers(tx *bbolt.Tx) (ids [][]byte, err error) {
	err = tx.Bucket(bucketErased).ForEach(func(id, _ []byte) error {
		if tx.Bucket(bucketRows).Bucket(id) != nil {
			ids = append(ids, bytes.Clone(id))
		}
		return nil
	})
	return ids, err
}

// Copying costs as much as what stays, so only for a good part of the file.
const (
	shrinkBytes = 8 << 20
	shrinkPart  = 4 // at least a quarter of the file
)

// moveToSmaller returns the file that was replaced, nil if it is kept.
func (s *Store) moveToSmaller() (*bbolt.DB, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	old := s.db.Load()
	if worth, err := s.worthShrinking(old); err != nil || !worth {
		return nil, err
	}
	next, err := s.compact(old)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Rename(s.newPath(), s.path), syncDir(filepath.Dir(s.path))); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	s.db.Store(next)
	return old, nil
}

// worthShrinking reports whether much of a file is of no use. Nobody may write meanwhile. Without room for what stays it
// is a full disk.
func (s *Store) worthShrinking(db *bbolt.DB) (bool, error) {
	tx, err := db.Begin(true) // its end brings the numbers up to date
	if err != nil {
		return false, err
	}
	size := tx.Size()
	left, err := leftovers(tx)
	if err := errors.Join(err, tx.Rollback()); err != nil {
		return false, err
	}
	stats := db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(db.Info().PageSize)
	if len(left) == 0 && (free < shrinkBytes || free < size/shrinkPart) {
		return false, nil
	}
	if len(left) > 0 { // how much stays only reading all of it could tell
		return true, s.room(0)
	}
	return true, s.room(int(size-free) / 2) // room wants twice as much as it is told
}

// newPath is where a smaller file is made. One that a crash has left is removed when the store is opened.
func (s *Store) newPath() string { return s.path + ".new" }

// compact copies what is in a file into a new one, durably.
func (s *Store) compact(old *bbolt.DB) (*bbolt.DB, error) {
	if err := removeIfThere(s.newPath()); err != nil {
		return nil, err
	}
	next, err := bbolt.Open(s.newPath(), 0o600, &bbolt.Options{Timeout: time.Second, NoSync: true})
	if err != nil {
		return nil, err
	}
	err = copyStore(next, old)
	if err == nil {
		err = next.Sync()
	}
	if err != nil {
		return nil, errors.Join(diskError(err), next.Close(), os.Remove(s.newPath()))
	}
	next.NoSync = false
	return next, nil
}

// copyStore copies everything but the rows of imports that are erased, in transactions of a few MiB.
func copyStore(next, old *bbolt.DB) error {
	return old.View(func(from *bbolt.Tx) error {
		left, err := leftovers(from)
		if err != nil {
			return err
		}
		c := &copier{db: next, skip: left}
		if c.tx, err = next.Begin(true); err != nil {
			return err
		}
		err = from.ForEach(func(name []byte, b *bbolt.Bucket) error { return c.bucket([][]byte{name}, b) })
		if err != nil {
			return errors.Join(err, c.tx.Rollback())
		}
		return c.tx.Commit()
	})
}

type copier struct {
	db    *bbolt.DB
	tx    *bbolt.Tx
	bytes int // in tx
	skip  [][]byte
}

// bucket copies a bucket and those in it.
func (c *copier) bucket(path [][]byte, from *bbolt.Bucket) error {
	if _, err := c.at(path); err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error {
		if v == nil {
			if slices.ContainsFunc(c.skip, func(id []byte) bool { return bytes.Equal(path[0], bucketRows) && bytes.Equal(id, k) }) {
				return nil
			}
			return c.bucket(append(slices.Clip(path), k), from.Bucket(k))
		}
		to, err := c.at(path)
		if err == nil {
			err = to.Put(k, v)
		}
		if c.bytes += len(k) + len(v); err != nil || c.bytes < flushBytes {
			return err
		}
		return c.next()
	})
}

// at is the bucket of a path in the new file.
func (c *copier) at(path [][]byte) (b *bbolt.Bucket, err error) {
	b, err = c.tx.CreateBucketIfNotExists(path[0])
	for _, name := range path[1:] {
		if err == nil {
			b, err = b.CreateBucketIfNotExists(name)
		}
	}
	if err == nil {
		b.FillPercent = 0.95 // keys come in their order
	}
	return b, err
}

// next begins another transaction.
func (c *copier) next() error {
	if err := c.tx.Commit(); err != nil {
		return err
	}
	c.bytes = 0
	tx, err := c.db.Begin(true)
	if err == nil {
		c.tx = tx
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
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

// beginView starts to read, in the file that is the store's at this moment.
func (s *Store) beginView() (*bbolt.Tx, error) {
	for {
		db := s.db.Load()
		tx, err := db.Begin(false)
		if !errors.Is(err, berrors.ErrDatabaseNotOpen) || s.db.Load() == db {
			return tx, err
		}
	}
}
