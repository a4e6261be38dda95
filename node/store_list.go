package node

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"choir.example/internal/canon"
	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
)

// Import is a file that was imported, or all the feedback.
type Import struct {
	ID         string    `json:"id"`                // by which Delete knows it
	File       string    `json:"file"`              // its name
	Digest     string    `json:"sha256"`            // of the file's bytes, in hex; empty for feedback
	Schema     string    `json:"schema"`            // digest of the schema, in hex
	Time       time.Time `json:"time"`              // of the import; for feedback of the newest example
	Rows       int       `json:"rows"`              // that were taken
	Train      int       `json:"train"`             // of Rows
	Validation int       `json:"validation"`        // of Rows
	Held       int       `json:"held"`              // of Rows
	Skipped    int       `json:"skipped,omitempty"` // bad rows that were left out
}

// record is what the store keeps of an import.
type record struct {
	Import
	Shares   Shares `json:"shares"`
	Order    uint64 `json:"order"`              // 1 for the first import, and so on: rows are read in this order
	Feedback bool   `json:"feedback,omitempty"` // the import that outcomes of predictions go to
}

// count works out how many rows are in each part.
func (r *record) count() {
	n := map[Part]int{}
	for i := range r.Rows {
		n[r.part(i+1)]++
	}
	r.Train, r.Validation, r.Held = n[Train], n[Validation], n[Held]
}

// part is where the n-th row is, from one.
func (r *record) part(n int) Part { return r.Shares.part(r.Digest, n) }

// in is the number of rows in a part.
func (r *record) in(part Part) int {
	switch part {
	case Train:
		return r.Train
	case Validation:
		return r.Validation
	}
	return r.Held
}

func recordPlace(id string) []byte { return []byte("import|" + id) }

// put writes the record under the import's own key, so that it is erased with the rows.
func (r *record) put(tx *bbolt.Tx, box *seal.Box) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketImports).Put([]byte(r.ID), box.Seal(recordPlace(r.ID), b))
}

// heldImport is an import whose rows are in the store.
type heldImport struct {
	record
	box *seal.Box
}

// loadImports reads the records, and sees that no row of theirs is missing.
func (s *Store) loadImports() error {
	s.held = map[string]*heldImport{}
	return s.view(func(tx *bbolt.Tx) error {
		if err := s.checkIndex(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketImports).ForEach(func(k, v []byte) error {
			h, err := s.openImport(string(k), v)
			if err != nil {
				return err
			}
			s.held[h.ID] = h
			if n, err := countAnswers(tx); h.Feedback && (err != nil || n != h.Rows) {
				return damagef("%d predictions are answered by %d rows of feedback", n, h.Rows)
			}
			return complete(tx.Bucket(bucketRows).Bucket(k), h)
		})
	})
}

// putIndex writes the list of all imports, sealed under the data key, so that one which is missing is noticed. Every
// transaction that adds or removes an import ends with it.
func (s *Store) putIndex(tx *bbolt.Tx) error {
	return tx.Bucket(bucketMeta).Put([]byte("index"), s.box.Seal([]byte("meta|index"), indexOf(tx)))
}

// indexOf is the ids of all imports, in order.
func indexOf(tx *bbolt.Tx) []byte {
	var w canon.Writer
	c := tx.Bucket(bucketImports).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		w.Bytes(k)
	}
	return w.Buf
}

func (s *Store) checkIndex(tx *bbolt.Tx) error {
	var index []byte
	if sealed := tx.Bucket(bucketMeta).Get([]byte("index")); sealed != nil {
		var err error
		if index, err = s.box.Open([]byte("meta|index"), sealed); err != nil {
			return damagef("list of imports: %v", err)
		}
	}
	if !bytes.Equal(index, indexOf(tx)) {
		return damagef("an import is missing, or there is one too many")
	}
	return nil
}

