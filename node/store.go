package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Part is a disjoint part of a node's examples.
type Part string

// Parts: Train is learnt from, Validation measures models in rounds, Held is for the owner's own final tables.
const (
	Train      Part = "train"
	Validation Part = "validation"
	Held       Part = "held"
)

var bucketMeta = []byte("meta")

// Parts returns all parts.
func Parts() []Part { return []Part{Train, Validation, Held} }

// Store is a node's private data: examples in bbolt, each value sealed under a data key that age wraps. The file has
// mode 0600. It is safe for concurrent use; one process at a time may open it.
type Store struct {
	path    string
	db      *bbolt.DB
	box     *seal.Box
	schema  atomic.Pointer[data.Schema] // nil until set
	imports atomic.Uint64               // how many there were since it was opened
	setting sync.Mutex                  // held by SetSchema
	broken  atomic.Bool                 // bbolt gave up in the middle of something, and may hold its locks
}

// OpenStore opens or makes the store in a node's directory. A file that is damaged is refused.
func OpenStore(dir string, rand io.Reader) (*Store, error) {
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand)
	if err != nil {
		return nil, err
	}
	return openStore(filepath.Join(dir, "store.db"), box.Sub("store"))
}

// damageCure is what the owner of a damaged store can do.
const damageCure = "put back a copy of it, or remove it and import the data again"

func openStore(path string, box *seal.Box) (*Store, error) {
	s := &Store{path: path, box: box}
	err := s.verify()
	if err == nil {
		err = s.open(false)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(openError(path, err), s.Close())
	}
	return s, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open store %s: another process uses this directory", path)
	case errors.Is(err, errDamaged):
		return fmt.Errorf("open store %s: %w; %s", path, err, damageCure)
	}
	return fmt.Errorf("open store %s: %w", path, err)
}

// verify checks the pages of a store that exists, while no other process can write to it.
func (s *Store) verify() error {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is not a file")
	case info.Size() == 0:
		return damagef("it is empty")
	}
	if err := s.open(true); err != nil {
		if outside := (*fs.PathError)(nil); errors.As(err, &outside) || errors.Is(err, berrors.ErrTimeout) {
			return err
		}
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return errors.Join(checkPages(s.path), s.db.Close())
}

func (s *Store) open(readOnly bool) error {
	return s.catchDamage(func() (err error) {
		s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: readOnly})
		return err
	})
}

// prepare makes what a new store lacks, reads the schema and sees that no row is missing.
func (s *Store) prepare() error {
	return s.update(func(tx *bbolt.Tx) error {
		for _, name := range append(Parts(), "meta") {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			if err := complete(b, name); name != "meta" && err != nil {
				return err
			}
		}
		return s.loadSchema(tx)
	})
}

// complete checks that the keys of a part are 1, 2, 3 and so on up to the last one given.
func complete(b *bbolt.Bucket, part Part) error {
	var n uint64
	err := b.ForEach(func(k, _ []byte) error {
		if n++; !bytes.Equal(k, rowKey(n)) {
			return damagef("%s row %d is missing", part, n)
		}
		return nil
	})
	if err == nil && n != b.Sequence() {
		return damagef("%d %s rows, want %d", n, part, b.Sequence())
	}
	return err
}

// catchDamage turns the panics and memory faults with which bbolt answers a file that changes under it, or a disk that
// no longer reads, into errors. The store answers nothing else from then on.
func (s *Store) catchDamage(f func() error) (err error) {
	if s.broken.Load() {
		return damagef("it was found out before")
	}
	faults := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(faults)
		if r := recover(); r != nil {
			s.broken.Store(true)
			err = damagef("%v", r)
		}
	}()
	return f()
}

func (s *Store) view(f func(tx *bbolt.Tx) error) error {
	return s.catchDamage(func() error { return s.db.View(f) })
}

func (s *Store) update(f func(tx *bbolt.Tx) error) error {
	return s.catchDamage(func() error { return s.db.Update(f) })
}

func (s *Store) loadSchema(tx *bbolt.Tx) error {
	sealed := tx.Bucket(bucketMeta).Get([]byte("schema"))
	if sealed == nil {
		return nil
	}
	b, err := s.box.Open([]byte("meta|schema"), sealed)
	if err != nil {
		return fmt.Errorf("schema: %w: it is damaged, or was sealed under other keys than those that lie beside the store", err)
	}
	schema, err := data.ParseSchema(b)
	if err != nil {
		return err
	}
	s.schema.Store(schema)
	return nil
}

