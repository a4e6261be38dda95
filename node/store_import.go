package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
)

// Source says what is imported, and how.
type Source struct {
	Name     string                 // of the file, in errors and in the list
	Labels   string                 // of an IDX file's file of labels, in errors
	Part     Part                   // where all its rows go; empty: they are divided by Shares
	Shares   Shares                 // zero: DefaultShares
	Format   data.Format            // of the file; empty: CSV
	CSV      data.CSV               // how a CSV file is written; its SkipBad is for every format
	Positive int                    // of an IDX file: the label that counts as true, all others as false; 0: labels are 0 and 1
	Size     int64                  // of the file in bytes, for Progress; 0 if it is not known
	Progress func(done, size int64) // called now and then with the bytes that were read; may be nil
}

// shares is how the rows are divided.
func (src *Source) shares() (Shares, error) {
	if src.Part != "" {
		return src.Part.all()
	}
	if src.Shares == (Shares{}) {
		return DefaultShares(), nil
	}
	return src.Shares, src.Shares.Validate()
}

// Imported is what became of an import.
type Imported struct {
	Import  Import       `json:"import"`  // as it is in the store now
	Added   int          `json:"added"`   // rows
	Already bool         `json:"already"` // the same file was imported before, and nothing was done
	Skipped data.Skipped `json:"skipped"` // bad rows that were left out
}

// String says it in a line.
func (i Imported) String() string {
	if i.Already {
		return fmt.Sprintf("already imported at %s as %s, import %s; 0 rows added", i.Import.Time.Format(time.RFC3339), i.Import.File, i.Import.ID)
	}
	text := fmt.Sprintf("import %s: %d rows added", i.Import.ID, i.Added)
	if i.Skipped.Rows > 0 {
		text += fmt.Sprintf(", %d bad rows left out", i.Skipped.Rows)
	}
	return text
}

// Import adds the rows of a file in the source's format: all of them, or none if one does not fit the schema, the disk is full or ctx ends.
// A file whose bytes were imported before is left alone, and the answer says so; equal rows within a file all count.
// Memory does not grow with the file, but for a schema that gathers sequences.
func (s *Store) Import(ctx context.Context, r io.Reader, src Source) (Imported, error) {
	if old, err := s.importedBefore(ctx, r); err != nil || old != nil {
		return s.already(old, src, err)
	}
	in := newInput(ctx, r, &src, 0)
	return s.load(ctx, src, func(add func(data.Row) error) (data.Skipped, error) {
		skipped, err := src.Format.Read(in, src.Name, s.Schema(), src.CSV, func(_ int, row data.Row) error { return add(row) })
		if err == nil { // what follows the last row belongs to the file's digest
			_, err = io.Copy(io.Discard, in)
		}
		return skipped, err
	}, func() string { return in.digest() })
}

// ImportIDX adds images and labels in the format of MNIST: pixel k is the numeric column "pk", the label is the
// schema's.
func (s *Store) ImportIDX(ctx context.Context, images, labels io.Reader, src Source) (Imported, error) {
	x := newInput(ctx, images, &src, 0)
	y := newInput(ctx, labels, &Source{}, 0)
	return s.load(ctx, src, func(add func(data.Row) error) (data.Skipped, error) {
		err := data.ReadIDX(x, y, s.Schema(), src.Positive, func(_ int, row data.Row) error { return add(row) })
		if err != nil {
			err = fmt.Errorf("%s: %w", strings.TrimSuffix(src.Name+", "+src.Labels, ", "), err)
		}
		return data.Skipped{}, err
	}, func() string {
		both := sha256.Sum256([]byte(x.digest() + y.digest()))
		return hex.EncodeToString(both[:])
	})
}

// importedBefore reads a file that can be read twice, and looks for it in the store.
func (s *Store) importedBefore(ctx context.Context, r io.Reader) (*Import, error) {
	file, ok := r.(io.ReadSeeker)
	if !ok {
		return nil, nil
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil // a pipe, which only looks like a file
	}
	in := newInput(ctx, file, &Source{}, 0)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	if _, err := file.Seek(start, io.SeekStart); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if h := s.byDigest(in.digest()); h != nil {
		return &h.Import, nil
	}
	return nil, nil
}

func (s *Store) already(old *Import, src Source, err error) (Imported, error) {
	if err != nil {
		return Imported{}, fmt.Errorf("import %s into %s: %w", src.Name, s.path, err)
	}
	return Imported{Import: *old, Already: true}, nil
}

// load brings rows into the store, in transactions of a few thousand. They are nobody's until the last one, which holds
// the record of the import.
func (s *Store) load(ctx context.Context, src Source, read func(add func(data.Row) error) (data.Skipped, error), digest func() string) (_ Imported, err error) {
	f, err := s.begin(src)
	if err != nil {
		return Imported{}, fmt.Errorf("import %s into %s: %w", src.Name, s.path, err)
	}
	skipped, err := read(f.add)
	var done Imported
	if err = errors.Join(err, ctx.Err()); err == nil && f.record.Rows == 0 {
		err = fmt.Errorf("%s: no row of it can be taken: it has none, or all %d were left out", src.Name, skipped.Rows)
	}
	if err == nil {
		done, err = f.commit(digest(), skipped)
	}
	if err != nil || done.Already {
		f.abort()
	}
	s.end()
	if err != nil {
		return Imported{}, fmt.Errorf("import into %s: %w", s.path, err)
	}
	return done, nil
}

