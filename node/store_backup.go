package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
)

// A backup is one age file. What it encrypts begins with backupMagic; then come frames, each a letter, the length of
// what follows as a uvarint, and that: the schema, for each import its record, its rows and for feedback the digests of
// the predictions' ids, and at the end the number of rows. Keys are not in it: a restored store has new ones.
const (
	backupMagic  = "choir backup 1\n"
	frameSchema  = 'S'
	frameImport  = 'I'
	frameRow     = 'R'
	frameAnswer  = 'A'
	frameEnd     = 'E'
	maxFrame     = 64 << 20
	backupPieces = 1024 // rows that are read in one transaction
)

// Backup writes the whole store as one age file: schema, imports, rows, feedback. The node's identity is not part of
// it. A backup that was interrupted has no end, and Restore refuses it. progress, which may be nil, is told of rows.
func (s *Store) Backup(ctx context.Context, w io.Writer, lock seal.Lock, progress func(done, rows int64)) error {
	if err := s.backup(ctx, w, lock, progress); err != nil {
		return fmt.Errorf("back up %s: %w", s.path, diskError(err))
	}
	return nil
}

func (s *Store) backup(ctx context.Context, w io.Writer, lock seal.Lock, progress func(done, rows int64)) error {
	s.mu.RLock()
	schema, imports := s.Schema(), s.copies()
	s.mu.RUnlock()
	if schema == nil {
		return errors.New("the store has no schema yet, and no rows")
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	sealed, err := seal.SealStream(w, lock)
	if err != nil {
		return err
	}
	var done, all int64
	for _, h := range imports {
		all += int64(h.Rows)
	}
	out := newFrames(sealed)
	out.text(backupMagic)
	out.write(frameSchema, schema.Encode())
	for _, h := range imports {
		record, err := json.Marshal(h.record)
		if err != nil {
			return err
		}
		out.write(frameImport, record)
		for from := 1; from <= h.Rows; from += backupPieces {
			rows, answers, err := s.piece(h, from)
			if err != nil {
				return err
			}
			for i, row := range rows {
				out.write(frameRow, row)
				if h.Feedback {
					out.write(frameAnswer, answers[from+i])
				}
			}
			if err := errors.Join(out.err, ctx.Err()); err != nil {
				return err
			}
			done += int64(len(rows))
			progress(done, all)
		}
	}
	out.write(frameEnd, binary.AppendUvarint(nil, uint64(all)))
	return errors.Join(out.err, out.w.Flush(), sealed.Close())
}

// piece opens some rows of an import, and finds which predictions they answer. Between two pieces the store goes on.
func (s *Store) piece(h *heldImport, from int) (rows [][]byte, answers map[int][]byte, err error) {
	answers = map[int][]byte{}
	last := min(h.Rows, from+backupPieces-1)
	err = s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRows).Bucket([]byte(h.ID))
		if b == nil {
			return fmt.Errorf("import %s was deleted in the meantime; begin again", h.ID)
		}
		for n := from; n <= last; n++ {
			plain, err := h.box.Open(rowPlace(h.ID, n), b.Get(rowKey(n)))
			if err != nil {
				return fmt.Errorf("row %d of import %s: %w", n, h.ID, err)
			}
			rows = append(rows, plain)
		}
		if !h.Feedback {
			return nil
		}
		return tx.Bucket(bucketAnswers).ForEach(func(k, v []byte) error {
			if n := int(binary.BigEndian.Uint64(v)); n >= from && n <= last {
				answers[n] = bytes.Clone(k)
			}
			return nil
		})
	})
	return rows, answers, err
}

// frames writes a backup. The first error stays.
type frames struct {
	w   *bufio.Writer
	err error
}

func newFrames(w io.Writer) *frames { return &frames{w: bufio.NewWriterSize(w, 1<<16)} }

func (f *frames) text(s string) {
	if f.err == nil {
		_, f.err = f.w.WriteString(s)
	}
}

func (f *frames) write(kind byte, body []byte) {
	f.text(string(binary.AppendUvarint([]byte{kind}, uint64(len(body)))))
	if f.err == nil {
		_, f.err = f.w.Write(body)
	}
}

// Restore reads a backup into a store without rows: all of it, or nothing if it is damaged, cut, for others, or ctx
// ends. Imports get new keys and new ids. progress, which may be nil, is told of bytes read; size is 0 if not known.
func (s *Store) Restore(ctx context.Context, r io.Reader, unlock seal.Unlock, size int64, progress func(done, size int64)) ([]Import, error) {
	if err := s.restore(newInput(ctx, r, &Source{Size: size, Progress: progress}, 0), unlock); err != nil {
		return nil, fmt.Errorf("restore %s: %w; nothing was restored", s.path, err)
	}
	return s.List(), nil
}

// restoring is a restore under way.
type restoring struct {
	s       *Store
	in      *bufio.Reader
	schema  *data.Schema
	imports []*filling
	answers [][]byte // of the feedback's rows
	rows    uint64
}

