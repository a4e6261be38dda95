package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
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

// Parts returns all parts.
func Parts() []Part { return []Part{Train, Validation, Held} }

// Store is a node's private data in bbolt, in a file of mode 0600. Rows belong to the import that brought them, and each
// import is sealed, value by value, under a key of its own. The keys lie in a second file, sealed under the node's data
// key; deleting an import destroys its key, so that no copy of the first file gives its rows back. A Store is safe for
// concurrent use; one process at a time may open it.
//
//	buckets  meta     "layout", and "schema" sealed under the data key
//	         imports  id → record, sealed under the import's key
//	         rows     id → bucket of row number → row, sealed under the import's key
//	         answers  digest of a prediction's id → number of its row among the feedback
//	         erased   ids whose keys must not exist any more
type Store struct {
	path    string
	db      atomic.Pointer[bbolt.DB] // another one after shrink
	writes  sync.Mutex               // held while db is written to, or replaced
	box     *seal.Box
	keys    *keyFile
	now     func() time.Time
	schema  atomic.Pointer[data.Schema] // nil until set
	imports atomic.Uint64               // how often the rows changed since it was opened
	broken  atomic.Bool                 // bbolt gave up in the middle of something, and may hold its locks

	mu       sync.RWMutex           // of what follows; taken before a transaction. Who reads rows holds it for reading.
	held     map[string]*heldImport // by id
	underway int                    // imports under way
}

// Files of the store, in the node's directory.
const (
	storeFile     = "store.db"
	storeKeysFile = "store.keys"
)

// layout is the version of what the buckets hold.
const layout = "2"

var (
	bucketMeta    = []byte("meta")
	bucketImports = []byte("imports")
	bucketRows    = []byte("rows")
	bucketAnswers = []byte("answers")
	bucketErased  = []byte("erased")

	buckets = [][]byte{bucketMeta, bucketImports, bucketRows, bucketAnswers, bucketErased}
)

// OpenStore opens or makes the store in a node's directory. A file that is damaged is refused.
func OpenStore(dir string, rand io.Reader) (*Store, error) {
	box, err := Deps{Rand: rand}.dataKey(dir)
	if err != nil {
		return nil, err
	}
	return OpenStoreUnder(dir, box)
}

// OpenStoreUnder is OpenStore for a directory whose data key the caller has opened.
func OpenStoreUnder(dir string, box *seal.Box) (*Store, error) {
	return openStore(filepath.Join(dir, storeFile), box.Sub("store"))
}

// damageCure is what the owner of a damaged store can do.
const damageCure = "remove it, and restore a backup or import the data again"

func openStore(path string, box *seal.Box) (*Store, error) {
	s := &Store{path: path, box: box, now: time.Now}
	_, missing := os.Lstat(path)
	err := s.verify()
	if err == nil {
		err = s.open(false)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	if err := s.prepare(errors.Is(missing, fs.ErrNotExist)); err != nil {
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
	return fmt.Errorf("open store %s: %w", path, diskError(err))
}

// diskError says in plain words that a disk is full.
func diskError(err error) error {
	if isDiskFull(err) {
		return fmt.Errorf("the disk is full; make room and try again: %w", err)
	}
	return err
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
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
	return errors.Join(checkPages(s.path), s.db.Load().Close())
}

func (s *Store) open(readOnly bool) error {
	return s.catchDamage(func() error {
		var file *os.File
		db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: readOnly,
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			}})
		if err != nil {
			return err
		}
		if !isAt(file, s.path) { // it waited for the lock of a file that another process has replaced
			return errors.Join(berrors.ErrTimeout, db.Close())
		}
		s.db.Store(db)
		return nil
	})
}

// isAt reports whether a path still leads to an open file.
func isAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(path)
	return err == nil && os.SameFile(opened, found)
}

// prepare makes what a new store needs, reads schema and imports, and finishes what was interrupted.
func (s *Store) prepare(fresh bool) error {
	var missing error
	s.keys, missing = openKeyFile(filepath.Join(filepath.Dir(s.path), storeKeysFile), s.box)
	switch {
	case errors.Is(missing, fs.ErrNotExist):
		fresh = true // it was not made to its end, or misses its keys
	case missing != nil:
		return missing
	}
	if err := s.view(func(tx *bbolt.Tx) error { return checkLayout(tx, fresh) }); err != nil {
		return err
	}
	if fresh {
		if err := s.make(missing); err != nil {
			return err
		}
	}
	if err := s.view(s.loadSchema); err != nil {
		return err
	}
	if err := s.loadImports(); err != nil {
		return err
	}
	if err := errors.Join(s.cleanUp(), removeIfThere(s.newPath())); err != nil {
		return err
	}
	return s.shrink()
}

// make makes the buckets of a new store, and then the file of keys: from then on a store without buckets is one that
// lost them.
func (s *Store) make(missing error) error {
	err := s.update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if first, _ := tx.Bucket(bucketImports).Cursor().First(); first != nil {
			return missing
		}
		return tx.Bucket(bucketMeta).Put([]byte("layout"), []byte(layout))
	})
	if err != nil {
		return err
	}
	return s.keys.write(s.keys.keys)
}

// checkLayout refuses a store whose buckets hold something else.
func checkLayout(tx *bbolt.Tx, fresh bool) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil && fresh {
		return nil
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil && !fresh {
			return damagef("its part %q is missing", name)
		}
	}
	if v := meta.Get([]byte("layout")); string(v) != layout {
		return fmt.Errorf("its layout is %q, want %q: it was made by another version of choir; remove it and import the data again", v, layout)
	}
	return nil
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
	return s.catchDamage(func() error {
		tx, err := s.beginView()
		if err != nil {
			return err
		}
		return errors.Join(f(tx), tx.Rollback())
	})
}

func (s *Store) update(f func(tx *bbolt.Tx) error) error {
	return s.catchDamage(func() error {
		s.writes.Lock()
		defer s.writes.Unlock()
		return diskError(s.db.Load().Update(f))
	})
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
	return s.db.Load().Close()
}

// Schema is the store's schema, nil before SetSchema. It must not be changed.
func (s *Store) Schema() *data.Schema { return s.schema.Load() }

// SetSchema fixes what the store's rows look like. A store that holds rows takes only the same one again.
func (s *Store) SetSchema(schema *data.Schema) error {
	if err := schema.Validate(); err != nil {
		return err
	}
	encoded := schema.Encode()
	own, err := data.ParseSchema(encoded) // a copy, which the caller cannot change
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.Schema()
	if held != nil && held.Digest() == own.Digest() {
		return nil
	}
	if len(s.held) > 0 || s.underway > 0 {
		return fmt.Errorf("store %s holds rows of schema %s, which differs from the schema %s given; take that one, another directory, or delete all imports first", s.path, held.Name, own.Name)
	}
	err = s.update(func(tx *bbolt.Tx) error { return s.putSchema(tx, encoded) })
	if err != nil {
		return fmt.Errorf("set schema of %s: %w", s.path, err)
	}
	s.schema.Store(own)
	s.imports.Add(1)
	return nil
}

func (s *Store) putSchema(tx *bbolt.Tx, encoded []byte) error {
	return tx.Bucket(bucketMeta).Put([]byte("schema"), s.box.Seal([]byte("meta|schema"), encoded))
}
