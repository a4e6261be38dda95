package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
)

// The start of an id is enough if it has four letters or more and is no other's.
func TestDeleteKnowsTheStartOfAnID(t *testing.T) {
	s := toyStore(t, t.TempDir(), 5)
	importCSV(t, s, Train, toyCSV(7))
	a, b := s.held[s.List()[0].ID], s.held[s.List()[1].ID]
	s.held = map[string]*heldImport{"abcdef01": a, "abcdee02": b}
	for id, want := range map[string]*heldImport{"abcd": nil, "abc": nil, "": nil, "abcdef": a, "abcdee02": b, "abcdef011": nil} {
		if got := s.find(id); got != want {
			t.Errorf("%q finds %v, want %v", id, got, want)
		}
	}
}

func TestDeleteRemovesOneImport(t *testing.T) {
	s := toyStore(t, t.TempDir(), 5)
	importCSV(t, s, Train, toyCSV(7))
	importCSV(t, s, Validation, toyCSV(2))
	before := s.imports.Load()
	gone, err := s.Delete(s.List()[0].ID)
	if err != nil || gone.Rows != 5 || gone.File != "good.csv" {
		t.Errorf("%+v, %v", gone, err)
	}
	if s.imports.Load() == before {
		t.Error("who keeps rows in memory is not told")
	}
	wantCount(t, s, Train, 7)
	wantNothing(t, s, 2)
	s = reopen(t, s)
	wantCount(t, s, Train, 7)
	wantCount(t, s, Validation, 2)
	wantNothing(t, s, 2)
	if _, err := s.Delete(gone.ID); !errors.Is(err, ErrNoImport) {
		t.Errorf("deleted twice: %v", err)
	}
	_, err = s.Delete("feedback")
	wantError(t, err, "feedback", "no such import")
	importCSV(t, s, Train, toyCSV(5)) // the file may come again
	wantCount(t, s, Train, 12)
}

// What was deleted cannot be read from a copy of the store's file that was made before, with every key that is left: not
// through the store, nor value by value. What was not deleted can be.
func TestDeletedRowsStayErased(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 50)
	importCSV(t, s, Validation, toyCSV(4))
	erased, kept := s.List()[0].ID, s.List()[1].ID
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	keysBefore, err := os.ReadFile(filepath.Join(dir, "store.keys"))
	if err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if _, err := s.Delete(erased); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, copied)
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "import "+erased+" was deleted", "copy from before")
	boxes := remainingBoxes(t, dir)
	if got := opened(t, path, boxes); got[erased] != 0 || got[kept] != 4+1 {
		t.Errorf("opened from the copy: %v, want 0 of %s and 5 of %s", got, erased, kept)
	}
	write(t, filepath.Join(dir, "store.keys"), keysBefore) // the test can tell: with the key they do open
	if got := opened(t, path, remainingBoxes(t, dir)); got[erased] != 50+1 {
		t.Errorf("with the key, %d values open, want 51", got[erased])
	}
}

// remainingBoxes is every key that a directory holds.
func remainingBoxes(t *testing.T, dir string) []*seal.Box {
	t.Helper()
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store := box.Sub("store")
	keys, err := openKeyFile(filepath.Join(dir, "store.keys"), store)
	if err != nil {
		t.Fatal(err)
	}
	boxes := []*seal.Box{box, store, keys.box}
	for id := range keys.keys {
		b, err := keys.open(id)
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, b)
	}
	return boxes
}

// opened counts the values of each import that one of the boxes opens.
func opened(t *testing.T, path string, boxes []*seal.Box) map[string]int {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := map[string]int{}
	try := func(id string, place, sealed []byte) {
		for _, b := range boxes {
			if _, err := b.Open(place, sealed); err == nil {
				n[id]++
			}
		}
	}
	err = db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketImports).ForEach(func(k, v []byte) error {
			try(string(k), recordPlace(string(k)), v)
			return nil
		})
		return errors.Join(err, tx.Bucket(bucketRows).ForEachBucket(func(k []byte) error {
			row := 0
			return tx.Bucket(bucketRows).Bucket(k).ForEach(func(_, v []byte) error {
				row++
				try(string(k), rowPlace(string(k), row), v)
				return nil
			})
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The file that held the key is overwritten where it lay: a descriptor opened before sees zeros.
func TestKeyFileIsOverwritten(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	old, err := os.Open(s.keys.path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := s.Delete(s.List()[0].ID); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _ := old.Read(b)
	if n == 0 || !bytes.Equal(b[:n], make([]byte, n)) {
		t.Errorf("%d bytes of the old key file are %x", n, b[:n])
	}
}

// A process that is killed between removing the rows and destroying the key destroys it when it starts again.
func TestInterruptedDeleteIsFinished(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	id := s.List()[0].ID
	key := s.keys.keys[id]
	if _, err := s.Delete(id); err != nil {
		t.Fatal(err)
	}
	s.keys.keys[id] = key
	if err := s.keys.write(s.keys.keys); err != nil { // as it was in between
		t.Fatal(err)
	}
	wantNothing(t, reopen(t, s), 0)
}

func TestKeysOfImportsAreNeeded(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.keys")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range body {
		b := bytes.Clone(body)
		b[at] ^= 4
		write(t, path, b)
		_, err := OpenStore(dir, rand.Reader)
		wantError(t, err, "store.keys", "damaged")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "the keys of its imports are missing", "store.keys")
	write(t, path, body)
	wantCount(t, openTestStore(t, dir), Train, 3)
}

// Who does what the cure says, and removes the store alone, has an empty one: not one that is damaged again.
func TestRemovedStoreIsMadeAnew(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	moved := s.path + ".away"
	if err := os.Rename(s.path, moved); err != nil {
		t.Fatal(err)
	}
	s = toyStore(t, filepath.Dir(s.path), 4)
	s = reopen(t, s)
	wantCount(t, s, Train, 4)
	if err := errors.Join(s.Close(), os.Rename(moved, s.path)); err != nil {
		t.Fatal(err)
	}
	wantCount(t, openTestStore(t, filepath.Dir(s.path)), Train, 3) // it was only put away, and its keys are kept
}

// A part of the file that is empty although it should not be is found out: nothing is taken for deleted.
func TestEmptiedPartsAreFoundOut(t *testing.T) {
	for name, change := range map[string]func(tx *bbolt.Tx) error{
		"no imports":      func(tx *bbolt.Tx) error { return empty(tx, bucketImports) },
		"no meta":         func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketMeta) },
		"no rows":         func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketRows) },
		"nothing at all":  func(tx *bbolt.Tx) error { return dropAll(tx) },
		"no index":        func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete([]byte("index")) },
		"imports swapped": func(tx *bbolt.Tx) error { return tx.Bucket(bucketImports).Put([]byte("ffffffff"), []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := toyStore(t, dir, 3).Close(); err != nil {
				t.Fatal(err)
			}
			raw(t, dir, change)
			_, err := OpenStore(dir, rand.Reader)
			wantError(t, err, "damaged", damageCure)
			keys, err := openKeyFile(filepath.Join(dir, "store.keys"), remainingBoxes(t, dir)[1])
			if err != nil || len(keys.keys) != 1 {
				t.Errorf("%d keys are left, %v", len(keys.keys), err)
			}
		})
	}
}

func empty(tx *bbolt.Tx, name []byte) error {
	if err := tx.DeleteBucket(name); err != nil {
		return err
	}
	_, err := tx.CreateBucket(name)
	return err
}

func dropAll(tx *bbolt.Tx) error {
	for _, name := range buckets {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}
