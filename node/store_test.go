package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	randv2 "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"go.etcd.io/bbolt"
)

// toySchema has a column of each kind.
func toySchema(t testing.TB) *data.Schema {
	t.Helper()
	return parseSchema(t, `{"name":"toy","unit":"row","label":"y","ignore":["note"],"columns":[
		{"name":"age","kind":"numeric","min":0,"max":120},
		{"name":"income","kind":"numeric","min":0,"max":1e6,"longTail":true,"required":true},
		{"name":"colour","kind":"category","categories":["red","green","blue"]},
		{"name":"member","kind":"boolean"},
		{"name":"y","kind":"boolean","required":true}]}`)
}

func parseSchema(t testing.TB, text string) *data.Schema {
	t.Helper()
	s, err := data.ParseSchema([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const toyHeader = "age,income,colour,member,y\n"

// toyCSV is n good rows.
func toyCSV(n int) string {
	var b strings.Builder
	b.WriteString(toyHeader)
	for i := range n {
		fmt.Fprintf(&b, "%d,%d.5,%s,%v,%v\n", i%120, i*7%100_000, []string{"red", "green", "blue"}[i%3], i%2 == 0, i%5 < 2)
	}
	return b.String()
}

func openTestStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// toyStore is an open store with the toy schema and n rows in its training part.
func toyStore(t testing.TB, dir string, n int) *Store {
	t.Helper()
	s := openTestStore(t, dir)
	if err := s.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	if n > 0 {
		importCSV(t, s, Train, toyCSV(n))
	}
	return s
}

func importCSV(t testing.TB, s *Store, part Part, csv string) {
	t.Helper()
	if _, err := importAs(t, s, part, csv, "good.csv"); err != nil {
		t.Fatal(err)
	}
}

// importAs imports into one part and returns the number of rows added.
func importAs(t testing.TB, s *Store, part Part, csv, name string) (int, error) {
	t.Helper()
	done, err := s.Import(t.Context(), strings.NewReader(csv), Source{Name: name, Part: part})
	return done.Added, err
}

// wantError fails unless err says every one of the texts.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func wantCount(t testing.TB, s *Store, part Part, want int) {
	t.Helper()
	n, err := s.Count(part)
	rows, err2 := s.Rows(part)
	if err != nil || err2 != nil || n != want || len(rows) != want {
		t.Errorf("%s: count %d (%v), %d rows (%v), want %d", part, n, err, len(rows), err2, want)
	}
}

func TestStoreKeepsRows(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 0)
	csv := "y,colour,age,note,income,member\ntrue,blue,,a note,12.25,0\nno,,99,,0,\n"
	for _, part := range Parts() {
		csv += "\n" // the same file again would be left alone
		if n, err := importAs(t, s, part, csv, "a.csv"); n != 2 || err != nil {
			t.Fatalf("import: %d, %v", n, err)
		}
	}
	importCSV(t, s, Held, toyCSV(3))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	if s.Schema() == nil || s.Schema().Digest() != toySchema(t).Digest() {
		t.Error("the schema did not survive")
	}
	wantCount(t, s, Train, 2)
	wantCount(t, s, Validation, 2)
	wantCount(t, s, Held, 5)
	rows, err := s.Rows(Train)
	if err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	if got, want := fmt.Sprint(rows), fmt.Sprint([]data.Row{{nan, 12.25, 2, 0, 1}, {99, 0, nan, nan, 0}}); got != want {
		t.Errorf("rows are %v, want %v", got, want)
	}
}

// A broken row leaves nothing behind, wherever it stands, and the error names file, line and column.
func TestImportIsAllOrNothing(t *testing.T) {
	s := toyStore(t, t.TempDir(), 4)
	many := toyCSV(3000)
	for name, c := range map[string]struct {
		csv  string
		says []string
	}{
		"a text for a number, at the end": {many + "abc,1,red,1,1\n", []string{"bad.csv:3002", "column age", "not a number"}},
		"not a number":                    {many + "NaN,1,red,1,1\n", []string{"bad.csv:3002", "column age", "outside [0, 120]"}},
		"infinite":                        {toyHeader + "Inf,1,red,1,1\n", []string{"bad.csv:2", "column age"}},
		"out of range":                    {toyHeader + "1,1e30,red,1,1\n", []string{"bad.csv:2", "column income", "outside [0, 1e+06]"}},
		"beyond every number":             {toyHeader + "1,1e999,red,1,1\n", []string{"bad.csv:2", "column income"}},
		"unknown category":                {toyHeader + "1,1,red,1,1\n1,1,violet,1,1\n", []string{"bad.csv:3", "column colour", "not one of its 3 categories"}},
		"neither true nor false":          {toyHeader + "1,1,red,maybe,1\n", []string{"bad.csv:2", "column member", "not true or false"}},
		"label missing":                   {many + "1,1,red,1,\n", []string{"bad.csv:3002", "column y", "missing"}},
		"required value missing":          {toyHeader + "1,,red,1,1\n", []string{"bad.csv:2", "column income", "missing"}},
		"too few fields":                  {toyHeader + "1,1,red\n", []string{"bad.csv:2", "wrong number of fields"}},
		"an open quote":                   {toyHeader + "1,1,\"red,1,1\n", []string{"bad.csv:2"}},
		"a column missing":                {"age,income,colour,member\n1,1,red,1\n", []string{"bad.csv:1", `column "y"`, "missing"}},
		"a column too many":               {"age,income,colour,member,y,shoe\n", []string{"bad.csv:1", `column "shoe" is not in schema toy`}},
		"empty":                           {"", []string{"bad.csv:1", "the file is empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := importAs(t, s, Train, c.csv, "bad.csv")
			wantError(t, err, append(c.says, s.path)...)
			if n != 0 {
				t.Errorf("%d rows are said to be there", n)
			}
			wantCount(t, s, Train, 4)
		})
	}
	importCSV(t, s, Train, toyCSV(2)) // what failed left no gap
	wantCount(t, s, Train, 6)
}

func TestImportNeedsAPlace(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	_, err := importAs(t, s, Train, toyCSV(1), "a.csv")
	wantError(t, err, "a.csv", "no schema yet")
	if err := s.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []Part{"", "test", "meta"} {
		if part != "" {
			_, err := importAs(t, s, part, toyCSV(1), "a.csv")
			wantError(t, err, "want train, validation or held")
		}
		_, err = s.Rows(part)
		wantError(t, err, "want train, validation or held")
		_, err = s.Count(part)
		wantError(t, err, "want train, validation or held")
	}
}

// cancelAfter ends a context once so many bytes were read.
type cancelAfter struct {
	r      io.Reader
	n      int
	cancel func()
}

func (c *cancelAfter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.n -= n; c.n <= 0 {
		c.cancel()
	}
	return n, err
}

func TestCancelledImportLeavesNothing(t *testing.T) {
	s := toyStore(t, t.TempDir(), 1)
	for name, csv := range map[string]string{"in the middle": toyCSV(50_000), "of a few rows": toyCSV(3), "of no row": toyHeader} {
		ctx, cancel := context.WithCancel(t.Context())
		r := strings.NewReader(csv)
		n, err := s.Import(ctx, &cancelAfter{r, len(csv) / 2, cancel}, Source{Name: "big.csv", Part: Train})
		if r.Len() == 0 && len(csv) > 1<<20 {
			t.Errorf("%s: it read on to the end", name)
		}
		if !errors.Is(err, context.Canceled) || n.Added != 0 {
			t.Errorf("%s: %d rows, %v", name, n.Added, err)
		}
		wantCount(t, s, Train, 1)
	}
}

func TestReaderThatFailsLeavesNothing(t *testing.T) {
	s := toyStore(t, t.TempDir(), 1)
	broken := io.MultiReader(strings.NewReader(toyCSV(100)), &failingReader{})
	_, err := s.Import(t.Context(), broken, Source{Name: "net.csv"})
	wantError(t, err, "net.csv", "the cable is out")
	wantCount(t, s, Train, 1)
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, errors.New("the cable is out") }

func TestStoreTakesOneSchema(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 2)
	other := toySchema(t)
	other.Columns[0].Max = 99
	wantError(t, s.SetSchema(other), s.path, "holds rows of schema toy", "differs")
	if err := s.SetSchema(toySchema(t)); err != nil {
		t.Errorf("the same schema again: %v", err)
	}
	broken := toySchema(t)
	broken.Columns[0].Min = math.NaN() // does not even encode
	wantError(t, s.SetSchema(broken), "column age", "not finite")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, dir)
	wantError(t, s.SetSchema(other), "differs")
}

