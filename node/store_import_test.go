package node

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"choir.example/model/data"

	"go.etcd.io/bbolt"
)

// wantNothing fails unless a store, opened anew, holds no row that was not claimed, and no key but of its imports.
func wantNothing(t *testing.T, s *Store, imports int) {
	t.Helper()
	err := s.view(func(tx *bbolt.Tx) error {
		n := 0
		err := tx.Bucket(bucketRows).ForEachBucket(func([]byte) error { n++; return nil })
		if n != imports {
			t.Errorf("%d imports have rows, want %d", n, imports)
		}
		return err
	})
	if err != nil || len(s.keys.keys) != imports || len(s.List()) != imports {
		t.Errorf("%d keys, %d imports (%v), want %d", len(s.keys.keys), len(s.List()), err, imports)
	}
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openTestStore(t, filepath.Dir(s.path))
}

func TestSameFileAgainIsLeftAlone(t *testing.T) {
	s := toyStore(t, t.TempDir(), 0)
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	s.now = func() time.Time { return at }
	csv := toyCSV(20) + toyCSV(20)[len(toyHeader):] // equal rows within a file stay
	first, err := s.Import(t.Context(), strings.NewReader(csv), Source{Name: "a.csv", Part: Train})
	if err != nil || first.Added != 40 || first.Already {
		t.Fatalf("%+v, %v", first, err)
	}
	for name, r := range map[string]io.Reader{"a file": strings.NewReader(csv), "a pipe": io.MultiReader(strings.NewReader(csv))} {
		again, err := s.Import(t.Context(), r, Source{Name: "b.csv", Part: Held})
		if err != nil || again.Added != 0 || !again.Already || again.Import != first.Import {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
		if text := again.String(); !strings.Contains(text, "already imported at 2026-03-04T05:06:07Z as a.csv") || !strings.Contains(text, "0 rows added") {
			t.Errorf("%s: %s", name, text)
		}
	}
	wantCount(t, s, Train, 40)
	wantCount(t, s, Held, 0)
	wantNothing(t, s, 1)
	other, err := s.Import(t.Context(), strings.NewReader(csv+"\n"), Source{Name: "a.csv", Part: Train})
	if err != nil || other.Added != 40 { // other bytes are another file
		t.Errorf("%+v, %v", other, err)
	}
	sum := sha256.Sum256([]byte(csv))
	schema := s.Schema().Digest()
	want := Import{ID: first.Import.ID, File: "a.csv", Digest: hex.EncodeToString(sum[:]), Schema: hex.EncodeToString(schema[:]),
		Time: at, Rows: 40, Train: 40}
	s = reopen(t, s)
	if list := s.List(); len(list) != 2 || list[0] != want {
		t.Errorf("the list is %+v, want %+v first", list, want)
	}
}

// Rows are divided by the file's digest and the row's number alone: the same everywhere, near the shares, and in no part
// twice.
func TestRowsAreDivided(t *testing.T) {
	const n = 5000
	var stores []*Store
	for range 2 {
		s := toyStore(t, t.TempDir(), 0)
		if _, err := s.Import(t.Context(), strings.NewReader(toyCSV(n)), Source{Name: "a.csv", Shares: Shares{70, 20, 10}}); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	total := 0
	for _, c := range []struct {
		part  Part
		share int
	}{{Train, 70}, {Validation, 20}, {Held, 10}} {
		a, err := stores[0].Rows(c.part)
		b, err2 := stores[1].Rows(c.part)
		if err != nil || err2 != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s: two stores differ (%v, %v)", c.part, err, err2)
		}
		if got := 100 * len(a) / n; got < c.share-2 || got > c.share+2 {
			t.Errorf("%s has %d%% of the rows, want %d%%", c.part, got, c.share)
		}
		wantCount(t, stores[0], c.part, len(a))
		total += len(a)
	}
	if total != n {
		t.Errorf("%d rows in all parts, want %d", total, n)
	}
	s := toyStore(t, t.TempDir(), 0)
	done, err := s.Import(t.Context(), strings.NewReader(toyCSV(1000)), Source{Name: "a.csv"})
	if i := done.Import; err != nil || i.Train < 750 || i.Train > 850 || i.Held != 0 || i.Train+i.Validation != 1000 {
		t.Errorf("by default: %+v, %v", i, err)
	}
}

// Another row's contents do not move a row to another part, another file's digest does.
func TestShareOfARowIsItsNumbers(t *testing.T) {
	s, moved := DefaultShares(), 0
	for n := 1; n <= 1000; n++ {
		part := s.part("aa", n)
		if again := s.part("aa", n); again != part {
			t.Fatalf("row %d goes to part %v, then to %v", n, part, again)
		}
		if part != s.part("ab", n) {
			moved++
		}
	}
	if moved < 250 || moved > 390 { // 2 · 0.8 · 0.2
		t.Errorf("%d of 1000 rows are elsewhere in another file, want about 320", moved)
	}
}

func TestParseShares(t *testing.T) {
	if s, err := ParseShares("70/20/10"); err != nil || s != (Shares{70, 20, 10}) {
		t.Errorf("%v, %v", s, err)
	}
	for _, text := range []string{"", "80", "80/20", "80/20/1", "120/-20/0", "80/20/0/0", "a/b/c", "80/20/0x"} {
		if s, err := ParseShares(text); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
	s := toyStore(t, t.TempDir(), 0)
	_, err := s.Import(t.Context(), strings.NewReader(toyCSV(1)), Source{Name: "a.csv", Shares: Shares{50, 20, 10}})
	wantError(t, err, "shares 50/20/10", "100 together")
}

func TestImportReadsWhatPeopleHave(t *testing.T) {
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write([]byte(toyCSV(7)))
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	bad := toyCSV(5) + "x,1,red,1,1\n1,1,red\n" + toyCSV(3)[len(toyHeader):]
	for name, c := range map[string]struct {
		body    string
		csv     data.CSV
		rows    int
		skipped int
	}{
		"gzip":          {zipped.String(), data.CSV{}, 7, 0},
		"semicolons":    {strings.ReplaceAll(toyCSV(7), ",", ";"), data.CSV{}, 7, 0},
		"decimal comma": {strings.ReplaceAll(strings.ReplaceAll(toyCSV(7), ",", ";"), ".", ","), data.CSV{DecimalComma: true}, 7, 0},
		"bad rows":      {bad, data.CSV{SkipBad: 2}, 8, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := toyStore(t, t.TempDir(), 0)
			done, err := s.Import(t.Context(), strings.NewReader(c.body), Source{Name: "a.csv", CSV: c.csv})
			if err != nil || done.Added != c.rows || done.Skipped.Rows != c.skipped || s.List()[0].Skipped != c.skipped {
				t.Errorf("%+v, %v", done, err)
			}
			if c.skipped > 0 && !strings.HasPrefix(done.Skipped.First[0], "a.csv:7: column age") {
				t.Errorf("skipped: %q", done.Skipped.First)
			}
		})
	}
	s := toyStore(t, t.TempDir(), 0)
	_, err := s.Import(t.Context(), strings.NewReader(bad), Source{Name: "a.csv", CSV: data.CSV{SkipBad: 1}})
	wantError(t, err, "a.csv:8", "more than 1 rows are bad")
	wantNothing(t, s, 0)
}

func TestImportTellsOfProgress(t *testing.T) {
	s := toyStore(t, t.TempDir(), 0)
	csv := toyCSV(60_000)
	var told []int64
	_, err := s.Import(t.Context(), strings.NewReader(csv), Source{Name: "a.csv", Size: int64(len(csv)), Progress: func(done, size int64) {
		if size != int64(len(csv)) {
			t.Errorf("size %d", size)
		}
		told = append(told, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(told) < 4 || told[len(told)-1] != int64(len(csv)) {
		t.Errorf("told %v of %d bytes", told, len(csv))
	}
	for i := 1; i < len(told); i++ {
		if told[i] <= told[i-1] {
			t.Errorf("told %v", told)
		}
	}
}

func TestImportIDX(t *testing.T) {
	schema, err := data.PixelSchema("digits", 4, "seven")
	if err != nil {
		t.Fatal(err)
	}
	s := openTestStore(t, t.TempDir())
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	images := "\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02" + "\x00\x01\x02\x03\xff\xfe\xfd\xfc"
	labels := "\x00\x00\x08\x01\x00\x00\x00\x02\x07\x03"
	src := Source{Name: "train-images", Part: Train, Positive: 7}
	for _, want := range []int{2, 0} {
		done, err := s.ImportIDX(t.Context(), strings.NewReader(images), strings.NewReader(labels), src)
		if err != nil || done.Added != want || done.Already != (want == 0) {
			t.Errorf("%+v, %v", done, err)
		}
	}
	rows, err := s.Rows(Train)
	if got, want := fmt.Sprint(rows, err), "[[0 1 2 3 1] [255 254 253 252 0]] <nil>"; got != want {
		t.Errorf("rows are %s, want %s", got, want)
	}
	_, err = s.ImportIDX(t.Context(), strings.NewReader(images[:18]), strings.NewReader(labels), src)
	wantError(t, err, "train-images", "images", "ends within image 1 of 2")
	wantNothing(t, s, 1)
}

// What a process that was killed had written of an import is gone when the store is opened again, with its key.
func TestKilledImportLeavesNothing(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	f, err := s.begin(Source{Name: "big.csv"})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := f.add(data.Row{1, 1, 0, 1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.update(f.flush); err != nil {
		t.Fatal(err)
	}
	wantCount(t, s, Train, 3) // nobody sees them meanwhile
	s = reopen(t, s)          // without commit or abort
	wantNothing(t, s, 1)
	wantCount(t, s, Train, 3)
	importCSV(t, s, Train, toyCSV(2))
	wantCount(t, s, Train, 5)
}

// sessionsReader makes up a CSV file as it is read.
type sessionsReader struct {
	line []byte
	left int64
	rest []byte
}

func (r *sessionsReader) Read(b []byte) (int, error) {
	if r.left <= 0 && len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) && (r.left > 0 || len(r.rest) > 0) {
		if len(r.rest) == 0 {
			r.rest = r.line
			r.left -= int64(len(r.line))
		}
		k := copy(b[n:], r.rest)
		n, r.rest = n+k, r.rest[k:]
	}
	return n, nil
}

// A file of any size streams: what the process holds for itself does not grow with it.
func TestLargeFileStreams(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("a file of 200 MB")
	}
	const size = 200 << 20
	s := openTestStore(t, t.TempDir())
	schema := parseSchema(t, `{"name":"wide","unit":"row","label":"y","ignore":["note"],"columns":[
		{"name":"x","kind":"numeric","min":0,"max":1},{"name":"y","kind":"boolean"}]}`)
	if err := s.SetSchema(schema); err != nil {
		t.Fatal(err)
	}
	line := []byte("0.5,1," + strings.Repeat("n", 500) + "\n")
	r := &sessionsReader{line: line, left: size, rest: []byte("x,y,note\n")}
	debug.FreeOSMemory() // what tests before left is no growth
	before, most := anonymous(t), 0
	src := Source{Name: "large.csv", Size: size, Progress: func(done, _ int64) {
		if done%(8<<20) < 1<<18 {
			most = max(most, anonymous(t))
		}
	}}
	start := time.Now()
	done, err := s.Import(t.Context(), r, src)
	if err != nil || done.Added != (size+len(line)-1)/len(line) {
		t.Fatalf("%d rows, %v", done.Added, err)
	}
	t.Logf("%d MB, %d rows in %v; memory grew by %d MB", size>>20, done.Added, time.Since(start).Round(time.Millisecond), (most-before)>>20)
	if grown := most - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MB over a file of %d MB", grown>>20, size>>20)
	}
}

// anonymous is the memory of this process that no file backs, in bytes.
func anonymous(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("this system does not say how much memory a process has")
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	kB := 0
	if _, err := fmt.Sscanf(rest, "%d kB", &kB); err != nil {
		t.Skip("this system does not say how much memory a process has for itself")
	}
	return kB << 10
}

// On a full disk an import fails, says why, and leaves what was there; with room again it works.
func TestFullDiskDuringImport(t *testing.T) {
	dir := smallDisk(t, 24<<20)
	s := toyStore(t, dir, 10)
	many := strings.Repeat(toyCSV(1)[len(toyHeader):], 400_000)
	_, err := s.Import(t.Context(), strings.NewReader(toyHeader+many), Source{Name: "big.csv"})
	wantError(t, err, "the disk is full", "make room")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	wantCount(t, s, Train, 10)
	s = reopen(t, s)
	wantCount(t, s, Train, 10)
	wantNothing(t, s, 1)
	importCSV(t, s, Train, toyCSV(20))
	wantCount(t, s, Train, 30)
	wantCount(t, reopen(t, s), Train, 30)
}

// smallDisk is a directory with room for so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := mountTmpfs(dir, size); err != nil {
		t.Skipf("a small disk cannot be mounted here (%v); as root it can", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestCancelledImportIsNoMore(t *testing.T) {
	s := toyStore(t, t.TempDir(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	csv := toyCSV(200_000) // several transactions
	_, err := s.Import(ctx, &cancelAfter{strings.NewReader(csv), len(csv) - 1000, cancel}, Source{Name: "big.csv"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	wantNothing(t, s, 1)
	wantNothing(t, reopen(t, s), 1)
}

func TestOldLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := (Deps{Rand: rand.Reader}).dataKey(dir); err != nil { // a store is never older than its key
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "store.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"meta", "train", "validation", "held"} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = OpenStore(dir, rand.Reader)
	wantError(t, err, "store.db", "another version of choir", "remove it and import the data again")
}

// Texts and histories come into the store as ids, from a file of JSON lines as from labelled lines; of the words nothing
// is kept.
func TestImportOfOtherFormats(t *testing.T) {
	for format, c := range map[data.Format]struct{ schema, file, want string }{
		data.FormatJSONL: {`{"name":"events","unit":"purchase","label":"next","columns":[{"name":"user","kind":"id","min":1,"max":9},{"name":"at","kind":"time"},
			{"name":"past","kind":"sequence","length":2,"max":99,"of":"next","by":"user"},{"name":"next","kind":"id","min":1,"max":99}]}`,
			`{"user":3,"at":20,"next":41}` + "\n" + `{"user":3,"at":10,"next":40}` + "\n" + `{"user":4,"at":30,"next":41}`,
			"[[3 10 0 0 40] [3 20 0 40 41] [4 30 0 0 41]]"},
		data.FormatText: {`{"name":"questions","unit":"question","label":"intent","columns":[{"name":"text","kind":"text","length":3,"buckets":10000,"words":2,"seed":7},
			{"name":"intent","kind":"category","categories":["fee","card"]}]}`,
			"card\tLost CARD\nfee\t\n", "[[6860 6661 7471 1] [0 0 0 0]]"},
	} {
		schema, err := data.ParseSchema([]byte(c.schema))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		s := openTestStore(t, dir)
		if err := s.SetSchema(schema); err != nil {
			t.Fatal(err)
		}
		src := Source{Name: "file", Part: Train, Format: format}
		for _, added := range []int{strings.Count(c.want, "[") - 1, 0} {
			done, err := s.Import(t.Context(), strings.NewReader(c.file), src)
			if err != nil || done.Added != added || done.Already != (added == 0) {
				t.Errorf("%s: %+v, %v", format, done, err)
			}
		}
		rows, err := reopen(t, s).Rows(Train)
		if got := fmt.Sprint(rows); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", format, got, err, c.want)
		}
		_, err = s.Import(t.Context(), strings.NewReader(c.file+"\nx"), src)
		wantError(t, err, "file:")
	}
}
