package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/model/data"
)

// Imports, feedback, deletions, backups and readers go on side by side: each sees whole imports, and nothing is lost.
func TestManyUseTheStore(t *testing.T) {
	s := toyStore(t, t.TempDir(), 0)
	lock, unlock := lockPair(t)
	var wg sync.WaitGroup
	sizes := []int{0, 1000, 30_000} // the last ones are of several transactions
	for i, size := range sizes {
		wg.Go(func() {
			for k := range 4 {
				csv := toyCSV(size + 100*k + 1)
				done, err := s.Import(t.Context(), strings.NewReader(csv), Source{Name: "a.csv", Part: Train})
				if err != nil {
					t.Error(err)
				}
				if k%2 == 1 {
					if _, err := s.Delete(done.Import.ID); err != nil {
						t.Error(err)
					}
				}
				addExample(t, s, fmt.Sprint(i, k), data.Row{1, 1, 0, 1, 1})
			}
		})
	}
	var backups [][]byte
	wg.Go(func() {
		for range 4 {
			var out bytes.Buffer
			if err := s.Backup(t.Context(), &out, lock, nil); err == nil {
				backups = append(backups, out.Bytes())
			} else if !strings.Contains(err.Error(), "deleted in the meantime") {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 20 {
			if _, err := s.Rows(Train); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	want := 12 // of feedback
	for _, size := range sizes {
		want += size + 1 + size + 201
	}
	wantCount(t, s, Train, want)
	s = reopen(t, s)
	wantCount(t, s, Train, want)
	wantNothing(t, s, 7)
	for _, b := range backups {
		if _, err := openTestStore(t, t.TempDir()).Restore(t.Context(), bytes.NewReader(b), unlock, 0, nil); err != nil {
			t.Error(err)
		}
	}
}

// A process that is killed in the midst of an import leaves what was there before, and the import can be made again.
func TestKilledProcessLeavesNothing(t *testing.T) {
	if dir := os.Getenv("CHOIR_TEST_KILLED"); dir != "" { // this is the process to kill
		s, err := OpenStore(dir, rand.Reader)
		if err == nil {
			_, err = s.Import(t.Context(), &sessionsReader{
				rest: []byte(toyHeader), line: []byte("1,1,red,1,1\n"), left: 1 << 40,
			}, Source{Name: "endless.csv", Progress: func(done, _ int64) { fmt.Println(done >> 20) }})
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := toyStore(t, dir, 5).Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestKilledProcessLeavesNothing$")
	cmd.Env = append(os.Environ(), "CHOIR_TEST_KILLED="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for line := ""; line != "1\n"; { // several transactions are written
		b := make([]byte, 2)
		if _, err := io.ReadFull(out, b); err != nil {
			t.Fatal(err)
		}
		line = string(b)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	before, err := os.Stat(filepath.Join(dir, "store.db"))
	if err != nil || before.Size() < 4<<20 {
		t.Errorf("nothing was written when it was killed: %v, %v", before.Size(), err)
	}
	s := openTestStore(t, dir)
	wantCount(t, s, Train, 5)
	wantNothing(t, s, 1)
	importCSV(t, s, Train, toyCSV(7))
	wantCount(t, s, Train, 12)
}

// A store that is closed says so.
func TestClosedStoreAnswers(t *testing.T) {
	s := toyStore(t, t.TempDir(), 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Rows(Train)
	_, err2 := s.Import(t.Context(), strings.NewReader(toyCSV(9)), Source{Name: "a.csv"})
	_, err3 := s.Delete(s.List()[0].ID)
	for _, err := range []error{err, err2, err3, s.AddExample("p", data.Row{1, 1, 0, 1, 1}, time.Now())} {
		wantError(t, err, "not open")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
