package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"choir.example/model/data"
	"choir.example/privacy/seal"

	"filippo.io/age"
)

// lockPair is a recipient and the identity that opens what is sealed to it.
func lockPair(t *testing.T) (seal.Lock, seal.Unlock) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return seal.Lock{Recipients: []string{id.Recipient().String()}}, seal.Unlock{Identities: id.String()}
}

// fullStore has two imports, one divided and of several pieces, and feedback between them.
func fullStore(t *testing.T) *Store {
	t.Helper()
	s := toyStore(t, t.TempDir(), 0)
	if _, err := s.Import(t.Context(), strings.NewReader(toyCSV(2500)), Source{Name: "a.csv", Shares: Shares{70, 20, 10}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		addExample(t, s, fmt.Sprint("prediction-", i), data.Row{float64(i), 1, 0, 1, 1})
	}
	importCSV(t, s, Validation, toyCSV(9))
	addExample(t, s, "prediction-3", data.Row{3, 1, 0, 1, 0})
	return s
}

func addExample(t *testing.T, s *Store, id string, row data.Row) {
	t.Helper()
	if err := s.AddExample(id, row, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
}

// contents is all that a store tells, but for the ids of imports.
func contents(t *testing.T, s *Store) string {
	t.Helper()
	var b strings.Builder
	for _, i := range s.List() {
		i.ID = ""
		fmt.Fprintf(&b, "%+v\n", i)
	}
	for _, part := range Parts() {
		rows, err := s.Rows(part)
		fmt.Fprintln(&b, part, rows, err)
	}
	return b.String()
}

func backup(t *testing.T, s *Store, lock seal.Lock) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.Backup(t.Context(), &out, lock, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBackupBringsEverythingBack(t *testing.T) {
	s := fullStore(t)
	lock, unlock := lockPair(t)
	var out bytes.Buffer
	var told []int64
	err := s.Backup(t.Context(), &out, lock, func(done, rows int64) { told = append(told, done, rows) })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(told); n < 6 || told[n-1] != 2513 || told[n-2] != 2513 {
		t.Errorf("told %v", told)
	}
	for _, secret := range []string{"a.csv", "income"} {
		if bytes.Contains(out.Bytes(), []byte(secret)) {
			t.Errorf("the backup says %q", secret)
		}
	}
	to := openTestStore(t, t.TempDir())
	read := int64(0)
	list, err := to.Restore(t.Context(), &out, unlock, int64(out.Len()), func(done, _ int64) { read = done })
	if err != nil || len(list) != 3 || read == 0 {
		t.Fatalf("%v, %v, %d bytes told", list, err, read)
	}
	want := contents(t, s)
	for range 2 {
		if got := contents(t, to); got != want || to.Schema().Digest() != s.Schema().Digest() {
			t.Errorf("restored: %.600s\nwant %.600s", got, want)
		}
		to = reopen(t, to)
	}
	if list[0].ID == s.List()[0].ID {
		t.Error("an import has the id that it had")
	}
	// The restored store goes on as the other would: it knows its files, and which predictions were answered.
	if err := to.AddExample("prediction-2", data.Row{0, 1, 0, 1, 1}, time.Now()); !errors.Is(err, ErrAnswered) {
		t.Errorf("feedback again: %v", err)
	}
	addExample(t, to, "prediction-9", data.Row{0, 1, 0, 1, 1})
	if n, err := importAs(t, to, Train, toyCSV(2500), "a.csv"); n != 0 || err != nil {
		t.Errorf("the file again: %d, %v", n, err)
	}
	importCSV(t, to, Train, toyCSV(11))
	wantNothing(t, reopen(t, to), 4)
}

func TestBackupUnderAPassphrase(t *testing.T) {
	s := toyStore(t, t.TempDir(), 3)
	b := backup(t, s, seal.Lock{Passphrase: "correct horse", Work: 4})
	to := openTestStore(t, t.TempDir())
	if _, err := to.Restore(t.Context(), bytes.NewReader(b), seal.Unlock{Passphrase: "correct horse"}, 0, nil); err != nil {
		t.Fatal(err)
	}
	wantCount(t, to, Train, 3)
}

// Cut anywhere or with a bit flipped, a backup is refused and the store stays empty, ready for a good one.
func TestDamagedBackupRestoresNothing(t *testing.T) {
	lock, unlock := lockPair(t)
	s := fullStore(t)
	whole := backup(t, s, lock)
	to := openTestStore(t, t.TempDir())
	refuse := func(name string, b []byte, unlock seal.Unlock, says string) {
		t.Helper()
		_, err := to.Restore(t.Context(), bytes.NewReader(b), unlock, 0, nil)
		wantError(t, err, "restore "+to.path, says, "nothing was restored")
		if err == nil || to.Schema() != nil || len(to.List()) != 0 {
			t.Fatalf("%s: %v, %d imports", name, err, len(to.List()))
		}
		wantNothing(t, to, 0)
	}
	for _, n := range []int{0, 1, 100, 300, len(whole) / 2, 65_900, 131_400, len(whole) - 17, len(whole) - 1} {
		refuse(fmt.Sprint("cut to ", n), whole[:n], unlock, "damaged or cut")
	}
	for _, at := range []int{3, 300, len(whole) / 3, len(whole) - 2} {
		b := bytes.Clone(whole)
		b[at] ^= 8
		refuse(fmt.Sprint("bit flipped at ", at), b, unlock, "the backup is")
	}
	_, stranger := lockPair(t)
	refuse("for others", whole, stranger, "another key or passphrase")
	refuse("no backup", []byte(toyCSV(3)), unlock, "no backup")
	if _, err := to.Restore(t.Context(), bytes.NewReader(whole), unlock, 0, nil); err != nil {
		t.Fatal(err)
	}
	if contents(t, to) != contents(t, s) {
		t.Error("the store is another after all")
	}
}

// What was sealed well but says nonsense is refused, too.
func TestNonsenseInABackup(t *testing.T) {
	lock, unlock := lockPair(t)
	schema := toySchema(t)
	row, err := schema.EncodeRow(data.Row{1, 1, 0, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	record := []byte(`{"file":"a","rows":1,"shares":{"train":100}}`)
	feedback := []byte(`{"file":"feedback","rows":1,"shares":{"train":100},"feedback":true}`)
	type frame struct {
		kind byte
		body []byte
	}
	start := []frame{{frameSchema, schema.Encode()}, {frameImport, record}, {frameRow, row}}
	to := openTestStore(t, t.TempDir())
	for name, c := range map[string]struct {
		frames []frame
		says   string
	}{
		"no end":             {start, "EOF"},
		"other number":       {append(start[:3:3], frame{frameEnd, []byte{2}}), "says that it has 2 rows, and has 1"},
		"after the end":      {append(start[:3:3], frame{frameEnd, []byte{1}}, frame{frameRow, row}), "goes on after its end"},
		"a row too many":     {append(start[:3:3], frame{frameRow, row}, frame{frameEnd, []byte{2}}), "has 2 rows in the backup, want 1"},
		"a row of no import": {[]frame{start[0], start[2]}, "where none can be"},
		"two schemas":        {[]frame{start[0], start[0]}, "where none can be"},
		"no schema":          {[]frame{start[1]}, "where none can be"},
		"only an end":        {[]frame{{frameEnd, []byte{0}}}, "has no schema"},
		"a bad schema":       {[]frame{{frameSchema, []byte(`{"name":"x"}`)}}, "name and unit"},
		"a bad record":       {[]frame{start[0], {frameImport, []byte("x")}}, "import 1 of the backup"},
		"a bad row":          {[]frame{start[0], start[1], {frameRow, row[1:]}}, "row 1 of import a does not fit"},
		"feedback unknown":   {[]frame{start[0], {frameImport, feedback}, start[2], {frameEnd, []byte{1}}}, "1 rows of feedback for 0 predictions"},
		"another kind":       {[]frame{{'?', nil}}, "where none can be"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			w, err := seal.SealStream(&out, lock)
			if err != nil {
				t.Fatal(err)
			}
			f := newFrames(w)
			f.text(backupMagic)
			for _, x := range c.frames {
				f.write(x.kind, x.body)
			}
			if err := errors.Join(f.err, f.w.Flush(), w.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = to.Restore(t.Context(), &out, unlock, 0, nil)
			wantError(t, err, c.says)
			wantNothing(t, to, 0)
			if to.Schema() != nil {
				t.Error("the schema stayed")
			}
		})
	}
}

func TestRestoreWantsAnEmptyStore(t *testing.T) {
	lock, unlock := lockPair(t)
	b := backup(t, fullStore(t), lock)
	s := toyStore(t, t.TempDir(), 1)
	_, err := s.Restore(t.Context(), bytes.NewReader(b), unlock, 0, nil)
	wantError(t, err, "it holds rows", "empty store")
	wantCount(t, s, Train, 1)
	late := openTestStore(t, t.TempDir())
	if err := late.SetSchema(toySchema(t)); err != nil {
		t.Fatal(err)
	}
	begun := false
	during := &callWhenRead{bytes.NewReader(b), func() {
		if !begun {
			begun = true
			importCSV(t, late, Held, toyCSV(2))
		}
	}}
	_, err = late.Restore(t.Context(), during, unlock, 0, nil)
	wantError(t, err, "other rows came in the meantime")
	wantCount(t, late, Held, 2)
	wantNothing(t, late, 1)
}

func TestInterruptedRestoreLeavesNothing(t *testing.T) {
	lock, unlock := lockPair(t)
	b := backup(t, fullStore(t), lock)
	s := openTestStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Restore(ctx, &cancelAfter{bytes.NewReader(b), len(b) / 2, cancel}, unlock, 0, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	wantNothing(t, reopen(t, s), 0)
}

func TestBackupEndsWithItsContext(t *testing.T) {
	lock, _ := lockPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := fullStore(t).Backup(ctx, &bytes.Buffer{}, lock, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	wantError(t, openTestStore(t, t.TempDir()).Backup(t.Context(), &bytes.Buffer{}, lock, nil), "no schema yet")
}