func (s *Store) openImport(id string, sealed []byte) (*heldImport, error) {
	box, err := s.keys.open(id)
	if err != nil {
		return nil, err
	}
	if box == nil {
		return nil, fmt.Errorf("import %s was deleted, but this file holds it still: it is a copy from before; %s", id, damageCure)
	}
	plain, err := box.Open(recordPlace(id), sealed)
	if err != nil {
		return nil, damagef("import %s: %v", id, err)
	}
	h := &heldImport{box: box}
	if err := json.Unmarshal(plain, &h.record); err != nil {
		return nil, damagef("import %s: its record is not what it should be", id)
	}
	return h, nil
}

// complete checks that the keys of an import's rows are 1, 2, 3 and so on up to the last one.
func complete(b *bbolt.Bucket, h *heldImport) error {
	if b == nil {
		return damagef("the rows of import %s are missing", h.ID)
	}
	n := 0
	err := b.ForEach(func(k, _ []byte) error {
		if n++; !bytes.Equal(k, rowKey(n)) {
			return damagef("row %d of import %s is missing", n, h.ID)
		}
		return nil
	})
	if err == nil && n != h.Rows {
		return damagef("import %s has %d rows, want %d", h.ID, n, h.Rows)
	}
	return err
}

// cleanUp removes rows that no import claims, because it was interrupted, and keys that should be gone. A disk that is
// full does not keep the store from opening.
func (s *Store) cleanUp() error {
	var unclaimed, erased []string
	err := s.view(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketRows).ForEachBucket(func(k []byte) error {
			if s.held[string(k)] == nil {
				unclaimed = append(unclaimed, string(k))
			}
			return nil
		})
		return errors.Join(err, tx.Bucket(bucketErased).ForEach(func(k, _ []byte) error {
			erased = append(erased, string(k))
			return nil
		}))
	})
	if err != nil {
		return err
	}
	for _, id := range unclaimed {
		err = errors.Join(err, s.erase(id))
	}
	err = errors.Join(err, s.keys.destroy(erased...))
	if isDiskFull(err) {
		return nil
	}
	return err
}

// inOrder are the imports, the oldest first. The caller holds mu.
func (s *Store) inOrder() []*heldImport {
	var all []*heldImport
	for _, h := range s.held {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *heldImport) int { return cmp.Compare(a.Order, b.Order) })
	return all
}

// order is that of the newest import. The caller holds mu.
func (s *Store) order() (newest uint64) {
	for _, h := range s.held {
		newest = max(newest, h.Order)
	}
	return newest
}

// byDigest finds the import of a file. The caller holds mu.
func (s *Store) byDigest(digest string) *heldImport {
	for _, h := range s.held {
		if h.Digest == digest {
			return h
		}
	}
	return nil
}

// List tells of all imports, the oldest first.
func (s *Store) List() []Import {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := []Import{}
	for _, h := range s.inOrder() {
		all = append(all, h.public())
	}
	return all
}

// public is what the owner is told.
func (r *record) public() Import {
	i := r.Import
	if r.Feedback {
		i.ID = FeedbackID
	}
	return i
}

// ErrNoImport is returned for an import that the store does not have.
var ErrNoImport = errors.New("there is no such import")

// Delete destroys an import: its rows, its record and the key under which they were sealed. Once it has returned, no
// copy of the store's file can be read there any more, with all the keys that are left. Models that have learnt from the
// rows stay as they are.
func (s *Store) Delete(id string) (Import, error) {
	gone, err := s.deleteImport(id)
	if err == nil {
		err = s.shrink()
	}
	return gone, err
}

func (s *Store) deleteImport(id string) (Import, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(id)
	if h == nil {
		return Import{}, fmt.Errorf("delete import %q of %s: %w", id, s.path, ErrNoImport)
	}
	if err := s.erase(h.ID); err != nil {
		return Import{}, fmt.Errorf("delete import %s of %s: %w", id, s.path, err)
	}
	return h.public(), nil
}

