package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"choir.example/model/data"

	"go.etcd.io/bbolt"
)

// manyRows are more than it takes for the store to give disk space back.
const manyRows = 150_000

func storeSize(t *testing.T, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.newPath()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", s.newPath(), err)
	}
	return info.Size()
}

// A file that is refused at its last row takes no disk space, and neither does one that was deleted. The store is whole
// and goes on.
func TestStoreGivesSpaceBack(t *testing.T) {
	s := toyStore(t, t.TempDir(), 100)
	before := storeSize(t, s) + 1<<20
	_, err := importAs(t, s, Train, toyCSV(manyRows)+"old,1,red,1,1\n", "bad.csv")
	wantError(t, err, "bad.csv:150002: column age")
	if got := storeSize(t, s); got > before {
		t.Errorf("after a refused import the store has %d bytes, want at most %d", got, before)
	}
	importCSV(t, s, Train, toyCSV(manyRows))
	if got := storeSize(t, s); got < shrinkBytes {
		t.Fatalf("%d rows take %d bytes, too few for this test", manyRows, got)
	}
	if _, err := s.Delete(s.List()[1].ID); err != nil {
		t.Fatal(err)
	}
	if got := storeSize(t, s); got > before {
		t.Errorf("after a deletion the store has %d bytes, want at most %d", got, before)
	}
	addExample(t, s, "p", data.Row{1, 1, 0, 1, 1})
	wantCount(t, s, Train, 101)
	s = reopen(t, s)
	wantCount(t, s, Train, 101)
}

// Who reads while the file is replaced sees what was there; who writes afterwards writes into the new one; and nobody
// else can open the directory in between.
func TestReadersGoOnWhileTheStoreShrinks(t *testing.T) {
	s := toyStore(t, t.TempDir(), 100)
	importCSV(t, s, Train, toyCSV(manyRows))
	big := s.List()[1].ID
	deleted := make(chan error)
	err := s.snapshot(func(tx *bbolt.Tx, imports []*heldImport) error {
		go func() {
			_, err := s.Delete(big)
			deleted <- err
		}()
		for old := s.db.Load(); s.db.Load() == old; { // until the new file is in place
			select {
			case err := <-deleted:
				return fmt.Errorf("the store has not shrunk: %w", err)
			default:
			}
			_, err := OpenStore(filepath.Dir(s.path), nil)
			wantError(t, err, "another process uses this directory")
		}
		n := 0
		err := imports[1].read(tx, s.Schema(), func(int) bool { return true }, func(data.Row) error { n++; return nil })
		if n != manyRows {
			t.Errorf("%d rows are read, want %d", n, manyRows)
		}
		importCSV(t, s, Train, toyCSV(7))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	_, err = OpenStore(filepath.Dir(s.path), nil)
	wantError(t, err, "another process uses this directory")
	s = reopen(t, s)
	wantCount(t, s, Train, 107)
}

// A crash while the smaller file was made leaves a part of it, which the next start removes.
func TestHalfOfASmallerStoreIsRemoved(t *testing.T) {
	s := toyStore(t, t.TempDir(), 10)
	write(t, s.newPath(), []byte(strings.Repeat("half", 1000)))
	s = reopen(t, s)
	storeSize(t, s)
	wantCount(t, s, Train, 10)
}