// Close releases the file, but that of a store which broke: closing would wait for ever for what bbolt left undone.
func (s *Store) Close() error {
	if s.broken.Load() {
		return nil
	}
	return s.db.Close()
}

// Schema is the store's schema, nil before SetSchema. It must not be changed.
func (s *Store) Schema() *data.Schema { return s.schema.Load() }

// SetSchema fixes what the store's rows look like. A store that holds a schema takes only the same one again.
func (s *Store) SetSchema(schema *data.Schema) error {
	if err := schema.Validate(); err != nil {
		return err
	}
	encoded := schema.Encode()
	own, err := data.ParseSchema(encoded) // a copy, which the caller cannot change
	if err != nil {
		return err
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	if held := s.Schema(); held != nil {
		if held.Digest() != own.Digest() {
			return fmt.Errorf("store %s holds rows of schema %s, which differs from the schema %s given; take that one, or another directory", s.path, held.Name, own.Name)
		}
		return nil
	}
	err = s.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte("schema"), s.box.Seal([]byte("meta|schema"), encoded))
	})
	if err != nil {
		return fmt.Errorf("set schema of %s: %w", s.path, err)
	}
	s.schema.Store(own)
	return nil
}

// Import adds the rows of a CSV file to a part: all of them, or none if one does not fit the schema or ctx ends. name is
// the file's name in errors. It returns the number of rows.
func (s *Store) Import(ctx context.Context, part Part, r io.Reader, name string) (n int, err error) {
	schema := s.Schema()
	if schema == nil {
		return 0, fmt.Errorf("import %s: the store has no schema yet", name)
	}
	err = s.update(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, part)
		if err != nil {
			return err
		}
		b.FillPercent = 0.95 // rows come in the order of their keys
		err = data.ReadCSV(r, name, schema, func(_ int, row data.Row) error {
			n++
			if err := ctx.Err(); err != nil {
				return err
			}
			return s.put(b, schema, part, row)
		})
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return 0, fmt.Errorf("import into %s: %w", s.path, err)
	}
	s.imports.Add(1)
	return n, nil
}

// bucket finds the bucket of a part.
func bucket(tx *bbolt.Tx, part Part) (*bbolt.Bucket, error) {
	if !slices.Contains(Parts(), part) {
		return nil, fmt.Errorf("part %q, want train, validation or held", part)
	}
	return tx.Bucket([]byte(part)), nil
}

func (s *Store) put(b *bbolt.Bucket, schema *data.Schema, part Part, row data.Row) error {
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	plain, err := schema.EncodeRow(row)
	if err != nil {
		return err
	}
	key := rowKey(seq)
	return b.Put(key, s.box.Seal(rowPlace(part, key), plain))
}

// rowKey is the key of a part's n-th row, from one.
func rowKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// rowPlace binds a sealed row to its bucket and key.
func rowPlace(part Part, key []byte) []byte { return append([]byte(part+"|"), key...) }

// Rows decrypts all rows of a part, in the order of import. Its errors name rows by number and hold no value.
func (s *Store) Rows(part Part) ([]data.Row, error) {
	var rows []data.Row
	err := s.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, part)
		if err != nil {
			return err
		}
		rows = make([]data.Row, 0, b.Sequence())
		return b.ForEach(func(k, v []byte) error {
			n := len(rows) + 1
			plain, err := s.box.Open(rowPlace(part, rowKey(uint64(n))), v)
			if err != nil {
				return fmt.Errorf("row %d: %w", n, err)
			}
			row, err := s.Schema().DecodeRow(plain)
			if err != nil { // what the error says may be a value
				return fmt.Errorf("row %d does not fit the schema", n)
			}
			rows = append(rows, row)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s rows of %s: %w", part, s.path, err)
	}
	return rows, nil
}

// Count is the number of rows in a part.
func (s *Store) Count(part Part) (n int, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, part)
		if err == nil {
			n = int(b.Sequence())
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count %s rows of %s: %w", part, s.path, err)
	}
	return n, nil
}