// filling is an import under way.
type filling struct {
	store   *Store
	record  record
	box     *seal.Box
	schema  *data.Schema
	pending [][]byte // sealed rows that are in no transaction yet, the last of record.Rows
	bytes   int
	want    int // rows that a backup says there are
}

// begin makes a key for a new import.
func (s *Store) begin(src Source) (*filling, error) {
	shares, err := src.shares()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	schema := s.Schema()
	if schema == nil {
		return nil, errors.New("the store has no schema yet; set one first")
	}
	digest := schema.Digest()
	f := &filling{store: s, schema: schema, record: record{
		Import: Import{ID: s.newID(), File: src.Name, Schema: hex.EncodeToString(digest[:])}, Shares: shares,
	}}
	if f.box, err = s.keys.add(f.record.ID); err != nil {
		return nil, err
	}
	s.underway++
	return f, nil
}

// end lets the schema be changed again.
func (s *Store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underway--
}

// newID draws a name for an import.
func (s *Store) newID() string { return hex.EncodeToString(s.box.NewKey()[:4]) }

// flushBytes is how much waits for a transaction.
const flushBytes = 4 << 20

// add takes one row.
func (f *filling) add(row data.Row) error {
	plain, err := f.schema.EncodeRow(row)
	if err != nil {
		return err
	}
	f.record.Rows++
	sealed := f.box.Seal(rowPlace(f.record.ID, f.record.Rows), plain)
	f.pending, f.bytes = append(f.pending, sealed), f.bytes+len(sealed)+64
	if f.bytes < flushBytes {
		return nil
	}
	if err := f.store.room(f.bytes); err != nil {
		return err
	}
	return f.store.update(f.flush)
}

// flush writes what is pending.
func (f *filling) flush(tx *bbolt.Tx) error {
	b, err := tx.Bucket(bucketRows).CreateBucketIfNotExists([]byte(f.record.ID))
	if err != nil {
		return err
	}
	b.FillPercent = 0.95 // rows come in the order of their keys
	first := f.record.Rows - len(f.pending) + 1
	for i, sealed := range f.pending {
		if err := b.Put(rowKey(first+i), sealed); err != nil {
			return err
		}
	}
	f.pending, f.bytes = nil, 0
	return nil
}

// commit makes the rows the store's, but for a file that is there already.
func (f *filling) commit(digest string, skipped data.Skipped) (Imported, error) {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byDigest(digest); old != nil {
		return Imported{Import: old.Import, Already: true}, nil
	}
	f.record.Digest, f.record.Time, f.record.Skipped = digest, s.now().UTC().Truncate(time.Second), skipped.Rows
	f.record.Order = s.order() + 1
	f.record.count()
	if err := s.room(f.bytes); err != nil {
		return Imported{}, fmt.Errorf("%s: %w", f.record.File, err)
	}
	err := s.update(func(tx *bbolt.Tx) error {
		if err := f.flush(tx); err != nil {
			return err
		}
		return errors.Join(f.record.put(tx, f.box), s.putIndex(tx))
	})
	if err != nil {
		return Imported{}, fmt.Errorf("%s: %w", f.record.File, err)
	}
	s.held[f.record.ID] = &heldImport{f.record, f.box}
	s.imports.Add(1)
	return Imported{Import: f.record.Import, Added: f.record.Rows, Skipped: skipped}, nil
}

// abort removes what was written. What it cannot remove, as on a full disk, is removed when the store is opened.
func (f *filling) abort() {
	s := f.store
	s.mu.Lock()
	_ = s.erase(f.record.ID)
	s.mu.Unlock()
	_ = s.shrink()
}

// rowKey is the key of an import's n-th row, from one.
func rowKey(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// rowPlace binds a sealed row to its import and number.
func rowPlace(id string, n int) []byte {
	return binary.BigEndian.AppendUint64([]byte("row|"+id+"|"), uint64(n))
}

// input is a file as it is read: it counts, makes the digest, tells of progress and ends with ctx.
type input struct {
	ctx  context.Context
	r    io.Reader
	sum  hash.Hash
	src  *Source
	done int64
	told int64
}

func newInput(ctx context.Context, r io.Reader, src *Source, done int64) *input {
	return &input{ctx: ctx, r: r, sum: sha256.New(), src: src, done: done}
}

// progressStep is after how many bytes progress is told.
const progressStep = 1 << 18

func (in *input) Read(b []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := in.r.Read(b)
	in.sum.Write(b[:n])
	in.done += int64(n)
	if in.src.Progress != nil && (in.done-in.told >= progressStep || err != nil && in.done > in.told) {
		in.told = in.done
		in.src.Progress(in.done, in.src.Size)
	}
	return n, err
}

func (in *input) digest() string { return hex.EncodeToString(in.sum.Sum(nil)) }
