package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
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

// Store is a node's private data: examples in bbolt, each value sealed under a data key that age wraps. The file has
// mode 0600. It is safe for concurrent use; one process at a time may open it.
type Store struct {
	path   string
	db     *bbolt.DB
	box    *seal.Box
	schema *data.Schema // nil until set
}

// OpenStore opens or makes the store in a node's directory.
func OpenStore(dir string, rand io.Reader) (*Store, error) {
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand)
	if err != nil {
		return nil, err
	}
	return openStore(filepath.Join(dir, "store.db"), box.Sub("store"))
}

func openStore(path string, box *seal.Box) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bbolt.ErrTimeout) { //nolint:staticcheck // the name bbolt's Open documents
		return nil, fmt.Errorf("open store %s: another process uses this directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	s := &Store{path: path, db: db, box: box}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, []byte(Train), []byte(Validation), []byte(Held)} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return s.loadSchema(tx)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
	}
	return s, nil
}

func (s *Store) loadSchema(tx *bbolt.Tx) error {
	sealed := tx.Bucket(bucketMeta).Get([]byte("schema"))
	if sealed == nil {
		return nil
	}
	b, err := s.box.Open([]byte("meta|schema"), sealed)
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	s.schema, err = data.ParseSchema(b)
	return err
}

// Close releases the file.
func (s *Store) Close() error { return s.db.Close() }

// Schema is the store's schema, nil before SetSchema.
func (s *Store) Schema() *data.Schema { return s.schema }

// SetSchema fixes what the store's rows look like. A store that holds a schema takes only the same one again.
func (s *Store) SetSchema(schema *data.Schema) error {
	if s.schema != nil {
		if s.schema.Digest() != schema.Digest() {
			return fmt.Errorf("store %s holds rows of schema %s, which differs from schema %s", s.path, s.schema.Name, schema.Name)
		}
		return nil
	}
	if err := schema.Validate(); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte("schema"), s.box.Seal([]byte("meta|schema"), schema.Encode()))
	})
	if err != nil {
		return fmt.Errorf("set schema of %s: %w", s.path, err)
	}
	s.schema = schema
	return nil
}

// Import adds the rows of a CSV file to a part: all of them, or none if one does not fit the schema. name is the
// file's name in errors. It returns the number of rows.
func (s *Store) Import(ctx context.Context, part Part, r io.Reader, name string) (n int, err error) {
	if s.schema == nil {
		return 0, fmt.Errorf("import %s: the store has no schema yet", name)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(part))
		if b == nil {
			return fmt.Errorf("part %q, want train, validation or held", part)
		}
		b.FillPercent = 0.95
		return data.ReadCSV(r, name, s.schema, func(_ int, row data.Row) error {
			n++
			if n%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			return s.put(b, part, row)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("import into %s: %w", s.path, err)
	}
	return n, nil
}

func (s *Store) put(b *bbolt.Bucket, part Part, row data.Row) error {
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	plain, err := s.schema.EncodeRow(row)
	if err != nil {
		return err
	}
	key := binary.BigEndian.AppendUint64(nil, seq)
	return b.Put(key, s.box.Seal(rowPlace(part, key), plain))
}

// rowPlace binds a sealed row to its bucket and key.
func rowPlace(part Part, key []byte) []byte { return append([]byte(part+"|"), key...) }

// Rows decrypts all rows of a part, in the order of import.
func (s *Store) Rows(part Part) ([]data.Row, error) {
	var rows []data.Row
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(part)).ForEach(func(k, v []byte) error {
			plain, err := s.box.Open(rowPlace(part, k), v)
			if err != nil {
				return fmt.Errorf("row %x: %w", k, err)
			}
			row, err := s.schema.DecodeRow(plain)
			if err != nil {
				return fmt.Errorf("row %x: %w", k, err)
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
	err = s.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket([]byte(part)).Stats().KeyN
		return nil
	})
	return n, err
}