// The store keeps a schema of its own: who gave it may go on to change theirs.
func TestSchemaOfStoreIsItsOwn(t *testing.T) {
	s := openTestStore(t, t.TempDir())
	given := toySchema(t)
	if err := s.SetSchema(given); err != nil {
		t.Fatal(err)
	}
	given.Columns[0].Max = 5
	importCSV(t, s, Train, toyHeader+"77,1,red,1,1\n")
}

// Of several that set a schema at once, one wins, and it is the one that is written.
func TestSchemaIsSetByOne(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			schema := toySchema(t)
			schema.Columns[0].Max = float64(100 + i)
			if err := s.SetSchema(schema); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	won := s.Schema().Digest()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if openTestStore(t, dir).Schema().Digest() != won {
		t.Error("another schema is written than the store said")
	}
}

// While there is no row, and none on its way, the schema can be changed.
func TestEmptyStoreTakesAnotherSchema(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	other := toySchema(t)
	other.Columns[0].Max = 200
	wantError(t, s.SetSchema(other), "holds rows of schema toy", "delete all imports first")
	if _, err := s.Delete(s.List()[0].ID); err != nil {
		t.Fatal(err)
	}
	during := &callWhenRead{strings.NewReader(toyCSV(3)), func() { wantError(t, s.SetSchema(other), "differs") }}
	if _, err := s.Import(t.Context(), during, Source{Name: "a.csv"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(s.List()[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.SetSchema(other); err != nil {
		t.Fatal(err)
	}
	importCSV(t, s, Train, toyHeader+"180,1,red,1,1\n")
}

// callWhenRead calls a function before each read.
type callWhenRead struct {
	r    io.Reader
	call func()
}

func (c *callWhenRead) Read(b []byte) (int, error) {
	c.call()
	return c.r.Read(b)
}

// Neither text nor numbers of a row stand in any file; equal rows look different.
func TestValuesAreEncryptedAtRest(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	const planted, number = "planted-category-4711", 13579.246801357913
	schema := parseSchema(t, `{"name":"secret","unit":"row","label":"y","columns":[{"name":"x","kind":"numeric","min":0,"max":1e6},
		{"name":"y","kind":"boolean"}],"ignore":["note"]}`)
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	row := fmt.Sprintf("%v,1,%s\n", number, planted)
	importCSV(t, s, Train, "x,y,note\n"+strings.Repeat(row, 50))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	forms := [][]byte{
		[]byte(planted), fmt.Appendf(nil, "%v", number),
		binary.LittleEndian.AppendUint64(nil, math.Float64bits(number)),
		binary.BigEndian.AppendUint64(nil, math.Float64bits(number)),
		[]byte(`"name":"secret"`),
	}
	for path, body := range files(t, dir) {
		for _, form := range forms {
			if bytes.Contains(body, form) {
				t.Errorf("%s holds %q", path, form)
			}
		}
	}
	nonces := map[string]bool{}
	raw(t, dir, func(tx *bbolt.Tx) error {
		return onlyRows(t, tx).ForEach(func(_, v []byte) error {
			if len(v) != 16+seal.Overhead {
				t.Errorf("a row takes %d bytes", len(v))
			}
			nonces[string(v[:24])] = true
			return nil
		})
	})
	if len(nonces) != 50 {
		t.Errorf("50 values are sealed under %d nonces", len(nonces))
	}
}

// onlyRows is the bucket of the store's first import, in order of ids.
func onlyRows(t testing.TB, tx *bbolt.Tx) *bbolt.Bucket {
	t.Helper()
	rows := tx.Bucket(bucketRows)
	id, _ := rows.Cursor().First()
	if id == nil {
		t.Fatal("the store has no import")
	}
	return rows.Bucket(id)
}

// files reads every file below a directory.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

// raw changes a closed store behind its back.
func raw(t *testing.T, dir string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "store.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each value belongs to its import and number: moved, swapped, dropped or changed it is found out.
func TestMovedRowsAreFoundOut(t *testing.T) {
	first, second := rowKey(1), rowKey(2)
	other := func(tx *bbolt.Tx, mine *bbolt.Bucket) *bbolt.Bucket { // the rows of the other import
		var found *bbolt.Bucket
		_ = tx.Bucket(bucketRows).ForEachBucket(func(k []byte) error {
			if b := tx.Bucket(bucketRows).Bucket(k); b.Inspect().KeyN != mine.Inspect().KeyN {
				found = b
			}
			return nil
		})
		return found
	}
	for name, c := range map[string]struct {
		change func(tx *bbolt.Tx, b *bbolt.Bucket, id []byte) error
		says   []string
	}{
		"moved to another key": {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error {
			return b.Put(second, bytes.Clone(b.Get(first)))
		}, []string{"row 2", "does not verify"}},
		"moved to another import": {func(tx *bbolt.Tx, b *bbolt.Bucket, _ []byte) error {
			return b.Put(first, bytes.Clone(other(tx, b).Get(first)))
		}, []string{"row 1", "does not verify"}},
		"one bit flipped": {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error {
			v := bytes.Clone(b.Get(second))
			v[len(v)-1] ^= 1
			return b.Put(second, v)
		}, []string{"row 2", "does not verify"}},
		"cut":                     {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error { return b.Put(second, []byte("x")) }, []string{"row 2", "does not verify"}},
		"dropped in the midst":    {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error { return b.Delete(second) }, []string{"row 2 of import", "is missing", damageCure}},
		"dropped at the end":      {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error { return b.Delete(rowKey(3)) }, []string{"has 2 rows, want 3", damageCure}},
		"added":                   {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error { return b.Put(rowKey(4), []byte("x")) }, []string{"has 4 rows, want 3"}},
		"a key of another length": {func(_ *bbolt.Tx, b *bbolt.Bucket, _ []byte) error { return b.Put([]byte("x"), []byte("x")) }, []string{"row 4 of import"}},
		"all rows gone":           {func(tx *bbolt.Tx, _ *bbolt.Bucket, id []byte) error { return tx.Bucket(bucketRows).DeleteBucket(id) }, []string{"the rows of import", "are missing"}},
		"another record": {func(tx *bbolt.Tx, b *bbolt.Bucket, id []byte) error {
			return tx.Bucket(bucketImports).Put(id, bytes.Clone(b.Get(first)))
		}, []string{"import", "does not verify"}},
		"another schema": {func(tx *bbolt.Tx, b *bbolt.Bucket, _ []byte) error {
			return tx.Bucket(bucketMeta).Put([]byte("schema"), bytes.Clone(b.Get(first)))
		}, []string{"schema", "does not verify"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := toyStore(t, dir, 3)
			id := []byte(s.List()[0].ID)
			importCSV(t, s, Validation, toyCSV(1))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			raw(t, dir, func(tx *bbolt.Tx) error { return c.change(tx, tx.Bucket(bucketRows).Bucket(id), id) })
			s, err := OpenStore(dir, rand.Reader)
			if err == nil {
				_, err = s.Rows(Train)
				_ = s.Close()
			}
			wantError(t, err, append(c.says, filepath.Join(dir, "store.db"))...)
		})
	}
}

// A row that opens but does not fit is named by number: what it holds must not reach a log.
func TestErrorsOfRowsHoldNoValue(t *testing.T) {
	s := toyStore(t, t.TempDir(), 1)
	var row []byte
	for _, x := range []float64{77.125, -4, 0, 0, 1} { // income is negative
		row = binary.LittleEndian.AppendUint64(row, math.Float64bits(x))
	}
	h := s.inOrder()[0]
	err := s.db.Load().Update(func(tx *bbolt.Tx) error {
		return onlyRows(t, tx).Put(rowKey(1), h.box.Seal(rowPlace(h.ID, 1), row))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Rows(Train)
	wantError(t, err, "row 1 of import "+h.ID+" does not fit the schema")
	if strings.Contains(err.Error(), "-4") || strings.Contains(err.Error(), "income") {
		t.Errorf("the error tells of the row: %v", err)
	}
}

func TestStoreFilesAreTheOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	s := toyStore(t, dir, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := os.ReadFile(filepath.Join(dir, "keys", "data.key"))
	if err != nil || !bytes.HasPrefix(wrapped, []byte("age-encryption.org/v1\n-> X25519 ")) {
		t.Errorf("the data key is not wrapped by age: %.40q, %v", wrapped, err)
	}
}

func TestStoreOfOthersStaysShut(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		if err := toyStore(t, d, 1).Close(); err != nil {
			t.Fatal(err)
		}
	}
	keys := filepath.Join(dir, "keys")
	foreign, err := os.ReadFile(filepath.Join(other, "keys", "unseal.key"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(filepath.Join(keys, "unseal.key"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(keys, "unseal.key"), foreign)
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "data.key", "unseal.key does not unwrap it", "put back the pair")
	write(t, filepath.Join(keys, "unseal.key"), own)
	if err := os.Rename(keys, keys+".away"); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "data.key is missing", "put back")
	if err := os.Rename(filepath.Join(other, "keys"), keys); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "store.keys", "other keys")
	if err := errors.Join(os.RemoveAll(keys), os.Rename(keys+".away", keys)); err != nil {
		t.Fatal(err)
	}
	wantCount(t, openTestStore(t, dir), Train, 1) // nothing was lost
}

func write(t testing.TB, path string, body []byte) {
	t.Helper()
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStoreWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, nil)
	_, err := OpenStore(filepath.Join(file, "node"), rand.Reader)
	wantError(t, err, file, "not a directory")
	if err := os.MkdirAll(filepath.Join(dir, "node", "store.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenKeys(filepath.Join(dir, "node", "keys"), rand.Reader); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(filepath.Join(dir, "node"), rand.Reader)
	wantError(t, err, "store.db", "it is not a file")
}

// Cut anywhere, a store is refused with a cure, and the file is left as it is.
func TestCutStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := toyStore(t, dir, 500).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := newestMeta(bytes.NewReader(whole), uint64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	used := len(c.seen) * int(c.size) // what follows is room for more
	for _, n := range []int{0, 1, 64, 4095, 4096, 5000, 8192, 12288, used / 2, used - 4096, used - 1} {
		write(t, path, whole[:n])
		_, err := OpenStore(dir, rand.Reader)
		wantError(t, err, path, "the file is damaged", damageCure)
		if info, err := os.Stat(path); err != nil || info.Size() != int64(n) {
			t.Errorf("the file was changed: %v, %v", info.Size(), err)
		}
	}
	write(t, path, whole)
	wantCount(t, openTestStore(t, dir), Train, 500)
}

// Wherever bits flip, the store says so or gives back what was imported, and takes further rows: it never faults, never
// hangs and never gives other rows. A flip in a meta page undoes the last import, as bbolt does after a torn write.
func TestFlippedBitsNeverPassSilently(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 700)
	importCSV(t, s, Train, toyCSV(40))
	importCSV(t, s, Validation, toyCSV(5))
	want, err := s.Rows(Train)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.OpenKeys(filepath.Join(dir, "keys"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	box = box.Sub("store")
	const seed = 7
	rng := randv2.New(randv2.NewPCG(seed, 0))
	refused := 0
	try := func(at int, bit byte) {
		b := bytes.Clone(whole)
		b[at] ^= bit
		write(t, path, b)
		if err := survives(path, box, want); err != nil {
			if errors.Is(err, errWrongRows) {
				t.Errorf("seed %d, byte %d of page %d, bit %x: %v", seed, at%4096, at/4096, bit, err)
			}
			refused++
		}
	}
	for page := 0; page < len(whole); page += 4096 {
		for at := range 96 { // headers, metas, first elements, the list of free pages
			if rng.IntN(24) == 0 || at < 16 && rng.IntN(4) == 0 {
				try(page+at, 1<<rng.IntN(8))
			}
		}
		try(page+rng.IntN(4096), 1<<rng.IntN(8))
	}
	if refused < 30 {
		t.Errorf("only %d flips were found out", refused)
	}
}

var errWrongRows = errors.New("other rows than were imported")

// survives opens a store, reads it and imports into it. It says what was refused.
func survives(path string, box *seal.Box, want []data.Row) error {
	s, err := openStore(path, box)
	if err != nil {
		return err
	}
	defer s.Close()
	rows, err := s.Rows(Train)
	if err != nil {
		return err
	}
	for i, r := range rows {
		if len(rows) > len(want) || fmt.Sprint(r) != fmt.Sprint(want[i]) {
			return fmt.Errorf("%w: row %d is %v", errWrongRows, i+1, r)
		}
	}
	if len(rows) != len(want) && len(rows) != 700 {
		return fmt.Errorf("%w: %d", errWrongRows, len(rows))
	}
	if _, err := s.Import(context.Background(), strings.NewReader(toyCSV(60)), Source{Name: "more.csv", Part: Train}); err != nil {
		return err
	}
	again, err := s.Rows(Train)
	if err != nil || len(again) != len(rows)+60 || fmt.Sprint(again[:len(rows)]) != fmt.Sprint(rows) {
		return fmt.Errorf("%w after an import: %d, %v", errWrongRows, len(again), err)
	}
	return nil
}

// A branch page that leads back to itself would send bbolt round for ever.
func TestCircleInStoreIsFound(t *testing.T) {
	dir := t.TempDir()
	if err := toyStore(t, dir, 2000).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for at := 2 * 4096; at < len(b); at += 4096 {
		if flags(b[at:]) == flagBranch {
			found = true
			binary.NativeEndian.PutUint64(b[at+pageHeader+8:], binary.NativeEndian.Uint64(b[at:]))
		}
	}
	if !found {
		t.Fatal("the store has no branch page")
	}
	write(t, path, b)
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "is used twice", damageCure)
}

// When the disk fails under a store that is open, each call says so; none faults or hangs.
func TestStoreWhoseFileShrinks(t *testing.T) {
	dir := t.TempDir()
	s := toyStore(t, dir, 2000)
	if err := os.Truncate(filepath.Join(dir, "store.db"), 4096); err != nil {
		t.Fatal(err)
	}
	_, err := s.Rows(Train)
	wantError(t, err, "train rows of", "the file is damaged")
	_, err = importAs(t, s, Train, toyCSV(1), "a.csv")
	wantError(t, err, "the file is damaged")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A second process that wants the same directory is told so at once and not left to wait.
func TestSecondProcessIsTurnedAway(t *testing.T) {
	dir := os.Getenv("CHOIR_TEST_STORE")
	if dir != "" { // this is the second process
		_, err := OpenStore(dir, rand.Reader)
		fmt.Printf("error: %v\n", err)
		return
	}
	dir = t.TempDir()
	s := toyStore(t, dir, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestSecondProcessIsTurnedAway$")
	cmd.Env = append(os.Environ(), "CHOIR_TEST_STORE="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantError(t, errors.New(string(out)), "store.db: another process uses this directory")
	wantCount(t, s, Train, 1)
}

// BenchmarkImport imports 100,000 rows of web-shop sessions.
func BenchmarkImport(b *testing.B) {
	const rows = 100_000
	schema, csv := sessions(b, rows)
	for b.Loop() {
		s := openTestStore(b, b.TempDir())
		if err := s.SetSchema(schema); err != nil {
			b.Fatal(err)
		}
		done, err := s.Import(b.Context(), bytes.NewReader(csv), Source{Name: "sessions.csv"})
		if done.Added != rows || err != nil {
			b.Fatal(done, err)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// sessions is the built-in data repeated to n rows.
func sessions(t testing.TB, n int) (*data.Schema, []byte) {
	t.Helper()
	schema, err := data.ShoppersSchema()
	if err != nil {
		t.Fatal(err)
	}
	csv, err := data.ShoppersCSV()
	if err != nil {
		t.Fatal(err)
	}
	header, body, _ := bytes.Cut(csv, []byte("\n"))
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	out := append(bytes.Clone(header), '\n')
	for i := range n {
		out = append(append(out, lines[i%len(lines)]...), '\n')
	}
	return schema, out
}

func TestLargeImportIsQuick(t *testing.T) {
	const rows = 100_000
	schema, csv := sessions(t, rows)
	s := openTestStore(t, t.TempDir())
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	done, err := s.Import(t.Context(), bytes.NewReader(csv), Source{Name: "sessions.csv"})
	if done.Added != rows || err != nil {
		t.Fatal(done, err)
	}
	took := time.Since(start)
	t.Logf("%d rows of %d columns in %v", rows, len(schema.Columns), took)
	if took > 10*time.Second {
		t.Errorf("the import took %v", took)
	}
}