// find knows an import by what the owner calls it, or by the start of that if it is no other's. The caller holds mu.
func (s *Store) find(id string) *heldImport {
	if id == FeedbackID {
		return s.feedback()
	}
	if h := s.held[id]; h != nil || len(id) < 4 {
		return h
	}
	var found []*heldImport
	for name, h := range s.held {
		if strings.HasPrefix(name, id) {
			found = append(found, h)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0]
}

// erase removes what an import wrote, and then its key. In between, the store remembers that the key must go. Very many
// rows stay in the file, sealed under a key that is nowhere, until shrink, which the caller calls after it has released
// mu. The caller holds mu.
func (s *Store) erase(id string) error {
	h := s.held[id]
	err := s.update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketImports).Delete([]byte(id)); err != nil {
			return err
		}
		if rows := tx.Bucket(bucketRows).Bucket([]byte(id)); rows != nil && rowsIn(rows) <= manyErased {
			if err := tx.Bucket(bucketRows).DeleteBucket([]byte(id)); err != nil {
				return err
			}
		}
		if h != nil && h.Feedback {
			if err := forgetAnswers(tx); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(bucketErased).Put([]byte(id), []byte{1}), s.putIndex(tx))
	})
	if err != nil {
		return err
	}
	if h != nil {
		delete(s.held, id)
		s.imports.Add(1)
	}
	if err := s.keys.destroy(id); err != nil {
		return fmt.Errorf("its rows are removed, but its key is not destroyed yet, which the next start will do: %w", err)
	}
	return nil
}

// rowsIn is the number of an import's last row.
func rowsIn(b *bbolt.Bucket) uint64 {
	k, _ := b.Cursor().Last()
	if len(k) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(k)
}

// snapshot reads the store as it is at one moment.
func (s *Store) snapshot(f func(tx *bbolt.Tx, imports []*heldImport) error) error {
	return s.catchDamage(func() error {
		tx, imports, err := s.beginRead()
		if err != nil {
			return err
		}
		return errors.Join(f(tx, imports), tx.Rollback())
	})
}

func (s *Store) beginRead() (*bbolt.Tx, []*heldImport, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tx, err := s.beginView()
	return tx, s.copies(), err
}

// copies are the imports as they are now, the oldest first: feedback grows. The caller holds mu.
func (s *Store) copies() []*heldImport {
	imports := s.inOrder()
	for i, h := range imports {
		held := *h
		imports[i] = &held
	}
	return imports
}

// Rows decrypts all rows of a part, in the order of import. Its errors name rows by number and hold no value.
func (s *Store) Rows(part Part) ([]data.Row, error) {
	var rows []data.Row
	err := s.snapshot(func(tx *bbolt.Tx, imports []*heldImport) error {
		if err := part.check(); err != nil {
			return err
		}
		n := 0
		for _, h := range imports {
			n += h.in(part)
		}
		rows = make([]data.Row, 0, n)
		for _, h := range imports {
			err := h.read(tx, s.Schema(), func(n int) bool { return h.part(n) == part }, func(row data.Row) error {
				rows = append(rows, row)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s rows of %s: %w", part, s.path, err)
	}
	return rows, nil
}

// read decrypts those rows of an import that are wanted.
func (h *heldImport) read(tx *bbolt.Tx, schema *data.Schema, want func(n int) bool, each func(data.Row) error) error {
	n := 0
	err := tx.Bucket(bucketRows).Bucket([]byte(h.ID)).ForEach(func(_, v []byte) error {
		if n++; !want(n) {
			return nil
		}
		row, err := h.openRow(schema, n, v)
		if err != nil {
			return err
		}
		return each(row)
	})
	if err == nil && n != h.Rows {
		return damagef("import %s has %d rows, want %d", h.ID, n, h.Rows)
	}
	return err
}

func (h *heldImport) openRow(schema *data.Schema, n int, sealed []byte) (data.Row, error) {
	plain, err := h.box.Open(rowPlace(h.ID, n), sealed)
	if err != nil {
		return nil, fmt.Errorf("row %d of import %s: %w", n, h.ID, err)
	}
	row, err := schema.DecodeRow(plain)
	if err != nil { // what the error says may be a value
		return nil, fmt.Errorf("row %d of import %s does not fit the schema", n, h.ID)
	}
	return row, nil
}

// Count is the number of rows in a part.
func (s *Store) Count(part Part) (n int, err error) {
	if err := part.check(); err != nil {
		return 0, fmt.Errorf("count %s rows of %s: %w", part, s.path, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, h := range s.held {
		n += h.in(part)
	}
	return n, nil
}