func (s *Store) restore(r io.Reader, unlock seal.Unlock) error {
	if err := s.reserve(); err != nil {
		return err
	}
	defer s.end()
	plain, err := seal.OpenStream(r, unlock)
	if err != nil {
		return backupError(err)
	}
	re := &restoring{s: s, in: bufio.NewReaderSize(plain, 1<<16)}
	if err = re.read(); err == nil {
		err = re.commit()
	}
	if err != nil {
		for _, f := range re.imports {
			f.abort()
		}
	}
	return err
}

// backupError says what it means that a backup does not open.
func backupError(err error) error {
	switch {
	case errors.Is(err, seal.ErrRecipient):
		return fmt.Errorf("the backup is for another key or passphrase: %w", err)
	case errors.Is(err, seal.ErrSealed):
		return fmt.Errorf("the backup is damaged or cut, or it is no backup: %w", err)
	}
	return err
}

// reserve keeps schema and rows as they are: absent.
func (s *Store) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 || s.underway > 0 {
		return fmt.Errorf("it holds rows; restore into an empty store")
	}
	s.underway++
	return nil
}

func (re *restoring) read() error {
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(re.in, magic); err != nil || string(magic) != backupMagic {
		return errors.Join(errors.New("this is not a backup of a store, or one of another version"), onlyIf(errors.Is(err, seal.ErrSealed), backupError(err)))
	}
	for {
		kind, body, err := re.frame()
		if err != nil {
			return backupError(err)
		}
		if kind == frameEnd {
			return re.checkEnd(body)
		}
		if err := re.take(kind, body); err != nil {
			return err
		}
	}
}

func (re *restoring) frame() (byte, []byte, error) {
	kind, err := re.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(re.in)
	if err != nil {
		return 0, nil, err
	}
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a part of %d bytes", n)
	}
	body := make([]byte, n)
	_, err = io.ReadFull(re.in, body)
	return kind, body, err
}

func (re *restoring) take(kind byte, body []byte) error {
	var now *filling // the import that rows belong to
	if n := len(re.imports); n > 0 {
		now = re.imports[n-1]
	}
	switch {
	case kind == frameSchema && re.schema == nil:
		schema, err := data.ParseSchema(body)
		re.schema = schema
		return err
	case kind == frameImport && re.schema != nil:
		return re.begin(body)
	case kind == frameRow && now != nil:
		row, err := re.schema.DecodeRow(body)
		if err != nil {
			return fmt.Errorf("row %d of import %s does not fit the schema", now.record.Rows+1, now.record.File)
		}
		re.rows++
		return now.add(row)
	case kind == frameAnswer && now != nil && now.record.Feedback && len(body) == answerBytes:
		re.answers = append(re.answers, body)
		return nil
	}
	return fmt.Errorf("the backup holds a part %q where none can be", kind)
}

// begin makes a place for an import.
func (re *restoring) begin(body []byte) error {
	f := &filling{store: re.s, schema: re.schema}
	if err := json.Unmarshal(body, &f.record); err != nil {
		return fmt.Errorf("import %d of the backup: %w", len(re.imports)+1, err)
	}
	f.record.ID, f.want, f.record.Rows = re.s.newID(), f.record.Rows, 0
	f.record.Order = uint64(len(re.imports) + 1)
	re.s.mu.Lock()
	defer re.s.mu.Unlock()
	box, err := re.s.keys.add(f.record.ID)
	f.box = box
	if err == nil {
		re.imports = append(re.imports, f)
	}
	return err
}

// checkEnd sees that all is there and nothing follows.
func (re *restoring) checkEnd(body []byte) error {
	if n, k := binary.Uvarint(body); k != len(body) || n != re.rows || n > math.MaxInt64 {
		return fmt.Errorf("the backup says that it has %d rows, and has %d", n, re.rows)
	}
	if re.schema == nil {
		return errors.New("the backup has no schema")
	}
	feedback := 0
	for _, f := range re.imports {
		if f.record.Rows != f.want {
			return fmt.Errorf("import %s has %d rows in the backup, want %d", f.record.File, f.record.Rows, f.want)
		}
		if f.record.Feedback {
			feedback += f.want
		}
	}
	if feedback != len(re.answers) {
		return fmt.Errorf("the backup has %d rows of feedback for %d predictions", feedback, len(re.answers))
	}
	if _, err := re.in.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("the backup goes on after its end"), err)
	}
	return nil
}

// commit makes everything the store's at once.
func (re *restoring) commit() error {
	s := re.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 {
		return errors.New("other rows came in the meantime; restore into an empty store")
	}
	err := s.update(func(tx *bbolt.Tx) error {
		for _, f := range re.imports {
			f.record.count()
			if err := errors.Join(f.flush(tx), f.record.put(tx, f.box)); err != nil {
				return err
			}
		}
		for i, key := range re.answers {
			if err := tx.Bucket(bucketAnswers).Put(key, rowKey(i+1)); err != nil {
				return err
			}
		}
		return errors.Join(s.putSchema(tx, re.schema.Encode()), s.putIndex(tx))
	})
	if err != nil {
		return err
	}
	for _, f := range re.imports {
		s.held[f.record.ID] = &heldImport{f.record, f.box}
	}
	s.schema.Store(re.schema)
	s.imports.Add(1)
	return nil
}
